"""Whatever was done in a chat, its export makes a run write the last answer again."""

from __future__ import annotations

import io
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from batchchat import load_recipe, run
from batchchat.errors import UsageError
from batchchat.interactive import files
from batchchat.interactive.opening import open_recipe
from batchchat.interactive.responder import Responder
from batchchat.interactive.session import ChatSession
from tests.support.jobs import read_jsonl, write_jsonl

COUNTING = ("scripted", "engine.kind=scripted", "engine.scripted.answer=counting")
"""Answers whose length is drawn by the request's seed, so that another seed, turn or id shows."""

LINES = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1).map(lambda text: f" {text}."),
    st.sampled_from(
        [
            "!undo",
            "!retry",
            "!clear",
            "!edit in other words",
            "!set seed=5",
            "!set seed=6 max_new_tokens=20",
            "!system Be kind.",
            "!system -",
            "!example sum",
            "",
            "!nothing",
        ]
    ),
)


def session_of(*arguments: str) -> ChatSession:
    recipe = open_recipe(arguments or COUNTING)
    responder = Responder(recipe)
    return ChatSession(recipe, lambda: responder, Console(file=io.StringIO(), width=500, highlight=False))


def shown(session: ChatSession) -> str:
    """What the session has printed since the last look."""
    stream = session.console.file
    assert isinstance(stream, io.StringIO)
    text = stream.getvalue()
    stream.seek(0)
    stream.truncate()
    return text


def run_again(recipe: Path, *overrides: str) -> dict[str, Any]:
    """The one output row of a recipe."""
    folder = tempfile.mkdtemp(dir=recipe.parent)
    result = run(load_recipe(recipe, [f"sink.directory={folder}/{{name}}", *overrides]))
    assert result.exit_code == 0
    (row,) = read_jsonl(result.directory / "outputs.jsonl")
    return row


@settings(max_examples=15, deadline=None)
@given(st.lists(LINES, min_size=1, max_size=9))
def test_every_export_reproduces(lines: list[str]) -> None:
    session = session_of()
    with tempfile.TemporaryDirectory() as name:
        for number, line in enumerate(lines):
            session.do(line)
            talk = session.conversation
            if talk.question is not None or not talk.messages or talk.messages[-1].role != "assistant":
                continue
            recipe = Path(name) / f"export-{number}.yaml"
            files.export(talk, str(recipe))
            row = run_again(recipe)
            assert [m["content"] for m in row["messages"]] == [m.content for m in talk.messages]
            origin = talk.origins[-1]
            assert origin is not None
            assert row["id"] == origin.id
            assert len(row["batchchat"]["turns"]) == len(row["answers"])


def test_the_row_alone_reproduces_under_another_recipe(tmp_path: Path) -> None:
    session = session_of(*COUNTING, "seed=7")
    for line in ("one", "two", "!retry", "three"):
        session.do(line)
    session.do(f"!export {tmp_path / 'row.jsonl'}")
    (row,) = read_jsonl(tmp_path / "row.jsonl")
    assert row["generation"]["seed"] == 7
    other = tmp_path / "other.yaml"
    engine = {"kind": "scripted", "scripted": {"answer": "counting"}}
    source = {"path": str(tmp_path / "row.jsonl")}
    other.write_text(json.dumps({"model": {"name": "scripted"}, "source": source, "engine": engine}))
    written = run_again(other)
    assert [m["content"] for m in written["messages"]] == [m.content for m in session.conversation.messages]


def test_retry_has_another_seed_and_a_setting_takes_effect_from_the_next_answer_on() -> None:
    session = session_of()
    session.do("count")
    first = session.conversation.messages[-1].content
    session.do("!retry")
    assert session.conversation.messages[-1].content != first
    assert len(session.conversation.messages) == 2
    session.do("!set max_new_tokens=6")
    session.do("again")
    assert len(session.conversation.messages[-1].content or "") <= 6
    assert "cut at max_new_tokens" in shown(session)


def test_two_sessions_answer_alike() -> None:
    one, two = session_of(), session_of()
    for session in (one, two):
        session.do("first")
        session.do("second")
    assert one.conversation.messages == two.conversation.messages


