"""Replicas on a Ray cluster of two simulated nodes; skipped where Ray is not installed (`make test-ray`)."""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batchchat.errors import EnvironmentFault
from batchchat.launch.engine import ReplicatedEngine
from batchchat.launch.messages import Begin
from batchchat.launch.on_ray import RayLauncher
from batchchat.launch.scaling import Scaling
from batchchat.launch.versions import versions
from batchchat.recipe import load_recipe
from batchchat.reporting.meters import Meters
from batchchat.schedule import Feed
from tests.support.jobs import ROOT, Command, outputs, read_jsonl, report_of, scripted_recipe, write_jsonl
from tests.support.replicas import MISBEHAVING, few, num_stored, start, until_all_take_part, wait_until

pytest.importorskip("ray", reason="Ray is not installed (pip install 'batchchat[ray]')")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *sys.path]))  # what nodes have installed
    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "_system_config": {"worker_niceness": 0}})
    found.add_node(num_cpus=2)
    found.add_node(num_cpus=2)
    yield found
    found.shutdown()


def job(folder: Path, address: str, **scripted: Any) -> Path:
    chats = [{"question_id": n, "turns": [f"{'x' * (n % 23)} {turn}" for turn in range(1 + n % 3)]} for n in range(120)]
    engine = {"max_batch_rows": 4, "ray_address": address, "scripted": scripted or {"answer": "counting"}}
    return scripted_recipe(folder / "r.yaml", write_jsonl(folder / "in.jsonl", chats), engine=engine)


def test_the_same_outputs_and_a_node_that_is_lost(tmp_path: Path, batchchat: Command, cluster: Any) -> None:
    recipe = job(tmp_path, cluster.address, function=f"{MISBEHAVING}:slow")
    on_ray = ("engine.launcher=ray", "engine.replicas=3", "-q")
    assert batchchat("run", recipe, "name=one", "-q").code == 0
    assert batchchat("run", recipe, "name=ray", *on_ray).code == 0
    assert outputs(recipe, "ray") == outputs(recipe, "one")
    replicas = report_of(recipe, "ray")["engine"]["replicas"]
    assert sum(replica["answered"] for replica in replicas) == 240
    lost = next(iter(cluster.worker_nodes))
    store = tmp_path / "runs/hurt/run.sqlite"

    def hurt() -> None:
        while not store.exists():
            time.sleep(0.05)
        time.sleep(2.0)
        cluster.remove_node(lost, allow_graceful=False)

    thread = threading.Thread(target=hurt)
    thread.start()
    ended = batchchat("run", recipe, "name=hurt", *on_ray)
    thread.join()
    assert ended.code == 0, ended.err
    assert outputs(recipe, "hurt") == outputs(recipe, "one")
    assert read_jsonl(tmp_path / "runs/hurt/errors.jsonl") == []


def test_how_an_actor_ended_is_said_with_its_machine(cluster: Any) -> None:
    launcher = RayLauncher(cluster.address, 1, devices=0, cores=1)
    try:
        replica = launcher.start(0)
        wait_until(lambda: replica.receive() == [] and replica.lived)
        for node in list(cluster.worker_nodes):
            cluster.remove_node(node, allow_graceful=False)
        wait_until(lambda: replica.receive() == [] and replica.gone)
        reason = replica.end().reason
    finally:
        launcher.close()
    assert re.fullmatch(r"ended (on [0-9.]+ )?\(The actor .+\)", reason), reason
    assert "class_name" not in reason, "what Ray knows of the actor is of no use to who reads this"


def test_sigterm_stops_a_run_as_it_does_elsewhere(tmp_path: Path, cluster: Any) -> None:
    """A cluster's machines are taken away with it, and the run goes on later."""
    recipe = job(tmp_path, cluster.address, function=f"{MISBEHAVING}:slow")
    process = start(recipe, "engine.launcher=ray", "engine.replicas=2", "generation.samples=20")
    wait_until(lambda: process.poll() is not None or num_stored(tmp_path / "runs/test/run.sqlite") > 0)
    process.terminate()
    said = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 143, said
    (line,) = said.splitlines()
    assert "stopped; what was finished is kept. Go on with: batchchat run" in line


def test_replicas_come_with_nodes_and_go_without_work(tmp_path: Path, cluster: Any) -> None:
    import ray

    for node in list(cluster.worker_nodes)[1:]:
        cluster.remove_node(node)
    recipe = load_recipe(job(tmp_path, cluster.address, function=f"{MISBEHAVING}:lingers"))
    launcher = RayLauncher(cluster.address, 4, devices=0, cores=1)
    begin = Begin(versions(), recipe.model_dump(exclude_none=True), (str(ROOT), *sys.path), None)
    engine = ReplicatedEngine(launcher, begin, Meters(), scaling=Scaling(1, patience=0.5))

    try:
        assert ray.cluster_resources()["CPU"] == 2
        done = 0
        for _ in engine.run(Feed(until_all_take_part(engine), 64)):
            done += 1
            if done == 100:
                cluster.add_node(num_cpus=2)
        assert len(list(engine.run(Feed(few(), 9)))) == 9
        assert engine.standing().count("let go") == 3
        wait_until(lambda: ray.available_resources()["CPU"] == 3)  # a cluster that scales itself takes the node back
        facts = engine.describe()
    finally:
        engine.close()
        launcher.close()
    assert sum(replica.answered for replica in facts.replicas) == done + 9
    assert [replica.restarts for replica in facts.replicas] == [0] * 4, "those for which there was no room came later"


def test_auto_replicas_are_as_many_as_nodes_have_accelerators_for(
    cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also on nodes that join later; what one replica needs must be on one node."""
    monkeypatch.setattr("batchchat.launch.on_ray._LOOK_SECONDS", 0.0)
    with pytest.raises(EnvironmentFault, match=r"has no accelerators, so engine\.replicas: auto is none"):
        RayLauncher(cluster.address, None, devices=2, cores=1)
    for gpus in (3, 1):
        cluster.add_node(num_cpus=1, num_gpus=gpus)
    launcher = RayLauncher(cluster.address, None, devices=2, cores=1)
    try:
        assert len(launcher.places) == 1
        cluster.add_node(num_cpus=1, num_gpus=4)
        assert len(launcher.places) == 3
    finally:
        launcher.close()


def test_where_no_node_has_room_the_run_says_what_it_waits_for(
    cluster: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchchat.launch.on_ray._FIRST_WARNING_SECONDS", 0.0)
    launcher = RayLauncher(cluster.address, 2, devices=1, cores=1)
    try:
        with caplog.at_level("WARNING", "batchchat"):
            launcher.wait([launcher.start(0)], 0.1)
    finally:
        launcher.close()
    (record,) = caplog.records
    assert "no node of the Ray cluster has what a replica needs (1 GPU)" in record.message
    assert "model.device_map=cpu" in record.message


def test_a_cluster_that_does_not_answer(tmp_path: Path, batchchat: Command) -> None:
    recipe = job(tmp_path, "127.0.0.1:1")
    ended = batchchat("run", recipe, "engine.launcher=ray", "engine.replicas=2")
    assert ended.code == 5
    assert "no Ray cluster answers at 127.0.0.1:1" in ended.err
    assert not (tmp_path / "runs").exists()
    ended = batchchat("run", recipe, "engine.launcher=ray", "engine.replicas=2", "engine.ray_address=auto")
    assert ended.code == 5
    assert "engine.ray_address is auto, and this machine belongs to no Ray cluster; start one with" in ended.err
