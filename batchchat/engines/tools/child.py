"""A process that runs tools, one call at a time: lines of JSON in, lines of JSON out.

A call is `{"target": "module:function", "arguments": {…}}` or `{"server": {…}, "name": …, "arguments": {…},
"seconds": …}`; without a name, the server's tools are listed. A reply is `{"text"}`, `{"error"}` or `{"tools"}`. What a
tool prints goes nowhere, and the process ends with its parent.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from contextlib import AsyncExitStack
from typing import Any

from pydantic import validate_call

from batchchat.chats.json_text import encodable
from batchchat.plugins.functions import load_function

_WATCH_SECONDS = 0.5
_START_SECONDS = 60.0


class Child:
    """What was opened so far: functions by their targets, and servers by what starts them."""

    def __init__(self, limit: int):
        self._limit = limit
        self._functions: dict[str, Any] = {}
        self._servers: dict[str, tuple[AsyncExitStack, Any]] = {}

    async def reply(self, call: dict[str, Any]) -> dict[str, Any]:
        try:
            if "target" in call:
                return {"text": self._text(self._run(call))}
            return await self._ask(call)
        except BaseException as error:  # a tool may raise anything, SystemExit too
            words = " ".join(str(error).split())[:1000]
            return {"error": f"{type(error).__name__}: {words}" if words else type(error).__name__}

    async def close(self) -> None:
        for key in list(self._servers):
            await self._drop(key)

    def _run(self, call: dict[str, Any]) -> Any:
        target = call["target"]
        if target not in self._functions:
            self._functions[target] = validate_call(load_function(target, "tools.run"))
        return self._functions[target](**call["arguments"])

    async def _ask(self, call: dict[str, Any]) -> dict[str, Any]:
        key = json.dumps(call["server"], sort_keys=True)
        try:
            if key not in self._servers:
                async with asyncio.timeout(_START_SECONDS):
                    self._servers[key] = await _open(call["server"])
            async with asyncio.timeout(call["seconds"]):
                client = self._servers[key][1]
                if "name" not in call:
                    tools = (await client.list_tools()).tools
                    return {"tools": [tool.model_dump(mode="json", by_alias=True) for tool in tools]}
                result = await client.call_tool(call["name"], call["arguments"])
        except BaseException as error:
            await self._drop(key)
            if isinstance(error, TimeoutError):
                return {"error": f"the server gave no answer within {call['seconds']:g} s and was ended"}
            raise
        texts = [part.text if part.type == "text" else f"({part.type} content is left out)" for part in result.content]
        text = self._text("\n".join(texts))
        return {"error": text} if result.is_error else {"text": text}

    async def _drop(self, key: str) -> None:
        """Close a server: its process is ended, whatever it does."""
        stack, _ = self._servers.pop(key, (None, None))
        if stack is not None:
            try:
                await stack.aclose()
            except BaseException as error:  # it is given up either way
                print(error, file=sys.stderr)

    def _text(self, value: Any) -> str:
        if isinstance(value, bytes | bytearray):
            raise TypeError(f"the tool returned {len(value):,} bytes that are no text")
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, allow_nan=False)
        if len(text) > self._limit:
            raise ValueError(f"the result has {len(text):,} characters, more than the {self._limit:,} that are allowed")
        if encodable(text) != text or "\0" in text:
            raise ValueError("the result is binary: it holds characters that are no text")
        return text


async def _open(server: dict[str, Any]) -> tuple[AsyncExitStack, Any]:
    from mcp import Client, StdioServerParameters

    program, *arguments = server["command"]
    parameters = StdioServerParameters(command=program, args=arguments, env=server["environment"])
    stack = AsyncExitStack()
    return stack, await stack.enter_async_context(Client(parameters))


async def serve(limit: int, replies: int) -> None:
    """Answer calls from standard input until it closes; `replies` is the descriptor that answers are written to."""
    child = Child(limit)
    loop = asyncio.get_running_loop()
    _write(replies, "{}\n")  # it is ready
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        reply = await child.reply(json.loads(line))
        _write(replies, json.dumps(reply) + "\n")
    await child.close()


def _write(descriptor: int, text: str) -> None:
    left = text.encode("utf-8")
    while left:
        left = left[os.write(descriptor, left) :]


def _end_with_parent() -> None:
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(_WATCH_SECONDS)
    os._exit(1)


def main() -> None:
    replies = os.dup(1)
    os.dup2(2, 1)  # what tools print is no reply
    threading.Thread(target=_end_with_parent, daemon=True).start()
    asyncio.run(serve(int(sys.argv[1]), replies))


if __name__ == "__main__":
    main()
