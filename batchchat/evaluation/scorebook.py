"""`scores.jsonl`: one line per answer and metric, and what the lines come to. Written and read here alone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from batchchat.chats.json_text import encodable, json_text
from batchchat.errors import UsageError
from batchchat.evaluation.answers import Answered
from batchchat.scoring.aggregates import ScoredAnswer, Summary, Tally, outcome_of
from batchchat.scoring.base import Score, column
from batchchat.scoring.comparison import Key
from batchchat.scoring.distributions import Calibration, ConfidenceBin
from batchchat.scoring.treatments import Condition, Treatments

_MOST_VALUES = 200
_OTHERS = "(other values)"
"""Where a column has more values than these: answers with the further ones are summed up together."""


class ScoreBook:
    """Writes the lines, and sums up every metric over the run and over each value of the columns `by`."""

    def __init__(self, file: IO[bytes], treatments: Treatments, by: Sequence[str], samples: int):
        self._file = file
        self._treatments = treatments
        self._by = tuple(by)
        self._samples = samples
        self._tallies: dict[str, dict[str, Tally]] = {}
        self._calibrations: dict[str, Calibration] = {}
        self._worst: dict[str, float] = {}
        self._values: dict[str, set[str]] = {name: set() for name in self._by}
        self._unread: dict[str, tuple[int, str]] = {}
        self.num_lines = 0

    def open_metric(self, metric: str, worst: float = 0.0) -> None:
        """Begin a metric, so that it is in the report even without a single answer. `worst` is what counts for an
        answer that is treated as wrong."""
        self._tallies[metric] = {"": Tally(metric, self._treatments, self._samples, worst)}
        self._calibrations[metric] = Calibration()
        self._worst[metric] = worst

    def add(self, metric: str, answered: Answered, turn: int, condition: Condition, score: Score | None) -> None:
        """One answer's score; None where there is no answer."""
        entry = ScoredAnswer(answered.id, answered.sample, turn, condition, score)
        outcome, counted = outcome_of(entry, self._treatments, self._worst[metric])
        parts = {name: self._part(name, answered.columns) for name in self._by}
        line: dict[str, Any] = {
            "id": answered.id,
            "index": answered.index,
            "sample": answered.sample,
            "turn": turn,
            "metric": metric,
            "value": score.value if score else None,
            "status": score.status if score else "failed",
            "reason": score.reason if score else "the chat was not answered",
            "condition": condition,
            "counted": counted if outcome == "scored" else None,
        }
        if score is not None:
            line |= {name: found for name in ("parsed", "expected") if (found := getattr(score, name)) is not None}
            if score.details:
                line["details"] = dict(score.details)
        if score is not None and score.bad_reference:
            line["bad_reference"] = True
            count, first = self._unread.get(metric, (0, f"of chat {answered.id}: {score.reason}"))
            self._unread[metric] = (count + 1, first)
        if parts:
            line["by"] = parts
        line["asked"] = answered.asked
        self._file.write(json_text(line).encode("utf-8") + b"\n")
        self.num_lines += 1
        sure = answered.confidences[turn] if turn < len(answered.confidences) else None
        if sure is not None and outcome == "scored":
            self._calibrations[metric].add(sure, counted)
        tallies = self._tallies[metric]
        tallies[""].add(entry)
        for name, value in parts.items():
            part = f"{name}={value}"
            if part not in tallies:
                tallies[part] = Tally(metric, self._treatments, self._samples, self._worst[metric])
            tallies[part].add(entry)

    def summaries(self, metric: str, pass_at: Sequence[int]) -> tuple[dict[str, Summary], str | None]:
        """The metric's summaries by part ("" is the whole), and why pass@k is missing, if it is."""
        tallies = self._tallies[metric]
        try:
            return {part: tally.summary(pass_at) for part, tally in tallies.items()}, None
        except ValueError as error:
            return {part: tally.summary() for part, tally in tallies.items()}, str(error)

    def calibration(self, metric: str) -> tuple[ConfidenceBin, ...]:
        """Scores by confidence, where the answers have log-probabilities."""
        return self._calibrations[metric].bins()

    def bad_references(self, metric: str) -> str | None:
        """How many answers have no score because what they were to be held against cannot be read; None for none.
        Raises UsageError where that is all there is, for then the recipe names the wrong column or scorer."""
        if metric not in self._unread:
            return None
        count, first = self._unread[metric]
        counts = self._tallies[metric][""].counts
        if count == counts["answers"] - counts["unscored"] - counts["failed"] - counts["empty"]:
            raise UsageError(
                f"no reference of the metric '{metric}' can be read, the first is that {first}; name the right column "
                "with `reference:`, or a scorer that reads it"
            )
        return (
            f"{count:,} of {counts['answers']:,} answers are in no mean because their reference cannot be read, the "
            f"first is that {first}; correct it, or name the right column with `reference:`"
        )

    def crowded(self) -> list[str]:
        """The columns with too many values to sum up each."""
        return [name for name, values in self._values.items() if len(values) >= _MOST_VALUES]

    def _part(self, name: str, columns: Mapping[str, Any]) -> str:
        value = column(columns, name)
        text = encodable(value) if isinstance(value, str) else "(none)" if value is None else json_text(value)
        known = self._values[name]
        if text not in known and len(known) >= _MOST_VALUES:
            return _OTHERS
        known.add(text)
        return text


@dataclass(frozen=True)
class ScoreLine:
    """A line, as comparisons need it."""

    key: Key
    metric: str
    condition: str
    status: str
    counted: float | None
    part: Mapping[str, str]
    asked: str


def read_scores(path: Path) -> Iterator[ScoreLine]:
    """The lines of a scores.jsonl."""
    with open(path, encoding="utf-8", newline="\n") as lines:
        for text in lines:
            line = json.loads(text)
            yield ScoreLine(
                (line["id"], line["sample"], line["turn"]),
                line["metric"],
                line["condition"],
                line["status"],
                line["counted"],
                line.get("by", {}),
                line["asked"],
            )
