"""HTTP over one connection that stays open: httpx2's own connections, without its client and its pool.

A line has one request in flight, so there is no connection to be chosen, and what a client and a pool do for each
request takes more processor time than the request itself.
"""

from __future__ import annotations

import socket
import ssl
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import httpcore2
import httpx2

Headers = Sequence[tuple[bytes, bytes]]
_PACKED = (b"gzip", b"x-gzip", b"deflate")
_ANY_ZLIB = 47
"""Either format, as its own first bytes tell."""


class Wires:
    """Makes wires to one server: `context` says whom to trust, `proxy` is the address of one on the way."""

    def __init__(self, url: str, context: ssl.SSLContext, proxy: str | None, seconds: Mapping[str, float]):
        """`seconds`: the longest that connect, read and write may take."""
        self._origin = httpcore2.URL(url).origin
        passing = None if proxy is None else _proxy(proxy)
        self._pool = httpcore2.ConnectionPool(context, proxy=passing, network_backend=_Network())
        self._seconds = seconds

    def wire(self) -> Wire:
        return Wire(lambda: self._pool.create_connection(self._origin), self._seconds)


class Wire:
    """`shut` may be called from another thread, everything else from one."""

    def __init__(self, connect: Callable[[], httpcore2.ConnectionInterface], seconds: Mapping[str, float]):
        self._connect = connect
        self._connection: httpcore2.ConnectionInterface | None = None
        self._socket: socket.socket | None = None
        self._given_up = False
        self._going: dict[str, Any] = {"timeout": seconds}
        self._opening = {**self._going, "trace": self._watch}

    def send(self, method: str, url: httpcore2.URL, headers: Headers, body: bytes | None) -> httpcore2.Response:
        """The head of the answer, whose stream is read and then closed. Raises what httpcore2 raises."""
        found, extensions = self._connection, self._going
        if found is None or found.is_closed() or found.has_expired():
            self.close()
            found, extensions = self._connect(), self._opening
            self._connection = found
        return found.handle_request(
            httpcore2.Request(method, url, headers=headers, content=body, extensions=extensions)
        )

    def shut(self, for_good: bool = False) -> None:
        """End what is under way, `for_good` at the latest when it is connected."""
        self._given_up = self._given_up or for_good
        open_ = self._socket
        if open_ is not None:
            with suppress(OSError):  # it has ended by itself
                socket.socket.shutdown(open_, socket.SHUT_RDWR)  # TLS itself bears no second thread

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = self._socket = None

    def _watch(self, event: str, info: Mapping[str, Any]) -> None:
        if event.endswith(("connect_tcp.complete", "start_tls.complete")):
            self._socket = info["return_value"].get_extra_info("socket")
            if self._given_up:
                self.shut()


class _Network(httpcore2.SyncBackend):
    """Opens streams that send a request as a whole."""

    def connect_tcp(self, *arguments: Any, **options: Any) -> httpcore2.NetworkStream:
        return _Stream(super().connect_tcp(*arguments, **options))


class _Stream(httpcore2.NetworkStream):
    """Sends what was written when something is to be read: head and body in one piece, which costs half as many system
    calls, here and at the server."""

    def __init__(self, stream: httpcore2.NetworkStream):
        self._stream = stream
        self._written: list[bytes] = []

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if self._written:
            whole = b"".join(self._written)
            self._written.clear()
            with suppress(httpcore2.WriteError):  # a server that hangs up may have said why
                self._stream.write(whole, timeout)
        return self._stream.read(max_bytes, timeout)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._written.append(buffer)

    def close(self) -> None:
        self._stream.close()

    def start_tls(self, *arguments: Any, **options: Any) -> httpcore2.NetworkStream:
        return _Stream(self._stream.start_tls(*arguments, **options))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def parts_of(response: httpcore2.Response) -> Iterator[bytes]:
    """The body as it comes, unpacked. Raises ValueError, EOFError or zlib.error for one that is packed wrongly."""
    packed = header(response, b"content-encoding") or b"identity"
    if packed == b"identity":
        yield from response.iter_stream()
        return
    if packed not in _PACKED:
        raise ValueError(f"the answer is packed as {packed.decode('latin-1')}, which was not asked for")
    unpacker = zlib.decompressobj(_ANY_ZLIB)
    for part in response.iter_stream():
        yield unpacker.decompress(part)
    yield unpacker.flush()
    if not unpacker.eof:
        raise EOFError("the answer ended in the middle")


def header(response: httpcore2.Response, name: bytes) -> bytes | None:
    """The first header of this name, in lower case."""
    return next((value.strip().lower() for key, value in response.headers if key.lower() == name), None)


def _proxy(address: str) -> httpcore2.Proxy:
    found = httpx2.Proxy(address)
    url = httpcore2.URL(
        scheme=found.url.raw_scheme, host=found.url.raw_host, port=found.url.port, target=found.url.raw_path
    )
    return httpcore2.Proxy(url, found.raw_auth, found.headers.raw, found.ssl_context)
