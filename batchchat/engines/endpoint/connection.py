"""One attempt at a time over HTTP, on a connection that stays open."""

from __future__ import annotations

import os
import socket
import ssl
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import httpx2

from batchchat.chats import Message
from batchchat.engines.endpoint.address import chat_url, path_url, text_url
from batchchat.engines.endpoint.options import EndpointOptions
from batchchat.engines.endpoint.retry import Attempt, Failure
from batchchat.engines.endpoint.stream import Pieces
from batchchat.errors import EnvironmentFault
from batchchat.version import __version__

MOST_BYTES = 32 * 2**20
"""Of one answer: more than any number of tokens with their log-probabilities takes."""
_HIDDEN = b"***"
_SHORTEST_SECRET = 16
"""Shorter keys, such as EMPTY, are no secrets but words that an answer may hold."""
_UNUSED = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Where no certificate is looked at: reading the machine's authorities takes a while."""


class Server:
    """A server and the right to use it: makes connections. The key is in here, and nowhere else."""

    def __init__(self, options: EndpointOptions, clock: Callable[[], float]):
        """Raises EnvironmentFault where the key's variable or the file of authorities cannot be used."""
        self.options = options
        self.clock = clock
        self.chat = httpx2.URL(chat_url(options.url, options.prompts))
        self.text = httpx2.URL(text_url(options.url))
        self.models = httpx2.URL(path_url(options.url, "/models"))
        self._key = read_key(options.api_key_env)
        is_secret = self._key is not None and len(self._key) >= _SHORTEST_SECRET
        self._secret = self._key.encode("ascii") if self._key is not None and is_secret else b""
        self._context = _trust(options.verify) if self.chat.scheme == "https" else _UNUSED
        self._proxy = _proxy(options.url)

    def headers(self, kind: str | None = "application/json") -> httpx2.Headers:
        """Of a request whose body is of this kind."""
        own = {"User-Agent": f"batchchat/{__version__}", "Accept": "application/json", **self.options.headers}
        if kind is not None:
            own["Content-Type"] = kind
        if self._key is not None:
            bearer = self.options.api_key_header.lower() == "authorization"
            own[self.options.api_key_header] = f"Bearer {self._key}" if bearer else self._key
        return httpx2.Headers({"Host": self.chat.netloc.decode("ascii"), **own})

    def connect(self) -> Connection:
        """A connection that is opened when it is used."""
        return Connection(self)

    def transport(self) -> httpx2.HTTPTransport:
        one = httpx2.Limits(max_connections=1, max_keepalive_connections=1)
        return httpx2.HTTPTransport(verify=self._context, trust_env=False, limits=one, proxy=self._proxy)

    def hidden(self, said: bytes) -> bytes:
        """What a server said, without the key, should it repeat it."""
        return said.replace(self._secret, _HIDDEN) if self._secret and self._secret in said else said


