"""The open chats of a run: from a chat to its requests, and from a completion to its next request.

What is kept in memory is bounded by the feed's look-ahead and the engine's room: a chat is opened when the feed asks
for it and closed when its last sample is answered or failed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from batchchat.chats import Chat, Completion, Logprob, Message, Request, Settings, TextLogprob, Usage
from batchchat.errors import BadRow
from batchchat.job.structured import Structured
from batchchat.job.structured import facts as structure_facts
from batchchat.prompts import Codec, MessagesCodec, Prompt, SettingsResolver, fit, row_seed
from batchchat.recipe import Recipe
from batchchat.reporting.meters import Meters
from batchchat.schedule import request_seed
from batchchat.store import RunStore, StoredRow, TurnRecord
from batchchat.store.export import message_from


@dataclass
class _OpenChat:
    """A chat that is being answered: its samples that are not done, each with its answers so far."""

    chat: Chat
    settings: Settings
    seed: int
    answers: dict[int, list[Message]]
    first: Prompt | None = None
    """The prompt of turn 0, which all samples share."""
    prompts: dict[tuple[int, int], Prompt] = field(default_factory=dict)


class OpenChats:
    """Turns chats into requests, keeps what comes back, and knows what each chat needs next."""

    def __init__(self, recipe: Recipe, store: RunStore, codec: Codec, resolver: SettingsResolver, meters: Meters):
        self._store = store
        self._codec = codec
        self._has_token_ids = not isinstance(codec, MessagesCodec)
        self._resolver = resolver
        self._structured = Structured(recipe, codec)
        self._generation = recipe.generation
        self._overflow = recipe.chat.overflow
        self._context_length = min_known(recipe.chat.max_context, codec.context_length)
        self._meters = meters
        self._open: dict[int, _OpenChat] = {}

    def open(self, row: StoredRow, chat: Chat) -> Iterator[Request]:
        """The next request of each sample of a chat that is not answered yet; goes on where the store left off."""
        try:
            settings = self._resolver.resolve(chat.settings)
            refused = self._structured.refusal(settings)
        except BadRow as error:
            refused = str(error)
        if refused is not None:
            self._store.fail_row(row.index, refused)
            return
        written = self._store.turns(row.index)
        failed = self._store.errors(row.index)
        answers = {
            sample: [message_from(turn.record["message"]) for turn in written.get(sample, [])]
            for sample in range(row.samples)
            if sample not in failed and len(written.get(sample, [])) < chat.num_turns
        }
        opened = _OpenChat(chat, settings, row_seed(self._generation, chat.settings), answers)
        self._open[row.index] = opened
        for sample in list(answers):
            request = self._next(opened, sample)
            if request is not None:
                yield request

    def record(self, completion: Completion) -> Request | None:
        """Keep a completion; the next request of the same chat and sample, if it has one."""
        request = completion.request
        opened = self._open[request.index]
        prompt = opened.prompts.pop((request.sample, request.turn))
        if completion.finish_reason == "error":
            self._fail(opened, request.sample, request.turn, completion.error or "the engine gave no reason")
            return None
        if completion.usage is None and not self._has_token_ids:
            reason = "the engine works without token ids and did not say in `usage` how many tokens it took"
            self._fail(opened, request.sample, request.turn, reason)
            return None
        answer = self._codec.parse(completion)
        message = answer.message
        finish = completion.finish_reason
        if finish == "stop" and message.tool_calls:
            finish = "tool_calls"
        found = self._structured.found(request, message, finish)
        if found is not None and found.reason is not None:
            where = f"row {request.index}, turn {request.turn}"
            self._meters.event(f"structure: {found.state}", f"{where}: {found.reason}")
        record: dict[str, Any] = {
            "message": message.as_dict(),
            "seed": request.seed,
            "raw": completion.text,
            "token_ids": list(completion.token_ids),
            **_usage(completion.usage),
            **structure_facts(found, answer.note),
            **_logprobs(completion, self._codec),
        }
        if prompt.cut:
            record["cut"] = dict(prompt.cut)
        timings = completion.timings
        self._store.add_turn(
            TurnRecord(
                request.index, request.sample, request.turn, completion.prompt_tokens, completion.completion_tokens,
                finish, timings.queued, timings.started, timings.finished, record,
            )
        )  # fmt: skip
        opened.answers[request.sample].append(message)
        if request.turn + 1 == opened.chat.num_turns:
            self._close(opened, request.sample)
            return None
        return self._next(opened, request.sample)

    def _next(self, opened: _OpenChat, sample: int) -> Request | None:
        chat, answers = opened.chat, opened.answers[sample]
        turn = len(answers)
        try:
            prompt = opened.first if turn == 0 and opened.first is not None else self._prompt(opened, answers)
        except BadRow as error:
            self._fail(opened, sample, turn, str(error))
            return None
        for what in prompt.cut:
            self._meters.event(f"overflow: {what} cut", f"row {chat.index}, turn {turn}: {prompt.cut[what]}")
        opened.prompts[sample, turn] = prompt
        settings = opened.settings
        if prompt.max_new_tokens != settings.max_new_tokens:
            settings = replace(settings, max_new_tokens=prompt.max_new_tokens)
        return Request(
            chat_id=chat.id,
            index=chat.index,
            sample=sample,
            turn=turn,
            prompt_ids=prompt.ids,
            settings=settings,
            seed=request_seed(opened.seed, chat.id, sample, turn),
            messages=prompt.messages,
            tools=chat.tools,
            parameters=chat.parameters,
            prompt=chat.prompt,
        )

    def _prompt(self, opened: _OpenChat, answers: list[Message]) -> Prompt:
        """The prompt of the turn after `answers`."""
        chat, turn = opened.chat, len(answers)
        with self._meters.phase("prompt"):
            prompt = fit(
                self._codec,
                messages_before(chat, answers),
                chat.tools,
                opened.settings,
                self._overflow,
                self._context_length,
                prefill=chat.prefill and turn + 1 == chat.num_turns,
                raw=chat.prompt,
            )
        if turn == 0:
            opened.first = prompt
        return prompt

    def _fail(self, opened: _OpenChat, sample: int, turn: int, reason: str) -> None:
        self._store.add_error(opened.chat.index, sample, turn, reason)
        self._close(opened, sample)

    def _close(self, opened: _OpenChat, sample: int) -> None:
        del opened.answers[sample]
        if not opened.answers:
            self._store.finish_row(opened.chat.index)
            del self._open[opened.chat.index]


def messages_before(chat: Chat, answers: list[Message]) -> tuple[Message, ...]:
    """The messages before the next answer: every segment up to it, with the earlier answers between them."""
    messages: list[Message] = []
    for turn, segment in enumerate(chat.segments[: len(answers) + 1]):
        messages.extend(segment)
        if turn < len(answers):
            messages.append(answers[turn])
    return tuple(messages)


def _usage(usage: Usage | None) -> Mapping[str, Any]:
    """What a server says of a turn's tokens besides their number."""
    if usage is None:
        return {}
    known = {"cached_tokens": usage.cached_tokens, "reasoning_tokens": usage.reasoning_tokens}
    return {name: count for name, count in known.items() if count is not None}


