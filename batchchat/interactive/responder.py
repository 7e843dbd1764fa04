"""One engine for the whole conversation: a question goes in, and the answer comes out as it is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from batchchat.chats import Completion, FinishReason, Message, Request, Settings, Timings
from batchchat.engines import EngineContext, build_engine
from batchchat.engines.facts import AnyEngineFacts
from batchchat.errors import BadRow
from batchchat.interactive.conversation import Conversation, Provenance
from batchchat.job.turns import min_known
from batchchat.models import load_text_side
from batchchat.prompts import ParsedAnswer, Prompt, SettingsResolver, fit
from batchchat.recipe import Recipe
from batchchat.reporting.meters import Meters
from batchchat.schedule import Feed, request_seed

_CHAT_INDEX = 0
_SAMPLE = 0
_SHORTEST_PAUSE = 0.08
"""Seconds between two looks at an answer that is being written."""
_SHARE = 60
"""A pause is at least so many times what the last look took, so that watching costs at most 1/60 of the time."""

Watcher = Callable[[ParsedAnswer], None]
"""Shown the answer as far as it is written, now and then."""


class AnswerStopped(BaseException):
    """The user stopped an answer. No `Exception`: engines catch those as failures of a row."""


@dataclass(frozen=True)
class Reply:
    """An answer and its figures. `cut` is what the overflow policy took from the prompt, `events` what the engine had
    to say. One that was `stopped` ends where it was."""

    message: Message
    token_ids: tuple[int, ...]
    num_tokens: int | None
    """None where it was stopped and a server had not yet said how many."""
    finish_reason: FinishReason
    stopped: bool
    seconds: float
    cut: Mapping[str, int] = field(default_factory=dict)
    note: str | None = None
    events: tuple[str, ...] = ()


class Responder:
    """Loads the recipe's model and answers with it. The engine stays, and with it whatever it keeps between turns."""

    def __init__(self, recipe: Recipe):
        self._template = _template(recipe)
        self._text = load_text_side(recipe)
        self._meters = Meters()
        context = EngineContext(recipe, self._text.codec, self._meters, on_token=self._hear, on_message=self._read)
        self._engine = build_engine(recipe.engine.kind, context)
        self._token_ids: list[int] = []
        self._said: Message | None = None
        """Of a server, so far."""
        self._watch: Watcher | None = None
        self._look_at = 0.0
        self._running = self._stopping = False

    def answer(self, conversation: Conversation, origin: Provenance, watch: Watcher | None = None) -> Reply:
        """The answer to the conversation's question, as the run of `origin` writes it.

        Raises BadRow where the chat cannot become a prompt or the model cannot answer it.
        """
        settings = self.settings(origin.recipe)
        prompt = self._prompt(conversation, origin.recipe, settings)
        turn = len(conversation.origins) - origin.num_given
        request = Request(
            chat_id=origin.id,
            index=_CHAT_INDEX,
            sample=_SAMPLE,
            turn=turn,
            prompt_ids=prompt.ids,
            settings=replace(settings, max_new_tokens=prompt.max_new_tokens),
            seed=request_seed(origin.recipe.generation.seed, origin.id, _SAMPLE, turn),
            messages=prompt.messages,
            tools=conversation.tools,
        )
        events = len(self._meters.events)
        completion, stopped = self._complete(request, watch)
        if completion.finish_reason == "error":
            raise BadRow(completion.error or "the engine gave no reason")
        answer = self._text.codec.parse(completion)
        return Reply(
            message=answer.message,
            token_ids=completion.token_ids,
            num_tokens=None if stopped and self._said is not None else completion.completion_tokens,
            finish_reason=completion.finish_reason,
            stopped=stopped,
            seconds=completion.timings.finished - completion.timings.started,
            cut=prompt.cut,
            note=answer.note,
            events=tuple(event["detail"] for event in self._meters.events[events:]),
        )

    def stop(self) -> None:
        """End the answer that is being written at its next token; at once where it is asked for again."""
        if self._stopping and self._running:
            raise AnswerStopped("stopped")
        self._stopping = True

    def settings(self, recipe: Recipe) -> Settings:
        """What the recipe's generation section comes to with this model."""
        self._follow(recipe)
        text, backend = self._text, recipe.engine.grammar_backend
        return SettingsResolver(recipe.generation, text.generation_defaults, text.codec, backend).resolve({})

    def num_tokens(self, conversation: Conversation, recipe: Recipe) -> int:
        """Tokens of the conversation as a prompt. Raises BadRow where the template refuses it."""
        self._follow(recipe)
        return len(self._text.codec.render(conversation.messages, conversation.tools))

    def context_length(self, recipe: Recipe) -> int | None:
        """Tokens that prompt and answer may have together; None where nothing says so."""
        return min_known(recipe.chat.max_context, self._text.codec.context_length)

    def facts(self) -> AnyEngineFacts:
        """What the engine says about itself."""
        return self._engine.describe()

    def _follow(self, recipe: Recipe) -> None:
        """Read the template anew where the recipe has another one."""
        if _template(recipe) != self._template:
            self._text = load_text_side(recipe)
            self._template = _template(recipe)

    def _prompt(self, conversation: Conversation, recipe: Recipe, settings: Settings) -> Prompt:
        return fit(
            self._text.codec,
            conversation.messages,
            conversation.tools,
            settings,
            recipe.chat.overflow,
            self.context_length(recipe),
        )

    def _complete(self, request: Request, watch: Watcher | None) -> tuple[Completion, bool]:
        """What the engine writes, and whether it was stopped on the way."""
        self._token_ids.clear()
        self._said = None
        self._watch, self._look_at, self._stopping = watch, 0.0, False
        began = self._meters.now()
        self._running = True
        try:
            (completion,) = self._engine.run(Feed(iter((request,)), look_ahead=1))
        except AnswerStopped:
            return self._so_far(request, began), True
        finally:
            self._running = False
        return completion, False

    def _hear(self, request: Request, token_id: int) -> None:
        """The engine has chosen a token."""
        self._token_ids.append(token_id)
        self._look(request)

    def _read(self, request: Request, message: Message) -> None:
        """The server has said more."""
        self._said = message
        self._look(request)

    def _look(self, request: Request) -> None:
        """Show the answer as far as it is written, if it is time to."""
        if self._stopping:
            raise AnswerStopped("stopped")
        now = self._meters.elapsed
        if self._watch is None or now < self._look_at:
            return
        self._watch(self._text.codec.parse(self._so_far(request, now)))
        took = self._meters.elapsed - now
        self._look_at = now + took + max(_SHORTEST_PAUSE, _SHARE * took)

    def _so_far(self, request: Request, began: float) -> Completion:
        """The answer up to now, without a last character that is not complete."""
        if self._said is not None:
            now, said = self._meters.elapsed, self._said
            return Completion(request, (), said.content or "", "length", Timings(began, began, now), message=said)
        text = self._text.codec.decode(self._token_ids).rstrip("\N{REPLACEMENT CHARACTER}")
        now = self._meters.elapsed
        return Completion(request, tuple(self._token_ids), text, "length", Timings(began, began, now))


def _template(recipe: Recipe) -> tuple[object, ...]:
    """What of a recipe decides how chats become prompts, and may change while a model stays."""
    return recipe.chat.template, recipe.chat.template_kwargs
