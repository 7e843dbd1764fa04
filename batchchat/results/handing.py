"""Samples as rows that another run, a scorer or a trainer reads: no two have one id, and what is known goes along."""

from __future__ import annotations

from typing import Any

from batchchat.results.forms import FORMS
from batchchat.results.sample import Sample


def handed(sample: Sample, form: str = "rows") -> dict[str, Any]:
    """The sample in one of the `FORMS`, with an id of its own: that of the chat, `#2` behind it for its third sample.
    Whole rows say in `batchchat` which sample of which chat they are, as outputs.jsonl does, so that scores, filters
    and the best of several see in a later run what they see in this one."""
    row = FORMS[form](sample)
    if "id" in row:
        row["id"] = sample.id if sample.answered.sample == 0 else f"{sample.id}#{sample.answered.sample}"
    if form == "rows":
        names = ("finish_reason", "prompt_tokens", "completion_tokens")
        turns = [{name: turn[name] for name in names if name in turn} for turn in sample.turns]
        row["batchchat"] = {"id": sample.id, "sample": sample.answered.sample, "turns": turns}
    return row
