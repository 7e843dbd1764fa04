"""Those who write the turns of a run: the model, and where there is one the model that plays the user."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass
from typing import Any

from batchchat.engines.tools.offered import Offered, offered_tools
from batchchat.models import TextSide, load_text_side, require_in_reach
from batchchat.models.identity import model_identity
from batchchat.models.loaded import LoadedModel
from batchchat.prompts import Codec, MessagesCodec, SettingsResolver
from batchchat.prompts.overflow import Policy
from batchchat.prompts.simulated import SimulatedUser
from batchchat.recipe import GenerationSection, Recipe
from batchchat.sources.from_recipe import read_template_file
from batchchat.store import RunStore

log = logging.getLogger("batchchat")

MOST_QUERIES = 4
"""User turns of a chat that a model writes well with nothing told; behind them it drifts into repeating itself."""


@dataclass(frozen=True)
class Side:
    """What is needed to ask for a turn and to read it."""

    codec: Codec
    resolver: SettingsResolver
    generation: GenerationSection
    overflow: Policy
    context_length: int | None

    @property
    def has_token_ids(self) -> bool:
        return not isinstance(self.codec, MessagesCodec)


@dataclass(frozen=True)
class Sides:
    """Both sides of a run's chats. `user` and `player` are None where no model plays the user."""

    text: TextSide
    assistant: Side
    user: Side | None = None
    player: SimulatedUser | None = None
    user_text: TextSide | None = None
    """Of a model of the user's own."""
    tools: Offered | None = None
    """Tools that are run."""
    loaded: LoadedModel | None = None
    """The assistant's model, where the caller has loaded it."""


def open_sides(recipe: Recipe, loaded: LoadedModel | None = None) -> Sides:
    """What the recipe's models need before a weight is read. Raises UsageError where they cannot be used."""
    text = load_text_side(recipe) if loaded is None else loaded.text_side(recipe)
    assistant = _side(recipe, text, recipe.generation)
    tools = offered_tools(recipe.tools) if recipe.tools is not None and recipe.tools.runs else None
    simulate = recipe.simulate
    if simulate is None:
        return Sides(text, assistant, tools=tools, loaded=loaded)
    own = recipe.user
    if own is not None and own.reads_model:
        require_in_reach(own.model)
    user_text = None if own is None else load_text_side(own)
    user = _side(own or recipe, user_text or text, simulate.generation)
    instructions = read_template_file(simulate.instructions, "simulate.instructions")
    player = SimulatedUser(simulate, instructions, user.codec)
    if simulate.method == "magpie" and simulate.turns > MOST_QUERIES:
        log.warning("%s", many_queries(simulate.turns))
    return Sides(text, assistant, user, player, user_text, tools, loaded)


def keep_tools(store: RunStore, sides: Sides) -> None:
    """Keep the tools that are run where chats are read, now and when the run is long over."""
    if sides.tools is not None:
        store.set_meta("tools", sides.tools.schemas)


def many_queries(turns: int) -> str:
    """What is to be said of a chat of so many turns whose user's turns come from a template alone."""
    return (
        f"simulate.turns is {turns}, but with nothing told a model writes about {MOST_QUERIES} user turns of a chat "
        "well and repeats itself behind them"
    )


def side_facts(recipe: Recipe, sides: Sides) -> dict[str, Any]:
    """What decides the answers besides recipe and input: the models' files, their templates, their own defaults."""
    facts = _model_facts(recipe, sides.text, sides.loaded)
    if recipe.source.prompt_files:
        files = {name: _hash(read_template_file(name, "source.prompt_files")) for name in recipe.source.prompt_files}
        facts["prompt_files"] = files
    if sides.tools is not None:
        facts["tools_sha256"] = _hash(json.dumps(sides.tools.schemas, sort_keys=True))
    if recipe.simulate is not None:
        instructions = read_template_file(recipe.simulate.instructions, "simulate.instructions")
        own = recipe.user
        known = {} if own is None or sides.user_text is None else _model_facts(own, sides.user_text)
        facts["user"] = {**known, "instructions_sha256": _hash(instructions)}
    return facts


def _model_facts(recipe: Recipe, text: TextSide, loaded: LoadedModel | None = None) -> dict[str, Any]:
    if loaded is not None:
        known = loaded.identity(recipe.model.name)
    else:
        known = model_identity(recipe.model) if recipe.reads_model else {"name": recipe.model.name}
    defaults = json.loads(json.dumps(dict(text.generation_defaults), default=str))
    return {**known, "template_sha256": _hash(text.codec.template or ""), "generation_defaults": defaults}


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _side(recipe: Recipe, text: TextSide, generation: GenerationSection) -> Side:
    limits = [limit for limit in (recipe.chat.max_context, text.codec.context_length) if limit is not None]
    return Side(
        text.codec,
        SettingsResolver(generation, text.generation_defaults, text.codec, recipe.engine.grammar_backend),
        generation,
        recipe.chat.overflow,
        min(limits, default=None),
    )
