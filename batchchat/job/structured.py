"""Forms that answers must have, in a run: refused before the model is asked, and looked at when an answer is there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from batchchat.chats import Message, Request, Settings
from batchchat.errors import UsageError
from batchchat.prompts import Codec
from batchchat.recipe import Recipe
from batchchat.structure import Agreement, agreement, malformed, refusal


class Structured:
    """The forms of one run. An engine with the model on this machine keeps answers in them; a server is asked to."""

    def __init__(self, recipe: Recipe, codec: Codec):
        self._codec = codec
        self._kept_here = recipe.engine.needs.local_model

    def refusal(self, settings: Settings) -> str | None:
        """Why answers cannot be kept in the form that the settings name, in one sentence; None if they can. Raises
        EnvironmentFault without the libraries that it takes."""
        structure = settings.structured
        if structure is None:
            return None
        reason = refusal(structure) if self._kept_here else malformed(structure)
        of_calls = structure.kind == "calls"
        if reason is not None:
            what = "the schemas of strict tools" if of_calls else "generation.structured"
            return f"{what} cannot be kept: {reason}; change it, or leave it out"
        if not self._kept_here:
            return None
        if not settings.stop_token_ids and not of_calls:
            return (
                "generation.structured needs a token that ends the answer, and there is none; leave "
                "generation.ignore_eos out, or name one with generation.stop_token_ids"
            )
        try:
            self._codec.token_texts()
        except UsageError as error:
            return str(error)
        return None

    def require(self, settings: Settings) -> None:
        """Raises UsageError for the recipe's own settings where their form cannot be kept."""
        if (reason := self.refusal(settings)) is not None:
            raise UsageError(reason)

    def found(self, request: Request, message: Message, finish_reason: str) -> Agreement | None:
        """Whether an answer has its form, with the beginning of the turn that it continues; None where it needs none,
        as where it calls a tool instead."""
        structure = request.settings.structured
        if structure is None or structure.kind == "calls" or message.tool_calls:
            return None
        return agreement(structure, request.continued + (message.content or ""), cut=finish_reason == "length")


def facts(found: Agreement | None, note: str | None) -> Mapping[str, Any]:
    """What is kept of it with the answer, and what else there is to note."""
    notes = [one for one in (note, None if found is None else found.reason) if one is not None]
    return {
        **({} if found is None else {"structure": found.state}),
        **({"note": "; ".join(notes)} if notes else {}),
    }
