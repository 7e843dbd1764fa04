"""The tools that a recipe runs: how each is called, and what models are told of it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from pydantic import create_model

from batchchat.engines.tools.worker import Worker
from batchchat.errors import EnvironmentFault, UsageError
from batchchat.plugins.functions import load_function
from batchchat.recipe.tools import ToolsSection


@dataclass(frozen=True)
class Offered:
    """`schemas` are tools as OpenAI's API has them; `calls` says by name what a process of tools is asked."""

    schemas: tuple[Mapping[str, Any], ...]
    calls: Mapping[str, Mapping[str, Any]]


def offered_tools(section: ToolsSection) -> Offered:
    """Every tool of the recipe. Starts each MCP server once, to ask what it has. Raises UsageError for what is no tool
    and for two of one name, EnvironmentFault where a server cannot be started."""
    found: dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {}

    def add(name: str, schema: Mapping[str, Any], call: Mapping[str, Any]) -> None:
        if name in found:
            raise UsageError(f"tools has two tools named {name}; rename one of them")
        found[name] = {"type": "function", "function": {"name": name, **schema}}, call

    for target in section.run:
        function = load_function(target, "tools.run")
        add(target.rpartition(":")[2].rpartition(".")[2], _schema(function, target), {"target": target})
    if section.mcp and find_spec("mcp") is None:
        raise EnvironmentFault("tools.mcp needs the package mcp; install it with: pip install 'batchchat[mcp]'")
    worker = Worker(section.max_result)
    try:
        for name, server in section.mcp.items():
            started = {"command": list(server.command), "environment": dict(server.environment)}
            reply = worker.ask({"server": started}, section.seconds)
            if "tools" not in reply:
                raise EnvironmentFault(
                    f"the MCP server {name} cannot be asked for its tools ({reply.get('error')}); try its command by "
                    f"hand: {' '.join(server.command)}"
                )
            for tool in reply["tools"]:
                schema = {"description": tool.get("description") or "", "parameters": tool["inputSchema"]}
                add(tool["name"], schema, {"server": started, "name": tool["name"]})
    finally:
        worker.close()
    return Offered(tuple(schema for schema, _ in found.values()), {name: call for name, (_, call) in found.items()})


def _schema(function: Callable[..., Any], target: str) -> dict[str, Any]:
    """Description and parameters of a function, from its docstring and signature."""
    try:
        parameters = inspect.signature(function, eval_str=True).parameters.values()
    except (TypeError, ValueError, NameError) as error:
        raise UsageError(f"tools.run: the parameters of {target} cannot be read ({error}); name a function") from error
    fields: dict[str, Any] = {}
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise UsageError(f"tools.run: {target} takes {parameter}, which no call can name; give it a name")
        kind = Any if parameter.annotation is parameter.empty else parameter.annotation
        fields[parameter.name] = (kind, ... if parameter.default is parameter.empty else parameter.default)
    try:
        schema = create_model("Arguments", **fields).model_json_schema()
    except Exception as error:  # a type that says no schema raises pydantic's own errors
        raise UsageError(
            f"tools.run: {target} has parameters that JSON cannot hold ({error}); change their types"
        ) from error
    schema.pop("title", None)
    return {"description": inspect.getdoc(function) or "", "parameters": schema}
