"""Answers that come in pieces: what a chat shows while a server writes, and what becomes of it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchchat.chats import Message
from batchchat.engines.endpoint.stream import Pieces
from batchchat.errors import BadRow
from batchchat.interactive.conversation import Conversation, Provenance
from batchchat.interactive.opening import open_recipe
from batchchat.interactive.responder import Responder
from batchchat.prompts import ParsedAnswer
from tests.support.chat_server import Asked, ChatServer, Said, as_json, completion, fault

TEXTS = ["Once ", "upon ", "a ", "time"]


def event(value: Any) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return event({"id": "c", "object": "chat.completion.chunk", "model": "served", "choices": [choice]})


USAGE = event({"id": "c", "model": "served", "choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 4}})
DONE = b"data: [DONE]\n\n"


def said(parts: Iterable[bytes], **more: Any) -> Said:
    return Said(200, {"content-type": "text/event-stream; charset=utf-8"}, b"".join(parts), **more)


def story(*ends: bytes) -> list[bytes]:
    return [b": hello\n\n", chunk({"role": "assistant"}), *(chunk({"content": text}) for text in TEXTS), *ends]


def ask(server: ChatServer, **settings: Any) -> tuple[Responder, Conversation, Provenance]:
    flags = [f"engine.endpoint.{name}={value}" for name, value in {"url": server.url, "retries": 1, **settings}.items()]
    recipe = open_recipe(["served", "engine.kind=endpoint", *flags])
    talk = Conversation()
    talk.messages.append(Message("user", "Tell me a story."))
    return Responder(recipe), talk, Provenance("chat-1", 0, recipe)


def test_an_answer_is_shown_while_it_is_written() -> None:
    parts = story(chunk({}, "stop"), USAGE, DONE)
    begin = len(b"".join(parts[:4])) + 100  # behind the head and two texts

    async def answer(asked: Asked) -> Said:
        return said(parts, pause_after=begin, pause=0.4)

    shown: list[str] = []
    with ChatServer(answer) as server:
        responder, talk, origin = ask(server)
        reply = responder.answer(talk, origin, lambda seen: shown.append(seen.message.content or ""))
    (asked,) = server.asked
    assert asked.body["stream"] is True
    assert asked.body["stream_options"] == {"include_usage": True}
    assert reply.message.content == "Once upon a time"
    assert (reply.num_tokens, reply.finish_reason, reply.stopped) == (4, "stop", False)
    assert shown
    assert "Once upon a time".startswith(shown[0])
    assert len(shown[0]) < len("Once upon a time")


def test_an_answer_that_is_stopped_keeps_what_was_said() -> None:
    parts = story(chunk({}, "stop"), DONE)

    async def answer(asked: Asked) -> Said:
        return said(parts, pause_after=len(b"".join(parts[:4])) + 100, pause=20.0)

    with ChatServer(answer) as server:
        responder, talk, origin = ask(server)

        began = time.monotonic()
        reply = responder.answer(talk, origin, stop_at_once(responder))
        assert time.monotonic() - began < 10
    assert reply.stopped
    assert reply.num_tokens is None
    assert (reply.message.content or "").startswith("Once ")


def stop_at_once(responder: Responder) -> Any:
    def watch(seen: ParsedAnswer) -> None:
        responder.stop()
        responder.stop()  # the second time raises

    return watch


@pytest.mark.parametrize("ends", [(), (chunk({"content": "x"}),)])
def test_an_answer_that_breaks_off_is_asked_for_again(ends: tuple[bytes, ...]) -> None:
    async def answer(asked: Asked) -> Said:
        return said(story(*ends)) if asked.number == 0 else said(story(chunk({}, "stop"), USAGE, DONE))

    with ChatServer(answer) as server:
        responder, talk, origin = ask(server)
        assert responder.answer(talk, origin).message.content == "Once upon a time"
    assert len(server.asked) == 2


def test_a_server_that_does_not_stream_is_read_as_it_answers() -> None:
    async def answer(asked: Asked) -> Said:
        return as_json(completion("all at once"))

    with ChatServer(answer) as server:
        responder, talk, origin = ask(server, omit="[stream_options]")
        reply = responder.answer(talk, origin)
    assert (reply.message.content, reply.num_tokens) == ("all at once", 3)
    assert "stream_options" not in server.asked[0].body


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (fault(400, "too long for me"), "too long for me"),
        (said([*story(), event({"error": {"message": "out of tokens"}})]), "out of tokens"),
    ],
)
def test_an_error_is_told(answer: Said, says: str) -> None:
    async def give(asked: Asked) -> Said:
        return answer

    with ChatServer(give) as server:
        responder, talk, origin = ask(server)
        with pytest.raises(BadRow, match=says):
            responder.answer(talk, origin)


@given(
    st.lists(st.text(max_size=5), max_size=6),
    st.lists(st.text(max_size=5), max_size=4),
    st.lists(st.text(max_size=6), min_size=1, max_size=5),
)
def test_pieces_come_to_the_whole(texts: list[str], thoughts: list[str], arguments: list[str]) -> None:
    pieces = Pieces()
    call = {"index": 0, "id": "c1", "function": {"name": "look", "arguments": ""}}
    lines = [
        *(chunk({"reasoning_content": text}) for text in thoughts),
        *(chunk({"content": text}) for text in texts),
        chunk({"tool_calls": [call]}),
        *(chunk({"tool_calls": [{"index": 0, "function": {"arguments": text}}]}) for text in arguments),
        chunk({}, "tool_calls"),
        b"data: no JSON\n",
        b"data: [1]\n",
        USAGE,
    ]
    grown = [pieces.take(line) for line in lines]
    assert sum(grown) == sum(map(bool, [*texts, *thoughts]))
    assert pieces.is_whole
    body = json.loads(pieces.body())
    (choice,) = body["choices"]
    message = choice["message"]
    assert (message["content"] or "") == "".join(texts)
    assert message.get("reasoning_content", "") == "".join(thoughts)
    assert message["tool_calls"][0]["function"] == {"name": "look", "arguments": "".join(arguments)}
    assert choice["finish_reason"] == "tool_calls"
    assert body["usage"]["completion_tokens"] == 4
    assert pieces.message(lambda text: text).content == "".join(texts)


def test_a_key_that_a_server_repeats_in_pieces_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    key = "sk-0123456789abcdef"
    monkeypatch.setenv("MY_KEY", key)
    parts = [chunk({"content": text}) for text in ("your key is ", key[:9], key[9:], ".")]

    async def answer(asked: Asked) -> Said:
        return said([*parts, chunk({}, "stop"), USAGE, DONE])

    shown: list[str] = []
    with ChatServer(answer) as server:
        responder, talk, origin = ask(server, api_key_env="MY_KEY")
        reply = responder.answer(talk, origin, lambda seen: shown.append(seen.message.content or ""))
    assert reply.message.content == "your key is ***."
    assert not any(key in text for text in shown)
