"""`run-batch`: the API's example lines and many made ones, killed twice, as OpenAI's own client reads the results."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from openai.types.chat import ChatCompletion

from batchchat.models import resolve_name
from scripts.other_engines.job import KEY_NAME, LITTLE_MEMORY, MODEL, SHARED, Place, environment
from scripts.parts import ROOT, require
from scripts.stored import num_turns
from tests.support.chat_server import Asked, ChatServer, Said, echo

_LINES = 10_000
_TWO_EVERY = 50
"""Every so often a request wants two choices."""
_KILLS = 2
_ANSWER_SECONDS = 0.02


def show(place: Place, vllm_python: Path | None) -> Iterator[str]:
    yield from _examples(place)
    yield from _killed(place)
    if vllm_python is not None:
        yield from _compared(place, vllm_python)


def _examples(place: Place) -> Iterator[str]:
    given = SHARED / "batch_api" / "vllm_openai_example_batch.jsonl"
    source = given if given.exists() else ROOT / "data" / "samples" / "openai_batch.jsonl"
    place.call("run-batch", "-i", source, "-o", place.folder / "examples.jsonl", "--model", MODEL, "-q")
    read = [_read(line) for line in place.rows("examples.jsonl")]
    lines = source.read_text(encoding="utf-8").splitlines()
    require([name for name, _ in read] == [json.loads(line)["custom_id"] for line in lines], "other ids than asked for")
    yield f"{len(read)} example lines ({source.name}) answered by the model here, and read by OpenAI's client"


def _killed(place: Place) -> Iterator[str]:
    async def slow(asked: Asked) -> Said:
        await asyncio.sleep(_ANSWER_SECONDS)
        return await echo(asked)

    source = place.write("requests.jsonl", map(_line, range(_LINES)))
    wanted = _LINES + _LINES // _TWO_EVERY
    run = place.folder / "results.jsonl.run"
    with ChatServer(slow) as server:
        where = ["-i", source, "-o", place.folder / "results.jsonl", "--endpoint", server.url, "-q"]
        command = ["run-batch", *where, f"engine.endpoint.api_key_env={KEY_NAME}"]
        for number in range(_KILLS):
            enough = wanted * (number + 1) // (_KILLS + 1)
            place.kill_when(place.start(*command), lambda enough=enough: num_turns(run) >= enough)
            require(not (place.folder / "results.jsonl").exists(), "there are results of a run that was killed")
        place.call(*command)
        asked = len(server.asked)
    read = [_read(line) for line in place.rows("results.jsonl")]
    require([name for name, _ in read] == [f"r{n}" for n in range(_LINES)], "other ids than asked for, or in no order")
    for number, (_, body) in enumerate(read):
        said = [choice.message.content for choice in body.choices]
        require(said == [f"question {number}"] * (1 + (number % _TWO_EVERY == 0)), f"r{number} has another's answer")
    report = place.report(run)
    require(len(report["sessions"]) == _KILLS + 1, f"{len(report['sessions'])} sessions")
    require(not (place.folder / "results.errors.jsonl").exists(), "there is a file of errors")
    peak = report["memory"]["host_peak_bytes"] / 2**20
    yield f"{_LINES:,} lines, killed {_KILLS} times: each once, in order, with its own answer, read by OpenAI's client"
    yield f"{asked - wanted} requests of {wanted:,} were asked again after the kills; peak {peak:.0f} MiB"


def _compared(place: Place, python: Path) -> Iterator[str]:
    """The same lines by vLLM's own command: which fields each has that the other has not."""
    model = str(resolve_name(MODEL))
    told = {"logprobs": True, "top_logprobs": 2}
    lines = (_line(n, model=model, max_tokens=8, temperature=0, **(told if n == 1 else {})) for n in range(3))
    source = place.write("few.jsonl", lines)
    ours = ["-i", source, "-o", place.folder / "ours.jsonl", "--model", MODEL, "-q", "model.dtype=float32"]
    place.call("run-batch", *ours)
    theirs = place.folder / "theirs.jsonl"
    command = [python, "-m", "vllm.entrypoints.openai.run_batch", "-i", source, "-o", theirs, "--model", model]
    limits = ["--max-model-len", "512", "--dtype", "float32", "--enforce-eager", "--max-num-seqs", "8", *LITTLE_MEMORY]
    kept = {**environment(), "VLLM_CPU_KVCACHE_SPACE": "1"}
    with (place.folder / "log").open("ab") as log:
        done = subprocess.run([*map(str, command), *limits], cwd=ROOT, env=kept, stdout=log, stderr=log)
    require(done.returncode == 0, f"vLLM's run-batch ended with {done.returncode}: read {place.folder / 'log'}")
    pairs = list(zip(_by_id(place.rows("ours.jsonl")), _by_id(place.rows("theirs.jsonl")), strict=True))
    for ours, other in pairs:
        said = [[choice["message"]["content"] for choice in _choices(one)] for one in (ours, other)]
        require(said[0] == said[1], f"other answers than vLLM's: {said}")
    ours_only = sorted(set().union(*(_fields(one) - _fields(other) for one, other in pairs)))
    theirs_only = sorted(set().union(*(_fields(other) - _fields(one) for one, other in pairs)))
    yield f"{len(pairs)} lines answered by vLLM's run-batch as by ours (greedy, float32)"
    yield f"fields that only vLLM's lines have: {', '.join(theirs_only) or 'none'}"
    yield f"fields that only our lines have: {', '.join(ours_only) or 'none'}"


def _line(number: int, **body: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": f"question {number}"}]
    two = {"n": 2} if number % _TWO_EVERY == 0 and not body else {}
    asked = {"model": "served", "messages": messages, **two, **body}
    return {"custom_id": f"r{number}", "method": "POST", "url": "/v1/chat/completions", "body": asked}


def _read(line: Mapping[str, Any]) -> tuple[str, ChatCompletion]:
    require(line["error"] is None and line["response"]["status_code"] == 200, f"{line['custom_id']}: {line['error']}")
    return line["custom_id"], ChatCompletion.model_validate(line["response"]["body"], strict=True)


def _by_id(lines: list[Any]) -> list[Any]:
    return sorted(lines, key=lambda line: line["custom_id"])


def _choices(line: Any) -> Any:
    return line["response"]["body"]["choices"]


def _fields(value: Any, at: str = "") -> set[str]:
    """Where a line has something, each place once whatever the number of its choices."""
    if isinstance(value, Mapping):
        return set().union(*(_fields(one, f"{at}.{name}".lstrip(".")) for name, one in value.items()))
    if isinstance(value, list) and value:
        return set().union(*(_fields(one, f"{at}[]") for one in value))
    return {at}
