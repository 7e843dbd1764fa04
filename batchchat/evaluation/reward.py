"""A reward model as a scorer: its numbers are computed in batches before the pass over the answers, and kept.

They lie in `rewards/NAME.sqlite` of the run directory, so that a kill costs one batch and scoring again costs nothing.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from batchchat.chats import Message
from batchchat.evaluation.answers import Answered
from batchchat.models.identity import model_identity
from batchchat.models.reward import RewardModel
from batchchat.recipe.rewards import RewardSection
from batchchat.scoring.base import Score, visible_answer, wanted_turns
from batchchat.store.directory import make_folder

_BATCHES_AT_ONCE = 16
"""So many batches are sorted by length together."""


class Reward:
    """One reward model of a run. First `compute`, then `score` in any order, then `close`."""

    def __init__(self, name: str, section: RewardSection, directory: Path):
        self.name = name
        self.section = section
        self.worst = 0.0
        make_folder(directory / "rewards")
        self._database = sqlite3.connect(directory / "rewards" / f"{name}.sqlite", isolation_level=None)
        self._database.execute(
            "CREATE TABLE IF NOT EXISTS scores (conversation BLOB PRIMARY KEY, value REAL, reason TEXT) WITHOUT ROWID"
        )
        self._identity = json.dumps([model_identity(section.model), section.input, section.label], sort_keys=True)

    @property
    def options(self) -> dict[str, Any]:
        """What the report says of it."""
        return {"model": self.section.model.name, "input": self.section.input, "label": self.section.label}

    def turns(self, answered: Answered) -> Iterable[int]:
        return wanted_turns(self.section.turn, answered.num_turns)

    def compute(self, answers: Iterable[Answered]) -> None:
        """Compute what is not known yet; the model is loaded only where something is not. Raises as `RewardModel`."""
        model: RewardModel | None = None
        missing = self._missing(answers)
        while some := list(islice(missing, self.section.max_batch_rows * _BATCHES_AT_ONCE)):
            model = model or RewardModel(self.name, self.section)
            values = model.scores([conversation for _, conversation in some])
            self._database.execute("BEGIN")
            for (key, _), value in zip(some, values, strict=True):
                known = (key, None, value) if isinstance(value, str) else (key, value, None)
                self._database.execute("INSERT OR REPLACE INTO scores VALUES (?, ?, ?)", known)
            self._database.execute("COMMIT")
        lowest = self._database.execute("SELECT min(value) FROM scores").fetchone()[0]
        self.worst = 0.0 if lowest is None else float(lowest)

    def score(self, answered: Answered, turn: int) -> Score:
        """What it says of one answer. An answer that is treated as wrong counts as the lowest of the run."""
        if turn >= len(answered.answers):
            return Score(
                None, f"there is no turn {turn + 1}: the chat has {len(answered.answers)} answers", status="unscored"
            )
        found = self._database.execute(
            "SELECT value, reason FROM scores WHERE conversation = ?", (self._key(_conversation(answered, turn)),)
        ).fetchone()
        assert found is not None, "compute() comes before score()"
        value, reason = found
        if value is None:
            return Score(None, reason, status="error")
        return Score(value, f"{self.section.model.name} gives {value:.6g}")

    def close(self) -> None:
        self._database.close()

    def _missing(self, answers: Iterable[Answered]) -> Iterator[tuple[bytes, list[Message]]]:
        for answered in answers:
            if answered.failure is not None or answered.chat is None:
                continue
            for turn in self.turns(answered):
                if turn < len(answered.answers):
                    conversation = _conversation(answered, turn)
                    key = self._key(conversation)
                    query = "SELECT 1 FROM scores WHERE conversation = ?"
                    if self._database.execute(query, (key,)).fetchone() is None:
                        yield key, conversation

    def _key(self, conversation: list[Message]) -> bytes:
        text = json.dumps(
            [self._identity, [message.as_dict() for message in conversation]], sort_keys=True, default=str
        )
        return hashlib.blake2b(text.encode(), digest_size=16).digest()


def _conversation(answered: Answered, turn: int) -> list[Message]:
    """The chat up to an answer, earlier and last answers without their reasoning."""
    assert answered.chat is not None, "an answer belongs to a chat"
    chat = answered.chat
    found: list[Message] = []
    for place in range(turn + 1):
        segment = chat.segments[place]
        found += segment[:-1] if chat.prefill and place + 1 == chat.num_turns else segment
        answer = answered.answers[place]
        visible = visible_answer(answer, reasoning=False)
        found.append(Message("assistant", visible.text, tool_calls=answer.tool_calls))
    return found
