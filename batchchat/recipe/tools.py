"""The `tools` section: tools that are really run, and what a call may take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from batchchat.recipe.section import MAY_CHANGE, AsTuple, Section, Text, as_texts

Target = Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$", max_length=500)]


class McpServer(Section):
    """A server of tools that speaks MCP over its standard input and output."""

    command: Annotated[tuple[Text, ...], AsTuple] = Field(
        min_length=1, description="The program and its arguments.", examples=[["python", "-m", "my_server"]]
    )
    environment: Mapping[str, str] = Field(
        default={}, description="Further environment variables of the server; what is secret belongs into its own."
    )


def as_tools(value: Any) -> Any:
    """The text `strict` stands for a section that says no more."""
    return {"strict": True} if value == "strict" else value


class ToolsSection(Section):
    """Tools that run: calls in an answer are executed and their results given to the model, until it answers. `strict`
    alone is short for `{strict: true}`, and runs none."""

    strict: bool = Field(
        default=False,
        description="Hold the arguments of every call to the tool's JSON schema, of tools that run and of those that "
        "rows bring; else of those that say `strict: true` themselves. A keyword that cannot be enforced is a mistake.",
    )
    run: Annotated[tuple[Target, ...], BeforeValidator(as_texts, json_schema_input_type=Target | list[Target])] = Field(
        default=(),
        description="Functions of your own as `module:function`; their parameters have types, and their docstring says "
        "what they do. They run in processes of their own.",
        examples=[["my_tools:weather"]],
    )
    mcp: Mapping[str, McpServer] = Field(
        default={},
        description="MCP servers over stdio, by a name of yours (the extra mcp); each process of tools starts its own.",
        examples=[{"files": {"command": ["python", "-m", "my_server"]}}],
    )
    seconds: float = Field(default=30.0, gt=0, description="The most that a call may take; then it is ended.")
    max_rounds: int = Field(
        default=5, ge=1, description="The most answers in a row that call tools; the chat ends with the next that does."
    )
    max_result: int = Field(
        default=100_000, ge=1, description="Characters of a result; a longer one is an error that the model is told."
    )
    processes: int = Field(
        default=4, ge=1, description="Processes that run tools at the same time.", json_schema_extra=MAY_CHANGE
    )

    @property
    def runs(self) -> bool:
        """Whether there is anything to run."""
        return bool(self.run or self.mcp)
