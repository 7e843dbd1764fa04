"""MT-Bench by `transformers serve`, which is killed in the middle and started again."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator

from batchchat.models import resolve_name
from scripts.other_engines.job import (
    GREEDY,
    MODEL,
    RECIPE,
    Place,
    await_server,
    endpoint,
    free_port,
    questions,
)
from scripts.parts import require
from tests.support.chat_server import Asked, ChatServer, Said

_KILLED_AFTER = 0.4
"""Of all answers."""
_DOWN_SECONDS = 2.0


def show(place: Place) -> Iterator[str]:
    turns = place.local()
    server = _Served(place, killed_after=int(turns * _KILLED_AFTER))
    try:
        with ChatServer(server.forward) as between:
            source = [f"source.path={questions()}", f"model.name={server.model}", f"sink.directory={place.folder}/run"]
            options = endpoint(between.url, max_in_flight=8, retries=12)
            seconds = place.call("run", RECIPE, *source, *options, *GREEDY, "-q")
            asked = len(between.asked)
    finally:
        server.stop()
    require(server.down is not None, "the server was never killed")
    report = place.report("run")
    require(report["turns"] == turns and not report["rows"]["failed"], f"{report['rows']}, {report['turns']} turns")
    twice = sum(count > 1 for count in server.answered.values())
    require(not twice, f"{twice} requests were asked again that had been answered")
    place.require_equal("run", "local")
    yield f"{turns} of {turns} turns in {seconds:.0f} s, the server away for {server.down:.0f} s of them"
    yield f"{asked} attempts, {report['engine']['retries']} of them again; nothing that was answered was asked again"
    yield f"{turns} of {turns} answers equal to the local engine's (greedy, float32)"


class _Served:
    """`transformers serve`, and what goes through to it."""

    def __init__(self, place: Place, killed_after: int):
        self.model = resolve_name(MODEL)
        self.answered: Counter[bytes] = Counter()
        self.down: float | None = None
        """Seconds for which it was not there."""
        self._place = place
        self._killed_after = killed_after
        self._port = free_port()
        self._process = self._start()
        await_server(self._process, self._port, place)

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()

    async def forward(self, asked: Asked) -> Said:
        said = await asyncio.to_thread(self._send, asked)
        if said.wire is None and said.status == 200:
            self.answered[asked.raw] += 1
            if self.answered.total() == self._killed_after:
                threading.Thread(target=self._kill).start()
        return said

    def _kill(self) -> None:
        began = time.monotonic()
        self.stop()
        time.sleep(_DOWN_SECONDS)
        self._process = self._start()
        await_server(self._process, self._port, self._place)
        self.down = time.monotonic() - began

    def _send(self, asked: Asked) -> Said:
        kind = {"content-type": "application/json"}
        url = f"http://127.0.0.1:{self._port}{asked.path}"
        try:
            with urllib.request.urlopen(urllib.request.Request(url, data=asked.raw, headers=kind), timeout=300) as said:
                return Said(said.status, kind, said.read())
        except urllib.error.HTTPError as error:
            return Said(error.code, kind, error.read())
        except OSError:
            return Said(wire=b"")  # closed, as the server's own connection is

    def _start(self) -> subprocess.Popen[bytes]:
        serve = "from transformers.cli.transformers import main; main()"
        where = ["--host", "127.0.0.1", "--port", str(self._port), "--device", "cpu", "--dtype", "float32"]
        return self._place.begin(sys.executable, "-c", serve, "serve", str(self.model), *where)
