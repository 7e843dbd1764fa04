"""What may go wrong with prompts and settings, found before any weight is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, tzinfo
from itertools import pairwise
from typing import Any

from batchchat.chats import Chat, Message
from batchchat.errors import BadRow, UsageError
from batchchat.prompts.codec import Codec, TokenizerCodec
from batchchat.prompts.findings import Finding
from batchchat.prompts.settings import leaked_defaults, resolve_settings
from batchchat.prompts.shown import continued_turns, left_out

_TOP_K = 50
"""What `generate` takes where nothing says otherwise."""
_DAYS = (datetime(2001, 2, 3, 4, 5, 6), datetime(2019, 10, 21, 17, 38, 49))


def diagnose(codec: Codec, generation_defaults: Mapping[str, Any], recipe: Any, chats: Sequence[Chat]) -> list[Finding]:
    """All findings about a recipe's prompts. `chats` are the first ones of the input; they are not changed."""
    findings = [*_limits(codec), *_sampling(codec, generation_defaults, recipe), *_white_space(chats)]
    if isinstance(codec, TokenizerCodec):
        try:
            codec.render((Message("user", "hello"),))
        except UsageError as error:
            return [*findings, Finding("error", "the model has no chat template", str(error))]
        except BadRow:
            pass  # a template that wants a system turn, say: `_roles` names what it refuses
        findings += [*_beginning(codec, chats), *_roles(codec, recipe, chats), *_dates(codec, chats)]
        findings += [*continued_turns(codec, chats), *left_out(codec, chats)]
    return findings


def _limits(codec: Codec) -> Iterator[Finding]:
    if codec.vocab_size and not codec.eos_token_ids:
        yield Finding(
            "warning",
            "no end token is known, so every answer runs to max_new_tokens",
            "name it with generation.stop_token_ids or end answers with generation.stop",
        )
    if isinstance(codec, TokenizerCodec):
        if codec.tokenizer.pad_token_id is None:
            yield Finding(
                "note", "the tokenizer has no padding token; another token fills the masked places", "nothing to do"
            )
        if codec.context_length is None:
            yield Finding(
                "warning",
                "the model's context length is unknown, so chats that are too long cannot be found",
                "set chat.max_context",
            )


def _sampling(codec: Codec, defaults: Mapping[str, Any], recipe: Any) -> Iterator[Finding]:
    for name, value in leaked_defaults(recipe.generation, defaults).items():
        yield Finding(
            "warning",
            f"{name}={value} comes from the model's generation config, not from the recipe",
            f"set generation.{name} to keep or change it, or generation.model_defaults=false",
        )
    settings = resolve_settings(recipe.generation, {}, defaults, codec)
    if settings.temperature > 0 and settings.top_k == 0 and recipe.generation.top_k is None:
        yield Finding(
            "note",
            f"neither the recipe nor the model sets top_k, so it is off, where transformers' generate takes {_TOP_K}",
            f"set generation.top_k={_TOP_K} to sample as it does, or 0 to say that you do not",
        )
    if settings.temperature == 0:
        idle = [name for name in ("top_k", "top_p", "min_p") if getattr(recipe.generation, name) is not None]
        for name in idle:
            yield Finding(
                "warning",
                f"generation.{name} does nothing, as the answers are greedy",
                "set generation.temperature above 0, or leave it out",
            )


def _white_space(chats: Sequence[Chat]) -> Iterator[Finding]:
    for chat in chats:
        opening = chat.segments[-1][-1].content if chat.prefill and chat.segments else None
        if opening and opening != opening.rstrip():
            yield Finding(
                "warning",
                f"the turn to be continued in {chat.place} ends in white space, which most tokenizers join to the "
                "next word, so the model continues worse",
                "take the white space off",
            )


def _beginning(codec: TokenizerCodec, chats: Sequence[Chat]) -> Iterator[Finding]:
    bos = codec.tokenizer.bos_token_id
    prompts = [ids for ids in (_first_prompt(codec, chat) for chat in chats) if ids is not None]
    if bos is None or not prompts:
        return
    token = codec.decode([bos])
    if any(ids[:2] == (bos, bos) for ids in prompts):
        yield Finding(
            "warning",
            f"the template writes the beginning token {token!r} twice",
            "give a template that writes it once with chat.template=FILE",
        )
    adds_bos = codec.tokenizer("a")["input_ids"][:1] == [bos]
    if adds_bos and any(ids[:1] != (bos,) for ids in prompts):
        yield Finding(
            "warning",
            f"the tokenizer begins a text with {token!r}, and the template does not write it",
            "if the model was trained with it, give a template that begins with bos_token (chat.template=FILE)",
        )


def _roles(codec: TokenizerCodec, recipe: Any, chats: Sequence[Chat]) -> Iterator[Finding]:
    user, system, answer = Message("user", "hello"), Message("system", "Be brief."), Message("assistant", "Hi.")
    has_system = bool(recipe.chat.system) or any(m.role == "system" for chat in chats for m in _messages(chat))
    shapes: tuple[tuple[str, tuple[Message, ...], bool], ...] = (
        ("a system turn", (system, user), has_system),
        ("two user turns in a row", (user, user), any(_doubled(chat) for chat in chats)),
        ("more than one exchange", (user, answer, user), any(chat.num_turns > 1 for chat in chats)),
    )
    for shape, messages, occurs in shapes:
        try:
            codec.render(messages)
        except BadRow as error:
            advice = "change these chats, or give another template with chat.template=FILE"
            where = "and the first chats have such" if occurs else "which none of the first chats has"
            yield Finding(
                "error" if occurs else "note", f"{shape}: {error}, {where}", advice if occurs else "nothing to do"
            )


def _dates(codec: TokenizerCodec, chats: Sequence[Chat]) -> Iterator[Finding]:
    probes = [_messages(chat) for chat in chats[:1]] or [(Message("user", "hello"),)]
    texts = []
    for day in _DAYS:
        with _template_clock(day):
            try:
                texts.append([codec.render_text(messages) for messages in probes])
            except BadRow:
                return  # the refusal is another finding, and that row's error
    if texts[0] != texts[1]:
        fixed = "chat.template_kwargs.date_string='1 Jan 2025'"
        advice = fixed if "date_string" in (codec.template or "") else "chat.template=FILE, with a date written in it"
        yield Finding(
            "warning",
            "the template writes today's date, so the same recipe gives other prompts tomorrow",
            f"set {advice}",
        )


@contextmanager
def _template_clock(day: datetime) -> Iterator[None]:
    """Within it, templates that ask transformers for the time are told `day`."""
    from transformers.utils import chat_template_utils

    class Stopped(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Any:
            return day if tz is None else day.astimezone(tz)

    original = chat_template_utils.datetime
    chat_template_utils.datetime = Stopped
    try:
        yield
    finally:
        chat_template_utils.datetime = original


def _messages(chat: Chat) -> tuple[Message, ...]:
    """The prompt of the chat's first answer."""
    return chat.segments[0] if chat.segments else ()


def _doubled(chat: Chat) -> bool:
    roles = [message.role for message in _messages(chat)]
    return any(pair == ("user", "user") for pair in pairwise(roles))


def _first_prompt(codec: TokenizerCodec, chat: Chat) -> tuple[int, ...] | None:
    try:
        return codec.render(_messages(chat), chat.tools, prefill=chat.prefill and chat.num_turns == 1)
    except BadRow:
        return None  # the run records it as that row's error
