"""Strict tools in a run: the arguments of calls are held to their schemas by engines on this machine, asked of servers,
and looked at in every answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from batchchat.chats import Completion, Message, Settings, Structure
from batchchat.errors import BadRow, UsageError
from batchchat.prompts import Codec, TokenizerCodec
from batchchat.prompts.calls import call_syntax
from batchchat.recipe import Recipe
from batchchat.structure import Agreement, calls_agreement, calls_structure, read_calls, strict_schemas

Tools = tuple[Mapping[str, Any], ...] | None


class StrictTools:
    """Tools are strict where the recipe says so of all (`tools.strict`), or they say so themselves, as OpenAI's API has
    it."""

    def __init__(self, recipe: Recipe, codec: Codec):
        self._every = recipe.tools is not None and recipe.tools.strict
        self._kept_here = recipe.engine.needs.local_model
        self._backend = recipe.engine.grammar_backend
        self._codec = codec

    def require(self) -> None:
        """Raises UsageError where the recipe asks for strict tools and the model's calls cannot be held."""
        if not self._every:
            return
        if self._kept_here:
            call_syntax(self._codec)
        elif isinstance(self._codec, TokenizerCodec):
            raise UsageError(
                "a server that gets token ids is told of no tools, so it cannot hold their arguments; set "
                "engine.endpoint.prompts=messages, or leave tools.strict out"
            )

    def settings(self, settings: Settings, tools: Tools) -> Settings:
        """The settings of a chat with these tools. Raises BadRow where they cannot be held."""
        schemas = strict_schemas(tools, self._every)
        if schemas is None or not self._kept_here:
            return settings
        if settings.structured is not None:
            raise BadRow(
                "generation.structured gives the whole answer a form, which leaves no room for calls of strict tools; "
                "leave one of them out"
            )
        try:
            syntax = call_syntax(self._codec)
        except UsageError as error:
            raise BadRow(str(error)) from error
        return replace(settings, structured=replace(calls_structure(syntax, schemas), backend=self._backend))

    def sent(self, tools: Tools) -> Tools:
        """The tools as the engine gets them: a server keeps those strict that say so."""
        if not self._every or self._kept_here or tools is None:
            return tools
        return tuple({**tool, "function": {**tool["function"], "strict": True}} for tool in tools)

    def found(self, completion: Completion, message: Message) -> Agreement | None:
        """Whether the calls of an answer are what strict tools take; None where it has none."""
        schemas = strict_schemas(completion.request.tools, self._every)
        if schemas is None:
            return None
        structure = completion.request.settings.structured
        if structure is not None and structure.kind == "calls" and _is_open(structure, completion, message):
            if completion.finish_reason == "length":
                return Agreement("cut off", "the answer was cut off by max_new_tokens within a tool call")
            return Agreement("invalid", "the answer ended within a tool call")
        return calls_agreement(schemas, message.tool_calls) if message.tool_calls else None


def _is_open(structure: Structure, completion: Completion, message: Message) -> bool:
    """Whether the answer ended within a call."""
    syntax = read_calls(structure).syntax
    begun = completion.text.rfind(syntax.opens)
    if begun < 0:
        return False
    if syntax.goes_on:
        return all(completion.text.rfind(closes) < begun for closes in syntax.closes)
    return completion.finish_reason != "stop" and not message.tool_calls
