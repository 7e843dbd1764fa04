"""A server that costs as little as it can: the same answer to every request, after a while.

python -m scripts.other_engines.server PORT SECONDS
"""

from __future__ import annotations

import asyncio
import json
import sys

from tests.support.chat_server import completion

_BODY = json.dumps(completion("hello there, this is an answer of some length " * 4)).encode()
_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(_BODY) + _BODY


class _Wire(asyncio.Protocol):
    """One connection, on which requests come one after the other."""

    def __init__(self, seconds: float):
        self._seconds = seconds
        self._held = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._held += data
        while (end := self._held.find(b"\r\n\r\n")) >= 0:
            head = self._held[:end].lower()
            _, named, rest = head.partition(b"content-length:")
            whole = end + 4 + (int(rest.split(b"\r\n", 1)[0]) if named else 0)
            if len(self._held) < whole:
                return
            self._held = self._held[whole:]
            asyncio.get_running_loop().call_later(self._seconds if named else 0, self._answer)

    def _answer(self) -> None:
        if not self._transport.is_closing():
            self._transport.write(_ANSWER)


async def _serve(port: int, seconds: float) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: _Wire(seconds), "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), float(sys.argv[2])))
