"""The report and the rows of results: typed, described with units, written and read back."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest
from pydantic import TypeAdapter

from batchchat import Recipe, __version__, load_recipe, run
from batchchat.chats.record import unit_of
from batchchat.engines.facts import AnyEngineFacts, ContinuousFacts, EngineFacts, PipelineFacts, ScriptedFacts
from batchchat.reporting.reading import read_report
from batchchat.reporting.report import Report, ScoreReport
from batchchat.reporting.schema import results_json_schema
from batchchat.reporting.writers import WRITERS, write_report, writer
from batchchat.scoring.row import ScoreRow
from batchchat.store import RunDirectory
from batchchat.store.rows import ErrorRow, OutputFacts
from tests.support.jobs import Command, read_jsonl, scripted_recipe, write_jsonl


def fields() -> Iterator[tuple[str, Mapping[str, Any], Mapping[str, Any]]]:
    records = results_json_schema()["$defs"]
    for name, record in records.items():
        for field, node in record.get("properties", {}).items():
            yield f"{name}.{field}", node, records


def is_figure(node: Any) -> bool:
    """Whether numbers may stand there; options and rows of users may hold anything."""
    if isinstance(node, list):
        return any(map(is_figure, node))
    if not isinstance(node, dict):
        return False
    return node.get("type") in ("integer", "number") or any(map(is_figure, node.values()))


def test_every_field_is_described_and_every_figure_has_a_unit() -> None:
    found = list(fields())
    assert len(found) > 150
    for name, node, records in found:
        said = node.get("description") or records[node["$ref"].removeprefix("#/$defs/")]["description"]
        assert said.endswith((".", ")")), name
        if is_figure(node) and name not in ("Recording.columns", "TokenLogprobs.top"):  # columns of several units
            assert unit_of(node), f"{name} has no unit"


@pytest.fixture
def everything(tmp_path: Path) -> Path:
    """A recipe whose results have about every field that an engine without a model can fill."""
    chat = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "1"}, {"role": "user", "content": "2"}]
    rows = [{"id": f"chat-{n}", "messages": chat, "answer": "1", "group": "ab"[n % 2]} for n in range(8)]
    rows[2]["batchchat"] = {"from": "before"}
    source = write_jsonl(tmp_path / "in.jsonl", [*rows[:3], "{broken", *rows[3:]])
    return scripted_recipe(
        tmp_path / "r.yaml",
        source,
        engine={"scripted": {"fail_every": 5}},
        chat={"turns": "regenerate"},
        generation={"samples": 2, "max_new_tokens": 2},
        scoring=[{"includes": {"turn": "all"}}, "numeric", {"bleu": {}}],
        summary={"by": ["group"], "pass_at": [1]},
        gates=["numeric.mean >= 0.9", "errors <= 90%"],
        sink={"timings": True},
        max_error_rate=1.0,
    )


def test_what_a_run_writes_is_what_the_schema_says(everything: Path, batchchat: Command) -> None:
    ended = batchchat("run", everything, "--json")
    assert ended.code == 4, ended.err
    folder = everything.parent / "runs/test"
    outputs, errors, scores = (read_jsonl(folder / f"{name}.jsonl") for name in ("outputs", "errors", "scores"))
    assert outputs
    assert len({"sample" in error for error in errors}) == 2, "a whole row failed, and samples of others"
    schema = results_json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    for what in ([outputs[0], errors[0], scores[0]], [outputs[-1], errors[-1], scores[-1]]):
        names = ("outputs.jsonl", "errors.jsonl", "scores.jsonl")
        whole = {"report.json": json.loads(ended.out), **dict(zip(names, what, strict=True))}
        jsonschema.validate(whole, schema)
    facts = [OutputFacts.model_validate(row["batchchat"], strict=False) for row in outputs]
    assert any(fact.previous == {"from": "before"} for fact in facts)
    assert all(turn.seconds is not None for fact in facts for turn in fact.turns)
    assert facts[0].turns[0].reference == "1"
    for model, lines in ((ErrorRow, errors), (ScoreRow, scores)):
        assert [model.model_validate(line).as_dict() for line in lines] == lines
    assert [fact.as_dict() for fact in facts] == [row["batchchat"] for row in outputs]


def test_a_field_that_the_schema_does_not_know_is_refused(everything: Path, batchchat: Command) -> None:
    report = json.loads(batchchat("run", everything, "--json").out)
    report["rows"]["lost"] = 1
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"report.json": report}, results_json_schema())


def test_a_report_is_read_back_as_it_was_written(everything: Path) -> None:
    result = run(load_recipe(everything))
    found = read_report(result.directory / "report.json")
    assert isinstance(found, Report)
    assert found == result.report
    assert found.as_dict() == json.loads((result.directory / "report.json").read_text(encoding="utf-8"))
    assert isinstance(found.engine, ScriptedFacts)
    assert found.rows.in_ == found.rows.answered + found.rows.failed == 9
    about = found.about
    assert about is not None
    assert (about.model, about.quantization) == ("scripted", "none")
    assert about.versions["transformers"]
    assert about.machine.memory_gib > 0
    assert about.command == ()
    assert about.settings["generation.samples"] == 2
    assert about.settings["generation.max_new_tokens"] == 2
    assert about.settings["engine.scripted.fail_every"] == 5
    assert about.settings["chat.turns"] == "regenerate"
    assert "chat.prefill" not in about.settings, "what the recipe leaves alone is in its defaults"
    assert found.scoring is not None
    assert found.scoring.metrics["numeric"].counts.answers == 18
    assert "group=a" in found.scoring.metrics["numeric"].by


def test_what_ran_is_told_in_every_form_of_the_report(
    everything: Path, batchchat: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Model, dtype, settings, versions, machine, date and command: enough to have the figures again."""
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "page.md"))
    monkeypatch.setenv("COLUMNS", "4000")
    ended = batchchat("run", everything, "gates=[]", "generation.temperature=0.5")
    assert ended.code == 0, ended.err
    report = read_report(tmp_path / "runs/test/report.json")
    assert isinstance(report, Report)
    assert report.about is not None
    assert report.about.settings["generation.temperature"] == 0.5
    page, markdown = ((tmp_path / name).read_text(encoding="utf-8") for name in ("page.md", "runs/test/report.md"))
    for text in (ended.out, page.replace("\\_", "_"), markdown):
        for word in (
            "scripted",
            "no model was loaded",
            "generation.temperature=0.5",
            f"batchchat {__version__}, python 3",
            report.about.machine.processor,
            report.about.started,
            f"batchchat run {everything}",
        ):
            assert word in text, word
        assert "the scripted engine fails every 5th row (engine.scripted.fail_every)" in text


