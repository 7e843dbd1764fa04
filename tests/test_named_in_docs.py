"""What the pages for those who change the code name is there: files, tests, classes, entries of the tables."""

from __future__ import annotations

import ast
import re
from importlib import import_module
from pathlib import Path

import pytest

from batchchat.plugins.tables import FORMATS, SCORERS, TABLES
from tests.support.jobs import ROOT

PAGES = ("docs/ARCHITECTURE.md", "docs/PLUGINS.md", "CONTRIBUTING.md")
UNWANTED = {"utils.py", "helpers.py"}
"""Names that the rules forbid."""


def text_of(page: str) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def sections(page: str) -> list[str]:
    return re.split(r"^## ", text_of(page), flags=re.MULTILINE)


def named_in(text: str) -> list[str]:
    return re.findall(r"`([^`\n]+)`", text)


def is_path(name: str) -> bool:
    return bool(re.fullmatch(r"[\w./-]+(::\w+)?", name)) and ("/" in name or ".py" in name)


@pytest.mark.parametrize("page", PAGES)
def test_files_and_tests_that_a_page_names_are_there(page: str) -> None:
    """A name is found from the top, in the package, or in a folder that its section has named before."""
    count = 0
    for section in sections(page):
        folders = [ROOT, ROOT / "batchchat"]
        for name in filter(is_path, named_in(section)):
            path, _, test = name.partition("::")
            if path in UNWANTED:
                assert not list(ROOT.glob(f"[!.]*/**/{path}")), f"{page} says that there is no {path}"
                continue
            found = [folder / path for folder in folders if (folder / path).exists()]
            assert found, f"{page} names {name} in the section that begins {section[:30]!r}"
            folders.append(found[-1] if found[-1].is_dir() else found[-1].parent)
            count += 1
            if test:
                tree = ast.parse(found[-1].read_text(encoding="utf-8"))
                assert test in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, name
    assert count


@pytest.mark.parametrize("page", PAGES)
def test_names_of_code_that_a_page_shows_are_names_in_the_code(page: str) -> None:
    files = [*(ROOT / "batchchat").rglob("*.py"), *(ROOT / "tests").rglob("*.py"), ROOT / "pyproject.toml"]
    known = {word for path in files if path != Path(__file__) for word in re.findall(r"\w+", path.read_text("utf-8"))}
    groups = {table.group for table in TABLES}
    for name in named_in(text_of(page)):
        if re.fullmatch(r"batchchat(\.\w+)+", name) and name not in groups:
            module, _, attribute = name.rpartition(".")
            assert attribute[0].islower() or hasattr(import_module(module), attribute), f"{page} names {name}"
            assert attribute[0].isupper() or import_module(name), f"{page} names {name}"
        elif re.fullmatch(r"\w*[A-Z_]\w*", name) and not name.isupper():
            assert name in known, f"{page} names {name}, which no file has"


def test_the_readme_names_the_formats_and_scorers_that_come_along() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert not [name for name in FORMATS.builtin if f"\n| `{name}` |" not in readme]
    example = readme.partition("\nscoring:\n")[2].partition("```")[0]
    assert not set(SCORERS.builtin) - set(re.findall(r"\w+", example))
