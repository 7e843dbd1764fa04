"""Samples as rows that another run, a scorer or a trainer reads: no two have one id, and what is known goes along."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from batchchat.results.forms import FORMS
from batchchat.results.sample import Sample

_EARLIER = {f"column.{name}" for name in ("sample", "finish_reason", "prompt_tokens", "completion_tokens")}


def handed(sample: Sample, form: str = "rows") -> dict[str, Any]:
    """The sample in one of the `FORMS`, with an id of its own: that of the chat, `#2` behind it for its third sample.
    Whole rows say in `batchchat` which sample of which chat they are, as outputs.jsonl does, so that scores, filters
    and the best of several see in a later run what they see in this one."""
    columns = sample.answered.columns
    row = FORMS[form](sample)
    if "batchchat" in columns:  # it was handed on before, and its figures are columns by now
        row = {name: value for name, value in row.items() if name not in _EARLIER}
    earlier = columns.get("scores")
    if form == "rows" and isinstance(earlier, Mapping):
        row["scores"] = {**earlier, **row["scores"]}
    if "id" in row:
        row["id"] = sample.id if sample.answered.sample == 0 else f"{sample.id}#{sample.answered.sample}"
    if form == "rows":
        names = ("finish_reason", "prompt_tokens", "completion_tokens")
        turns = [{name: turn[name] for name in names if name in turn} for turn in sample.turns]
        row["batchchat"] = {"id": sample.id, "sample": sample.answered.sample, "turns": turns}
    return row
