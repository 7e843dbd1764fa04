"""What shells do to the streams of a command: closed, read in part, full, of a narrow encoding."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.jobs import ROOT, Command, scripted_recipe, write_jsonl


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a run that is done, with text of several scripts."""
    folder = tmp_path_factory.mktemp("streams")
    rows = [{"id": f"ü{n}", "messages": [{"role": "user", "content": "grüße 😀 " * 500}]} for n in range(40)]
    recipe = scripted_recipe(folder / "r.yaml", write_jsonl(folder / "in.jsonl", rows), gates=["errors <= 0"])
    assert shell(f"run {recipe}").returncode == 0
    return recipe


def shell(command: str, around: str = "{}", **environment: str) -> subprocess.CompletedProcess[str]:
    text = around.format(f'"{sys.executable}" -m batchchat {command}')
    environment = {**os.environ, **environment}
    return subprocess.run(["bash", "-c", text], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("command", ["run {} --show 40", "schema --markdown"])
def test_a_reader_that_goes_away_is_no_fault(recipe: Path, command: str) -> None:
    ended = shell(command.format(recipe), "{} | true; exit ${{PIPESTATUS[0]}}")
    assert ended.returncode == 0
    assert "batchchat:" not in ended.stderr
    assert "Error" not in ended.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full is needed")
def test_a_full_device_is_said(recipe: Path) -> None:
    ended = shell("schema", "{} > /dev/full")
    assert ended.returncode == 5
    assert ended.stderr.startswith("batchchat: standard output cannot be written: No space left on device")
    assert len(ended.stderr.splitlines()) == 1


def test_a_narrow_encoding_shows_escapes(recipe: Path) -> None:
    ended = shell(f"run {recipe} --show 1", PYTHONIOENCODING="ascii")
    assert ended.returncode == 0, ended.stderr
    assert "chat \\xfc0" in ended.stdout
    assert "\\U0001f600" in ended.stdout


def test_closed_streams_harm_no_file(recipe: Path) -> None:
    """The numbers of closed streams go to no file of the run."""
    ended = shell(f"run {recipe} name=closed", "{} <&- >&- 2>&-")
    assert ended.returncode == 0
    outputs = (recipe.parent / "runs/closed/outputs.jsonl").read_bytes()
    assert outputs == (recipe.parent / "runs/test/outputs.jsonl").read_bytes()
    ended = shell(f"run {recipe} name=none source.path=-", "{} <&-")
    assert ended.returncode == 2
    assert "standard input is closed" in ended.stderr


def test_names_that_are_no_utf_8(recipe: Path, batchchat: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(recipe.parent)
    odd = os.fsdecode(b"in\xff\xfe.jsonl")
    Path(odd).write_bytes(Path("in.jsonl").read_bytes())
    ended = batchchat("run", recipe, "source.path=in*[!n].jsonl", "name=odd", "--junit", os.fsdecode(b"\xff.xml"))
    assert ended.code == 0, ended.err
    assert '"in\\\\xff\\\\xfe.jsonl"' in Path("runs/odd/manifest.json").read_text(encoding="utf-8")
    for command in (("run", recipe, f"source.path={odd}"), ("init", odd), ("score", odd, "scoring=[exact]")):
        ended = batchchat(*command)
        assert ended.code == 2
        assert "not UTF-8" in ended.err
    assert batchchat("run", recipe, os.fsdecode(b"gen\xff=1")).code == 2
