"""What an installed package adds: used, described, checked and refused like what comes along."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.jobs import ROOT, Finished

PLUGIN = ROOT / "tests" / "plugin"

DRIVER = """
import contextlib, io, json, sys
from batchchat.cli import main
done = []
for argv in json.load(sys.stdin):
    out, err, code = io.StringIO(), io.StringIO(), 0
    sys.argv = ["batchchat", *argv]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as exit:
            code = exit.code or 0
    done.append([code, out.getvalue(), err.getvalue(), sorted(name for name in sys.modules if "." not in name)])
json.dump(done, sys.stdout)
"""

RECIPE: Mapping[str, Any] = {
    "name": "acme",
    "model": {"name": "a-name-of-the-server"},
    "source": {"path": "countdown:3", "format": "script"},
    "engine": {"kind": "parrot", "parrot": {"url": "http://here", "shout": True}},
    "scoring": [{"vowels": {"letters": "ay"}}],
    "sink": {"formats": ["jsonl", "transcript"], "transcript": {"between": "=="}},
}


class Commands:
    """Runs command lines in one other process, where `packages` are installed."""

    def __init__(self, *packages: Path):
        self._path = os.pathsep.join(map(str, [*packages, ROOT]))
        self.imported: set[str] = set()

    def __call__(self, *commands: Sequence[object]) -> list[Finished]:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", DRIVER],
            input=json.dumps([list(map(str, command)) for command in commands]),
            env={**os.environ, "PYTHONPATH": self._path},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        self.imported = set(found[-1][3])
        return [Finished(code, out, err) for code, out, err, _ in found]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip installed the package."""
    folder = tmp_path_factory.mktemp("site")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(folder), str(PLUGIN)]
    subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.fixture
def acme(site: Path) -> Commands:
    return Commands(site)


def recipe(tmp_path: Path, file: str = "recipe.yaml", **sections: Any) -> Path:
    path = tmp_path / file
    data = {**RECIPE, **sections}
    path.write_text(json.dumps({**data, "sink": {**data["sink"], "directory": str(tmp_path / "runs/{name}")}}))
    return path


def package(folder: Path, name: str, entries: str, module: str | None = None) -> Path:
    """An installed package as pip leaves it: what it adds, and one module of its name."""
    info = folder / f"{name}-0.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text(entries)
    if module is not None:
        (folder / f"{name}.py").write_text(module)
    return folder


def test_one_of_each_in_one_run(acme: Commands, tmp_path: Path) -> None:
    path = recipe(tmp_path)
    (run,) = acme(["run", "--json", path])
    assert run.code == 0, run.err
    report = json.loads(run.out)
    assert report["rows"] == {"in": 3, "answered": 3, "failed": 0}
    assert report["tokens"] == {"prompt": 21, "generated": 6}
    assert report["engine"]["details"]["url"] == "http://here"
    folder = tmp_path / "runs" / "acme"
    expected = "".join(f"U: say {n}\nA: SAY {n}\n==\n" for n in (3, 2, 1))
    assert (folder / "outputs.transcript").read_text() == expected
    first = json.loads((folder / "outputs.jsonl").read_text().splitlines()[0])
    assert first["batchchat"]["turns"][0]["prompt_tokens"] == 7
    scores = [json.loads(line) for line in (folder / "scores.jsonl").read_text().splitlines()]
    assert "'vowels'" in str(scores[0])
    assert "0.4" in str(scores[0])  # a and y, of 5 characters
    manifest = json.loads((folder / "manifest.json").read_text())
    added = {(entry["kind"], entry["name"], entry["package"], entry["version"]) for entry in manifest["plugins"]}
    names = {"engine": "parrot", "format": "script", "source": "countdown", "scorer": "vowels", "writer": "transcript"}
    assert added == {(kind, name, "batchchat-acme", "1.2.3") for kind, name in names.items()}
    assert manifest["model"]["name"] == "a-name-of-the-server"
    assert manifest["recipe"]["engine"]["parrot"] == {"url": "http://here", "shout": True}
    assert not acme.imported & {"torch", "transformers", "datasets"}


def test_a_run_goes_on_only_with_the_same_options(acme: Commands, tmp_path: Path) -> None:
    path = recipe(tmp_path)
    again, other, faster, exported = acme(
        ["run", "-q", path],
        ["run", "-q", path, "engine.parrot.shout=false", "source.countdown.step=2"],
        ["run", "-q", path, "engine.parrot.at_once=1"],
        ["run", "-q", path, "sink.transcript.between=++"],
    )
    assert (again.code, faster.code, exported.code) == (0, 0, 0)
    assert other.code == 2
    assert "engine.parrot.shout: true -> not set" in other.err
    assert "source.countdown.step: not set -> 2" in other.err
    assert (tmp_path / "runs/acme/outputs.transcript").read_text().count("++") == 3