class Connection:
    """Sends one request after the other. `cut` may be called from another thread; everything else from one."""

    def __init__(self, server: Server):
        options = server.options
        self._server = server
        self._headers = server.headers()
        self._transport = server.transport()
        self._socket: socket.socket | None = None
        self._cut: str | None = None
        self._abandoned = False
        seconds = {"connect": options.connect_seconds, "read": options.silence_seconds}
        self._extensions = {
            "timeout": {**seconds, "write": options.silence_seconds, "pool": None},
            "trace": self._watch,
        }
        self.busy_since: float | None = None

    def post(self, body: bytes, is_chat: bool = True, on_message: Callable[[Message], None] | None = None) -> Attempt:
        """Send the body of a chat's completion, or of a prompt's. `on_message` hears what is said so far, of an answer
        that comes in pieces. Never raises for what the network or the server does."""
        url = self._server.chat if is_chat else self._server.text
        return self.send("POST", url, self._headers, body, on_message=on_message)

    def send(
        self,
        method: str,
        url: httpx2.URL,
        headers: httpx2.Headers,
        body: bytes | None = None,
        sink: IO[bytes] | None = None,
        on_message: Callable[[Message], None] | None = None,
    ) -> Attempt:
        """Send any request. A good answer goes to the `sink`, line by line without the key, if there is one."""
        clock = self._server.clock
        self._cut = None
        self.busy_since = sent = clock()
        try:
            request = httpx2.Request(method, url, headers=headers, content=body, extensions=self._extensions)
            response = self._transport.handle_request(request)
            try:
                if sink is not None and response.status_code == 200:
                    for line in _lines(response):
                        sink.write(self._server.hidden(line))
                    answer = b""
                elif on_message is not None and _is_in_pieces(response):
                    answer = self._server.hidden(self._joined(response, on_message))
                else:
                    answer = self._server.hidden(_whole(response))
            finally:
                response.close()
            known = {name.lower(): self._server.hidden(value).decode("latin-1") for name, value in _pairs(response)}
            return Attempt(sent, clock(), response.status_code, known, answer)
        except Exception as error:  # whatever it was, the request came to nothing
            failure, words = self._explained(error)
            self._reopen()
            return Attempt(sent, clock(), failure=failure, words=words)
        finally:
            self.busy_since = None

    def cut(self, why: str) -> None:
        """End the attempt that is being made."""
        self._cut = why
        self._shut()

    def _joined(self, response: httpx2.Response, on_message: Callable[[Message], None]) -> bytes:
        pieces, size = Pieces(), 0
        for line in _lines(response):
            size += len(line)
            if size > MOST_BYTES:
                raise _TooLargeError
            if pieces.take(line):
                on_message(pieces.message(self._server.hidden))
        if not pieces.is_whole:
            raise EOFError("the answer ended in the middle")
        return pieces.body()

    def _shut(self) -> None:
        if self._socket is not None:
            with suppress(OSError):  # it has ended by itself
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)  # TLS itself bears no second thread

    def abandon(self) -> None:
        """End the attempt that is being made, at the latest when it is connected, and make no other."""
        self._abandoned = True
        self.cut("it was given up")

    def close(self) -> None:
        self._transport.close()

    def _reopen(self) -> None:
        self._transport.close()
        self._transport = self._server.transport()
        self._socket = None

    def _watch(self, event: str, info: Mapping[str, Any]) -> None:
        if event.endswith(("connect_tcp.complete", "start_tls.complete")):
            self._socket = info["return_value"].get_extra_info("socket")
            if self._abandoned:
                self._shut()

    def _explained(self, error: Exception) -> tuple[Failure, str]:
        options = self._server.options
        causes = list(_causes(error))
        untrusted = next((cause for cause in causes if isinstance(cause, ssl.SSLCertVerificationError)), None)
        if self._cut is not None:
            return "late", self._cut
        if untrusted is not None:
            return "untrusted", untrusted.verify_message
        if isinstance(error, _TooLargeError):
            return "large", f"more than {MOST_BYTES // 2**20} MiB"
        if isinstance(error, httpx2.ConnectTimeout):
            return "unreachable", f"connecting took more than {options.connect_seconds:g} s"
        if isinstance(error, httpx2.ConnectError | httpx2.ProxyError):
            return "unreachable", _words(causes)
        if isinstance(error, httpx2.TimeoutException):
            return "late", f"it said nothing for {options.silence_seconds:g} s"
        return "broken", _words(causes)


class _TooLargeError(Exception):
    """An answer has too many bytes."""


def _whole(response: httpx2.Response) -> bytes:
    if int(response.headers.get("content-length") or 0) > MOST_BYTES:
        raise _TooLargeError
    parts, size = [], 0
    for part in response.iter_bytes():
        size += len(part)
        if size > MOST_BYTES:
            raise _TooLargeError
        parts.append(part)
    return b"".join(parts)


def _is_in_pieces(response: httpx2.Response) -> bool:
    kind: str = response.headers.get("content-type", "")
    return response.status_code == 200 and kind.startswith("text/event-stream")


def _pairs(response: httpx2.Response) -> Iterator[tuple[str, bytes]]:
    return ((name.decode("ascii"), value) for name, value in response.headers.raw)


def _lines(response: httpx2.Response) -> Iterator[bytes]:
    """Whole lines with their ends, as they come."""
    rest: list[bytes] = []
    for part in response.iter_bytes():
        *lines, last = part.split(b"\n")
        for line in lines:
            yield b"".join((*rest, line, b"\n"))
            rest.clear()
        rest.append(last)
    yield b"".join(rest)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _words(causes: list[BaseException]) -> str:
    """The system's own words, from the deepest cause that has some."""
    said = next((text for cause in reversed(causes) if (text := str(cause))), type(causes[0]).__name__)
    return " ".join(said.split())


def read_key(name: str | None) -> str | None:
    """The key in the environment variable of this name. Raises EnvironmentFault where there is none to be sent."""
    if name is None:
        return None
    key = os.environ.get(name, "").strip()
    if not key:
        raise EnvironmentFault(
            f"the environment variable {name}, which engine.endpoint.api_key_env names, is not set; export it"
        )
    if not (key.isascii() and key.isprintable()):
        raise EnvironmentFault(f"the environment variable {name} holds characters that no key has; set it again")
    return key


def _trust(verify: bool | str) -> ssl.SSLContext:
    if isinstance(verify, bool):
        return httpx2.create_ssl_context(verify=verify, trust_env=True)
    try:
        return ssl.create_default_context(cafile=str(Path(verify).expanduser()))
    except (OSError, ssl.SSLError) as error:
        raise EnvironmentFault(
            f"engine.endpoint.verify names {verify}, which holds no certificates ({error}); name a PEM file"
        ) from error


def _proxy(url: str) -> str | None:
    """The proxy that the environment names for this address (`HTTPS_PROXY`, `NO_PROXY`, …)."""
    parts = urlsplit(url)
    host = parts.netloc
    if urllib.request.proxy_bypass(host):
        return None
    proxies = urllib.request.getproxies()
    return proxies.get(parts.scheme) or proxies.get("all")
