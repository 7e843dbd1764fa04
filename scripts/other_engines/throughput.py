"""How many requests a second go to a server that answers after 50 ms, and what one costs: by the engine alone, and in a
whole run, which reads chats, stores answers durably and exports them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil

from scripts.other_engines.drained import TEXT
from scripts.other_engines.job import RECIPE, Place, endpoint, environment, free_port, served
from scripts.parts import ROOT, Unlike, require

_IN_FLIGHT = 64
_ANSWER_SECONDS = 0.05
_IDEAL = _IN_FLIGHT / _ANSWER_SECONDS
_SHARE = 0.95
_GROWTH = 1.1
"""How much more memory the last tenth may take than the second one, before which all lines are opened."""
_RUN_ROWS = 20_000


def show(place: Place, requests: int) -> Iterator[str]:
    port = free_port()
    server = [sys.executable, "-m", "scripts.other_engines.server", str(port), str(_ANSWER_SECONDS)]
    with served(place, server, port):
        url = f"http://127.0.0.1:{port}/v1"
        yield from _drained(url, requests)
        yield from _run(place, url, min(requests, _RUN_ROWS))


def _drained(url: str, requests: int) -> Iterator[str]:
    command = [sys.executable, "-m", "scripts.other_engines.drained", url, str(requests), str(_IN_FLIGHT)]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True)
    if done.returncode:
        raise Unlike(f"the engine failed: {done.stderr[-500:]}")
    marks = [json.loads(line) for line in done.stdout.splitlines()]
    first, last = marks[0], marks[-1]  # without the first tenth, in which the engine finds out how many it may send
    count, seconds, used = (last[n] - first[n] for n in range(3))
    yield f"the engine alone, {requests:,} requests: {_measured(count / seconds, used / count)}"
    yield f"memory after each tenth, MiB: {' '.join(f'{mark[3]:.1f}' for mark in marks)}"
    require(last[3] <= _GROWTH * marks[1][3], "memory grows with the requests")
    of_ideal, of_core = count / seconds / _IDEAL, used / seconds
    require(max(of_ideal, of_core) >= _SHARE, f"less than {_SHARE:.0%} of the ideal, and of one core")
    yield f"bound by {'the server: the ideal' if of_ideal >= _SHARE else 'one core of this machine'}"


def _run(place: Place, url: str, rows: int) -> Iterator[str]:
    chats = ({"id": f"q{n}", "messages": [{"role": "user", "content": TEXT}]} for n in range(rows))
    source = place.write("in.jsonl", chats)
    options = endpoint(url, max_in_flight=_IN_FLIGHT)
    where = [f"source.path={source}", "model.name=served", f"sink.directory={place.folder}/run"]
    process = place.start("run", RECIPE, *where, *options, "-q")
    used = 0.0
    while process.poll() is None:
        try:
            used = sum(psutil.Process(process.pid).cpu_times()[:2])
        except psutil.Error:
            break
        time.sleep(0.1)
    place.wait(process)
    report = place.report("run")
    require(report["rows"]["answered"] == rows, f"{report['rows']} of {rows}")
    phases = report["phases_seconds"]
    seconds = sum(phases.get(name, 0.0) for name in ("read", "prompt", "generate", "store"))
    peak = report["memory"]["host_peak_bytes"] / 2**20
    yield f"a whole run of {rows:,} chats: {_measured(rows / seconds, used / rows)}; peak {peak:.0f} MiB"


def _measured(rate: float, cost: float) -> str:
    """Requests a second, and processor seconds of one."""
    shares = f"{rate / _IDEAL:.0%} of the ideal {_IDEAL:,.0f}, {rate * cost:.0%} of a core"
    return f"{rate:,.0f} requests/s ({shares}), {1e3 * cost:.3f} ms of processor time each"
