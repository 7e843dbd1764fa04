"""A model as judge: a run of its own, whose chats ask for grades of the answers of another run.

What it is asked lies in `judges/NAME.jsonl` of the run directory and its run in `judges/NAME/`, resumable as any other.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from batchchat.chats import Message
from batchchat.chats.json_text import json_text
from batchchat.errors import UsageError
from batchchat.evaluation.answers import Answered, Answers
from batchchat.evaluation.audit import Audit
from batchchat.evaluation.judged import answer_as_read, references_of, said_before
from batchchat.recipe import JudgeSection, Recipe, SinkSection, SourceSection
from batchchat.scoring.base import Score, column, wanted_turns
from batchchat.scoring.grading import Labels, Scale
from batchchat.scoring.judging import (
    JudgeTemplate,
    combine_orders,
    load_template,
    pairwise_messages,
    pointwise_messages,
    read_grade,
    read_verdict,
)
from batchchat.sources.from_recipe import open_recipe_source
from batchchat.store import RunDirectory, RunStore
from batchchat.store.directory import make_folder, replacing
from batchchat.store.manifest import open_store, recorded_manifest

Sides = tuple[tuple[Message, ...], ...]


class Judge:
    """One judge of a run. First `write_questions`, then its run (`recipe`), then `open` and `score` in any order."""

    def __init__(self, name: str, section: JudgeSection, directory: Path, against: Answers | None):
        """`directory` is that of the run whose answers are judged; `against` what a pairwise judge compares with,
        None for the reference answers. Raises UsageError for a template that cannot be used."""
        self.name = name
        self.section = section
        self.audit = Audit(section.kind)
        self._questions = directory / "judges" / f"{name}.jsonl"
        self._directory = directory / "judges" / name
        self._against = against
        self._named = _usable(section)
        self._store: RunStore | None = None

    @property
    def worst(self) -> float:
        """The grade of an answer that is treated as wrong."""
        grades = self.section.grades
        if self.section.kind == "pairwise":
            return 0.0
        return grades.low if isinstance(grades, Scale) else min(grades.values.values())

    @property
    def recipe(self) -> Recipe:
        """The recipe of the judge's own run."""
        section = self.section
        return Recipe(
            name=self.name,
            model=section.model,
            source=SourceSection(path=(str(self._questions),), format="messages"),
            chat=section.chat,
            generation=section.generation,
            engine=section.engine,
            sink=SinkSection(directory=str(self._directory)),
            max_error_rate=1.0,
        )

    def turns(self, answered: Answered) -> Iterable[int]:
        """The turns of a chat that are judged."""
        return wanted_turns(self.section.turn, answered.num_turns)

    def write_questions(self, answers: Iterable[Answered]) -> int:
        """Write what the judge is asked; returns how many questions there are. An earlier run over other questions or
        with other settings is moved aside."""
        make_folder(self._questions.parent)
        count = 0
        with replacing(self._questions) as file:
            for answered in answers:
                for turn in self.turns(answered):
                    for row in self._rows(answered, turn):
                        file.write(json_text(row).encode("utf-8") + b"\n")
                        count += 1
        if self._changed():
            RunDirectory(self._directory).set_aside()
        return count

    def open(self) -> None:
        """Make the judge's answers ready for `score`."""
        self._store = RunStore(RunDirectory(self._directory).database)

    def close(self) -> None:
        if self._store is not None:
            self._store.close()
            self._store = None

    def score(self, answered: Answered, turn: int) -> Score:
        """What the judge says of one answer: an unread grade is an error, and what was not asked about is unscored."""
        prepared = self._prepare(answered, turn)
        if isinstance(prepared, str):
            return Score(None, prepared, status="unscored")
        length = float(len(answer_as_read(answered.answers[turn])))
        human = column(answered.columns, self.section.human) if self.section.human else None
        if self.section.kind == "pointwise":
            return self._graded(answered, turn, length, human, prepared[0].system + prepared[0].user)
        _, _, sides = prepared
        gap = length - len(answer_as_read(sides[1][turn]))
        return self._compared(answered, turn, gap, human)

    def _graded(self, answered: Answered, turn: int, length: float, human: Any, asked: str) -> Score:
        replies = self._replies(_question_id(answered, turn))
        if isinstance(replies, str):
            return Score(None, replies, status="error")
        grades = [read_grade(reply, self.section.grades, asked) for reply in replies]
        self.audit.grade([grade.value for grade in grades], length, self._human_grade(human))
        known = [grade.value for grade in grades if grade.value is not None]
        if not known:
            return Score(None, grades[0].reason, status="error")
        said = ", ".join(grade.reason for grade in grades)
        labels = ", ".join(grade.label for grade in grades if grade.label is not None)
        return Score(sum(known) / len(known), said, labels)

    def _compared(self, answered: Answered, turn: int, gap: float, human: Any) -> Score:
        orders = [self._replies(_question_id(answered, turn, order)) for order in ("ab", "ba")]
        failed = next((replies for replies in orders if isinstance(replies, str)), None)
        if failed is not None:
            return Score(None, failed, status="error")
        pairs = [combine_orders(read_verdict(one), read_verdict(other)) for one, other in zip(*orders, strict=True)]
        self.audit.compare(answered.id, pairs, gap, _human_verdict(human), self._difficulty(answered))
        known = [pair.value for pair in pairs if pair.value is not None]
        if not known:
            return Score(None, pairs[0].reason, status="error")
        said = ", ".join(f"{pair.first or '–'}{pair.second or '–'}" for pair in pairs)
        return Score(sum(known) / len(known), ", ".join(pair.reason for pair in pairs), said)

    def _difficulty(self, answered: Answered) -> float | None:
        value = None if self.section.difficulty is None else column(answered.columns, self.section.difficulty)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None

    def _rows(self, answered: Answered, turn: int) -> Iterator[dict[str, Any]]:
        prepared = self._prepare(answered, turn)
        if isinstance(prepared, str):
            return
        template, references, sides = prepared
        assert answered.chat is not None, "what can be judged is a chat"
        questions = [said_before(segment) for segment in answered.chat.segments[: turn + 1]]
        texts = [[answer_as_read(message) for message in side[: turn + 1]] for side in sides]
        if self.section.kind == "pointwise":
            asked = {"": pointwise_messages(template, questions, texts[0], self.section.grades, references)}
        else:
            asked = {
                "ab": pairwise_messages(template, questions, texts[0], texts[1], references),
                "ba": pairwise_messages(template, questions, texts[1], texts[0], references),
            }
        for order, messages in asked.items():
            yield {
                "id": _question_id(answered, turn, order),
                "messages": [message.as_dict() for message in messages],
                "judged": {"id": answered.id, "sample": answered.sample, "turn": turn},
            }

    def _prepare(self, answered: Answered, turn: int) -> tuple[JudgeTemplate, list[str], Sides] | str:
        """(template, references, the sides to compare) for one answer, or why it cannot be judged."""
        if turn >= len(answered.answers):
            return f"there is no turn {turn + 1}: the chat has {len(answered.answers)} answers"
        references = references_of(answered, self.section)
        sides: Sides = (answered.answers,)
        if self.section.kind == "pairwise":
            if self._against is None:
                given = [text for text in references[: turn + 1] if text is not None]
                if len(given) <= turn:
                    return "no reference answer to compare with"
                sides = (answered.answers, tuple(Message("assistant", text) for text in given))
                references = [None] * len(references)
            else:
                other = self._against.find(answered.id, answered.sample)
                if other is None or turn >= len(other.answers):
                    return f"{self._against.name} has no answer to compare with"
                if other.asked != answered.asked:
                    return f"{self._against.name} answers another question under this id"
                sides = (answered.answers, other.answers)
        shown = [text for text in references[: turn + 1] if text is not None]
        complete = len(shown) == turn + 1
        template = self._named
        if template is None:
            with_reference = complete and self.section.show_reference == "where_present"
            parts = [self.section.kind, *(["conversation"] if turn else []), *(["reference"] if with_reference else [])]
            template = load_template("-".join(parts))
        if template.reference and not complete:
            return "no reference answer to show to the judge"
        return template, shown if template.reference else [], sides

    def _replies(self, question: str) -> list[str] | str:
        """The judge's answers to a question, or why there is none."""
        assert self._store is not None, "open() comes before score()"
        row = self._store.row_by_id(question)
        if row is None:
            return "the judge was not asked about this answer"
        failed = self._store.errors(row.index)
        if failed:
            return f"the judge could not answer: {next(iter(failed.values()))[1]}"
        turns = self._store.turns(row.index)
        return [turns[sample][0].record["message"]["content"] or "" for sample in sorted(turns)]

    def _human_grade(self, human: Any) -> float | None:
        if isinstance(human, bool) or human is None:
            return None
        if isinstance(human, int | float):
            return float(human)
        if isinstance(self.section.grades, Labels):
            named = {label.casefold(): value for label, value in self.section.grades.values.items()}
            return named.get(str(human).casefold())
        return None

    def _changed(self) -> bool:
        """Whether the judge's directory holds a run over other questions or with other settings."""
        directory = RunDirectory(self._directory)
        if not (directory.database.exists() or directory.manifest.exists()):
            return False
        with closing(open_store(directory)) as store:
            earlier = recorded_manifest(store)
        if earlier is None:
            return False
        with open_recipe_source(self.recipe) as source:
            now = json.loads(json.dumps(source.fingerprint()))
        return bool(earlier["recipe"] != self.recipe.identity() or earlier["input"] != now)


def _usable(section: JudgeSection) -> JudgeTemplate | None:
    """The template that a recipe names, None where it leaves the choice open. Raises UsageError."""
    if section.template is None:
        return None
    template = load_template(section.template)
    if template.kind != section.kind:
        raise UsageError(
            f"the judge template '{section.template}' is {template.kind}, but the judge is {section.kind}; "
            f"name a {section.kind} one or set kind: {template.kind}"
        )
    return template


def _question_id(answered: Answered, turn: int, order: str = "") -> str:
    """The id of a question in the judge's run: ids of chats may hold anything, numbers may not."""
    place = f"{answered.index}-{answered.sample}-{turn}"
    return f"{place}-{order}" if order else place


def _human_verdict(human: Any) -> float | None:
    return {"a": 1.0, "tie": 0.5, "b": 0.0}.get(str(human).casefold()) if human is not None else None
