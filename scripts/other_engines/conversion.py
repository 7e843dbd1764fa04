"""`convert` there and back over every pair of row formats and through every kind of file: what comes back is what went,
or it was said what does not fit."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

from batchchat.chats import Place as RowPlace
from batchchat.chats import SourceRow
from batchchat.chats.formats import ReadOptions
from batchchat.chats.formats.conversion import convertible, take_apart
from batchchat.job.convert import Conversion, convert
from batchchat.recipe import recipe_from_mapping
from scripts.other_engines.job import SHARED, Place
from scripts.parts import ROOT, require

_KINDS = (".jsonl", ".json", ".parquet", ".csv", ".tsv", ".jsonl.gz", ".json.zst", ".csv.xz")
_MOST_ROWS = 500
_SAMPLES = {
    "openai": "openai_batch.jsonl",
    "messages": "chats.jsonl",
    "sharegpt": "sharegpt.json",
    "turns": "mt_bench.jsonl",
    "alpaca": "alpaca.jsonl",
    "prompt": "gsm8k.jsonl",
}
_REAL = {
    "openai": "batch_api/vllm_openai_example_batch.jsonl",
    "sharegpt": "sharegpt/dummy_conversation_with_system.json",
    "messages": "tool_calls/reason_tool_use_demo_50.jsonl",
    "turns": "mt_bench/question.jsonl",
}
"""Beside the project, where there are any."""


def show(place: Place) -> Iterator[str]:
    outcomes: Counter[str] = Counter()
    for format_, source in _sources():
        start = place.folder / f"{format_}.jsonl"
        _convert(source, start, format_, **{"source.limit": _MOST_ROWS})
        others = [to for first, to in permutations(convertible(), 2) if first == format_]
        outcomes.update(_there_and_back(place, start, format_, to, ".jsonl") for to in others)
        outcomes.update(_there_and_back(place, start, format_, "same", kind) for kind in _KINDS)
    pairs = len(convertible()) * (len(convertible()) - 1)
    yield f"{pairs} pairs of formats, and each format through {len(_KINDS)} kinds of file, there and back:"
    yield ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))


def _sources() -> Iterator[tuple[str, Path]]:
    for format_ in convertible():
        yield format_, ROOT / "data" / "samples" / _SAMPLES[format_]
        if format_ in _REAL and (real := SHARED / _REAL[format_]).exists():
            yield format_, real


def _there_and_back(place: Place, start: Path, format_: str, to: str, kind: str) -> str:
    there, back = place.folder / f"there{kind}", place.folder / "back.jsonl"
    went = _convert(start, there, to, **{"source.format": format_})
    columns = {"source.csv.json_columns": list(went.written.json_columns)} if went.written.json_columns else {}
    came = _convert(there, back, format_ if to != "same" else "same", **columns)
    before, after = ([json.loads(line) for line in file.read_text().splitlines()] for file in (start, back))
    if list(map(_bare, before)) == list(map(_bare, after)):
        return "lossless"
    if went.lost or came.lost or went.refused or came.refused or went.written.nulls:
        return "with a word on what does not fit"
    chats = [[_chat(row, format_) for row in rows] for rows in (before, after)]
    require(chats[0] == chats[1], f"{format_} to {to}{kind} and back: other chats, and not a word")
    return "the same chats in another spelling of the format"


def _convert(source: Path, output: Path, to: str, **settings: Any) -> Conversion:
    overrides = [f"{name}={json.dumps(value)}" for name, value in settings.items()]
    return convert(recipe_from_mapping({"source": {"path": [str(source)]}}, overrides), output, to)


def _chat(row: dict[str, Any], format_: str) -> Any:
    """What a row holds, whatever its spelling; an id is made where a format needs one."""
    whole = take_apart(SourceRow(0, RowPlace("rows", 1), row, json.dumps(row)), format_, ReadOptions())
    columns = _bare({name: value for name, value in whole.columns.items() if name != "id"})
    if isinstance(columns.get("tools"), str):
        columns["tools"] = json.loads(columns["tools"])
    return replace(whole, columns=columns, id=None)


def _bare(row: dict[str, Any]) -> dict[str, Any]:
    """Files with one schema for all rows hold null where a row has nothing."""
    return {name: value for name, value in row.items() if value is not None}
