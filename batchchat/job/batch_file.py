"""A file of OpenAI Batch requests to a file of result lines: a run whose input and output are the API's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from batchchat.chats import SourceRow
from batchchat.chats.json_text import json_text, read_exact
from batchchat.errors import UsageError
from batchchat.job.run import RunResult, run
from batchchat.recipe import Recipe, recipe_from_mapping
from batchchat.sources import open_source
from batchchat.store.directory import replacing

_RESULT = ("id", "custom_id", "response", "error")


@dataclass(frozen=True)
class BatchFiles:
    """Where requests come from and results go."""

    requests: Path
    results: Path
    errors: Path

    @classmethod
    def of(cls, requests: Path, results: Path, errors: Path | None) -> BatchFiles:
        """By default the error file stands beside the results. Raises UsageError where two of them are one."""
        beside = results.with_name(f"{results.name.removesuffix('.jsonl')}.errors.jsonl")
        files = cls(requests, results, beside if errors is None else errors)
        if len({path.resolve() for path in (files.requests, files.results, files.errors)}) < 3:
            raise UsageError(f"requests, results and errors would be one file ({results}); name three")
        return files

    @property
    def run(self) -> Path:
        """The run directory, by which an interrupted call goes on."""
        return self.results.with_name(f"{self.results.name}.run")


@dataclass(frozen=True)
class BatchResult:
    """What became of the requests."""

    run: RunResult
    answered: int
    failed: int


def batch_recipe(files: BatchFiles, model: str | None, endpoint: str | None, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of a batch file: `model` computes here, or is the model's name at the server `endpoint`, there by
    default the one that the first request names. Raises UsageError for what cannot be used."""
    if model is None and endpoint is None:
        raise UsageError("nothing says who answers; name a model with --model or a server with --endpoint")
    values: dict[str, Any] = {
        "name": "batch",
        "source": {"path": [str(files.requests)], "format": "openai"},
        "sink": {"directory": str(files.run)},
        "model": {"name": _first_model(files.requests) if model is None else model},
    }
    if endpoint is not None:
        values["engine"] = {"kind": "endpoint", "endpoint": {"url": endpoint}}
    recipe = recipe_from_mapping(values, overrides)
    if recipe.sink.shards is not None or recipe.sink.every is not None or recipe.source.shard is not None:
        raise UsageError("the results of a batch file are one file; leave sink.shards, sink.every and source.shard out")
    return recipe


def run_batch(
    recipe: Recipe, files: BatchFiles, *, restart: bool = False, command: Sequence[str] = (), quiet: bool = True
) -> BatchResult:
    """Answer the requests and write both files, each as a whole; goes on where an earlier call stopped. Answers are
    stored as they come, so memory does not grow with the file. Raises what `run` raises."""
    result = run(recipe, restart=restart, command=command, quiet=quiet)
    answered = _write(files.results, map(_result, _lines(result.directory / "outputs.jsonl")))
    failed = _write(files.errors, map(_failure, _lines(result.directory / "errors.jsonl")))
    if not failed:
        files.errors.unlink()
    return BatchResult(result, answered, failed)


def _result(line: Mapping[str, Any]) -> dict[str, Any]:
    return {name: line[name] for name in _RESULT}


def _failure(line: Mapping[str, Any]) -> dict[str, Any]:
    """A line of the API's error file. Of a row that is no request the message says where it stands."""
    place = f"{line['file']}:{line['line']}"
    message = line["reason"] if "custom_id" in line else f"{place}: {line['reason']}"
    error = line.get("error") or {"code": "invalid_request", "message": message}
    name = blake2b(f"{line['index']}/{line.get('sample')}".encode(), digest_size=12).hexdigest()
    return {"id": f"batch_req_{name}", "custom_id": line.get("custom_id"), "response": None, "error": error}


def _lines(path: Path) -> Iterator[Mapping[str, Any]]:
    with open(path, encoding="utf-8") as file:
        for line in file:
            found: Mapping[str, Any] = read_exact(line)
            yield found


def _write(path: Path, lines: Iterator[Mapping[str, Any]]) -> int:
    count = 0
    with replacing(path) as file:
        for line in lines:
            file.write(json_text(line).encode("utf-8") + b"\n")
            count += 1
    return count


def _first_model(requests: Path) -> str:
    """The model that the first request asks for."""
    with open_source([str(requests)]) as source:
        for row in source.rows():
            body = row.data.get("body") if isinstance(row, SourceRow) else None
            model = body.get("model") if isinstance(body, Mapping) else None
            if isinstance(model, str) and model:
                return model
    raise UsageError(f"no request in {requests} names a model; name the server's with --model")
