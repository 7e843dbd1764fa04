"""What happens to a chat whose prompt and answer together are longer than the model's context."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from batchchat.chats import Message, Settings
from batchchat.errors import BadRow

Policy = Literal["error", "drop_oldest_turns", "truncate_left", "reduce_generation"]


_SYSTEM = ("system", "developer")


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt that fits. `messages` are those rendered in it; `cut` counts what was taken away: `messages` (dropped
    from the chat's beginning), `prompt_tokens` (cut from the prompt's left), `new_tokens` (fewer to be generated)."""

    ids: tuple[int, ...]
    messages: tuple[Message, ...]
    max_new_tokens: int
    cut: Mapping[str, int] = field(default_factory=dict)


class Renders(Protocol):
    """What makes prompts of messages: a codec, or what asks for a user's turn."""

    def render(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] | None = None, *, prefill: bool = False
    ) -> tuple[int, ...]: ...

    def pieces(self, ids: Sequence[int]) -> list[tuple[str, bool]]: ...


def fit(
    codec: Renders,
    messages: Sequence[Message],
    tools: Sequence[Mapping[str, Any]] | None,
    settings: Settings,
    policy: Policy,
    context_length: int | None,
    prefill: bool = False,
    raw: tuple[int, ...] | None = None,
) -> Prompt:
    """The chat as a prompt of at most `context_length` tokens less `settings.max_new_tokens`, by `policy`:

    - `error`: a chat that does not fit is a BadRow with the numbers;
    - `drop_oldest_turns`: whole exchanges (a user turn and what follows it up to the next) go from the beginning;
      system turns before them and the last exchange stay, and so do system turns right before what is kept, the
      nearest first, as far as they fit;
    - `truncate_left`: tokens go from the prompt's left, without regard to turns; a leading special token (the
      beginning of text) stays;
    - `reduce_generation`: fewer tokens are generated, at least one.

    None as `context_length` is no limit. With `raw` those ids are the prompt, and the messages only stand for it: it
    has no turns to drop, so tokens go from its left instead. Raises BadRow where the policy cannot make it fit.
    """
    ids = codec.render(messages, tools, prefill=prefill) if raw is None else raw
    whole = Prompt(ids, tuple(messages), settings.max_new_tokens)
    if context_length is None or len(ids) + settings.max_new_tokens <= context_length:
        return whole
    if policy == "error":
        raise _too_long(whole, context_length, "choose another chat.overflow, or lower generation.max_new_tokens")
    if policy == "reduce_generation":
        return _reduce_generation(whole, context_length)
    if settings.max_new_tokens >= context_length:
        raise _too_long(whole, context_length, "lower generation.max_new_tokens to leave room for a prompt")
    if policy == "truncate_left" or raw is not None:
        return _truncate_left(whole, context_length, codec)
    return _drop_oldest_turns(whole, context_length, lambda kept: codec.render(kept, tools, prefill=prefill))


def _reduce_generation(whole: Prompt, context_length: int) -> Prompt:
    room = context_length - len(whole.ids)
    if room < min(1, whole.max_new_tokens):
        raise _too_long(whole, context_length, "the prompt alone leaves no room; use chat.overflow=drop_oldest_turns")
    return Prompt(whole.ids, whole.messages, room, {"new_tokens": whole.max_new_tokens - room})


def _truncate_left(whole: Prompt, context_length: int, codec: Renders) -> Prompt:
    room = context_length - whole.max_new_tokens
    opening = whole.ids[:1] if room > 1 and codec.pieces(whole.ids[:1])[0][1] else ()
    kept = opening + whole.ids[len(whole.ids) - room + len(opening) :]
    return Prompt(kept, whole.messages, whole.max_new_tokens, {"prompt_tokens": len(whole.ids) - len(kept)})


def _drop_oldest_turns(
    whole: Prompt, context_length: int, render: Callable[[tuple[Message, ...]], tuple[int, ...]]
) -> Prompt:
    head = next((n for n, m in enumerate(whole.messages) if m.role not in _SYSTEM), 0)
    leading, turns = whole.messages[:head], whole.messages[head:]
    starts = [number for number, message in enumerate(turns) if message.role == "user" and number > 0]

    def excess(start: int) -> int:
        return max(0, len(render(leading + turns[start:])) + whole.max_new_tokens - context_length)

    def fits(start: int) -> bool:
        try:
            return excess(start) == 0
        except BadRow:  # a template that wants its system turns at the beginning
            return False

    # Dropping more never makes a prompt longer, so the first start that fits is found by halving.
    found = bisect_left(starts, 0, key=lambda start: -excess(start))
    if found == len(starts):
        raise _too_long(whole, context_length, "the last turn alone is too long; lower generation.max_new_tokens")
    start = starts[found]
    while start > 1 and turns[start - 1].role in _SYSTEM and fits(start - 1):
        start -= 1
    kept = leading + turns[start:]
    return Prompt(render(kept), kept, whole.max_new_tokens, {"messages": start})


def _too_long(prompt: Prompt, context_length: int, advice: str) -> BadRow:
    return BadRow(
        f"the prompt's {len(prompt.ids)} tokens and max_new_tokens={prompt.max_new_tokens} are more than the context "
        f"of {context_length} tokens; {advice}"
    )
