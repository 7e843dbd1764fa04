"""One attempt at a time over HTTP, on a connection that stays open."""

from __future__ import annotations

import os
import ssl
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

import httpcore2
import httpx2

from batchchat.chats import Message
from batchchat.engines.endpoint.address import chat_url, path_url, text_url
from batchchat.engines.endpoint.options import EndpointOptions
from batchchat.engines.endpoint.retry import Attempt, Failure
from batchchat.engines.endpoint.stream import Pieces
from batchchat.engines.endpoint.wire import Headers, Wire, Wires, header, parts_of
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
        self.chat = httpcore2.URL(chat_url(options.url, options.prompts))
        self.text = httpcore2.URL(text_url(options.url))
        self.models = httpcore2.URL(path_url(options.url, "/models"))
        self._key = read_key(options.api_key_env)
        is_secret = self._key is not None and len(self._key) >= _SHORTEST_SECRET
        self._secret = self._key.encode("ascii") if self._key is not None and is_secret else b""
        parts = urlsplit(options.url)
        self._host = parts.netloc
        context = _trust(options.verify) if parts.scheme == "https" else _UNUSED
        silence = options.silence_seconds
        seconds = {"connect": options.connect_seconds, "read": silence, "write": silence}
        self._wires = Wires(options.url, context, _proxy(options.url), seconds)

    def headers(self, kind: str | None = "application/json") -> Headers:
        """Of a request whose body is of this kind; its length comes to them."""
        own = {"User-Agent": f"batchchat/{__version__}", "Accept": "application/json", **self.options.headers}
        if kind is not None:
            own["Content-Type"] = kind
        if self._key is not None:
            bearer = self.options.api_key_header.lower() == "authorization"
            own[self.options.api_key_header] = f"Bearer {self._key}" if bearer else self._key
        named = {"Host": self._host, **own}
        return [(name.encode("ascii"), value.encode("ascii")) for name, value in named.items()]

    def connect(self) -> Connection:
        """A connection that is opened when it is used."""
        return Connection(self, self._wires.wire())

    def hidden(self, said: bytes) -> bytes:
        """What a server said, without the key, should it repeat it."""
        return said.replace(self._secret, _HIDDEN) if self._secret and self._secret in said else said


class Connection:
    """Sends one request after the other. `cut` may be called from another thread; everything else from one."""

    def __init__(self, server: Server, wire: Wire):
        self._server = server
        self._wire = wire
        self._headers = server.headers()
        self._cut: str | None = None
        self.busy_since: float | None = None

    def post(self, body: bytes, is_chat: bool = True, on_message: Callable[[Message], None] | None = None) -> Attempt:
        """Send the body of a chat's completion, or of a prompt's. `on_message` hears what is said so far, of an answer
        that comes in pieces. Never raises for what the network or the server does."""
        url = self._server.chat if is_chat else self._server.text
        return self.send("POST", url, self._headers, body, on_message=on_message)

    def send(
        self,
        method: str,
        url: httpcore2.URL,
        headers: Headers,
        body: bytes | None = None,
        sink: IO[bytes] | None = None,
        on_message: Callable[[Message], None] | None = None,
    ) -> Attempt:
        """Send any request. A good answer goes to the `sink`, line by line without the key, if there is one."""
        clock = self._server.clock
        self._cut = None
        self.busy_since = sent = clock()
        if body is not None:
            headers = [*headers, (b"Content-Length", b"%d" % len(body))]
        try:
            response = self._wire.send(method, url, headers, body)
            try:
                if sink is not None and response.status == 200:
                    for line in _lines(response):
                        sink.write(self._server.hidden(line))
                    answer = b""
                elif on_message is not None and _is_in_pieces(response):
                    answer = self._server.hidden(self._joined(response, on_message))
                else:
                    answer = self._server.hidden(_whole(response))
            finally:
                response.close()
            hidden = self._server.hidden
            known = {name.lower().decode("ascii"): hidden(one).decode("latin-1") for name, one in response.headers}
            return Attempt(sent, clock(), response.status, known, answer)
        except Exception as error:  # whatever it was, the request came to nothing
            failure, words = self._explained(error)
            self._wire.close()
            return Attempt(sent, clock(), failure=failure, words=words)
        finally:
            self.busy_since = None

    def cut(self, why: str) -> None:
        """End the attempt that is being made."""
        self._cut = why
        self._wire.shut()

    def _joined(self, response: httpcore2.Response, on_message: Callable[[Message], None]) -> bytes:
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

    def abandon(self) -> None:
        """End the attempt that is being made, at the latest when it is connected, and make no other."""
        self._cut = "it was given up"
        self._wire.shut(for_good=True)

    def close(self) -> None:
        self._wire.close()

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
        if isinstance(error, httpcore2.ConnectTimeout):
            return "unreachable", f"connecting took more than {options.connect_seconds:g} s"
        if isinstance(error, httpcore2.ConnectError | httpcore2.ProxyError):
            return "unreachable", _words(causes)
        if isinstance(error, httpcore2.TimeoutException):
            return "late", f"it said nothing for {options.silence_seconds:g} s"
        return "broken", _words(causes)


class _TooLargeError(Exception):
    """An answer has too many bytes."""


def _whole(response: httpcore2.Response) -> bytes:
    if int(header(response, b"content-length") or 0) > MOST_BYTES:
        raise _TooLargeError
    parts, size = [], 0
    for part in parts_of(response):
        size += len(part)
        if size > MOST_BYTES:
            raise _TooLargeError
        parts.append(part)
    return b"".join(parts)


def _is_in_pieces(response: httpcore2.Response) -> bool:
    kind = header(response, b"content-type") or b""
    return response.status == 200 and kind.startswith(b"text/event-stream")


def _lines(response: httpcore2.Response) -> Iterator[bytes]:
    """Whole lines with their ends, as they come."""
    rest: list[bytes] = []
    for part in parts_of(response):
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
