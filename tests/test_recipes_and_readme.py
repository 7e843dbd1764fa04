"""Every recipe runs, and so does every command that the README shows."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

from tests.support.jobs import ROOT, Command, read_jsonl
from tests.support.shown import commands, python_blocks

RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
PIPELINES = sorted((ROOT / "recipes/pipelines").glob("*.yaml"))
README = ROOT / "README.md"


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the repository's recipes and samples where runs may be written."""
    for name in ("recipes", "data"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_recipes_are_found() -> None:
    assert {path.stem for path in RECIPES} >= {"quickstart", "mt-bench", "synthesize"}
    assert PIPELINES


@pytest.mark.parametrize("name", ["simulate", "magpie", "evolve", "questions", "tools", "keep", "matrix", "structured"])
def test_recipes_that_make_data_fit_on_a_screen_and_say_what_they_do(name: str) -> None:
    lines = (ROOT / f"recipes/{name}.yaml").read_text(encoding="utf-8").splitlines()
    assert len(lines) < 30
    assert sum("# " in line for line in lines) >= 3


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_recipe_runs(recipe: Path, workplace: Path, batchchat: Command) -> None:
    text = recipe.read_text(encoding="utf-8")
    assert text.startswith("# yaml-language-server: $schema=recipe.schema.json\n")
    assert f"batchchat run recipes/{recipe.name}" in text
    ended = batchchat("run", f"recipes/{recipe.name}", "--json", "generation.max_new_tokens=24")
    assert ended.code == 0, ended.err
    report = json.loads(ended.out)
    for one in report.get("runs", [report]):
        assert one["rows"]["answered"] == one["rows"]["in"] > 0
        for name in one.get("files", ["outputs.jsonl"]):
            assert (Path(one["directory"]) / name).exists()


@pytest.mark.parametrize("steps", PIPELINES, ids=lambda path: path.stem)
def test_pipeline_runs(steps: Path, workplace: Path, batchchat: Command) -> None:
    assert f"batchchat pipeline recipes/pipelines/{steps.name}" in steps.read_text(encoding="utf-8")
    ended = batchchat("pipeline", f"recipes/pipelines/{steps.name}", "--json")
    assert ended.code == 0, ended.err
    for step in json.loads(ended.out)["steps"].values():
        assert step["state"] == "done"
        assert step["answers"] > 0


def test_recipe_checks(workplace: Path, batchchat: Command) -> None:
    for recipe in RECIPES:
        ended = batchchat("check", f"recipes/{recipe.name}")
        assert ended.code == 0, ended.out + ended.err
        assert "The first prompt" in ended.out


def test_readme_commands_run(workplace: Path, batchchat: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    found = commands(README.read_text(encoding="utf-8"))
    assert len(found) >= 8
    for line in found:
        before, _, command = line.rpartition("| ")
        if before:  # something is piped in
            source = Path(shlex.split(before)[1])
            with open(source, encoding="utf-8") as stdin:
                monkeypatch.setattr("sys.stdin", stdin)
                ended = batchchat(*shlex.split(command)[1:])
        else:
            ended = batchchat(*shlex.split(command, comments=True)[1:])
        assert ended.code == 0, f"{line}\n{ended.err}"


def workflows() -> list[dict[Any, Any]]:
    blocks = re.findall(r"^```yaml\n(.*?)^```", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [found for found in map(yaml.safe_load, blocks) if "jobs" in found]


def test_readme_workflow_runs(
    workplace: Path, batchchat: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its steps, one after the other: what is installed is asked of pyproject.toml, what batchchat does is done."""
    (workflow,) = workflows()
    assert workflow[True] == ["pull_request"], "YAML 1.1 reads `on` as true, which is what the build's parser undoes"
    (job,) = workflow["jobs"].values()
    assert job["env"]["BATCHCHAT"].startswith("git+https://github.com/OWNER/batchchat@")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "page.md"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    commands, uploads = [], []
    for step in job["steps"]:
        assert step.keys() <= {"uses", "with", "run", "if"}
        assert ("run" in step) != ("uses" in step)
        if "uses" in step:
            assert re.fullmatch(r"[\w-]+/[\w-]+@v\d+", step["uses"])
            if "upload" in step["uses"]:
                uploads += step["with"]["path"].split()
            continue
        program, *arguments = shlex.split(step["run"])
        commands.append(program)
        if program == "uv":
            assert arguments[:-1] == ["pip", "install", "--system", "--torch-backend", "cpu"]
            wanted = Requirement(arguments[-1].replace("$BATCHCHAT", job["env"]["BATCHCHAT"]))
            assert wanted.name == project["name"]
            assert wanted.extras <= project["optional-dependencies"].keys()
        else:
            assert program == "batchchat"
            ended = batchchat(*arguments)
            assert ended.code == 0, ended.err
    assert commands == ["uv", "batchchat"]
    for pattern in uploads:
        assert list(workplace.glob(pattern)), f"{pattern} is uploaded, and nothing has this name"
    page = (tmp_path / "page.md").read_text(encoding="utf-8")
    for words in ("All 2 gates passed", "builtin:tiny-chat, sha256", "numeric"):
        assert words in page


def test_readme_python_runs(workplace: Path) -> None:
    blocks = python_blocks(README)
    assert blocks
    for block in blocks:
        exec(compile(block, str(README), "exec"), {})


def test_quickstart_remembers(workplace: Path, batchchat: Command) -> None:
    """The built-in model's answers are read back in the chat's own order."""
    assert batchchat("run", "recipes/quickstart.yaml").code == 0
    outputs = read_jsonl(workplace / "runs/quickstart/outputs.jsonl")
    chats = read_jsonl(ROOT / "data/samples/chats.jsonl")
    assert [o["id"] for o in outputs] == [c["id"] for c in chats]
    for output in outputs:
        assert output["messages"][-1]["role"] == "assistant"