def test_saved_conversations_come_back(tmp_path: Path) -> None:
    session = session_of(*COUNTING, "chat.system=Be brief.")
    for line in ("one", "!set seed=3", "two", f"!save {tmp_path / 'talk.jsonl'}"):
        session.do(line)
    other = session_of()
    other.do(f"!load {tmp_path / 'talk.jsonl'}")
    assert other.conversation.messages == session.conversation.messages
    assert other.recipe.generation.seed == 3
    text = shown(other)
    assert "user: one" in text
    assert "system: Be brief." in text
    with pytest.raises(UsageError, match="came from a file"):
        files.export(other.conversation, str(tmp_path / "x.yaml"))
    other.do("three")
    session.do("three")
    other.do(f"!export {tmp_path / 'x.yaml'}")
    assert run_again(tmp_path / "x.yaml")["messages"][-1]["content"] == other.conversation.messages[-1].content


def test_loading_answers_the_turns_that_wait_as_a_run_would(tmp_path: Path) -> None:
    rows = [{"id": "a", "turns": ["x"]}, {"id": 17, "turns": ["one", "two", "three"], "generation": {"seed": 4}}]
    source = write_jsonl(tmp_path / "turns.jsonl", rows)
    session = session_of()
    session.do(f"!load {source}:2")
    recipe = tmp_path / "r.yaml"
    engine = {"kind": "scripted", "scripted": {"answer": "counting"}}
    recipe.write_text(json.dumps({"model": {"name": "scripted"}, "source": {"path": str(source)}, "engine": engine}))
    result = run(load_recipe(recipe, [f"sink.directory={tmp_path / 'out'}"]))
    _, row = read_jsonl(result.directory / "outputs.jsonl")
    assert [m["content"] for m in row["messages"]] == [m.content for m in session.conversation.messages]
    session.do("four")
    session.do(f"!export {tmp_path / 'x.yaml'}")
    again = run_again(tmp_path / "x.yaml")
    assert [m["content"] for m in again["messages"]] == [m.content for m in session.conversation.messages]


def test_real_rows_load(shared_data: Path) -> None:
    session = session_of("scripted", "engine.kind=scripted")
    for file in sorted((shared_data / "mt_bench").glob("question*.jsonl")):
        session.do(f"!load {file}:80")
        assert [m.role for m in session.conversation.messages] == ["user", "assistant"] * 2
    for file in sorted((shared_data / "sharegpt").glob("*.json*"))[:1]:
        session.do(f"!load {file}")
        assert len(session.conversation.messages) > 1, shown(session)


def test_a_tool_call_is_answered_by_its_result(tmp_path: Path) -> None:
    call = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}
    session = session_of()
    session.do("hello")
    session.do("!tool {}")
    assert "no tool was called" in shown(session)
    source = tmp_path / "calls.jsonl"
    messages = [
        {"role": "user", "content": "How warm is it?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": '{"celsius": 3}'},
    ]
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
    write_jsonl(source, [{"messages": messages, "tools": tools}])
    session.do(f"!load {source}")
    assert "weather" in shown(session)
    session.do("And tomorrow?")
    session.do(f"!export {tmp_path / 'x.yaml'}")
    row = run_again(tmp_path / "x.yaml")
    assert [m["content"] for m in row["messages"]] == [m.content for m in session.conversation.messages]
    assert row["tools"] == tools


@pytest.mark.parametrize("name", ["kept.jsonl", "kept.yaml"])
def test_no_file_is_overwritten(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    session = session_of()
    session.do("hello")
    for line in (f"!export {tmp_path / name}", f"!save {tmp_path / name}"):
        session.do(line)
        assert "exists already" in shown(session)
    assert (tmp_path / name).read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no rows"),
        ("{not json}\n", ":1: "),
        ('{"messages": []}\n', ":1: the chat has no turns"),
        ('{"x": 1}\n', ":1: "),
        ('{"messages": [{"role": "wizard", "content": "x"}]}\n', "'wizard'"),
        ('{"prompt": "x", "generation": {"temprature": 1}}\n', "generation.temperature"),
        ("\x00\x01\x02", ":1: "),
    ],
)
def test_broken_files_are_told_and_change_nothing(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "in.jsonl"
    file.write_text(text)
    session = session_of()
    session.do("hello")
    before = session.conversation.copy()
    shown(session)
    session.do(f"!load {file}")
    assert words in shown(session).replace("\n", " ").replace("  ", " ")
    assert session.conversation == before
    session.do(f"!load {file}:9")
    assert "has no row at line 9" in shown(session).replace("\n", " ")
    session.do(f"!load {tmp_path / 'missing.jsonl'}")
    assert shown(session)
    assert session.conversation == before
