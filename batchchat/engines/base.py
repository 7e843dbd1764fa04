"""The contract of an engine: a callable that drains a feed, what it needs, and what it is made from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from batchchat.chats import Completion, Message, Request
from batchchat.engines.facts import AnyEngineFacts
from batchchat.engines.memory import Budget
from batchchat.models.loaded import LoadedModel
from batchchat.recipe import Recipe
from batchchat.schedule import Feed

TokenListener = Callable[[Request, int], None]
"""Called with a request and a token id as soon as the token is chosen (the interactive chat streams by it)."""


MessageListener = Callable[[Request, Message], None]
"""The same for engines without token ids: called with a request and what is said to it so far."""


class EngineMeter(Protocol):
    """What an engine reports while it works, and its only clock. Implemented by `reporting.meters`."""

    def now(self, wait: bool = True) -> float:
        """Seconds on the run's clock. With `wait` the device is synchronized first, where it runs ahead of the host."""
        ...

    def batch(self, rows: int, prompt_tokens: int, generated_tokens: int, padded_tokens: int) -> None:
        """One padded batch (or in-flight step group) was computed: its rows, its true tokens, and the token places
        that were computed for them, padding included."""
        ...

    def event(self, name: str, detail: str) -> None:
        """Something that the report must mention: a split batch, a fallback, a retry."""
        ...


class Engine(Protocol):
    """`run` takes as many requests as there is room for and yields each completion as soon as it is done.

    Between two yields the loop puts the next turn of the chat into the feed, so an engine asks the feed again after
    each yield, waits (`feed.wait`) while none is ready but more may come, and returns only when nothing is in flight
    and `feed.exhausted`. It yields exactly one completion per request taken, errors included, and never raises for what
    one request did.

    A run may be left early: its iterator is closed, or the listener raises something that is no `Exception`, as the
    interactive chat does to stop an answer. What is in flight is then given up, and the engine can be run again.
    """

    def run(self, feed: Feed) -> Iterator[Completion]: ...

    def describe(self) -> AnyEngineFacts:
        """Facts for the report: engine, devices, dtype, parameters, footprint in bytes, attention, …"""
        ...

    def close(self) -> None:
        """Give back the model and all memory, and undo whatever was changed outside the engine. It runs no more."""
        ...


@runtime_checkable
class FollowingEngine(Engine, Protocol):
    """An engine whose model may be split over a group of processes."""

    def follow(self) -> None:
        """In every process but the leader: compute what the leader computes, until it is done."""
        ...


@runtime_checkable
class PaidEngine(Engine, Protocol):
    """An engine whose answers cost money."""

    @property
    def spent(self) -> float | None:
        """What the run cost so far, earlier sessions included; None where no prices are known."""
        ...


@dataclass(frozen=True)
class EngineConfig:
    """How a local engine computes, with no `auto` left open."""

    max_rows: int = 32
    """Rows in a padded batch, or in flight."""
    max_tokens: int = 16384
    """Padded token places in a batch, or keys and values in flight, in tokens."""
    chunk: int = 256
    """Tokens of prompts that a step in flight computes at most."""
    batch_invariant: bool = False
    """A request's tokens are bit for bit the same alone or in a crowd (`engine.reproducible: strict`)."""
    products_are_invariant: bool = False
    """Passes of all sizes are known to give a row the same bits, so that batch invariance needs no fixed shapes."""
    shared_passes: bool = False
    """Of batch invariance by fixed shapes: a row's bits are known not to depend on its place in a pass, so that all
    rows that write share one pass, and all prompts another."""
    always_draft: bool = False
    """Draft even where that costs more than it saves."""
    record_graphs: bool = False
    """Record steps that only decode as CUDA graphs, and replay them."""
    overlap: bool = False
    """Launch the next step before the tokens of the last one are read, and give completions away while it computes, so
    that what the host does with them costs an accelerator no time. On a CPU it would only come later."""
    cache: Literal["auto", "slots", "paged"] = "auto"
    """Where the continuous engine keeps keys and values: if `auto`, in slots on a CPU and in pages elsewhere."""
    split_over_processes: bool = False
    """The model is split over a group of processes (`model.parallel`)."""


@dataclass(frozen=True)
class EngineContext:
    """What every engine is made from."""

    recipe: Recipe
    codec: Any
    """`prompts.Codec` of the run's model: tokenizer and template."""
    meter: EngineMeter
    on_token: TokenListener | None = None
    budget: Budget = field(default_factory=Budget)
    """What fits into memory, as far as the run has learned it."""
    kept: MutableMapping[str, Any] = field(default_factory=dict)
    """JSON values by name that the engine finds again when the run is resumed; durable with the next answer."""
    on_message: MessageListener | None = None
    loaded: LoadedModel | None = None
    """The recipe's model, where the caller has loaded it."""


@dataclass(frozen=True)
class Needs:
    """What an engine needs of the recipe's model, so that nothing else is loaded.

    `tokenizer`: the model's tokenizer and template on this machine. `local_model`: its weights; without, `model.name`
    is a name that only the engine understands, and no file of it is read or hashed. `token_ids`: requests with
    `prompt_ids`; without, and without a tokenizer, prompts are messages alone, and every completion says in `usage`
    how many tokens it took. Token ids without a tokenizer are UTF-8 bytes. `server`: answers come from one that speaks
    OpenAI's API; it takes whatever parameter a row has, and settings about token ids, which are its own.
    """

    tokenizer: bool = True
    local_model: bool = True
    token_ids: bool = True
    server: bool = False


@dataclass(frozen=True)
class EngineKind:
    """What `engine.kind` names. `build` imports what it needs when it is called; `options` is the model of the kind's
    own section, `engine.NAME`, which `context.recipe.engine.options` then holds, and `needs` may depend on these.
    `strict`: whether it can be asked for batch invariance (`engine.reproducible: strict`).
    `cannot` gets the recipe's other sections by name and these options, and says what of them the kind cannot do (None:
    it can do it all)."""

    build: Callable[[EngineContext], Engine]
    needs: Needs | Callable[[Any], Needs] = Needs()
    options: type[Any] | None = None
    cannot: Callable[[Mapping[str, Any], Any], str | None] = lambda sections, options: None
    strict: bool = False
