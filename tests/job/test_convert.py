"""`convert`: there and back between all row formats and kinds of file, and a word on what does not fit."""

from __future__ import annotations

import json
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchchat.chats import Message, Place, SourceRow
from batchchat.chats.formats import ReadOptions
from batchchat.chats.formats.conversion import convertible, put_together, take_apart
from batchchat.chats.formats.options import Whole
from batchchat.errors import BadRow
from tests.support.jobs import Command, read_jsonl, write_jsonl

NAMES = convertible()
PLAIN = ReadOptions()

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
calls = st.builds(
    lambda name, at: {"id": "c", "type": "function", "function": {"name": name, "arguments": {"at": at}}},
    texts,
    st.integers(),
)
users = st.builds(Message, st.just("user"), texts, name=st.none() | texts)
tools = st.builds(Message, st.just("tool"), texts, tool_call_id=st.none() | texts)
said = st.builds(
    Message, st.just("assistant"), texts, reasoning=st.none() | texts, extra=st.just({}) | st.just({"x": 1})
)
called = st.builds(Message, st.just("assistant"), st.none() | texts, tool_calls=st.tuples(calls))
systems = st.builds(Message, st.sampled_from(["system", "developer"]), texts)
chats = st.tuples(
    st.lists(systems, max_size=1), st.lists(st.one_of(users, tools, said, called, systems), max_size=5), users
).map(lambda parts: (*parts[0], parts[2], *parts[1]))
plain_chats = st.tuples(st.booleans(), st.lists(texts, min_size=1, max_size=5)).map(
    lambda parts: (
        *([Message("system", "be kind")] if parts[0] else []),
        *(Message("assistant" if n % 2 else "user", text) for n, text in enumerate(parts[1])),
    )
)


def whole_of(name: str, row: dict[str, Any]) -> Whole:
    return take_apart(SourceRow(0, Place("f", 1), row, json.dumps(row)), name, PLAIN)


@given(chats | plain_chats, st.sampled_from(NAMES))
def test_a_format_holds_a_chat_or_says_what_it_does_not_hold(messages: tuple[Message, ...], name: str) -> None:
    columns = {"id": "a", "topic": "x", "score": 1.5}
    try:
        row, lost = put_together(Whole(messages, columns, id="a"), name)
    except BadRow as error:
        refusal = str(error)
        assert "place for" in refusal
        return
    json.dumps(row, allow_nan=False)
    back = whole_of(name, row)
    if not lost:
        assert (back.messages, back.columns) == (messages, columns)
    asked = [message.content for message in messages if message.role == "user"]
    assert [message.content for message in back.messages if message.role == "user"] == asked
    assert back.columns["topic"] == "x"


@given(plain_chats)
def test_questions_and_answers_go_there_and_back_over_every_pair(messages: tuple[Message, ...]) -> None:
    holding = [name for name in NAMES if name != "prompt"]  # which holds one question
    for first, second in permutations(holding, 2):
        start, lost = put_together(Whole(messages, {"id": "a", "topic": "x"}, id="a"), first)
        assert not lost
        there, lost = put_together(whole_of(first, start), second)
        assert not lost
        again, lost = put_together(whole_of(second, there), first)
        assert not lost
        assert again == start
        assert whole_of(first, again).messages == messages


def test_a_request_keeps_what_it_asks_for(tmp_path: Path, batchchat: Command) -> None:
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    body = {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "max_completion_tokens": 5,
        "logit_bias": {"15": -100},
        "response_format": {"type": "json_object"},
        "tools": [tool],
    }
    line = {"custom_id": "r1", "method": "POST", "url": "/v1/chat/completions", "body": body}
    source = write_jsonl(tmp_path / "in.jsonl", [line])
    assert batchchat("convert", source, tmp_path / "chats.jsonl", "--to", "messages").code == 0
    (chat,) = read_jsonl(tmp_path / "chats.jsonl")
    assert chat["id"] == "r1"
    assert chat["tools"] == [tool]
    assert chat["generation"] == {"max_new_tokens": 5}
    assert batchchat("convert", tmp_path / "chats.jsonl", tmp_path / "back.jsonl", "--to", "openai").code == 0
    assert read_jsonl(tmp_path / "back.jsonl") == [line]


