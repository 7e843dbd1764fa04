"""report.html in a real browser: readable at any width, in light and dark, without barriers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.browser import Open, violations


@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (1200, "dark"), (400, "light"), (400, "dark")])
def test_no_barrier_is_found(open_page: Open, axe: str, folder: Path, width: int, scheme: str) -> None:
    page = open_page((folder / "runs/first/report.html").as_uri(), width, scheme)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert violations(page, axe) == []


def test_it_needs_no_script(open_page: Open, folder: Path) -> None:
    page = open_page((folder / "runs/first/report.html").as_uri(), java_script_enabled=False)
    assert "numeric" in page.locator("#scores").locator("..").inner_text()
    assert page.locator("svg.plot").count() >= 2
