"""Chats that are longer than the context: what each policy takes away, and what it never takes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchchat.chats import Message, Settings
from batchchat.errors import BadRow
from batchchat.prompts import ByteCodec, Prompt, TokenizerCodec, fit
from batchchat.prompts.overflow import Policy
from tests.support import zoo

CODEC = TokenizerCodec(zoo.byte_bpe(zoo.STRICT))
CHAT = (
    Message("system", "Be brief."),
    Message("assistant", "Welcome."),
    Message("user", "First question, which is rather long."),
    Message("assistant", "First answer."),
    Message("user", "Second question."),
    Message("assistant", None, tool_calls=({"type": "function", "function": {"name": "f", "arguments": {}}},)),
    Message("tool", "result"),
    Message("assistant", "Second answer."),
    Message("user", "Third question."),
)


def fitted(policy: Policy, limit: int | None, new: int = 10, chat: tuple[Message, ...] = CHAT) -> Prompt:
    return fit(ByteCodec(), chat, None, Settings(new), policy, limit)


def length(chat: tuple[Message, ...]) -> int:
    return len(ByteCodec().render(chat))


@pytest.mark.parametrize("policy", ["error", "drop_oldest_turns", "truncate_left", "reduce_generation"])
def test_a_chat_that_fits_is_left_alone(policy: Policy) -> None:
    whole = length(CHAT)
    for limit in (None, whole + 10):
        prompt = fitted(policy, limit)
        assert (len(prompt.ids), prompt.messages, prompt.max_new_tokens, prompt.cut) == (whole, CHAT, 10, {})


def test_error_gives_the_numbers() -> None:
    whole = length(CHAT)
    with pytest.raises(BadRow, match=f"{whole} tokens and max_new_tokens=10 .* context of {whole + 9} tokens"):
        fitted("error", whole + 9)


def test_reduce_generation_leaves_at_least_one_token() -> None:
    whole = length(CHAT)
    prompt = fitted("reduce_generation", whole + 1)
    assert (prompt.max_new_tokens, prompt.cut) == (1, {"new_tokens": 9})
    with pytest.raises(BadRow, match="leaves no room"):
        fitted("reduce_generation", whole)


def test_turns_go_in_whole_exchanges_and_system_and_last_stay() -> None:
    whole = length(CHAT)
    prompt = fitted("drop_oldest_turns", whole + 9)
    assert prompt.messages == (CHAT[0], *CHAT[2:])  # the greeting is before the first user turn
    assert prompt.cut == {"messages": 1}
    assert fitted("drop_oldest_turns", length(prompt.messages) + 9).messages == (CHAT[0], *CHAT[4:])
    last = (CHAT[0], CHAT[8])
    prompt = fitted("drop_oldest_turns", length(last) + 10)
    assert (prompt.messages, prompt.cut) == (last, {"messages": 7})
    with pytest.raises(BadRow, match="last turn alone is too long"):
        fitted("drop_oldest_turns", length(last) + 9)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 2)), min_size=1, max_size=12),
    st.booleans(),
    st.integers(1, 200),
)
def test_dropping_takes_no_more_than_needed(turns: list[tuple[int, int]], system: bool, limit: int) -> None:
    chat: list[Message] = [Message("system", "s")] if system else []
    for size, answers in turns:
        chat += [Message("user", "x" * size), *[Message("assistant", "y")] * answers]
    chat.append(Message("user", "last"))
    try:
        prompt = fitted("drop_oldest_turns", limit, 5, tuple(chat))
    except BadRow:
        assert length((*chat[:system], chat[-1])) + 5 > limit or limit <= 5
        return
    assert len(prompt.ids) + 5 <= limit
    dropped = prompt.cut.get("messages", 0)
    assert prompt.messages == (*chat[:system], *chat[system + dropped :])
    assert chat[system + dropped].role == "user"
    if dropped:
        previous = max(n for n in range(system, system + dropped) if chat[n].role == "user")
        assert length((*chat[:system], *chat[previous:])) + 5 > limit


def test_a_system_turn_next_to_what_is_kept_stays_where_it_fits() -> None:
    first, second = Message("system", "aa"), Message("developer", "bb")
    chat = (*CHAT[:6], CHAT[6], CHAT[7], first, second, CHAT[8])
    kept = {(): (CHAT[8],), (1,): (second, CHAT[8]), (0, 1): (first, second, CHAT[8])}
    for turns in kept.values():
        expected = (CHAT[0], *turns)
        prompt = fitted("drop_oldest_turns", length(expected) + 10, chat=chat)
        assert prompt.messages == expected
        assert prompt.cut == {"messages": len(chat) - len(expected)}
    # A template that refuses system turns gets none.
    strict = (*CHAT[2:4], first, Message("user", "x"))
    refusing = "{% if m.role == 'system' and loop.first %}{{ raise_exception('a system turn') }}{% endif %}"
    codec = TokenizerCodec(zoo.byte_bpe("{% for m in messages %}" + refusing + "[{{ m.content }}]{% endfor %}"))
    kept = fit(codec, strict, None, Settings(1), "drop_oldest_turns", len(codec.render(strict[-1:])) + 1)
    assert kept.messages == strict[-1:]


def test_truncation_keeps_the_beginning_of_text_and_says_how_much_went() -> None:
    chat = (Message("user", "The quick brown fox jumps over the lazy dog, again and again and again."),)
    whole = CODEC.render(chat)
    limit = len(whole)
    prompt = fit(CODEC, chat, None, Settings(6), "truncate_left", limit)
    assert prompt.ids == (whole[0], *whole[7:])
    assert whole[0] == CODEC.tokenizer.bos_token_id
    assert prompt.cut == {"prompt_tokens": 6}
    assert fitted("truncate_left", 30).ids == ByteCodec().render(CHAT)[-20:]
    with pytest.raises(BadRow, match="leave room for a prompt"):
        fitted("truncate_left", 10)


def test_prefill_is_rendered_open() -> None:
    chat = (*CHAT, Message("assistant", "It is"))
    prompt = fit(ByteCodec(), chat, None, Settings(5), "drop_oldest_turns", 70, prefill=True)
    assert ByteCodec().decode(prompt.ids).endswith("It is")
    assert prompt.messages[-2:] == chat[-2:]
