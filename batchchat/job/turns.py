"""The open chats of a run: from a chat to its requests, and from a completion to its next request.

What is kept in memory is bounded by the feed's look-ahead and the engine's room: a chat is opened when the feed asks
for it and closed when its last sample is answered or failed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from batchchat.chats import Chat, Completion, Logprob, Message, Request, Settings, TextLogprob, Usage, Writer
from batchchat.chats.conversation import Conversation
from batchchat.errors import BadRow
from batchchat.job.sides import Sides
from batchchat.job.strict import StrictTools
from batchchat.job.structured import Structured
from batchchat.job.structured import facts as structure_facts
from batchchat.prompts import Codec, Prompt, fit, row_seed
from batchchat.recipe import Recipe
from batchchat.reporting.meters import Meters
from batchchat.schedule import request_seed
from batchchat.store import RunStore, StoredRow, TurnRecord
from batchchat.store.export import conversation_of


@dataclass
class _OpenChat:
    """A chat that is being answered: its samples that are not done, each as far as it was written."""

    chat: Chat
    settings: Mapping[Writer, Settings]
    seeds: Mapping[Writer, int]
    told: dict[int, Conversation]
    instructions: str = ""
    """What the model that plays the user is told."""
    first: Prompt | None = None
    """The prompt of turn 0, which all samples share."""
    prompts: dict[tuple[int, int], Prompt] = field(default_factory=dict)


class OpenChats:
    """Turns chats into requests, keeps what comes back, and knows what each chat needs next."""

    def __init__(self, recipe: Recipe, store: RunStore, sides: Sides, meters: Meters):
        self._store = store
        self._assistant, self._user, self._player = sides.assistant, sides.user, sides.player
        self._structured = Structured(recipe, sides.assistant.codec)
        self._strict = StrictTools(recipe, sides.assistant.codec)
        self._max_rounds = recipe.tools.max_rounds if recipe.tools is not None and recipe.tools.runs else None
        self._retries = 0 if recipe.simulate is None else recipe.simulate.retries
        self._meters = meters
        self._open: dict[int, _OpenChat] = {}

    def open(self, row: StoredRow, chat: Chat) -> Iterator[Request]:
        """The next request of each sample of a chat that is not answered yet; goes on where the store left off."""
        try:
            opened = self._opened(row, chat)
            refused = self._structured.refusal(opened.settings["assistant"])
        except BadRow as error:
            refused = str(error)
        if refused is not None:
            self._store.fail_row(row.index, refused)
            return
        written, failed = self._store.turns(row.index), self._store.errors(row.index)
        for sample in range(row.samples):
            told = conversation_of(chat, written.get(sample, []))
            if sample not in failed and not told.is_complete:
                opened.told[sample] = told
        self._open[row.index] = opened
        for sample in list(opened.told):
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
        side = self._user if request.writer == "user" else self._assistant
        assert side is not None, "no user's turn was asked for without a user"
        if completion.usage is None and not side.has_token_ids:
            reason = "the engine works without token ids and did not say in `usage` how many tokens it took"
            self._fail(opened, request.sample, request.turn, reason)
            return None
        told = opened.told[request.sample]
        finish, read = self._read(completion, told)
        told.add(read)
        record: dict[str, Any] = {
            **read,
            **({} if told.ended is None else {"ends": told.ended}),
            **({} if request.writer == "tool" else {"seed": request.seed, "raw": completion.text}),
            **({} if request.writer == "tool" else {"token_ids": list(completion.token_ids)}),
            **_usage(completion.usage),
            **_logprobs(completion, side.codec),
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
        return self._next(opened, request.sample)

    def _opened(self, row: StoredRow, chat: Chat) -> _OpenChat:
        settings: dict[Writer, Settings] = {"assistant": self._assistant.resolver.resolve(chat.settings)}
        seeds: dict[Writer, int] = {"assistant": row_seed(self._assistant.generation, chat.settings)}
        settings["assistant"] = self._strict.settings(settings["assistant"], chat.tools)
        if self._user is None or self._player is None:
            return _OpenChat(chat, settings, seeds, {})
        settings["user"] = self._player.settings(self._user.resolver.resolve({}))
        seeds["user"] = self._user.generation.seed
        return _OpenChat(chat, settings, seeds, {}, self._player.instructions(row.source))

    def _read(self, completion: Completion, told: Conversation) -> tuple[str, dict[str, Any]]:
        """Why a turn ended, and what there is to keep of it for the conversation."""
        finish = completion.finish_reason
        if completion.request.writer == "user":
            assert self._player is not None, "no user's turn was asked for without a user"
            turn = self._player.read(completion, told)
            read: dict[str, Any] = {"message": turn.message.as_dict()}
            if turn.ends:
                read["ends"] = "stop_mark"
            elif turn.fault is not None:
                read["fault"] = turn.fault
                if told.num_faults >= self._retries:
                    read["ends"] = turn.fault
            return finish, read
        if completion.request.writer == "tool":
            assert completion.message is not None, "a result is a message"
            failed = {} if completion.note is None else {"note": completion.note}
            return finish, {"message": completion.message.as_dict(), **failed}
        answer = self._assistant.codec.parse(completion)
        message = answer.message
        if finish == "stop" and message.tool_calls:
            finish = "tool_calls"
        found = self._structured.found(completion.request, message, finish) or self._strict.found(completion, message)
        if found is not None and found.reason is not None:
            where = f"row {completion.request.index}, turn {completion.request.turn}"
            self._meters.event(f"structure: {found.state}", f"{where}: {found.reason}")
        read = {"message": message.as_dict(), **structure_facts(found, answer.note)}
        if told.chat.simulated and told.is_last_scripted and not (message.content or "").strip():
            read["ends"] = "empty_answer"
        if message.tool_calls and self._max_rounds is not None and told.rounds >= self._max_rounds:
            read["ends"] = "call_cap"
        return finish, read

    def _next(self, opened: _OpenChat, sample: int) -> Request | None:
        """The next request of a sample; None where it is done, or cannot be."""
        chat, told = opened.chat, opened.told[sample]
        turn, writer = told.num_written, told.writer
        if writer is None:
            if told.is_complete:
                self._close(opened, sample)
            else:
                self._fail(opened, sample, turn - 1, _no_chat(told))
            return None
        if writer == "tool":
            return self._call(opened, sample)
        try:
            prompt = opened.first if turn == 0 and opened.first is not None else self._prompt(opened, told, writer)
        except BadRow as error:
            self._fail(opened, sample, turn, str(error))
            return None
        for what in prompt.cut:
            self._meters.event(f"overflow: {what} cut", f"row {chat.index}, turn {turn}: {prompt.cut[what]}")
        opened.prompts[sample, turn] = prompt
        settings = opened.settings[writer]
        if prompt.max_new_tokens != settings.max_new_tokens:
            settings = replace(settings, max_new_tokens=prompt.max_new_tokens)
        return Request(
            chat_id=chat.id,
            index=chat.index,
            sample=sample,
            turn=turn,
            prompt_ids=prompt.ids,
            settings=settings,
            seed=request_seed(opened.seeds[writer], chat.id, sample, turn),
            messages=prompt.messages,
            tools=self._strict.sent(chat.tools) if writer == "assistant" else None,
            parameters=chat.parameters if writer == "assistant" else {},
            writer=writer,
            prompt=chat.prompt if writer == "assistant" else None,
        )

    def _call(self, opened: _OpenChat, sample: int) -> Request:
        """The request to run the next call of the last answer."""
        chat, told = opened.chat, opened.told[sample]
        message = Message("assistant", None, tool_calls=(told.next_call,))
        settings = opened.settings["assistant"]
        opened.prompts[sample, told.num_written] = Prompt((), (message,), 0)
        return Request(chat.id, chat.index, sample, told.num_written, (), settings, 0, (message,), writer="tool")

    def _prompt(self, opened: _OpenChat, told: Conversation, writer: Writer) -> Prompt:
        """The prompt of the next turn."""
        chat = opened.chat
        with self._meters.phase("prompt"):
            if writer == "user":
                assert self._user is not None, "a simulated chat has a user"
                assert self._player is not None, "a simulated chat has a user"
                seen = self._player.messages(opened.instructions, told)
                limits = (self._user.overflow, self._user.context_length)
                prompt = fit(self._player, seen, None, opened.settings["user"], *limits)
            else:
                prompt = fit(
                    self._assistant.codec,
                    told.messages,
                    chat.tools,
                    opened.settings["assistant"],
                    self._assistant.overflow,
                    self._assistant.context_length,
                    prefill=chat.prefill and told.is_last_scripted,
                    raw=None if chat.prompt is None else self._assistant.codec.encode_prompt(chat.prompt),
                )
        if told.num_written == 0:
            opened.first = prompt
        return prompt

    def _fail(self, opened: _OpenChat, sample: int, turn: int, reason: str) -> None:
        with self._store.together():
            self._store.add_error(opened.chat.index, sample, turn, reason)
            self._close(opened, sample)

    def _close(self, opened: _OpenChat, sample: int) -> None:
        del opened.told[sample]
        if not opened.told:
            self._store.finish_row(opened.chat.index)
            del self._open[opened.chat.index]


def _no_chat(told: Conversation) -> str:
    """Why a chat ended before it was answered."""
    if told.ended == "call_cap":
        return (
            f"the model called tools {told.rounds + 1} times in a row and did not answer a turn before the last; raise "
            "tools.max_rounds"
        )
    if told.ended == "stop_mark":
        return "the simulated user ended the chat before it asked anything; change simulate.goal or its instructions"
    tries = f"{told.num_faults} time{'s' if told.num_faults > 1 else ''}"
    said = {
        "empty": "wrote nothing",
        "cut": "wrote a turn that was cut at simulate.generation.max_new_tokens",
        "repeats": "repeated the chat's last turn",
        "role_flip": "spoke in the assistant's place",
        "leak": "gave its instructions away",
    }
    return (
        f"the simulated user {said[told.ended or 'empty']}, {tries} at most in a row; raise simulate.retries, or give "
        "it another model"
    )


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
