"""Replicas are real processes here, and really killed: the answers are those of a run that nothing happened to."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from batchchat.engines import EngineContext
from batchchat.errors import EnvironmentFault
from batchchat.launch.devices import find_places, require_free
from batchchat.launch.messages import Begin
from batchchat.launch.patience import Backoff, Patience
from batchchat.launch.versions import versions
from batchchat.prompts import ByteCodec
from batchchat.recipe import load_recipe
from batchchat.schedule import Feed
from tests.support.jobs import Command, outputs, read_jsonl, report_of, scripted_recipe, write_jsonl
from tests.support.replicas import MISBEHAVING, engine_of, job, num_stored, start, wait_until
from tests.support.requests import scripted_requests


def replicas_of(pid: int) -> list[psutil.Process]:
    try:
        return [one for one in psutil.Process(pid).children() if "batchchat.launch.child" in " ".join(one.cmdline())]
    except psutil.Error:
        return []


def test_the_same_outputs_with_any_number_of_replicas(tmp_path: Path, batchchat: Command) -> None:
    scripted = {"answer": "counting", "fail_every": 7}
    recipe = job(tmp_path, generation={"samples": 2}, scripted=scripted, max_error_rate=1.0)
    for number in (1, 2, 4):
        assert batchchat("run", recipe, f"name=r{number}", f"engine.replicas={number}", "-q").code == 0
        assert outputs(recipe, f"r{number}") == outputs(recipe, "r1")
    assert len(outputs(recipe, "r1")) > 10_000
    engine = report_of(recipe, "r4")["engine"]
    assert sum(replica["answered"] for replica in engine["replicas"]) == report_of(recipe, "r4")["turns"] + 16
    assert [replica["restarts"] for replica in engine["replicas"]] == [0, 0, 0, 0]
    generated = [report_of(recipe, name)["session"]["generated_tokens"] for name in ("r1", "r4")]
    assert generated[0] == generated[1]


def test_kills_of_replicas_and_of_the_run_cost_nothing(tmp_path: Path, batchchat: Command) -> None:
    slow = {"function": f"{MISBEHAVING}:slow"}
    (tmp_path / "calm").mkdir()
    calm = job(tmp_path / "calm", rows=200, scripted=slow)
    assert batchchat("run", calm, "-q").code == 0
    recipe = job(tmp_path, rows=200, scripted=slow, engine={"replicas": 2})
    process = start(recipe)
    victims: set[int] = set()
    for _ in range(3):
        wait_until(lambda: len(replicas_of(process.pid)) == 2 or process.poll() is not None)
        time.sleep(0.7)
        for victim in replicas_of(process.pid)[:1]:
            victim.kill()
            victims.add(victim.pid)
    assert len(victims) >= 2, "the run was too short to be hurt"
    wait_until(lambda: len(replicas_of(process.pid)) == 2)
    known = num_stored(tmp_path / "runs/test/run.sqlite")
    wait_until(lambda: num_stored(tmp_path / "runs/test/run.sqlite") > known)
    left = replicas_of(process.pid)
    process.kill()
    process.communicate()
    wait_until(lambda: not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in left))
    process = start(recipe)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, b"")
    assert outputs(recipe, "test") == outputs(calm, "test")
    assert read_jsonl(tmp_path / "runs/test/errors.jsonl") == []
    report = report_of(recipe, "test")
    assert len(report["sessions"]) == 2
    assert report["engine"]["replica_restarts"] == len(victims), "those of the killed session count"


def test_a_row_that_ends_replicas_is_an_error_and_the_others_are_answered(tmp_path: Path, batchchat: Command) -> None:
    rows = [{"prompt": f"row {n}" if n != 5 else "poison"} for n in range(30)]
    recipe = scripted_recipe(
        tmp_path / "r.yaml",
        write_jsonl(tmp_path / "in.jsonl", rows),
        engine={"replicas": 2, "max_batch_rows": 4, "scripted": {"function": f"{MISBEHAVING}:dies"}},
        max_error_rate=0.5,
    )
    assert batchchat("run", recipe, "-q").code == 0
    (error,) = read_jsonl(tmp_path / "runs/test/errors.jsonl")
    assert error["index"] == 5
    assert "3 replicas ended while they computed this request, the last one alone" in error["reason"]
    assert "SIGSEGV" in error["reason"]
    assert len(read_jsonl(tmp_path / "runs/test/outputs.jsonl")) == 29
    report = report_of(recipe, "test")
    assert report["events"]["counts"]["replica_lost"] == 3
    assert sum(replica["restarts"] for replica in report["engine"]["replicas"]) in (2, 3), "the last may not be needed"
    assert sum(replica["lost"] for replica in report["engine"]["replicas"]) >= 3


def test_a_replica_that_hangs_counts_as_dead(tmp_path: Path) -> None:
    recipe = job(tmp_path, engine={"replicas": 2}, scripted={"function": f"{MISBEHAVING}:hangs"})
    engine = engine_of(recipe, patience=lambda: Patience(factor=2.0, least=2.0, first=20.0))
    requests = scripted_requests(["one", "two", "poison", *("more" for _ in range(9))])
    try:
        done = {one.request.index: one for one in engine.run(Feed(iter(requests), 32))}
    finally:
        engine.close()
    assert sorted(done) == list(range(12))
    assert {n for n, one in done.items() if one.error is not None} == {2}
    assert "so it was taken to hang" in str(done[2].error)


def test_where_none_can_be_kept_alive_the_run_stops(tmp_path: Path) -> None:
    recipe = job(tmp_path, engine={"replicas": 2}, scripted={"function": f"{MISBEHAVING}:always_dies"})
    engine = engine_of(recipe, backoff=lambda: Backoff(tries=2))
    with pytest.raises(EnvironmentFault, match=r"no replica can be kept alive \(replica 0 was ended by SIGSEGV"):
        list(engine.run(Feed(iter(scripted_requests(["x"] * 64)), 64)))
    engine.close()
    assert replicas_of(os.getpid()) == []


def test_a_replica_that_comes_late_takes_its_share(tmp_path: Path) -> None:
    """All requests were handed out before it was ready; what was not begun is taken over."""
    recipe = job(tmp_path, engine={"replicas": 2, "max_batch_rows": 8}, scripted={"function": f"{MISBEHAVING}:slow"})
    engine = engine_of(recipe)
    try:
        assert len(list(engine.run(Feed(iter(scripted_requests(["x"] * 300)), 300)))) == 300
        shares = [replica.answered for replica in engine.describe().replicas]
    finally:
        engine.close()
    assert sum(shares) == 300
    assert min(shares) > 20


def test_a_run_that_is_left_early_can_be_run_again(tmp_path: Path) -> None:
    recipe = job(tmp_path, engine={"replicas": 2}, scripted={"function": f"{MISBEHAVING}:slow"})
    engine = engine_of(recipe)
    try:
        running = engine.run(Feed(iter(scripted_requests(["x"] * 40)), 40))
        next(running)
        running.close()
        again = scripted_requests(["y"] * 20)
        assert {one.text for one in engine.run(Feed(iter(again), 40))} == {"Y"}
    finally:
        engine.close()


def test_an_interrupt_ends_all_replicas(tmp_path: Path) -> None:
    recipe = job(tmp_path, rows=400, engine={"replicas": 2}, scripted={"function": f"{MISBEHAVING}:slow"})
    process = start(recipe)
    wait_until(lambda: len(replicas_of(process.pid)) == 2)
    left = replicas_of(process.pid)
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130, said
    wait_until(lambda: not any(child.is_running() for child in left))


def test_what_a_launcher_starts_is_one_run_with_as_many_replicas(tmp_path: Path) -> None:
    """The variables that `torchrun` and `accelerate launch` set."""
    recipe = job(tmp_path, rows=20)
    group = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
    processes = [start(recipe, RANK=str(rank), LOCAL_RANK=str(rank), **group) for rank in (0, 1)]
    assert [(process.communicate()[1], process.returncode) for process in processes] == [(b"", 0), (b"", 0)]
    assert len(report_of(recipe, "test")["engine"]["replicas"]) == 2
    wrong = start(recipe, "engine.replicas=3", "name=other", RANK="0", **group)
    assert b"engine.replicas is 3, but 2 processes were started" in wrong.communicate()[1]
    assert wrong.returncode == 2
    far = start(recipe, "name=other", RANK="0", **{**group, "LOCAL_WORLD_SIZE": "1"})
    assert b"source.shard" in far.communicate()[1]
    assert far.returncode == 2
    assert not (tmp_path / "runs/other").exists()


def test_more_replicas_than_accelerators(
    tmp_path: Path, batchchat: Command, memory_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    one_each = "engine.devices_per_replica=1"
    for settings, sentence in (
        (("engine.replicas=3", one_each), "engine.replicas is 3, but there are 2 accelerators; set engine.replicas=2"),
        (("engine.replicas=2", "engine.devices_per_replica=2"), "with 2 devices each"),
        (("engine.replicas=2", "engine.devices_per_replica=3"), "set it to 2 at most"),
    ):
        found = batchchat("run", memory_recipe, "-q", *settings)
        assert found.code == 5
        assert sentence in found.err
    found = batchchat("run", memory_recipe, "-q", "engine.replicas=2", "model.device_map=cuda:1")
    assert found.code == 2
    assert "model.device_map is cuda:1, which is one device" in found.err
    assert not (tmp_path / "runs").exists()


def test_an_accelerator_that_others_use_is_said_before_a_weight_is_read(
    monkeypatch: pytest.MonkeyPatch, memory_recipe: Path
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: "a GPU")
    recipe = load_recipe(memory_recipe)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda number: (2**30, 80 * 2**30))
    require_free(recipe)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda number: (1000, 80 * 2**30))
    with pytest.raises(EnvironmentFault, match=r"a GPU has 0\.0 of 80\.0 GiB free, and the model's weights need"):
        require_free(recipe)


def test_a_judge_computes_on_the_replicas_of_its_run(tmp_path: Path, batchchat: Command) -> None:
    scripted = {"kind": "scripted", "scripted": {"answer": "text", "text": "Rating: [[7]]"}}
    judges = {"quality": {"model": {"name": "scripted"}, "engine": scripted}}
    recipe = job(tmp_path, rows=6, engine={"replicas": 2}, judges=judges)
    assert batchchat("run", recipe, "-q").code == 0
    judged = json.loads((tmp_path / "runs/test/judges/quality/report.json").read_text(encoding="utf-8"))
    assert len(judged["engine"]["replicas"]) == 2
    assert judged["turns"] == report_of(recipe, "test")["turns"] == 12


def test_accelerators_are_shared_out_in_groups(monkeypatch: pytest.MonkeyPatch, memory_recipe: Path) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    recipe = load_recipe(memory_recipe, ["engine.replicas=auto", "engine.devices_per_replica=2"])
    places = find_places(recipe)
    assert places is not None
    assert [place.environment["CUDA_VISIBLE_DEVICES"] for place in places] == ["4,5", "6,7"]


def test_an_error_at_the_start_is_said_once(tmp_path: Path, batchchat: Command) -> None:
    found = batchchat("run", job(tmp_path, engine={"replicas": 2}, scripted={"function": "nowhere:answer"}), "-q")
    assert found.code == 2
    assert found.err.count("\n") == 1
    assert "engine.scripted.function: the module 'nowhere' cannot be imported" in found.err
    assert replicas_of(os.getpid()) == []


def test_a_failing_device_costs_the_replica_and_no_row(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An accelerator that failed once fails at everything: its errors are not those of the requests."""
    from batchchat.engines.scripted import ScriptedEngine
    from batchchat.launch import worker
    from batchchat.launch.messages import Answers, Failed, FromReplica, Work

    def lost() -> None:
        raise worker.DeviceLost("an accelerator failed: CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(worker, "_require_device", lost)
    said: list[FromReplica] = []
    one = worker.Worker(said.append)
    one.handle(Work(tuple(scripted_requests(["longer, so it is first", "fails"]))))
    recipe = load_recipe(job(tmp_path))

    def build(context: EngineContext) -> ScriptedEngine:
        return ScriptedEngine(ByteCodec(), context.meter, rows=1, fail_every=2)

    one.run(Begin(versions(), recipe.model_dump(exclude_none=True), (), None), build)
    assert [answer.key[0] for message in said if isinstance(message, Answers) for answer in message.answers] == [0]
    assert isinstance(said[-1], Failed)
    assert "illegal memory access" in said[-1].reason


def test_strict_answers_of_a_model_are_the_same_bytes(tmp_path: Path, batchchat: Command, memory_recipe: Path) -> None:
    strict = ("engine.kind=continuous", "engine.reproducible=strict", "-q")
    assert batchchat("run", memory_recipe, "name=one", *strict).code == 0
    process = start(memory_recipe, "name=two", "engine.replicas=2", *strict[:2])
    wait_until(lambda: (tmp_path / "runs/two/run.sqlite").exists() and len(replicas_of(process.pid)) == 2)
    replicas_of(process.pid)[0].kill()
    _, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, b"")
    assert outputs(memory_recipe, "two") == outputs(memory_recipe, "one")
    events = report_of(memory_recipe, "two")["events"]
    assert events["counts"]["replica_lost"] == 1
    assert "SIGKILL" in json.dumps(events)
    assert "Loading" not in json.dumps(events), "the bar of a library says nothing"
