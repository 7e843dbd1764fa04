"""The viewer's page without a browser: what it holds, what it forbids, and how runs are aligned."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from batchchat.results import open_results
from batchchat.viewer.aligned import align
from batchchat.viewer.head import short_names
from batchchat.viewer.page import MODULES, asset, program
from batchchat.viewer.table import PREVIEW, preview
from tests.support.finished import write_chats
from tests.support.jobs import Command, scripted_recipe, write_jsonl


@pytest.fixture
def page(tmp_path: Path, batchchat: Command) -> str:
    file = write_chats(tmp_path / "chats.jsonl")
    ended = batchchat("view", file, "--no-open")
    assert ended.code == 0, ended.err
    assert ended.out.strip() == str(tmp_path / "chats-view.html")
    return (tmp_path / "chats-view.html").read_text(encoding="utf-8")


def held(page: str, name: str) -> list[Any]:
    """What a page holds compressed, in order."""
    found = re.findall(rf'<script type="text/plain" id="{name}-\d+">([^<]*)</script>', page)
    return [json.loads(gzip.decompress(base64.b64decode(text))) for text in found]


def test_only_the_one_script_may_run(page: str) -> None:
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert scripts == [program()]
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in policy[1]
    assert policy[1].startswith("default-src 'none';")
    assert "unsafe" not in policy[1]
    assert not re.search(
        r"\s(src|href|on\w+|style)=", re.sub(r"<(script|style).*?</\1>|href=\"#table\"", "", page, flags=re.DOTALL)
    )
    assert "innerHTML" not in program()
    assert "window.ran" not in re.sub(r'<script type="text/plain".*?</script>', "", page).split("<script>")[1]


def test_every_chat_is_in_the_page_once(page: str) -> None:
    head = json.loads(re.search(r'id="head">(.*?)</script>', page, re.DOTALL)[1])  # type: ignore[index]
    listed = head["first"]["id"] + [one for block in held(page, "block") for one in block["id"]]
    assert len(listed) == len(set(listed)) == head["count"] == 67
    bodies = [body for chunk in held(page, "chunk") for body in chunk]
    assert len(bodies) == 67
    assert len(held(page, "chunk")) == head["chunks"] > 1
    assert bodies[0]["segments"][0][0]["content"] == "Question 1: say **1**"
    assert bodies[0]["runs"][0]["answers"][0]["reasoning_content"] == "Let me think about one."


def test_the_same_run_gives_the_same_page(page: str, tmp_path: Path, batchchat: Command) -> None:
    assert batchchat("view", tmp_path / "chats.jsonl", "--output", tmp_path / "again.html", "--no-open").code == 0
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == page


def test_modules_share_no_names_and_come_after_what_they_import() -> None:
    names: dict[str, str] = {}
    for place, module in enumerate(MODULES):
        text = asset(f"{module}.js")
        for name in re.findall(r"^(?:export )?(?:async )?(?:function\*?|const|class|let) (\w+)", text, re.MULTILINE):
            assert name not in names, f"{name} is in {module}.js and in {names[name]}.js: they become one script"
            names[name] = module
        imported = re.findall(r'^import \{([^}]*)\} from "\./(\w+)\.js";$', text, re.MULTILINE)
        assert len(imported) == len(re.findall(r"^import ", text, re.MULTILINE))
        for listed, source in imported:
            assert source in MODULES[:place], f"{module}.js imports {source}.js, which comes later"
            for name in listed.split(","):
                assert names[name.strip()] == source
    assert not re.search(r"^(import|export) ", program(), re.MULTILINE)


def test_runs_over_different_inputs_stand_side_by_side_where_they_can(tmp_path: Path) -> None:
    def chat(name: str, said: str, asked: str = "?") -> dict[str, Any]:
        turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]
        return {"id": name, "messages": turns}

    one = write_jsonl(tmp_path / "one.jsonl", [chat("a", "1"), chat("b", "1"), chat("c", "1", "other")])
    two = write_jsonl(tmp_path / "two.jsonl", [chat("d", "2"), chat("c", "2"), chat("a", "2")])
    with open_results(one) as first, open_results(two) as second:
        found = [tuple(sample and sample.id for sample in aligned) for aligned in align([first, second])]
    assert found == [("a", "a"), ("b", None), ("c", "c"), (None, "d")]


def test_judges_replies_stand_beside_what_they_grade(tmp_path: Path, batchchat: Command) -> None:
    rows = [{"id": f"c/{n}", "messages": [{"role": "user", "content": f"{n}"}]} for n in range(3)]
    judge = {
        "model": {"name": "scripted"},
        "engine": {"kind": "scripted", "scripted": {"answer": "text", "text": "Fair. [[7]]"}},
    }
    recipe = scripted_recipe(tmp_path / "r.yaml", write_jsonl(tmp_path / "in.jsonl", rows), judges={"quality": judge})
    assert batchchat("run", recipe).code == 0
    run = tmp_path / "runs/test"
    ended = batchchat("view", run, "--no-open")
    assert ended.code == 0, ended.err
    bodies = [body for chunk in held((run / "view.html").read_text(encoding="utf-8"), "chunk") for body in chunk]
    assert [body["runs"][0]["scores"][0]["judge"] for body in bodies] == [["Fair. [[7]]"]] * 3


def test_a_run_of_another_version_is_shown_without_its_report(tmp_path: Path, batchchat: Command) -> None:
    rows = [{"id": "c", "messages": [{"role": "user", "content": "hello"}]}]
    recipe = scripted_recipe(tmp_path / "r.yaml", write_jsonl(tmp_path / "in.jsonl", rows), scoring=["length"])
    assert batchchat("run", recipe).code == 0
    run = tmp_path / "runs/test"
    (run / "report.json").write_text('{"batchchat": "0.0.1"}', encoding="utf-8")
    ended = batchchat("view", run, "--no-open")
    assert ended.code == 0, ended.err
    page = (run / "view.html").read_text(encoding="utf-8")
    assert "another version of batchchat may have written it" in page
    assert held(page, "chunk")[0][0]["runs"][0]["answers"][0]["content"] == "hello"


def test_what_cannot_be_viewed_is_said(tmp_path: Path, batchchat: Command) -> None:
    ended = batchchat("view", tmp_path / "nowhere", "--no-open")
    assert (ended.code, "there is no run directory" in ended.err) == (2, True)
    (tmp_path / "empty").mkdir()
    assert "is no run directory" in batchchat("view", tmp_path / "empty").err
    file = write_chats(tmp_path / "chats.jsonl")
    assert "--serve shows one run directory" in batchchat("view", file, "--serve").err


@pytest.mark.parametrize(
    ("text", "shown"),
    [("a\n b\t c ", "a b c"), ("x" * 200, "x" * PREVIEW + "…"), ("", ""), (" " * 10_000 + "end", "…")],
)
def test_previews_are_one_short_line(text: str, shown: str) -> None:
    assert preview(text) == shown


def test_names_of_runs_are_as_short_as_they_can_be() -> None:
    assert short_names(["runs/a", "runs/b/"]) == ["a", "b"]
    assert short_names(["one/run", "two/run"]) == ["one/run", "two/run"]
    assert short_names(["runs/a", "runs/a"]) == ["a", "a (2)"]
