"""MT-Bench by vLLM: within a run, killed and gone on with, and as a server, by messages and by token ids."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from batchchat.models import resolve_name
from scripts.other_engines.job import (
    GREEDY,
    LITTLE_MEMORY,
    MODEL,
    RECIPE,
    Place,
    endpoint,
    free_port,
    questions,
    served,
)
from scripts.parts import require
from scripts.stored import num_turns

_ROWS = 8


def show(place: Place, python: Path) -> Iterator[str]:
    turns = place.local()
    within = Place(place.folder, str(python))
    vllm = ["engine.kind=vllm", "engine.cuda_graphs=false", f"engine.max_batch_rows={_ROWS}"]
    model = [f"model.name={MODEL}", "model.dtype=float32", *GREEDY, "-q"]
    command = ["run", RECIPE, *_run(place, "within"), *vllm, *model]
    within.kill_when(within.start(*command), lambda: num_turns(place.folder / "within") >= turns // 3)
    kept = num_turns(place.folder / "within")
    seconds = within.call(*command)
    report = place.report("within")
    require(len(report["sessions"]) == 2, f"{len(report['sessions'])} sessions")
    require(report["turns"] == turns and not report["rows"]["failed"], f"{report['rows']}, {report['turns']} turns")
    place.require_equal("within", "local")
    engine = report["engine"]
    yield f"vLLM {engine['version']} within the run: killed with {kept} of {turns} answers stored, then {seconds:.0f} s"
    yield f"{turns} of {turns} answers equal to the local engine's (greedy, {engine['dtype']})"
    yield from _as_server(place, python, turns)


def _as_server(place: Place, python: Path, turns: int) -> Iterator[str]:
    folder, port = str(resolve_name(MODEL)), free_port()
    api = [python, "-m", "vllm.entrypoints.openai.api_server", "--model", folder, "--port", str(port)]
    limits = ["--host", "127.0.0.1", "--dtype", "float32", "--enforce-eager"]
    own = ["--generation-config", "vllm", "--max-num-seqs", str(_ROWS), *LITTLE_MEMORY]
    with served(place, [*api, *limits, *own], port):
        for prompts in ("messages", "tokens"):
            options = endpoint(f"http://127.0.0.1:{port}/v1", prompts=prompts, max_in_flight=_ROWS)
            where = _run(place, prompts)
            seconds = place.call("run", RECIPE, *where, f"model.name={folder}", *options, *GREEDY, "-q")
            report = place.report(prompts)
            require(report["turns"] == turns, f"{report['turns']} of {turns} turns")
            place.require_equal(prompts, "local")
            yield f"vLLM as a server, by {prompts}: {turns} of {turns} answers equal to those, {seconds:.0f} s"


def _run(place: Place, name: str) -> list[str]:
    return [f"source.path={questions()}", f"sink.directory={place.folder}/{name}"]
