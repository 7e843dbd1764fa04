"""A real Chromium, and two runs to look at. Skipped where there is none."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.browser import Open
from tests.support.finished import write_chats

SCORING = """
max_error_rate: 1.0
source: {path: unused.jsonl}
scoring: [numeric, {length: {unit: characters}}]
summary: {by: [category]}
"""


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="no playwright here (pip install 'batchchat[browser]')")
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium here (on Debian: apt-get install chromium)")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two scored runs, `runs/first` and `runs/second`, over the same chats."""
    place = tmp_path_factory.mktemp("seen")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        (place / "scoring.yaml").write_text(SCORING, encoding="utf-8")
        for name, wrong in (("first", 4), ("second", 6)):
            command(
                "score",
                str(write_chats(Path(f"{name}.jsonl"), wrong_every=wrong)),
                "scoring.yaml",
                f"name={name}",
                "-q",
            )
    return place


def command(*arguments: str) -> None:
    """The command line in this process."""
    from batchchat.cli.app import app

    with pytest.raises(SystemExit) as ended:
        app(list(arguments), prog_name="batchchat")
    assert not ended.value.code


@pytest.fixture
def open_page(chromium: Any) -> Iterator[Open]:
    """Opens a page; at the end nothing of it may have failed, run, or asked for anything but itself."""
    contexts, wrong = [], []

    def opened(address: str, width: int = 1300, scheme: str = "light", **options: Any) -> Any:
        context = chromium.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, accept_downloads=True, **options
        )
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
        page.on(
            "console", lambda said: wrong.append(f"console: {said.text}") if said.type in ("error", "warning") else None
        )
        page.on("dialog", lambda dialog: wrong.append(f"dialog: {dialog.message}"))
        page.on(
            "request", lambda request: None if _own(request.url, address) else wrong.append(f"request: {request.url}")
        )
        page.goto(address)
        return page

    yield opened
    for context in contexts:
        for page in context.pages:
            if page.evaluate("window.ran"):
                wrong.append(f"something of the data ran on {page.url}")
        context.close()
    assert not wrong, wrong


def _own(url: str, address: str) -> bool:
    place = address.partition("#")[0].rpartition("/")[0]
    return url.startswith((place, "blob:"))


@pytest.fixture(scope="session")
def axe() -> str:
    """The accessibility checker, which `make test-browser` fetches."""
    script = Path("build/browser/node_modules/axe-core/axe.min.js")
    if not script.is_file():
        pytest.skip("no axe-core here (make test-browser fetches it)")
    return script.read_text(encoding="utf-8")
