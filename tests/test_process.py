"""How a process begins: the cores that it may keep busy, and what it leaves to the user."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from batchchat import process
from tests.support.jobs import ROOT


@pytest.fixture
def group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files by which Linux tells of control groups; the process may run on 8 cores."""
    monkeypatch.setattr(process, "cores", lambda: list(range(8)))
    return tmp_path


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(f"{text}\n", encoding="ascii")


@pytest.mark.parametrize(
    ("limit", "cores"),
    [("max 100000", 8), ("100000 100000", 1), ("150000 100000", 2), ("20000 100000", 1), ("1600000 100000", 8)],
)
def test_a_container_keeps_as_many_cores_busy_as_it_has_time_for(group: Path, limit: str, cores: int) -> None:
    write(group, of="0::/box")
    write(group / "box", cpu__max=limit)
    assert process.num_cores(group / "of", group) == cores


def test_the_narrowest_of_all_groups_around_a_process_counts(group: Path) -> None:
    write(group, of="0::/slice/box", cpu__max="max 100000")
    write(group / "slice", cpu__max="300000 100000")
    write(group / "slice" / "box", cpu__max="max 100000")
    assert process.num_cores(group / "of", group) == 3


def test_groups_of_the_first_version_are_read_too(group: Path) -> None:
    write(group, of="4:memory:/box\n3:cpu,cpuacct:/box\n0::/")
    write(group / "cpu" / "box", cpu__cfs_quota_us="200000", cpu__cfs_period_us="100000")
    write(group / "cpu", cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000")
    assert process.num_cores(group / "of", group) == 2


def test_without_control_groups_all_cores_count(group: Path) -> None:
    assert process.num_cores(group / "none", group) == 8


def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "num_cores", lambda: 1)
    monkeypatch.setattr(process, "cores", lambda: [0, 1])
    assert process.settings({}) == {"GOMP_SPINCOUNT": "6000", "OMP_NUM_THREADS": "1"}
    assert process.settings({"OMP_WAIT_POLICY": "active", "OMP_NUM_THREADS": "2"}) == {}
    assert process.settings({"GOMP_SPINCOUNT": "5"}) == {"OMP_NUM_THREADS": "1"}
    monkeypatch.setattr(process, "num_cores", lambda: 2)
    assert "OMP_NUM_THREADS" not in process.settings({}), "libraries find these by themselves"


def test_commands_begin_so_and_benchmarks_do_not() -> None:
    """What measures others' engines leaves them as they are."""
    program = (
        "import os, sys\n"
        "from batchchat.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print('has', os.environ.get('GOMP_SPINCOUNT'))"
    )
    set_by_users = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    environment = {name: value for name, value in os.environ.items() if name not in set_by_users}
    for command, expected in ((["schema"], "has 6000"), (["bench", "--engines", "none"], "has None")):
        done = subprocess.run(
            [sys.executable, "-c", program, *command], cwd=ROOT, env=environment, capture_output=True, text=True
        )
        assert done.stdout.splitlines()[-1] == expected
