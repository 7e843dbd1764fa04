"""A chat while it is written: whose turn it is, and what becomes of it in its row."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from batchchat.chats import Chat, Message, Place
from batchchat.chats.conversation import Conversation, answers_in_place

HELLO = (Message("user", "hello"),)


def chat(num_scripted: int, simulated: int) -> Chat:
    segments = tuple((Message("user", f"question {n}"),) for n in range(num_scripted)) or ((Message("system", "s"),),)
    return Chat("a", 0, Place("f", 1), segments, simulated=simulated)


def record(role: str, text: str, **more: Any) -> dict[str, Any]:
    return {"message": {"role": role, "content": text}, **more}


@given(
    num_scripted=st.integers(0, 4),
    cap=st.integers(1, 5),
    faults=st.lists(st.booleans(), max_size=12),
    stop_after=st.integers(0, 12),
)
def test_turns_alternate_and_a_resumed_chat_is_the_same(
    num_scripted: int, cap: int, faults: list[bool], stop_after: int
) -> None:
    told, written = Conversation(chat(num_scripted, cap)), []
    while (writer := told.writer) is not None:
        turn: dict[str, Any] = record(writer, f"{writer} {len(written)}")
        if writer == "user" and faults and faults.pop():
            turn["fault"] = "empty"
        elif writer == "user" and len(written) >= stop_after:
            turn["ends"] = "stop_mark"
        written.append(turn)
        told.add(turn)
        again = Conversation(told.chat, written)
        assert (again.writer, again.messages, again.ended) == (told.writer, told.messages, told.ended)
        assert len(written) < 60
    roles = [message.role for message in told.messages if message.role != "system"]
    assert roles == ["user", "assistant"] * len(told.answers), "it ends in an answer"
    assert len(told.answers) <= max(cap, num_scripted)
    assert told.is_complete == bool(told.answers)
    if told.ended == "turn_cap":
        assert len(told.answers) == max(cap, num_scripted)
    if told.answers:
        whole = told.as_chat()
        places = answers_in_place(whole, told.answers)
        assert len(places) == max(1, num_scripted)
        assert sum(len([m for m in place if m.role == "assistant"]) for place in places) == len(told.answers)


@given(num_scripted=st.integers(1, 5), tries=st.integers(0, 5))
def test_without_a_simulated_user_a_chat_is_what_it_came_as(num_scripted: int, tries: int) -> None:
    plain = chat(num_scripted, 0)
    told = Conversation(plain)
    for number in range(min(tries, num_scripted)):
        assert told.writer == "assistant"
        told.add(record("assistant", str(number)))
    assert told.as_chat() is plain
    assert (told.writer is None) == (tries >= num_scripted) == told.is_complete
    assert told.messages[: 2 * tries : 2] == tuple(segment[0] for segment in plain.segments[:tries])
