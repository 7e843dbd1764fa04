"""The viewer in a real browser: every feature used, nothing of the data run, no barrier found."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import threading
from pathlib import Path
from typing import Any

import pytest

from batchchat.results import open_results
from batchchat.viewer.serve import LiveRun
from batchchat.viewer.write import write_viewer
from tests.support.browser import Open, violations
from tests.support.finished import HOSTILE, chat, chats
from tests.support.jobs import write_jsonl

COUNT = len(chats(60, 4))


@pytest.fixture(scope="session")
def one(folder: Path) -> str:
    return written(folder, "one.html", "first")


@pytest.fixture(scope="session")
def two(folder: Path) -> str:
    return written(folder, "two.html", "first", "second")


def written(folder: Path, name: str, *runs: str, **options: Any) -> str:
    from contextlib import ExitStack

    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.chdir(folder)
        opened = [stack.enter_context(open_results(f"runs/{run}")) for run in runs]
        return write_viewer(opened, folder / name, **options).as_uri()


def count(page: Any, text: str) -> None:
    page.locator("#count", has_text=re.compile(f"^{re.escape(text)}")).wait_for(timeout=10_000)


def hash_of(page: Any) -> str:
    return str(page.evaluate("decodeURIComponent(location.hash)"))


def choose(page: Any, field: str) -> Any:
    if page.locator("#filters").is_hidden():
        page.keyboard.press("f")
    section = page.locator(f'#filters details[data-key="{field}"]')
    if section.get_attribute("open") is None:
        section.locator("summary").click()
    return section


def test_chats_are_listed_filtered_sorted_and_searched(open_page: Open, one: str) -> None:
    page = open_page(one)
    count(page, f"{COUNT} of {COUNT} chats")
    choose(page, "finish").get_by_label("length").check()
    count(page, "13 of")
    choose(page, "score.numeric").get_by_label("most numeric").fill("0.5")
    count(page, "4 of")
    page.get_by_role("button", name="Remove the filter finish").click()
    page.get_by_role("button", name="Clear all").click()
    count(page, f"{COUNT} of")
    choose(page, "column.category").get_by_label("odd").check()
    choose(page, "column.level").get_by_label("least level").fill("6")
    count(page, "4 of")
    page.get_by_role("button", name="Clear all").click()
    page.get_by_role("button", name="tokens").click()
    assert page.locator(".rows .row[id]").first.inner_text().startswith("chat/2000")
    page.keyboard.press("/")
    page.keyboard.type("LET ME THINK")
    count(page, "1 of")
    page.get_by_label("regular expression").check()
    page.fill("#query", "^I believe it is (9|13),")
    count(page, "2 of")
    page.fill("#query", "(")
    page.locator("#count", has_text="the expression is not complete").wait_for()


def test_the_keyboard_and_the_address_lead_to_a_chat(open_page: Open, one: str) -> None:
    page = open_page(one)
    count(page, f"{COUNT} of")
    for key in ("j", "j", "Enter"):
        page.keyboard.press(key)
    page.get_by_role("heading", name="chat/2").wait_for()
    page.locator(".call", has_text="add").wait_for()
    page.keyboard.press("k")
    page.get_by_role("heading", name="chat/1").wait_for()
    page.locator(".reasoning summary").click()
    page.locator(".reasoning", has_text="Let me think about one.").wait_for()
    assert "chat=chat/1" in hash_of(page)
    page.keyboard.press("Escape")
    page.locator("#chat").wait_for(state="hidden")
    page.go_back()
    page.get_by_role("heading", name="chat/1").wait_for()
    again = open_page(f"{one}#chat=chat%2F3&view=tokens")
    again.locator(".token.p5").wait_for()
    told = again.locator(".token.p5").get_attribute("title")
    assert told.startswith('" it": 5.00 %')
    assert '" other"' in told
    again.keyboard.press("?")
    again.get_by_role("dialog").wait_for()


def test_markdown_is_elements_and_scores_have_reasons(open_page: Open, one: str) -> None:
    page = open_page(f"{one}#chat=chat%2F4")
    answer = page.locator(".bubble.assistant .markdown")
    answer.locator(".heading.h1", has_text="Title").wait_for()
    for element, said in (
        ("em", "text"),
        ("code", "code"),
        ("ul li", "one"),
        ("ol li", "second"),
        ("blockquote", "said"),
    ):
        answer.locator(element, has_text=said).first.wait_for()
    page.locator(".score summary", has_text="numeric").click()
    page.locator(".score .pairs", has_text="expected").wait_for()


def test_nothing_of_the_data_runs_or_hides(open_page: Open, one: str) -> None:
    page = open_page(one)
    count(page, f"{COUNT} of")
    for number in range(len(HOSTILE)):
        for view in ("markdown", "plain", "raw", "tokens"):
            page.evaluate(f"location.hash = 'chat=chat%2F{1000 + number}&view={view}'")
            page.locator("h2", has_text=f"chat/{1000 + number}").wait_for()
            page.locator(".bubble").first.wait_for()
    found = page.evaluate("document.querySelectorAll('#main script, #main img, #main svg, #main [onerror]').length")
    assert found == 0
    page.evaluate("location.hash = 'chat=chat%2F1002'")
    page.locator("h2", has_text="chat/1002").wait_for()
    assert page.locator("#chat a").count() == 0, "no link leads to a script"
    page.evaluate("location.hash = 'chat=chat%2F1003&view=plain'")
    page.locator(".bubble.user", has_text="\\u202egnp.exe \\x1b[31mred").wait_for()


def test_naughty_strings_are_shown_and_nothing_runs(open_page: Open, tmp_path: Path, shared_data: Path) -> None:
    strings = json.loads((shared_data / "naughty_strings/blns.json").read_text(encoding="utf-8"))
    rows = [chat(n, text, question=text or "-", category=text) for n, text in enumerate(strings)]
    file = write_jsonl(tmp_path / "naughty.jsonl", map(json.dumps, rows))
    with open_results(file) as results:
        page = open_page(write_viewer([results], tmp_path / "naughty.html").as_uri())
    count(page, f"{len(rows)} of")
    for number in range(0, len(rows), 4):
        page.evaluate(f"location.hash = 'chat=chat%2F{number}'")
        page.locator("h2", has_text=re.compile(rf"^chat/{number}$")).wait_for()
        page.locator(".bubble").first.wait_for()
        assert page.evaluate("document.querySelectorAll('#main script, #main img, #main iframe').length") == 0


def test_a_long_answer_is_shown_in_part_at_first(open_page: Open, one: str) -> None:
    page = open_page(f"{one}#chat=chat%2F2000")
    page.get_by_role("button", name="Show all 1,000,000 characters").click()
    assert len(page.locator(".bubble.assistant .text").inner_text()) > 999_000


def test_two_runs_stand_side_by_side(open_page: Open, two: str) -> None:
    page = open_page(two)
    count(page, f"{COUNT} of")
    tile = page.locator(".tile", has_text="numeric")
    assert re.search(r"[+-]0\.\d+\n.*to .*n \d+", tile.inner_text(), re.DOTALL)
    page.get_by_role("button", name="better").click()
    count(page, "9 of")
    page.get_by_role("button", name="worse").click()
    count(page, "5 of")
    page.get_by_role("button", name="changed").click()
    count(page, "14 of")
    page.locator(".rows .row[id]").first.click()
    page.keyboard.press("d")
    page.locator(".sides ins, .sides del").first.wait_for()
    said = page.locator(".sides pre.diff").all_inner_texts()
    assert len(said) == 2
    assert said[0] != said[1]
    assert "diff=true" in hash_of(page)


def test_what_is_listed_is_exported(open_page: Open, one: str) -> None:
    page = open_page(f"{one}#filters={json.dumps({'column.category': {'in': ['odd']}, 'column.level': {'min': 6}})}")
    count(page, "4 of")
    files = {}
    for name in ("JSON lines", "CSV"):
        page.locator("#export-menu summary").click()
        with page.expect_download() as waiting:
            page.get_by_role("button", name=name).click()
        files[name] = Path(waiting.value.path()).read_text(encoding="utf-8")
    lines = [json.loads(line) for line in files["JSON lines"].splitlines()]
    assert [line["id"] for line in lines] == ["chat/13", "chat/27", "chat/41", "chat/55"]
    assert lines[0]["messages"][1] == {"role": "assistant", "content": "13"}
    assert lines[0]["scores"]["numeric"] == 1
    table = list(csv.DictReader(io.StringIO(files["CSV"], newline="")))
    assert [(row["id"], row["category"], row["numeric"]) for row in table][:1] == [("chat/13", "odd", "1")]


def test_large_runs_become_a_folder(open_page: Open, folder: Path) -> None:
    address = written(folder, "large.html", "first", largest_file=1000)
    assert address.endswith("/large/index.html")
    page = open_page(f"{address}#chat=chat%2F4")
    page.locator(".heading", has_text="Title").wait_for()
    page.fill("#query", "let me think")
    count(page, "1 of")


def test_an_old_browser_still_lists_chats(chromium: Any, one: str) -> None:
    page = chromium.new_context().new_page()
    page.add_init_script("delete globalThis.DecompressionStream")
    page.goto(one)
    page.locator("#notes", has_text="has no DecompressionStream").wait_for()
    assert page.locator(".rows .row[id]").count() > 10
    page.context.close()


def test_a_run_that_goes_on_is_followed(chromium: Any, tmp_path: Path) -> None:
    from http.server import HTTPServer
    from queue import Queue

    from batchchat.chats import Place
    from batchchat.recipe import load_recipe
    from batchchat.results.opening import RunResults
    from batchchat.store import RunDirectory, RunStore
    from batchchat.store.database import StoredRow, TurnRecord
    from batchchat.viewer.serve import _handler
    from tests.support.jobs import scripted_recipe

    recipe = load_recipe(scripted_recipe(tmp_path / "r.yaml", "in.jsonl"))
    directory = RunDirectory(tmp_path / "run")
    directory.path.mkdir()
    directory.recipe.write_text(recipe.dump_yaml(), encoding="utf-8")
    store = RunStore(directory.database)
    for n in range(3):
        row = {"id": f"c{n}", "messages": [{"role": "user", "content": f"ask {n}"}]}
        store.add_row(StoredRow(n, n, Place("in.jsonl", n + 1), f"c{n}", "messages", json.dumps(row), 1))
    store.commit()
    servers: Queue[HTTPServer] = Queue()

    def answer() -> None:  # a store belongs to the thread that opens it
        with open_results(directory.path) as run:
            assert isinstance(run, RunResults)
            with HTTPServer(("127.0.0.1", 0), _handler(LiveRun(run), "secret", lambda: server.server_port)) as server:
                servers.put(server)
                server.serve_forever(0.05)

    thread = threading.Thread(target=answer)
    thread.start()
    server = servers.get(timeout=60)
    try:
        page = chromium.new_context().new_page()
        refused = page.goto(f"http://127.0.0.1:{server.server_port}/guess/")
        assert refused.status == 404
        assert page.goto(f"http://localhost:{server.server_port}/secret/").status == 404
        page.goto(f"http://127.0.0.1:{server.server_port}/secret/")
        count(page, "3 of 3 chats, 3 not done yet")
        said = {"message": {"role": "assistant", "content": "told"}, "seed": 1, "raw": "told", "token_ids": [1]}
        store.add_turn(TurnRecord(1, 0, 0, 3, 1, "stop", 0.0, 0.0, 1.0, said))
        store.finish_row(1)
        store.commit()
        count(page, "3 of 3 chats, 2 not done yet")
        page.locator(".row", has_text="ask 1").click()
        page.locator(".bubble.assistant", has_text="told").wait_for()
        page.context.close()
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        store.close()


@pytest.mark.parametrize(("width", "scheme"), [(1300, "light"), (1300, "dark"), (400, "light")])
def test_no_barrier_is_found(open_page: Open, axe: str, two: str, one: str, width: int, scheme: str) -> None:
    for address in (
        one,
        f"{two}#show=changed",
        f"{one}#chat=chat%2F4",
        f"{two}#chat=chat%2F8&diff=true",
        f"{one}#chat=chat%2F3&view=tokens",
    ):
        page = open_page(address, width, scheme)
        count(page, "")
        if "chat=" in address:
            page.locator(".bubble.assistant").first.wait_for()
        else:
            page.keyboard.press("f")
        assert violations(page, axe) == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_screenshots_show_the_page(open_page: Open, one: str, two: str, tmp_path: Path) -> None:
    """They are the pictures of the documentation where SCREENSHOTS names a folder."""
    folder = Path(os.environ.get("SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    for name, address in (
        ("viewer", f"{one}#chat=chat%2F4"),
        ("compare", f"{two}#show=changed&chat=chat%2F8&diff=true"),
    ):
        page = open_page(address)
        page.locator(".bubble.assistant").first.wait_for()
        count(page, "")
        page.screenshot(path=folder / f"{name}.png")
        assert 20_000 < (folder / f"{name}.png").stat().st_size < 400_000
