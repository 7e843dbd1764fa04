"""The examples for clusters, as far as a machine without one can run them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from batchchat.recipe import load_recipe
from tests.support.jobs import ROOT, Command, outputs, scripted_recipe, write_jsonl

FOLDER = ROOT / "recipes" / "cluster"
SCRIPTS = sorted(FOLDER.glob("*.sh"))


def program(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.write_text(f"#!/usr/bin/env bash\n{text}\n", encoding="utf-8")
    path.chmod(0o755)


@pytest.fixture
def cluster(tmp_path: Path) -> dict[str, str]:
    """Variables of a task of an array job, and the programs that it calls: `scontrol` notes what it is told."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program(folder, "batchchat", f'exec "{sys.executable}" -m batchchat "$@"')
    program(folder, "scontrol", f'echo "$@" >> "{tmp_path}/scontrol"')
    own = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_COUNT": "2"}
    return {**os.environ, **own, "PATH": f"{folder}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}


def test_scripts_are_found() -> None:
    assert len(SCRIPTS) == 2


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_sound(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)
    shellcheck = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert shellcheck is not None, "it comes with the extra `dev`"
    subprocess.run([shellcheck, str(script)], check=True)


def test_a_task_that_is_warned_stops_is_queued_again_and_goes_on(
    tmp_path: Path, cluster: dict[str, str], batchchat: Command
) -> None:
    rows = [{"prompt": f"row {n}"} for n in range(60)]
    scripted = {"batch_seconds": 0.1}
    recipe = scripted_recipe(
        tmp_path / "r.yaml",
        write_jsonl(tmp_path / "in.jsonl", rows),
        engine={"max_batch_rows": 1, "scripted": scripted},
    )
    script = ["bash", str(FOLDER / "slurm-array.sh"), str(recipe)]
    store = tmp_path / "runs/test/shard-1-of-2/run.sqlite"
    task = subprocess.Popen(script, env=cluster, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not store.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.5)
    task.send_signal(signal.SIGUSR1)
    assert task.wait(timeout=30) == 0
    assert (tmp_path / "scontrol").read_text() == "requeue 7_1\n"
    assert not (store.parent / "outputs.jsonl").exists(), "it was done before it was warned"
    subprocess.run([*script, "engine.scripted.batch_seconds=0"], env=cluster, check=True, stdout=subprocess.DEVNULL)
    assert batchchat("run", recipe, "-q", "source.shard=0/2", "engine.scripted.batch_seconds=0").code == 0
    shards = [tmp_path / f"runs/test/shard-{number}-of-2" for number in (0, 1)]
    assert batchchat("merge", *shards, "--output", tmp_path / "runs/merged").code == 0
    assert len(outputs(recipe, "merged").splitlines()) == 60


def test_the_job_of_pods_runs_a_recipe_that_loads(tmp_path: Path) -> None:
    job: Any = yaml.safe_load((FOLDER / "kubernetes-job.yaml").read_text(encoding="utf-8"))
    kubernetes_validate.validate(job, "1.35", strict=True)
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**job, "spec": {**job["spec"], "complextions": 8}}, "1.35", strict=True)
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    assert job["spec"]["completionMode"] == "Indexed", "which says each pod its number"
    (container,) = job["spec"]["template"]["spec"]["containers"]
    program_, command, _, *rest = container["command"]
    assert (program_, command) == ("batchchat", "run")
    overrides = [argument.replace("$(JOB_COMPLETION_INDEX)", "3") for argument in rest if "=" in argument]
    recipe = load_recipe(scripted_recipe(tmp_path / "r.yaml", "in.jsonl"), overrides)
    assert recipe.source.part == (3, job["spec"]["completions"])
    assert {mount["name"] for mount in container["volumeMounts"]} == {
        volume["name"] for volume in job["spec"]["template"]["spec"]["volumes"]
    }