def test_the_revision_and_the_dtype_are_those_that_answered(small_model: Path, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"messages": [{"role": "user", "content": "Hi"}]}])
    recipe = Recipe.model_validate(
        {
            "model": {"name": str(small_model), "revision": "main"},
            "source": {"path": str(source)},
            "generation": {"max_new_tokens": 2},
            "sink": {"directory": str(tmp_path / "run")},
        }
    )
    first = run(recipe).report.about
    assert first is not None
    assert (first.revision, first.dtype) == ("main", "float32")
    assert first.identity["sha256"]
    assert first.settings["generation.stop_token_ids"]
    (tmp_path / "run/outputs.jsonl").unlink()
    again = run(recipe).report
    assert again.about is not None
    assert "no model was loaded" in str(again.engine.note)
    assert again.about.dtype == "float32", "of the session that answered"


def test_the_commonest_reasons_of_failure_are_told_with_their_counts(tmp_path: Path, batchchat: Command) -> None:
    good = {"messages": [{"role": "user", "content": "Hi"}]}
    same = [{"id": name, **good} for name in ("a", "b", "c", "a", "b", "c")]
    unread = ["{", '{"messages": []}', '{"messages": []}', '{"x": 1}', "[1]", "[2]"]
    source = write_jsonl(tmp_path / "in.jsonl", [*same, *unread])
    ended = batchchat("run", scripted_recipe(tmp_path / "r.yaml", source), "--json")
    assert ended.code == 3
    failures = json.loads(ended.out)["failures"]
    assert [(failure["lines"], failure["first"]) for failure in failures] == [
        (3, f"{source}:4"),
        (2, f"{source}:8"),
        (2, f"{source}:11"),
    ]
    assert failures[0]["reason"] == f"the id 'a' was given before, at {source}:1"
    said = [line for line in ended.err.splitlines() if line.startswith("failed: ")]
    assert said[0] == f"failed: 3 × the id 'a' was given before, at {source}:1 ({source}:4)"
    assert len(said) == 3
    assert "Why rows failed" in batchchat("run", tmp_path / "r.yaml").out


