"""An engine like one on a server: it takes messages, and neither tokenizer nor weights are on this machine."""

from collections.abc import Iterator

from pydantic import Field

from batchchat.chats import Completion, Message, Request, Timings, Usage
from batchchat.engines import EngineContext, EngineFacts, EngineKind, EngineMeter, Needs
from batchchat.recipe import MAY_CHANGE, Section
from batchchat.schedule import Feed


class ParrotOptions(Section):
    """A server that repeats what it is told."""

    url: str = Field(description="Address of the server.", examples=["http://localhost:8000"])
    shout: bool = Field(default=False, description="Answer in capitals.")
    at_once: int = Field(default=4, ge=1, description="Requests at the same time.", json_schema_extra=MAY_CHANGE)
    silent_on: str | None = Field(default=None, description="Count no tokens for prompts that hold this text.")


class Parrot:
    def __init__(self, options: ParrotOptions, model: str, meter: EngineMeter):
        self._options = options
        self._model = model
        self._meter = meter

    def run(self, feed: Feed) -> Iterator[Completion]:
        while not feed.exhausted:
            feed.wait(1.0)
            for request in feed.take(self._options.at_once):
                yield self._answer(request)

    def _answer(self, request: Request) -> Completion:
        assert request.prompt_ids == ()
        now = self._meter.now()
        text = request.messages[-1].content or ""
        words = text.upper() if self._options.shout else text
        usage = None if self._options.silent_on and self._options.silent_on in text else Usage(7, 2)
        message = Message("assistant", words, reasoning=f"{self._model} at {self._options.url}")
        return Completion(request, (), words, "stop", Timings(now, now, now), usage=usage, message=message)

    def describe(self) -> EngineFacts:
        return EngineFacts(engine="parrot", details={"url": self._options.url})

    def close(self) -> None: ...


def build(context: EngineContext) -> Parrot:
    return Parrot(context.recipe.engine.options, context.recipe.model.name, context.meter)


PARROT = EngineKind(build, Needs(tokenizer=False, local_model=False, token_ids=False), ParrotOptions)
