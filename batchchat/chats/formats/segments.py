"""Which turns of a conversation are written, and where the answers go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from batchchat.chats.formats.calls import call_text
from batchchat.chats.formats.columns import (
    drawn_system,
    read_id,
    read_reference,
    read_settings,
    read_tools_column,
    system_turn,
)
from batchchat.chats.formats.options import ReadOptions
from batchchat.chats.types import Chat, Message, SourceRow
from batchchat.errors import BadRow

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Split:
    """Answer `k` goes before message `cuts[k]`. `replaced[i] = k`: message `i` is dropped, it stood where answer `k`
    goes. With `prefill` the last answer continues the last message."""

    cuts: tuple[int, ...]
    replaced: Mapping[int, int]
    prefill: bool = False


def split(messages: Sequence[Message], options: ReadOptions) -> Split:
    """Decide what is written, by `options.turns`.

    * `last`: one answer, to the whole conversation.
    * `scripted`: one answer to each user turn that no assistant turn follows, and one to tool results at the end.
      It goes right behind the user turn (and tool results behind it), but behind everything at the end.
    * `regenerate`: assistant turns are dropped, each run of user and tool turns before one is answered, and so is each
      user turn that had no answer. Assistant turns before the first user turn answer nothing and stay.

    System turns are passed over. Raises BadRow where nothing is to be answered.
    """
    roles = [message.role for message in messages]
    if not roles:
        raise BadRow("the chat has no turns")
    if "user" not in roles:
        raise BadRow(f"the chat has no user turn, only {', '.join(dict.fromkeys(roles))}")
    cuts: list[int] = []
    replaced: dict[int, int] = {}
    unanswered: int | None = None  # where the answer to the last user turn goes, while it has none
    asked = False  # a user or tool turn came after the last assistant turn
    seen_user = False
    for place, role in enumerate(roles):
        if role == "user":
            if unanswered is not None and options.turns != "last":
                cuts.append(unanswered)
            unanswered, asked, seen_user = place + 1, True, True
        elif role == "tool":
            unanswered, asked = None if unanswered is None else place + 1, True
        elif role == "assistant":
            if options.turns == "regenerate" and seen_user:
                if asked:
                    cuts.append(place)
                replaced[place] = len(cuts) - 1
            unanswered, asked = None, False
    if asked:
        return Split((*cuts, len(roles)), replaced)
    if options.prefill and roles[-1] == "assistant" and options.turns != "regenerate":
        if messages[-1].tool_calls:
            raise BadRow("the chat ends in a tool call, which cannot be continued: add the tool's result")
        return Split((*cuts, len(roles)), replaced, prefill=True)
    if not cuts:
        raise BadRow(
            "the chat ends in an assistant turn, so nothing is left to answer: "
            "set chat.prefill=true to continue it or chat.turns=regenerate to answer anew"
        )
    return Split(tuple(cuts), replaced)


def weave(entries: Sequence[T], where: Split, answers: Sequence[Sequence[T]]) -> list[T]:
    """`entries` without the replaced ones, with the entries of answer `k` at its place."""
    woven: list[T] = []
    start = 0
    for cut, answer in zip(where.cuts, answers, strict=True):
        woven.extend(entries[place] for place in range(start, cut) if place not in where.replaced)
        woven.extend(answer)
        start = cut
    woven.extend(entries[place] for place in range(start, len(entries)) if place not in where.replaced)
    return woven


def build_chat(
    row: SourceRow,
    index: int,
    options: ReadOptions,
    messages: Sequence[Message],
    found: Split | None = None,
    **parts: Any,
) -> Chat:
    """The chat of a conversation: split into segments, with the row's system turn, tools, settings and reference.

    `found` says which turns are written, where `split` does not; `parts` are fields of the chat that the format knows
    better than the common columns do.
    """
    found = found or split(messages, options)
    segments: list[tuple[Message, ...]] = []
    start = 0
    for cut in found.cuts:
        segments.append(tuple(messages[place] for place in range(start, cut) if place not in found.replaced))
        start = cut
    tail = tuple(messages[place] for place in range(start, len(messages)) if place not in found.replaced)
    if tail and options.simulated:
        raise BadRow(
            "turns of the chat stand behind the last answer, so a simulated user cannot go on there: "
            "set chat.turns=last or regenerate"
        )
    system = system_turn(row.data, options, messages) or drawn_system(row.number, options, messages)
    if system is not None:
        segments[0] = (system, *segments[0])
    parts.setdefault("id", read_id(row.data, row.number, options))
    parts.setdefault("references", _references(messages, found))
    for name, read in (("tools", read_tools_column), ("reference", read_reference)):
        if name not in parts:
            parts[name] = read(row.data, options)
    if not parts["tools"]:
        parts["tools"] = options.offered or None
    if "settings" not in parts:
        parts["settings"] = read_settings(row.data)
    return Chat(
        index=index,
        place=row.place,
        segments=tuple(segments),
        tail=tail,
        prefill=found.prefill,
        simulated=options.simulated,
        runs_tools=options.runs_tools,
        **parts,
    )


def conversation(chat: Chat, answers: Sequence[Message]) -> list[Message]:
    """The whole conversation with its answers in place; a prefilled turn and its continuation are one turn."""
    messages: list[Message] = []
    for segment, answer in zip(chat.segments, answers, strict=True):
        messages.extend(segment)
        messages.append(answer)
    if chat.prefill:
        answer, start = messages.pop(), messages.pop()
        messages.append(joined(start, answer))
    messages.extend(chat.tail)
    return messages


def joined(start: Message, answer: Message) -> Message:
    """An assistant turn and its continuation as one turn."""
    return Message(
        "assistant",
        (start.content or "") + (answer.content or ""),
        reasoning=answer.reasoning if start.reasoning is None else start.reasoning + (answer.reasoning or ""),
        tool_calls=answer.tool_calls,
        name=start.name,
        extra=start.extra,
    )


def answer_text(message: Message) -> str:
    """An answer as one text, for formats that have room for no more: its content, then its tool calls as JSON."""
    parts = [message.content] if message.content else []
    if message.tool_calls:
        parts.append(call_text(message.tool_calls))
    return "\n".join(parts)


def _references(messages: Sequence[Message], found: Split) -> tuple[str | None, ...]:
    """Per answer the text of the assistant turns that stood there (usually one), None where there was none."""
    texts: list[list[str]] = [[] for _ in found.cuts]
    for place, turn in found.replaced.items():
        texts[turn].append(answer_text(messages[place]))
    return tuple("\n".join(found_here) if found_here else None for found_here in texts)
