"""A server that speaks OpenAI's chat API on loopback, well or badly, and keeps a log of what it was asked."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, ClassVar


@dataclass(frozen=True)
class Asked:
    """A request: when it came, in seconds of `time.monotonic`, and the number of requests before it."""

    number: int
    at: float
    method: str
    path: str
    headers: Mapping[str, str]
    raw: bytes
    in_flight: int

    @property
    def body(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.raw)
        return found

    @property
    def question(self) -> str:
        found: str = self.body["messages"][-1]["content"]
        return found


@dataclass(frozen=True)
class Said:
    """What is sent back: `wire`, if given, byte for byte, and then the connection is closed."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    wire: bytes | None = None
    pause_after: int | None = None
    """Bytes after which it pauses for `pause` seconds."""
    pause: float = 0.0


Handler = Callable[[Asked], Awaitable[Said]]


def completion(text: str | None, *, model: str = "served", finish: str = "stop", **message: Any) -> dict[str, Any]:
    """A chat completion with one choice; a token is a word."""
    words = len((text or "").split())
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": model,
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": text, **message}, "finish_reason": finish}
        ],
        "usage": {"prompt_tokens": 10, "completion_tokens": words, "total_tokens": 10 + words},
    }


def as_json(value: Any, status: int = 200, **headers: str) -> Said:
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return Said(status, {"content-type": "application/json", **named}, json.dumps(value).encode())


def fault(status: int, message: str, **headers: str) -> Said:
    return as_json({"error": {"message": message, "code": None}}, status, **headers)


async def echo(asked: Asked) -> Said:
    """Repeats the question."""
    return as_json(completion(asked.question))


class ChatServer:
    """Runs in a thread of its own while it is entered. `asked` are the requests for answers, in order."""

    def __init__(
        self,
        handler: Handler = echo,
        context: ssl.SSLContext | None = None,
        port: int = 0,
        models: Said | None = None,
    ):
        """`models`: what is said of the models that there are; by default that there is one."""
        self.asked: list[Asked] = []
        self.others: list[Asked] = []
        self._handler = handler
        self._context = context
        self._port = port
        self._models = models or as_json({"object": "list", "data": [{"id": "served", "object": "model"}]})
        self._in_flight = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"{'http' if self._context is None else 'https'}://127.0.0.1:{self._port}/v1"

    @property
    def port(self) -> int:
        return self._port

    @property
    def most_in_flight(self) -> int:
        return max((asked.in_flight for asked in self.asked), default=0)

    def __enter__(self) -> ChatServer:
        listening = self._loop.create_server(lambda: _Wire(self), "127.0.0.1", self._port, ssl=self._context)
        self._server = self._loop.run_until_complete(listening)
        self._port = self._server.sockets[0].getsockname()[1]
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """Close every connection at once, whatever is in flight."""
        if self._loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    async def _end(self) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        for wire in list(_Wire.open_of(self)):
            wire.transport.abort()
        await asyncio.sleep(0.01)

    def answer(self, wire: _Wire, head: bytes, raw: bytes) -> None:
        task = self._loop.create_task(self._answer(wire, head, raw))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, wire: _Wire, head: bytes, raw: bytes) -> None:
        first, *lines = head.decode("latin-1").split("\r\n")
        method, path, _ = first.split(" ", 2)
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        self._in_flight += 1
        log = self.asked if method == "POST" and path.endswith("/chat/completions") else self.others
        asked = Asked(len(log), time.monotonic(), method, path, headers, raw, self._in_flight)
        log.append(asked)
        try:
            if log is self.others and path.endswith("/models"):
                said = self._models
            else:
                said = await self._handler(asked)
        except Exception as error:
            said = Said(wire=f"the test's own server failed: {error!r}".encode())
        finally:
            self._in_flight -= 1
        await wire.send(said)


class _Wire(asyncio.Protocol):
    """One connection."""

    _open: ClassVar[set[_Wire]] = set()

    def __init__(self, server: ChatServer):
        self.server = server
        self._buffer = b""

    @classmethod
    def open_of(cls, server: ChatServer) -> list[_Wire]:
        return [wire for wire in cls._open if wire.server is server]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._open.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._open.discard(self)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end]
            lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            size = int(lengths[0].partition(b":")[2]) if lengths else 0
            if len(self._buffer) < end + 4 + size:
                return
            raw = self._buffer[end + 4 : end + 4 + size]
            self._buffer = self._buffer[end + 4 + size :]
            self.server.answer(self, head, raw)

    async def send(self, said: Said) -> None:
        if said.wire is not None:
            data = said.wire
        else:
            named = "".join(f"{name}: {value}\r\n" for name, value in said.headers.items())
            head = f"HTTP/1.1 {said.status} Whatever\r\ncontent-length: {len(said.body)}\r\n{named}\r\n"
            data = head.encode("latin-1") + said.body
        if said.pause_after is not None:
            self.transport.write(data[: said.pause_after])
            await asyncio.sleep(said.pause)
            data = data[said.pause_after :]
        if not self.transport.is_closing():
            self.transport.write(data)
            if said.wire is not None:
                self.transport.close()