def test_options_of_formats_and_sources_reach_them(acme: Commands, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"script": "ALICE: hello"}\n{"script": "nobody"}\n')
    source = {"path": ["countdown:3", str(rows)], "format": "script", "countdown": {"step": 2}}
    alice = {**source, "path": str(rows), "script": {"user": "ALICE"}}
    wrong, right, refused = acme(
        ["run", "-q", recipe(tmp_path, "wrong.yaml", source=source), "name=wrong"],
        ["run", "-q", "--json", recipe(tmp_path, "right.yaml", source=alice), "name=right", "max_error_rate=1"],
        ["run", recipe(tmp_path), "source.path=countdown:soon", "name=none"],
    )
    errors = (tmp_path / "runs/wrong/errors.jsonl").read_text()
    assert wrong.code == 3
    assert "has no user turn" in errors
    assert "the line 'nobody' of the script has no speaker" in errors
    assert (tmp_path / "runs/wrong/outputs.transcript").read_text().count("==") == 2
    assert json.loads(right.out)["rows"] == {"in": 2, "answered": 1, "failed": 1}
    assert refused.code == 2
    assert "write countdown:3" in refused.err


def test_an_engine_without_token_ids_must_count(acme: Commands, tmp_path: Path) -> None:
    (run,) = acme(["run", "-q", recipe(tmp_path), "engine.parrot.silent_on='2'"])
    assert run.code == 3
    (error,) = (tmp_path / "runs/acme/errors.jsonl").read_text().splitlines()
    assert "did not say in `usage` how many tokens" in error


def test_check_shows_what_such_an_engine_gets(acme: Commands, tmp_path: Path) -> None:
    shown, plain, planned = acme(
        ["check", recipe(tmp_path)], ["check", "--json", recipe(tmp_path)], ["plan", recipe(tmp_path)]
    )
    assert (shown.code, plain.code) == (0, 0), shown.err + plain.err
    assert '{"role": "user", "content": "say 3"}' in shown.out
    assert "0 tokens" not in shown.out
    found = json.loads(plain.out)
    assert (found["total_rows"], found["prompt_tokens"], found["batches"]) == (3, {}, [])
    assert planned.code == 2
    assert "engine.kind parrot" in planned.err


def test_the_schema_shows_the_options(acme: Commands) -> None:
    schema, page = acme(["schema"], ["schema", "--markdown"])
    assert (schema.err, page.err) == ("", "")
    root = json.loads(schema.out)

    def section(name: str, option: str) -> Any:
        properties = root["$defs"][name]["properties"]
        return root["$defs"][properties[option]["$ref"].rpartition("/")[2]]

    assert section("EngineSection", "parrot")["required"] == ["url"]
    assert "user" in section("SourceSection", "script")["properties"]
    assert "step" in section("SourceSection", "countdown")["properties"]
    assert "between" in section("SinkSection", "transcript")["properties"]
    assert "letters" in section("ScorerEntry", "vowels")["properties"]
    assert root["$defs"]["EngineSection"]["properties"]["kind"]["enum"][-1] == "parrot"
    for line in ("## `engine.parrot`", "## `source.countdown`", "## `sink.transcript`", "## `scoring[].vowels`"):
        assert line in page.out
    assert "| `url` | text | required | Address of the server." in page.out


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("engine.parrot.shuot=true", "engine.parrot.shuot is not a setting; did you mean engine.parrot.shout?"),
        ("engine.parot={}", "engine.parot is not a setting; did you mean engine.parrot?"),
        ("engine.kind=parot", "did you mean parrot?"),
        ("engine.parrot.shout=loud", 'engine.parrot.shout is "loud"; it must be true or false'),
        ("engine.parrot.at_once=0", "engine.parrot.at_once is 0; it must be a whole number (at least 1)"),
        ("engine.parrot={}", "engine.parrot.url is missing; write it, for example engine.parrot.url: http://localhost"),
        ("sink.formats=[transcrip]", "did you mean transcript?"),
        ("sink.transcript.betwen=x", "sink.transcript.betwen is not a setting; did you mean sink.transcript.between?"),
        ("source.format=scripts", "did you mean script?"),
        ("source.path=countdwn:3", "did you mean countdown:3?"),
        ("scoring=[vowel]", "did you mean vowels?"),
        ("scoring=[{vowels: {leters: a}}]", "did you mean scoring[0].vowels.letters?"),
        ("chat.max_context=100", "knows no tokens, but chat.max_context is about them; leave chat.max_context out"),
        ("engine.reproducible=strict", "which kind parrot cannot give"),
    ],
)
def test_mistakes_name_what_is_meant(override: str, says: str, mistakes: Mapping[str, Finished]) -> None:
    assert mistakes[override].code == 2
    assert says in mistakes[override].err