def test_scores_of_a_file_are_a_report_of_their_own(everything: Path, batchchat: Command, tmp_path: Path) -> None:
    assert batchchat("run", everything).code == 4
    answers = tmp_path / "runs/test/outputs.jsonl"
    place = f"sink.directory={tmp_path / 'scored'}"
    assert batchchat("score", answers, "scoring=[numeric]", place).code == 0
    found = read_report(tmp_path / "scored/report.json")
    assert isinstance(found, ScoreReport)
    assert found.answers_in == str(answers)
    assert found.about is not None
    assert found.about.command[:2] == ("batchchat", "score")
    assert found.about.machine.processor in (tmp_path / "scored/report.md").read_text(encoding="utf-8")
    jsonschema.validate({"report.json": found.as_dict()}, results_json_schema())


def test_a_report_of_before_is_read(everything: Path, batchchat: Command) -> None:
    """Reports were written without what answered, and rows are not answered again for that."""
    first = json.loads(batchchat("run", everything, "--json").out)
    path = everything.parent / "runs/test/report.json"
    del first["about"]
    path.write_text(json.dumps(first), encoding="utf-8")
    again = batchchat("run", everything, "--json")
    assert again.code == 4, again.err
    assert json.loads(again.out) == first


def test_a_report_that_cannot_be_read_says_what_to_do(everything: Path, batchchat: Command) -> None:
    first = json.loads(batchchat("run", everything, "--json").out)
    path = everything.parent / "runs/test/report.json"
    path.write_text(json.dumps({**first, "rows": {"in": 9}}), encoding="utf-8")
    for command in (("run", everything), ("score", path.parent)):
        ended = batchchat(*command)
        assert ended.code == 2
        assert f"{path} cannot be read (rows.answered: " in ended.err
        assert len(ended.err.strip().splitlines()) == 1
    path.unlink()
    again = json.loads(batchchat("run", everything, "--json").out)
    assert again["rows"] == first["rows"]
    assert again["scoring"] == first["scoring"]
    assert "generated nothing" in again["missing"]["session"]


@pytest.mark.parametrize(
    "facts",
    [
        ScriptedFacts(engine="scripted", answer="echo"),
        PipelineFacts(
            engine="pipeline", processes=1, batches="rows of any length", max_batch_rows=4, max_batch_tokens=64
        ),
        ContinuousFacts(
            engine="continuous", reproducible="strict", computed_by="torch", max_rows=4, kv_budget_tokens=64,
            kv_peak_tokens=32, prompt_tokens_reused=0, preempted=0, steps_replayed=0,
        ),
        EngineFacts(engine="pipeline", note="nothing was left to generate"),
        EngineFacts(engine="of-another-package", details={"servers": ["a", "b"], "retries": 3}),
    ],
    ids=lambda facts: type(facts).__name__,
)  # fmt: skip
def test_the_facts_of_an_engine_come_back_as_what_they_were(facts: AnyEngineFacts) -> None:
    known: TypeAdapter[Any] = TypeAdapter(AnyEngineFacts)
    found = known.validate_json(json.dumps(facts.as_dict()))
    assert type(found) is type(facts)
    assert found == facts
    assert known.dump_python(found, mode="json", exclude_unset=True) == facts.as_dict()


def test_every_writer_of_the_table_renders_a_report(everything: Path, tmp_path: Path) -> None:
    report = run(load_recipe(everything)).report
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    write_report(report, RunDirectory(folder), tuple(WRITERS))
    assert sorted(path.name for path in folder.iterdir()) == sorted(writer(name).FILE for name in WRITERS)
    assert json.loads((folder / "report.json").read_text(encoding="utf-8")) == report.as_dict()
    assert (folder / "report.md").read_text(encoding="utf-8").startswith("# test\n")
    suite = ElementTree.fromstring((folder / "gates.xml").read_bytes()).find("testsuite")
    assert suite is not None
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")


def test_the_schema_of_results_is_printed(batchchat: Command) -> None:
    ended = batchchat("schema", "--results")
    assert json.loads(ended.out) == results_json_schema()
    assert batchchat("schema", "--results", "--markdown").out.startswith("# What a run writes\n")