def _logprobs(completion: Completion, codec: Codec) -> Mapping[str, Any]:
    """Each step's log-probability and those of the likeliest tokens, with their texts. A token that cannot be had (of
    log-probability minus infinity) is none of the likeliest."""
    if completion.logprobs is None:
        return {}
    steps = [step for step in completion.logprobs if isinstance(step, Logprob)]
    if len(steps) < len(completion.logprobs):
        return {"logprobs": [_spelled(step) for step in completion.logprobs if isinstance(step, TextLogprob)]}

    def chosen(token_id: int, logprob: float) -> dict[str, Any]:
        return {
            "token_id": token_id,
            "token": codec.decode([token_id]),
            "logprob": logprob if math.isfinite(logprob) else None,
        }

    return {
        "logprobs": [
            {
                **chosen(step.token_id, step.logprob),
                **({"top": [chosen(*pair) for pair in step.top if math.isfinite(pair[1])]} if step.top else {}),
            }
            for step in steps
        ]
    }


def _spelled(step: TextLogprob) -> dict[str, Any]:
    """A step as a server gave it."""
    return {
        "token": step.token,
        "logprob": step.logprob if math.isfinite(step.logprob) else None,
        **({} if step.bytes is None else {"bytes": list(step.bytes)}),
        **({"top": [_spelled(other) for other in step.top]} if step.top else {}),
    }


def min_known(*limits: int | None) -> int | None:
    """The smallest of the limits that are known."""
    known = [limit for limit in limits if limit is not None]
    return min(known) if known else None
