"""The process that runs tools, as the run sees it: started when it is needed, and again after it was ended."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

_FOR_SERVERS = 75.0
"""Seconds beyond a call's own for a server, which the process itself starts, and ends in time."""
_START_SECONDS = 30.0
_FAREWELL_SECONDS = 3.0


class Worker:
    """One process of tools. Used by one thread at a time; `kill` may come from another."""

    def __init__(self, limit: int):
        self._limit = limit
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False

    def ask(self, call: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        """The reply to a call: `{"text"}`, `{"error"}` or `{"tools"}`. A process that takes too long is ended."""
        if self._closed:
            return {"error": "the run is ending"}
        self.make_ready()
        process = self._process
        assert process is not None, "it was started"
        allowed = seconds + (_FOR_SERVERS if "server" in call else 0.0)
        try:
            assert process.stdin is not None, "its input is a pipe"
            process.stdin.write(json.dumps({**call, "seconds": seconds}).encode("utf-8") + b"\n")
            process.stdin.flush()
            line = self._line(process, allowed)
        except (BrokenPipeError, ValueError):  # it ended by itself
            line = b""
        if line is None:
            self.end()
            return {"error": f"the tool gave no answer within {seconds:g} s and was ended"}
        if not line.endswith(b"\n"):
            self.end()
            return {"error": "the tool ended the process that ran it"}
        reply: dict[str, Any] = json.loads(line)
        return reply

    def make_ready(self) -> None:
        """Start the process where it does not run, which is no call's time."""
        if not self._closed and (self._process is None or self._process.poll() is not None):
            self._start()

    def end(self) -> None:
        """End the process; the next call starts another one."""
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()

    def finish(self) -> None:
        """Say that nothing more will come: the process ends by itself, and servers that it started before it."""
        self._closed = True
        if self._process is not None and self._process.stdin is not None:
            with suppress(BrokenPipeError):
                self._process.stdin.close()

    def close(self) -> None:
        """End the process for good, which has a moment to end by itself."""
        self.finish()
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_FAREWELL_SECONDS)
        self.end()

    def _start(self) -> None:
        self.end()
        here = os.pathsep.join(path or str(Path.cwd()) for path in (*sys.path, ""))
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "batchchat.engines.tools.child", str(self._limit)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": here},
            start_new_session=True,
        )
        self._line(self._process, _START_SECONDS)  # its first one says that it is ready: that is no call's time

    @staticmethod
    def _line(process: subprocess.Popen[bytes], seconds: float) -> bytes | None:
        """Its next line; without a line's end where it closed its output, None where it took too long."""
        assert process.stdout is not None, "its output is a pipe"
        until, found = time.monotonic() + seconds, b""
        while not found.endswith(b"\n"):
            ready, _, _ = select.select([process.stdout], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                return None
            piece = os.read(process.stdout.fileno(), 1 << 16)
            if not piece:
                break
            found += piece
        return found
