"""A deterministic engine without a model: the whole command line runs on it in milliseconds.

It answers from the request alone, so that whatever is built around an engine (feed, store, resume, export, scores)
can be tried on millions of rows, and killed at any moment, without a weight being read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from batchchat.chats import Completion, FinishReason, Message, Request, Timings
from batchchat.chats.formats.messages import read_message
from batchchat.chats.formats.segments import answer_text
from batchchat.engines.base import EngineContext, EngineMeter
from batchchat.engines.facts import ScriptedFacts
from batchchat.plugins.functions import load_function
from batchchat.prompts import Codec
from batchchat.recipe.section import MAY_CHANGE, Section
from batchchat.schedule import Feed

FUNCTION_NAME = r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$"

_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


class ScriptedOptions(Section):
    """The deterministic engine without a model, for trying out everything around it."""

    answer: Literal["echo", "counting", "text"] = Field(
        default="echo",
        description="echo gives back the last message; counting counts up to a number drawn by the answer's seed; "
        "text gives the same text to all.",
    )
    text: str = Field(default="", description="The answer of `answer: text`.", examples=["I do not know."])
    function: Annotated[str, Field(pattern=FUNCTION_NAME, max_length=500)] | None = Field(
        default=None,
        description="A function of your own, `module:function`, that takes the place of `answer`; it gets the messages "
        "(mappings with role and content) and returns a text, or a message as a mapping, with tool_calls where it has "
        "some.",
        examples=["my_answers:polite"],
    )
    batch_seconds: float = Field(
        default=0.0, ge=0, description="Seconds that each batch takes.", json_schema_extra=MAY_CHANGE
    )
    fail_every: int = Field(default=0, ge=0, description="Every so many rows one fails; 0 is never.")


class ScriptedEngine:
    """Answers `rows` requests at a time.

    `answer`: "echo" gives back the last message of the prompt, "counting" counts up to a number that the request's
    seed chooses, so that answers differ in length and between samples, "text" gives `text` to every request; `function`
    takes their place with what it makes of the messages as mappings: a text, or a message. `batch_seconds` is how long
    a batch takes. Every `fail_every`-th request by its key fails (0: none).
    """

    def __init__(
        self,
        codec: Codec,
        meter: EngineMeter,
        rows: int = 32,
        answer: str = "echo",
        batch_seconds: float = 0.0,
        fail_every: int = 0,
        text: str = "",
        function: Callable[[list[dict[str, Any]]], str | Mapping[str, Any]] | None = None,
    ):
        self._codec = codec
        self._meter = meter
        self._rows = rows
        self._answer = answer
        self._batch_seconds = batch_seconds
        self._fail_every = fail_every
        self._fixed = text
        self._function = function

    def run(self, feed: Feed) -> Iterator[Completion]:
        while True:
            batch = feed.take(self._rows)
            if not batch:
                if feed.exhausted:
                    return
                feed.wait(1.0)
                continue
            queued = self._meter.now()
            if self._batch_seconds:
                time.sleep(self._batch_seconds)
            done = [self._complete(request, queued) for request in batch]
            prompt = sum(len(request.prompt_ids) for request in batch)
            generated = sum(len(completion.token_ids) for completion in done)
            self._meter.batch(len(batch), prompt, generated, prompt + generated)
            yield from done

    def describe(self) -> ScriptedFacts:
        return ScriptedFacts(engine="scripted", answer=self._answer, devices=("cpu",))

    def close(self) -> None: ...

    def _complete(self, request: Request, queued: float) -> Completion:
        timings = Timings(queued, queued, self._meter.now())
        if self._fail_every and (request.index + 1) % self._fail_every == 0:
            reason = f"the scripted engine fails every {self._fail_every}th row (engine.scripted.fail_every)"
            return Completion(request, (), "", "error", timings, error=reason)
        message: Message | None = None
        try:
            text = self._text(request)
            if isinstance(text, Mapping):
                message = read_message({"role": "assistant", "content": None, **text}, "the answer")
                text = answer_text(message)
            ids = self._codec.encode_text(text)
        except Exception as failure:  # a function of the user's own may raise anything; it costs this request
            reason = f"engine.scripted.function failed: {type(failure).__name__}: {failure}"
            return Completion(request, (), "", "error", timings, error=reason)
        finish: FinishReason = "stop"
        if len(ids) > request.settings.max_new_tokens:
            ids, finish = ids[: request.settings.max_new_tokens], "length"
        return Completion(request, ids, self._codec.decode(ids), finish, timings, message=message)

    def _text(self, request: Request) -> str | Mapping[str, Any]:
        if self._function is not None:
            return self._function([message.as_dict() for message in request.messages])
        if self._answer == "text":
            return self._fixed
        if self._answer == "counting":
            return " ".join(_WORDS[n % 10] for n in range(1 + request.seed % 40))
        return next((message.content for message in reversed(request.messages) if message.content), "")


def build(context: EngineContext) -> ScriptedEngine:
    """From a recipe's `engine` section."""
    section = context.recipe.engine
    scripted: ScriptedOptions = section.options
    return ScriptedEngine(
        context.codec,
        context.meter,
        rows=section.max_batch_rows,
        answer=scripted.answer,
        batch_seconds=scripted.batch_seconds,
        fail_every=scripted.fail_every,
        text=scripted.text,
        function=load_function(scripted.function, "engine.scripted.function") if scripted.function else None,
    )
