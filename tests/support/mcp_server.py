"""A server of tools over stdio, for tests: one that adds, one that fails, one that never answers, one with an image."""

from __future__ import annotations

import time

from mcp.server.mcpserver import Image, MCPServer

server = MCPServer("numbers")


@server.tool()
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.tool()
def refuse(reason: str) -> str:
    """Fail."""
    raise ValueError(reason)


@server.tool()
def sleep() -> str:
    """Take for ever."""
    time.sleep(600)
    return "awake"


@server.tool()
def picture() -> Image:
    """Something that is no text."""
    return Image(data=b"\0\1", format="png")


if __name__ == "__main__":
    server.run("stdio")
