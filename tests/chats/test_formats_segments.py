"""Which turns are written and where the answers go, for every format that keeps a list of turns."""

from __future__ import annotations

import copy
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchchat.chats import Chat, Message, Place, SourceRow
from batchchat.chats.formats import FORMATS, ReadOptions, detect_format
from batchchat.chats.formats.options import Turns
from batchchat.chats.formats.segments import conversation
from batchchat.errors import BadRow

LETTERS = {"s": "system", "u": "user", "a": "assistant", "t": "tool"}
SHAREGPT = {"system": "system", "user": "human", "assistant": "gpt", "tool": "observation"}


def row(data: dict[str, Any]) -> SourceRow:
    return SourceRow(0, Place("rows.jsonl", 1), data)


def entries(letters: str) -> list[dict[str, Any]]:
    """Turns with their places as texts: "us" is a user turn "0" and a system turn "1"."""
    return [{"role": LETTERS[letter], "content": str(place)} for place, letter in enumerate(letters)]


def read(letters: str, turns: Turns = "scripted", prefill: bool = False) -> Chat:
    return FORMATS["messages"].read(row({"messages": entries(letters)}), 0, ReadOptions(turns, prefill))


def places(messages: tuple[Message, ...]) -> str:
    return "".join(message.content or "" for message in messages)


@pytest.mark.parametrize(
    ("turns", "letters", "segments", "tail"),
    [
        ("scripted", "u", ["0"], ""),
        ("scripted", "suu", ["01", "2"], ""),
        ("scripted", "uau", ["012"], ""),
        ("scripted", "uuau", ["0", "123"], ""),
        ("scripted", "uua", ["0"], "12"),
        ("scripted", "uat", ["012"], ""),
        ("scripted", "uatu", ["0123"], ""),
        ("scripted", "utu", ["01", "2"], ""),
        ("scripted", "usu", ["0", "12"], ""),
        ("scripted", "us", ["01"], ""),
        ("scripted", "usa" + "u", ["0123"], ""),
        ("last", "uu", ["01"], ""),
        ("last", "suaus", ["01234"], ""),
        ("last", "uat", ["012"], ""),
        ("regenerate", "uaua", ["0", "2"], ""),
        ("regenerate", "suau", ["01", "3"], ""),
        ("regenerate", "uata", ["0", "2"], ""),
        ("regenerate", "uatua", ["0", "23"], ""),
        ("regenerate", "uuaa", ["0", "1"], ""),
        ("regenerate", "aua", ["01"], ""),
        ("regenerate", "uas", ["0"], "2"),
        ("regenerate", "uasau", ["0", "24"], ""),
    ],
)
def test_segments(turns: Turns, letters: str, segments: list[str], tail: str) -> None:
    chat = read(letters, turns)
    assert [places(segment) for segment in chat.segments] == segments
    assert places(chat.tail) == tail
    assert len(chat.references) == chat.num_turns


def test_regenerate_keeps_what_stood_there() -> None:
    assert read("uauuaa", "regenerate").references == ("1", None, "4\n5")
    assert read("uau").references == (None,)


@pytest.mark.parametrize("turns", ["scripted", "last"])
def test_prefill_continues_the_last_turn(turns: Turns) -> None:
    chat = read("uaua", turns, prefill=True)
    assert chat.prefill
    assert [places(segment) for segment in chat.segments] == ["0123"]
    assert not read("uau", turns, prefill=True).prefill


def test_prefill_after_scripted_turns() -> None:
    chat = read("uua", prefill=True)
    assert [places(segment) for segment in chat.segments] == ["0", "12"]
    assert chat.prefill


@pytest.mark.parametrize(
    ("letters", "turns", "prefill", "says"),
    [
        ("", "scripted", False, "has no turns"),
        ("s", "scripted", False, "no user turn, only system"),
        ("sa", "regenerate", False, "no user turn, only system, assistant"),
        ("ua", "scripted", False, "chat.prefill=true to continue it or chat.turns=regenerate"),
        ("uua", "last", False, "ends in an assistant turn"),
        ("uas", "last", True, "ends in an assistant turn"),
    ],
)
def test_nothing_to_answer(letters: str, turns: Turns, prefill: bool, says: str) -> None:
    with pytest.raises(BadRow, match=says):
        read(letters, turns, prefill)


def test_a_tool_call_is_not_continued() -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"name": "f", "arguments": {}}]}
    with pytest.raises(BadRow, match="cannot be continued"):
        FORMATS["messages"].read(row({"messages": [*entries("u"), call]}), 0, ReadOptions(prefill=True))


def test_the_advice_of_the_error_works() -> None:
    assert read("ua", prefill=True).num_turns == 1
    assert read("ua", "regenerate").num_turns == 1


def in_format(name: str, letters: str) -> dict[str, Any]:
    turns = entries(letters)
    match name:
        case "sharegpt":
            return {"conversations": [{"from": SHAREGPT[t["role"]], "value": t["content"], "n": 1} for t in turns]}
        case "parts":
            return {"messages": [{**t, "content": [{"type": "text", "value": t["content"]}]} for t in turns]}
    return {"messages": turns}


@settings(deadline=None)
@given(
    name=st.sampled_from(["messages", "parts", "sharegpt"]),
    letters=st.text("suuaat", min_size=1, max_size=10),
    turns=st.sampled_from(get_args(Turns)),
    prefill=st.booleans(),
    system=st.none() | st.just("be kind"),
    others=st.dictionaries(st.sampled_from(["id", "x", "y"]), st.integers(), max_size=3),
)
def test_answers_stand_where_they_were_asked_for(
    name: str, letters: str, turns: Turns, prefill: bool, system: str | None, others: dict[str, Any]
) -> None:
    """The row comes back with one answer more per turn, each behind exactly what the model was shown for it."""
    data = {**others, **in_format(name, letters), "last": [None]}
    before = copy.deepcopy(data)
    options = ReadOptions(turns, prefill, system)
    format_ = FORMATS[detect_format(data)]
    try:
        chat = format_.read(row(data), 0, options)
    except BadRow:
        return
    answers = [Message("assistant", f"<{turn}>") for turn in range(chat.num_turns)]
    written = format_.write(data, chat, answers, options)
    assert data == before, "the input row is left as it is"
    assert list(written) == list(data)
    column = "conversations" if name == "sharegpt" else "messages"
    assert {**written, column: None} == {**data, column: None}

    kept = [entry for entry in written[column] if "<" not in str(entry)]
    dropped = [entry for entry in data[column] if entry not in kept]
    assert kept == [entry for entry in data[column] if entry in kept]
    if turns != "regenerate":
        assert len(dropped) == chat.prefill
        assert len(written[column]) == len(data[column]) + chat.num_turns - chat.prefill

    # Read back, the output is the conversation as the model saw it, but for a system turn that the recipe added.
    shown = conversation(chat, answers)
    if len(shown) > len(written[column]):
        assert shown[0] == Message("system", "be kind")
        shown = shown[1:]
    again = format_.read(row({column: [*written[column], *in_format(name, "u")[column]]}), 0, ReadOptions("last"))
    assert [(m.role, m.content) for m in again.segments[0][:-1]] == [(m.role, m.content) for m in shown]
