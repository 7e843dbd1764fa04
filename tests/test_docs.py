"""Every command and every piece of Python that the documentation shows runs, and every page is in the site."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from tests.support.jobs import ROOT, Command
from tests.support.shown import commands, python_blocks

PAGES = sorted((ROOT / "docs").glob("*.md"))
SHOWN = [page for page in PAGES if commands(page.read_text(encoding="utf-8")) or python_blocks(page)]


def test_pages_are_found() -> None:
    assert {page.stem for page in SHOWN} >= {
        "index",
        "install",
        "tutorial",
        "reading-results",
        "ci",
        "synthesis",
        "python",
    }


@pytest.mark.parametrize("page", SHOWN, ids=lambda page: page.stem)
def test_what_a_page_shows_runs(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batchchat: Command
) -> None:
    (tmp_path / "data").symlink_to(ROOT / "data")
    monkeypatch.chdir(tmp_path)
    for line in commands(page.read_text(encoding="utf-8")):
        ended = batchchat(*shlex.split(line, comments=True)[1:])
        assert ended.code == 0, f"{line}\n{ended.err}"
    for block in python_blocks(page):
        exec(compile(block, str(page), "exec"), {})


def test_every_page_is_in_the_site_and_every_link_leads_somewhere() -> None:
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    named = re.findall(r"[\w-]+\.md", str(site["nav"]))
    assert sorted(named) == sorted(page.name for page in PAGES)
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
            if not re.match(r"[a-z]+:", target):
                assert (page.parent / target).exists(), f"{page.name} leads to {target}"