def test_what_does_not_fit_is_said_and_rows_that_cannot_be_held_stand_apart(tmp_path: Path, batchchat: Command) -> None:
    rows = [
        {"id": "a", "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
        {"id": "b", "messages": [{"role": "user", "content": "q", "name": "ann"}]},
        {"id": "c", "messages": [{"role": "user", "content": "q"}, {"role": "tool", "content": "1"}]},
        '{"id": "d", "messages": 1.10}',
        "{no json",
    ]
    source = write_jsonl(tmp_path / "in.jsonl", rows)
    done = batchchat("convert", source, tmp_path / "out.jsonl", "--to", "alpaca")
    assert done.code == 3
    assert "not kept in 1 rows: the name of turns (first" in done.out
    assert "3 rows left out" in done.err
    assert [row["output"] for row in read_jsonl(tmp_path / "out.jsonl")] == ["a", ""]
    errors = read_jsonl(tmp_path / "out.errors.jsonl")
    assert [error["line"] for error in errors] == [3, 4, 5]
    assert "no place for a tool turn" in errors[0]["reason"]
    assert errors[0]["row"] == rows[2]
    assert '"messages": 1.10' in (tmp_path / "out.errors.jsonl").read_text()


ROWS = [
    '{"id": "a", "price": 1.10, "big": 123456789012345678901234567890, "messages": [{"role": "user", "content": "ü"}]}',
    '{"id": "b", "price": 2.5, "big": 1, "messages": [{"role": "user", "content": "x"}], "tags": ["p", null]}',
]


@pytest.mark.parametrize("kind", [".jsonl", ".json", ".parquet", ".csv", ".tsv", ".jsonl.gz", ".json.zst", ".csv.xz"])
def test_every_kind_of_file_goes_there_and_back(kind: str, tmp_path: Path, batchchat: Command) -> None:
    source, there, back = write_jsonl(tmp_path / "in.jsonl", ROWS), tmp_path / f"there{kind}", tmp_path / "back.jsonl"
    done = batchchat("convert", source, there)
    assert done.code == 0, done.err
    json_columns = ["source.csv.json_columns=[price, big, messages, tags]"] if kind[1:4] in ("csv", "tsv") else []
    if json_columns:
        assert json_columns[0] in done.out
    done = batchchat("convert", there, back, *json_columns)
    assert done.code == 0, done.err
    found = [{name: value for name, value in row.items() if value is not None} for row in read_jsonl(back)]
    assert found == [json.loads(row) for row in ROWS]
    if kind != ".parquet":
        assert '"price": 1.10, "big": 123456789012345678901234567890' in back.read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("in.jsonl", "out.xlsx"), "says no kind of file"),
        (("in.jsonl", "out.parquet.gz"), "says no kind of file"),
        (("in.jsonl", "out.jsonl", "--to", "messagse"), "choose one of: same, openai, messages"),
        (("in.jsonl", "in.jsonl"), "is the input itself"),
        (("nothing.jsonl", "out.jsonl"), "nothing.jsonl"),
        (("in.jsonl", "out.jsonl", "--from", "sharegtp"), "sharegpt"),
    ],
)
def test_what_cannot_be_used_is_said_and_nothing_is_written(
    arguments: tuple[str, ...], words: str, tmp_path: Path, batchchat: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_jsonl(tmp_path / "in.jsonl", ROWS)
    before = (tmp_path / "in.jsonl").read_bytes()
    done = batchchat("convert", *arguments)
    assert done.code == 2
    assert words in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]
    assert (tmp_path / "in.jsonl").read_bytes() == before


def test_real_data_goes_through_every_format_that_holds_it(
    tmp_path: Path, batchchat: Command, shared_data: Path
) -> None:
    source = shared_data / "tool_calls" / "glaive_toolcall_en_demo.json"
    assert batchchat("convert", source, tmp_path / "m.jsonl", "--to", "messages", "source.limit=50").code == 0
    assert batchchat("convert", tmp_path / "m.jsonl", tmp_path / "o.jsonl", "--to", "openai").code == 0
    assert batchchat("convert", tmp_path / "o.jsonl", tmp_path / "s.parquet", "--to", "sharegpt").code == 0
    assert batchchat("convert", tmp_path / "s.parquet", tmp_path / "m2.jsonl", "--to", "messages").code == 0
    first, last = read_jsonl(tmp_path / "m.jsonl"), read_jsonl(tmp_path / "m2.jsonl")
    assert len(first) == 50 == len(last)
    for one, other in zip(first, last, strict=True):
        assert [turn["content"] for turn in one["messages"]] == [turn["content"] for turn in other["messages"]]
