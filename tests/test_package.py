"""What is installed: the program, the built-in model, the recipes and the samples; and how soon it answers."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from batchchat import __version__
from tests.support.jobs import ROOT, Command


def test_the_wheel_holds_everything_that_a_recipe_may_name(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(tmp_path), str(ROOT)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    recipes = [path.relative_to(ROOT / "recipes") for path in (ROOT / "recipes").rglob("*") if path.is_file()]
    expected = {f"batchchat/_recipes/{path}" for path in recipes}
    expected |= {f"batchchat/_samples/{path.name}" for path in (ROOT / "data/samples").iterdir()}
    expected |= {str(path.relative_to(ROOT)) for path in (ROOT / "batchchat").rglob("*") if path.suffix in KEPT}
    assert len(expected) > 100
    assert not expected - names
    assert "batchchat/py.typed" in names
    assert not {name for name in names if name.startswith(("tests/", "scripts/"))}


KEPT = {".py", ".json", ".jinja", ".safetensors", ".yaml", ".js", ".css", ".html"}


def test_the_lowest_versions_allowed_are_those_that_are_tested() -> None:
    """`make test-floors` installs what constraints-floors.txt says; other extras are not in that environment."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    sections = [project["build-system"]["requires"], project["project"]["dependencies"]]
    extras = project["project"]["optional-dependencies"]
    sections += [extras[name] for name in ("cpu", "dev", "eval", "gguf", "gpu", "peft", "structured")]
    asked = [Requirement(text) for section in sections for text in section]
    lines = (ROOT / "constraints-floors.txt").read_text(encoding="utf-8").splitlines()
    tested = {
        canonicalize_name(name): Version(version) for name, _, version in (line.partition("==") for line in lines)
    }
    lowest = {
        canonicalize_name(one.name): spec.version for one in asked for spec in one.specifier if spec.operator == ">="
    }
    assert len(lowest) > 20
    assert {name: tested[name] for name in lowest} == {name: Version(version) for name, version in lowest.items()}


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys; sys.argv = ['batchchat', '--help']\n"
        "from batchchat.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print('imported', *sorted(name for name in sys.modules if '.' not in name))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    imported = set(done.stdout.rpartition("imported ")[2].split())
    assert "typer" in imported
    assert not imported & {"torch", "transformers", "datasets", "pyarrow", "numpy", "pydantic", "rich", "tqdm"}
    for command in ("run", "check", "init", "schema"):
        assert command in done.stdout


def test_version(batchchat: Command) -> None:
    assert batchchat("--version").out.strip() == __version__


def test_a_mistake_is_one_sentence_and_debug_adds_where_from(tmp_path: Path) -> None:
    def start(*args: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "batchchat", *args, "run", str(tmp_path / "none.yaml")]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    plain = start()
    assert plain.returncode == 2
    assert plain.stderr.startswith("batchchat: ")
    assert "Traceback" not in plain.stderr
    assert "Traceback" in start("--debug").stderr
