"""Answers that went wrong, references that cannot be read, and gates that nothing could ever measure."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.jobs import Command, read_jsonl, scripted_recipe, write_jsonl

Q = {"role": "user", "content": "q"}


def call(arguments: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "f", "arguments": arguments}}


def answered(name: str, *turns: dict[str, Any], ref: Any = "4") -> dict[str, Any]:
    return {"id": name, "messages": [Q, *turns], "ref": ref}


def said(content: Any, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def report(name: str = "in") -> Any:
    return json.loads(Path(f"runs/{name}/report.json").read_text(encoding="utf-8"))


def test_a_broken_answer_costs_its_row_and_a_broken_row_is_no_answer(tmp_path: Path, batchchat: Command) -> None:
    rows = [
        answered("right", said("4")),
        answered("empty", said(None)),
        answered("unanswered"),
        answered("absent", {"role": "assistant"}),
        answered("call", said("", tool_calls=[call('{"n": 4,')])),
        answered("kind", said(None, tool_calls="none")),
    ]
    file = write_jsonl(tmp_path / "in.jsonl", rows)
    file.write_bytes(file.read_bytes() + b'{not json\n{"id": "other", "text": "x"}\n')
    ended = batchchat("score", file, "scoring=[{numeric: {reference: ref}}]")
    assert ended.code == 3, ended.err
    metric = report()["scoring"]["metrics"]["numeric"]
    assert (metric["mean"], metric["n"]) == (pytest.approx(1 / 6), 6)
    assert metric["counts"]["answers"] == 6
    assert report()["input"] == {"rows": 8, "failed": 2}
    assert "2 of 8 rows could not be read" in report()["scoring"]["notes"][0]
    errors = read_jsonl(tmp_path / "runs/in/errors.jsonl")
    assert [(error["line"], error["row"]) for error in errors] == [(7, "{not json"), (8, {"id": "other", "text": "x"})]
    assert batchchat("score", file, "scoring=[{numeric: {reference: ref}}]", "max_error_rate=0.5").code == 0


def test_a_broken_call_is_a_wrong_call_and_none_where_none_is_expected(tmp_path: Path, batchchat: Command) -> None:
    good = [{"name": "f", "arguments": {"a": 1}}]
    rows = [
        answered("good", said(None, tool_calls=[call('{"a": 1}')]), ref=good),
        answered("broken", said(None, tool_calls=[call('{"a": 1,')]), ref=good),
        answered("none", said("No need."), ref=[]),
        answered("needless", said(None, tool_calls=[call("{}")]), ref=[]),
    ]
    file = write_jsonl(tmp_path / "in.jsonl", rows)
    assert batchchat("score", file, "scoring=[{tool_call: {reference: ref}}]").code == 0
    lines = read_jsonl(tmp_path / "runs/in/scores.jsonl")
    assert {line["id"]: line["value"] for line in lines} == {"good": 1, "broken": 0, "none": 1, "needless": 0}


def test_a_schemas_pattern_ends_by_the_scorers_time_limit(tmp_path: Path, batchchat: Command) -> None:
    file = write_jsonl(tmp_path / "in.jsonl", [answered("a", said(json.dumps({"a": "a" * 3000 + "b"})))])
    schema = json.dumps({"properties": {"a": {"pattern": "(?:(?:a|aa|aaa)+)+c"}}})
    began = time.monotonic()
    assert batchchat("score", file, f"scoring=[{{json: {{seconds: 0.2, json_schema: {schema}}}}}]").code == 0
    assert time.monotonic() - began < 10
    assert report()["scoring"]["metrics"]["json"]["counts"]["scorer_errors"] == 1


def test_references_that_cannot_be_read_are_said(tmp_path: Path, batchchat: Command) -> None:
    rows = [answered(str(n), said("4"), ref="four" if n == 1 else "4") for n in range(3)]
    file = write_jsonl(tmp_path / "in.jsonl", rows)
    assert batchchat("score", file, "scoring=[{numeric: {reference: ref}}]").code == 0
    (note,) = report()["scoring"]["notes"]
    assert "1 of 3 answers are in no mean because their reference cannot be read" in note
    assert "'four'" in note
    ended = batchchat("score", file, "scoring=[{numeric: {reference: id}}, {choice: {reference: ref}}]", "name=all")
    assert ended.code == 2
    assert "no reference of the metric 'choice' can be read" in ended.err

    source = write_jsonl(tmp_path / "q.jsonl", [{"prompt": "q", "ref": "four"}, {"prompt": "q", "ref": "4"}])
    recipe = scripted_recipe(tmp_path / "r.yaml", source, scoring=[{"numeric": {"reference": "ref"}}])
    ended = batchchat("check", recipe)
    assert ended.code == 3
    assert "1 of 2 references of the metric 'numeric' cannot be read" in " ".join(ended.out.split())


@pytest.mark.parametrize(
    ("gate", "says"),
    [
        ("grader.kappa >= 0.5", "judges.grader.human names"),
        ("grader.human_agreement >= 0.5", "can never be measured"),
        ("grader.repeat_agreement >= 0.5", "samples of 2 or more"),
        ("json.valid >= 1", "a metric that this run will not have"),
        ("json.field_name >= 1", "a metric that this run will not have"),
        ("tokens_per_second > 5", "a figure of a run"),
    ],
)
def test_a_gate_that_can_never_be_measured_is_refused(gate: str, says: str, tmp_path: Path, batchchat: Command) -> None:
    file = write_jsonl(tmp_path / "in.jsonl", [answered("a", said("{}"))])
    judges = "judges={grader: {model: {name: builtin:tiny-chat}}}" if "grader" in gate else "judges={}"
    ended = batchchat("score", file, "scoring=[json]", judges, f"gates=['{gate}']")
    assert ended.code == 2
    assert says in ended.err
    assert not (tmp_path / "runs").exists()