@pytest.fixture(scope="module")
def mistakes(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Finished]:
    """What `check` says to each override of the test above, all from one process."""
    (marker,) = (mark for mark in test_mistakes_name_what_is_meant.pytestmark if mark.name == "parametrize")  # type: ignore[attr-defined]
    overrides = [override for override, _ in marker.args[1]]
    path = recipe(tmp_path_factory.mktemp("mistakes"))
    return dict(zip(overrides, Commands(site)(*(["check", path, override] for override in overrides)), strict=True))


def test_what_is_not_named_is_not_imported(acme: Commands, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "hello"}\n')
    plain: dict[str, Any] = {
        "model": {"name": "scripted"},
        "source": {"path": str(rows)},
        "engine": {"kind": "scripted"},
    }
    path = recipe(tmp_path, **plain, sink={"formats": ["jsonl"]})
    done, unknown = acme(
        ["run", path, "scoring=[length]", "engine.scripted.answer=counting"],
        ["check", path, "scoring=[lenth]"],
    )
    assert done.code == 0, done.err
    assert "did you mean length?" in unknown.err
    assert "batchchat_acme" not in acme.imported


BROKEN = "import no_such_thing_anywhere\n"
ENTRIES = "[batchchat.engines]\nbroken = broken_one\n[batchchat.scorers]\nodd = broken_one:ODD\n"


def test_a_broken_package_costs_one_sentence_where_it_is_named(site: Path, tmp_path: Path) -> None:
    folder = package(tmp_path / "site", "broken_one", ENTRIES, BROKEN)
    commands = Commands(site, folder)
    path = recipe(tmp_path)
    fine, named, listed = commands(["run", "-q", path], ["check", path, "engine.kind=broken"], ["schema"])
    assert fine.code == 0, fine.err
    assert named.code == 5
    assert named.err.startswith(
        "batchchat: the engine 'broken' of the package broken_one 0.1 cannot be imported (ModuleNotFoundError: "
    )
    assert named.err.count("\n") == 1
    assert listed.code == 0
    assert listed.err.count("\n") == 2
    assert "left out: the scorer 'odd' of the package broken_one 0.1 cannot be imported" in listed.err
    assert json.loads(listed.out)["$defs"]["EngineSection"]["properties"]["parrot"]


TWIN = """
import pydantic
from batchchat.engines import EngineKind
from batchchat.recipe.section import Section
class Lax(pydantic.BaseModel):
    model_config = {"frozen": True}
LAX = EngineKind(print, options=Lax)
KIND = EngineKind(print, options=Section)
"""

TWIN_ENTRIES = """
[batchchat.scorers]
exact = twin
[batchchat.writers]
transcript = twin
[batchchat.engines]
twin = twin
lax = twin:LAX
kind = twin:KIND
a-b = twin:LAX
"""

REFUSED = {
    "scoring=[exact]": "the scorer 'exact' of the package twin 0.1 takes the name of the scorer that comes with",
    "sink.formats=[transcript]": "'transcript' of the package batchchat-acme 1.2.3 and the package twin 0.1 has a name",
    "engine.kind=twin": "the engine 'twin' of the package twin 0.1 is at twin a module, not an instance of EngineKind",
    "engine.kind=lax": "the engine 'lax' of the package twin 0.1 has options that take unknown names",
    "engine.kind=kind": "has options, but kind is a setting of its own there",
    "engine.kind=a-b": "has a name that is not letters, digits and underscores",
}


def test_names_and_options_that_cannot_be_are_refused_by_name(site: Path, tmp_path: Path) -> None:
    commands = Commands(site, package(tmp_path / "site", "twin", TWIN_ENTRIES, TWIN))
    scripted: dict[str, Any] = {"model": {"name": "scripted"}, "engine": {"kind": "scripted"}, "scoring": ["length"]}
    path = recipe(tmp_path, **scripted, sink={"formats": ["jsonl"]})
    *refused, fine, listed = commands(
        *(["check", path, override] for override in REFUSED), ["check", path], ["schema", "--markdown"]
    )
    for (override, says), done in zip(REFUSED.items(), refused, strict=True):
        assert (done.code, says in done.err, done.err.count("\n")) == (5, True, 1), (override, done.err)
    assert fine.code == 0, fine.err
    assert "## `scoring[].vowels`" in listed.out
    assert [line for line in listed.err.splitlines() if "'exact'" in line or "'transcript'" in line or "'twin'" in line]
