"""What a chat template shows of the first chats otherwise than one would think: turns to be continued, calls, tools."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from batchchat.chats import Chat, Message
from batchchat.errors import BadRow
from batchchat.prompts.codec import TokenizerCodec
from batchchat.prompts.findings import Finding

_PROBE = "batchchat_probe"


def continued_turns(codec: TokenizerCodec, chats: Sequence[Chat]) -> Iterator[Finding]:
    """Of the first turn of its kind: special tokens in it, and what the template writes before it and not before an
    answer that the model begins itself (a closed reasoning, say)."""
    opened = [chat for chat in chats if chat.prefill and chat.num_turns == 1 and chat.segments[0][-1].content]
    for chat in opened:
        token = codec.special_in(chat.segments[0][-1].content or "")
        if token is not None:
            yield Finding(
                "warning",
                f"the turn to be continued in {chat.place} holds {token!r}, which stays text: a message cannot write "
                "special tokens, so the model sees other tokens than its own",
                "leave it out of the turn",
            )
            break
    for chat in opened:
        before = _before_continuation(codec, chat)
        if before is not None:
            written, usual = before
            yield Finding(
                "warning",
                f"before the turn to be continued in {chat.place} the template writes {written!r}, but {usual!r} "
                "before an answer that the model begins itself, so it may answer otherwise (without reasoning, say)",
                "compare with chat.prefill=false, or give another template with chat.template=FILE",
            )
            break


def left_out(codec: TokenizerCodec, chats: Sequence[Chat]) -> Iterator[Finding]:
    """Earlier tool calls, and tools, of which the template writes nothing."""
    advice = "give a template that writes them with chat.template=FILE"
    for chat in chats:
        if any(message.tool_calls for message in chat.segments[0]):
            probes = tuple(replace(message, tool_calls=_probes(message)) for message in chat.segments[0])
            if _leaves_out(codec, probes, chat.tools):
                what = f"the template leaves out the tool calls of earlier turns, as in {chat.place}"
                yield Finding("warning", what, advice)
            break
    for chat in chats:
        if chat.tools:
            tool = {"type": "function", "function": {"name": _PROBE, "description": _PROBE, "parameters": {}}}
            if _leaves_out(codec, chat.segments[0], [tool]):
                yield Finding(
                    "warning", f"the template leaves out the tools that chats offer, as in {chat.place}", advice
                )
            break


def _before_continuation(codec: TokenizerCodec, chat: Chat) -> tuple[str, str] | None:
    """What stands between the chat and its last turn, and what would stand there before an answer; None where that is
    the same or cannot be told."""
    *earlier, last = chat.segments[0]
    opening = (last.content or "").strip()
    try:
        continued = codec.render_text((*earlier, last), chat.tools, prefill=True)
        asked = codec.render_text(earlier, chat.tools)
    except BadRow:
        return None
    place = continued.rfind(opening)
    if place < 0 or continued[:place] == asked:
        return None
    same = next((n for n, (a, b) in enumerate(zip(continued[:place], asked, strict=False)) if a != b), None)
    same = min(place, len(asked)) if same is None else same
    return continued[same:place], asked[same:]


def _probes(message: Message) -> tuple[Mapping[str, Any], ...]:
    return tuple({**call, "function": {**call["function"], "name": _PROBE}} for call in message.tool_calls)


def _leaves_out(codec: TokenizerCodec, messages: Sequence[Message], tools: Any) -> bool:
    try:
        return _PROBE not in codec.render_text(messages, tools)
    except BadRow:  # the row's own error, if the chat itself is refused as well
        return False
