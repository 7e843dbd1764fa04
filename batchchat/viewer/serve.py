"""The viewer of a run that goes on, served to this machine alone."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from batchchat.chats.json_text import json_text
from batchchat.errors import EnvironmentFault
from batchchat.results.opening import RunResults
from batchchat.viewer.bodies import body
from batchchat.viewer.head import head
from batchchat.viewer.judges import JudgeReplies
from batchchat.viewer.packing import plain
from batchchat.viewer.page import ENDING, beginning
from batchchat.viewer.table import Block

_HOST = "127.0.0.1"
_BLOCK_ROWS = 2048
_CHUNK_ROWS = 32


class LiveRun:
    """What the page asks for, read from the run store each time. Blocks and chunks are of fixed rows of the input."""

    def __init__(self, run: RunResults):
        self._run = run
        self._judges = JudgeReplies(run.report)

    def page(self) -> str:
        known = {**self._head(), "mode": "served", "first": None}
        return beginning(Path(self._run.name).name, plain(known), "; connect-src 'self'") + ENDING

    def head(self) -> str:
        return json_text(self._head())

    def block(self, number: int) -> str:
        """The table's figures of the rows of a block."""
        found = Block(1)
        first = number * _BLOCK_ROWS
        for sample in self._run.between(first, first + _BLOCK_ROWS - 1):
            found.add((sample,), sample.answered.index // _CHUNK_ROWS)
        return json_text(found.as_dict())

    def chunk(self, number: int) -> str:
        """The chats of the rows of a chunk."""
        first = number * _CHUNK_ROWS
        samples = self._run.between(first, first + _CHUNK_ROWS - 1)
        return json_text([body((sample,), [self._judges]) for sample in samples])

    def _head(self) -> dict[str, object]:
        rows = self._run.store.num_rows()
        finished = self._run.store.meta("exported") is not None
        return {**head([self._run]), "count": rows, "blocks": -(-rows // _BLOCK_ROWS), "finished": finished}


def serve(run: RunResults, port: int, ready: Callable[[str], None]) -> None:
    """Answer until interrupted; `ready` gets the address, which holds a secret that other users of the machine do not
    know. Raises EnvironmentFault where the port is taken."""
    live = LiveRun(run)
    secret = secrets.token_urlsafe(16)
    try:
        server = HTTPServer((_HOST, port), _handler(live, secret, lambda: server.server_port))
    except OSError as error:
        raise EnvironmentFault(f"port {port} cannot be used ({error.strerror}); choose another with --port") from error
    with server:
        ready(f"http://{_HOST}:{server.server_port}/{secret}/")
        server.serve_forever()


def _handler(live: LiveRun, secret: str, port: Callable[[], int]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            host = f"{_HOST}:{port()}"
            _, key, *path = self.path.split("/")
            # a page of another site that names this machine otherwise gets nothing, and neither does one that guesses
            if self.headers.get("Host") != host or not secrets.compare_digest(key.encode(), secret.encode()):
                self._send(404, "text/plain", "there is nothing here; use the address that batchchat printed")
                return
            match path:
                case [""]:
                    self._send(200, "text/html", live.page())
                case ["head"]:
                    self._send(200, "application/json", live.head())
                case ["block", number] if number.isdecimal():
                    self._send(200, "application/json", live.block(int(number)))
                case ["chunk", number] if number.isdecimal():
                    self._send(200, "application/json", live.chunk(int(number)))
                case _:
                    self._send(404, "text/plain", "there is no such part of this run")

        def _send(self, status: int, kind: str, text: str) -> None:
            data = text.encode("utf-8")
            self.send_response(status)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Cache-Control", "no-store")
            self.send_header("X-Content-Type-Options", "nosniff")
            self.send_header("Referrer-Policy", "no-referrer")
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *values: object) -> None:  # the terminal is not for requests
            ...

    return Handler
