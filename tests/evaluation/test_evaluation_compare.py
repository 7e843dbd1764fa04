"""Runs compared: with themselves, with a spoiled copy, with answers of other tools, and over other inputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.support.jobs import Command, read_jsonl, scripted_recipe, write_jsonl

SCORING = "source: {path: unused.jsonl}\nscoring: [exact, f1]\n"


def rows(count: int) -> list[dict[str, Any]]:
    return [
        {"id": f"c{n}", "messages": [{"role": "user", "content": f"{n}"}], "reference": f"{n}"} for n in range(count)
    ]


def finished(path: Path, count: int, spoil_every: int = 0, question: str = "{}") -> Path:
    """Finished chats as another tool may write them; every so many answers are spoiled."""
    return write_jsonl(
        path,
        [
            {
                "id": f"c{n}",
                "messages": [
                    {"role": "system", "content": "Answer."},
                    {"role": "user", "content": question.format(n)},
                    {"role": "assistant", "content": "spoiled" if spoil_every and n % spoil_every == 0 else f"{n}"},
                ],
                "reference": f"{n}",
            }
            for n in range(count)
        ],
    )


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "scoring.yaml"
    path.write_text(SCORING, encoding="utf-8")
    return path


def test_a_run_against_itself_and_against_a_degraded_copy(recipe: Path, tmp_path: Path, batchchat: Command) -> None:
    good = scripted_recipe(tmp_path / "r.yaml", write_jsonl(tmp_path / "in.jsonl", rows(100)), scoring=["exact", "f1"])
    assert batchchat("run", good).code == 0
    run = tmp_path / "runs/test"
    ended = batchchat("compare", run, run, "--not-worse-by", "0.05", "--json")
    assert ended.code == 0, ended.err
    ((name, found),) = json.loads(ended.out)["against_first"].items()
    assert name.endswith("(2)")
    for metric in found:
        difference = metric["difference"]
        assert (difference["value"], difference["n"]) == (0.0, 100)
        assert difference["high"] == -difference["low"] == pytest.approx(0.037, abs=1e-3)  # 100 rows do not say more
        assert metric["test"]["p_value"] == 1.0

    ended = batchchat("compare", run, run, "--not-worse-by", "0.02")
    assert ended.code == 4
    assert "undecided" in ended.err
    assert "take 189 for a margin of 0.02" in ended.err

    spoiled = finished(tmp_path / "spoiled.jsonl", 100, spoil_every=10)
    gate = f"exact.mean not worse than {run} by 0.02"
    ended = batchchat("score", spoiled, recipe, f"gates=['{gate}']", "--junit", "j.xml")
    assert ended.code == 4
    failed = [case.get("name") for case in ElementTree.parse("j.xml").getroot().iter("testcase") if len(case)]
    assert failed == [gate]
    assert "-0.1" in ended.err

    ended = batchchat("compare", run, "runs/spoiled", "--not-worse-by", "0.02", "--junit", "k.xml", "--show", "2")
    assert ended.code == 4
    names = [case.get("name") for case in ElementTree.parse("k.xml").getroot().iter("testcase") if len(case)]
    assert [name and name.split(" ")[0] for name in names] == ["exact.mean", "f1.mean"]
    assert "10 of 100 answers changed" in ended.out
    assert "spoiled" in ended.out
    assert "McNemar" in ended.out


def test_files_of_another_tool_are_scored_and_compared(recipe: Path, tmp_path: Path, batchchat: Command) -> None:
    before, after = finished(tmp_path / "before.jsonl", 40), finished(tmp_path / "after.jsonl", 40, spoil_every=4)
    ended = batchchat("score", before, recipe)
    assert ended.code == 0, ended.err
    report = json.loads((tmp_path / "runs/before/report.json").read_text(encoding="utf-8"))
    assert report["scoring"]["metrics"]["exact"]["mean"] == 1.0
    ended = batchchat("compare", before, after)
    assert ended.code == 2
    assert "--recipe" in ended.err
    ended = batchchat("compare", before, after, "--recipe", recipe, "--json")
    assert ended.code == 0, ended.err
    whole = json.loads(ended.out)
    found = whole["against_first"][str(after)][0]
    assert found["difference"]["value"] == -0.25
    assert found["difference"]["high"] < 0
    assert found["adjusted_p"] >= found["test"]["p_value"]
    changed = whole["changed"][str(after)][0]
    assert changed[str(after)] == "spoiled"
    assert changed[str(before)] == changed["asked"]


def test_runs_over_other_inputs_are_refused_with_what_differs(recipe: Path, tmp_path: Path, batchchat: Command) -> None:
    finished(tmp_path / "a.jsonl", 20)
    finished(tmp_path / "b.jsonl", 18, question="what is {}?")
    for name in "ab":
        assert batchchat("score", f"{name}.jsonl", recipe).code == 0
    ended = batchchat("compare", "runs/a", "runs/b")
    assert ended.code == 2
    assert "2 chats of runs/a are not in runs/b, the first is 'c18'" in ended.err
    assert "18 chats ask something else in runs/b, the first is 'c0'" in ended.err
    finished(tmp_path / "c.jsonl", 15)
    assert batchchat("score", "c.jsonl", recipe, "scoring=[{exact: {ignore_case: true}}]").code == 0
    ended = batchchat("compare", "runs/a", "runs/c")
    assert ended.code == 2
    assert "ignore_case False -> True" in ended.err
    ended = batchchat("compare", "runs/a", "runs/c", "--force", "--json")
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["against_first"]["runs/c"][0]["difference"]["n"] == 15
    assert batchchat("compare", "runs/a", "runs/b", "--force").code == 2, "they share no chat"


def test_several_runs_are_rated(recipe: Path, tmp_path: Path, batchchat: Command) -> None:
    for name, every in (("one", 2), ("two", 3), ("three", 5)):
        finished(tmp_path / f"{name}.jsonl", 60, spoil_every=every)
    ended = batchchat("compare", "one.jsonl", "two.jsonl", "three.jsonl", "--recipe", recipe, "--json")
    assert ended.code == 0, ended.err
    ratings = json.loads(ended.out)["ratings"]["exact"]
    assert ratings["one.jsonl"]["value"] < ratings["two.jsonl"]["value"] < ratings["three.jsonl"]["value"]


@pytest.mark.parametrize(
    ("rows_", "words"),
    [
        ([{"id": "a", "messages": [{"role": "user", "content": "x"}]}], "a user turn has no answer"),
        ([{"prompt": "x", "answer": "y"}], "needs messages that end in an assistant turn"),
        ([], "holds no answers"),
    ],
)
def test_a_file_without_answers_is_refused(
    recipe: Path, tmp_path: Path, batchchat: Command, rows_: list[Any], words: str
) -> None:
    ended = batchchat("score", write_jsonl(tmp_path / "in.jsonl", rows_), recipe)
    assert ended.code == 2
    assert words in ended.err
    assert not (tmp_path / "runs").exists()


def test_an_id_twice_and_nothing_to_score_by_are_refused(recipe: Path, tmp_path: Path, batchchat: Command) -> None:
    file = finished(tmp_path / "in.jsonl", 2)
    assert "'scoring=[exact]'" in batchchat("score", file).err
    file.write_bytes(file.read_bytes() * 2)
    ended = batchchat("score", file, recipe)
    assert ended.code == 2
    assert "in.jsonl:3 has the id 'c0', and so has" in ended.err


def test_an_unfinished_or_missing_run_is_refused(recipe: Path, tmp_path: Path, batchchat: Command) -> None:
    (tmp_path / "empty").mkdir()
    assert "no run store" in batchchat("score", "empty", recipe).err
    assert "batchchat score" in batchchat("compare", "empty", "empty").err
    assert "no run directory" in batchchat("compare", "nowhere", "empty").err


def test_gsm8k_references_score_1_against_themselves(
    shared_data: Path, recipe: Path, tmp_path: Path, batchchat: Command
) -> None:
    """Every published reference answer, as the answer of a chat, through the whole command."""
    source = read_jsonl(shared_data / "gsm8k" / "test.jsonl")
    write_jsonl(
        tmp_path / "gsm8k.jsonl",
        [
            {
                "messages": [{"role": "user", "content": r["question"]}, {"role": "assistant", "content": r["answer"]}],
                **r,
            }
            for r in source
        ],
    )
    assert batchchat("score", "gsm8k.jsonl", "scoring=[{numeric: {reference: answer}}]").code == 0
    report = json.loads((tmp_path / "runs/gsm8k/report.json").read_text(encoding="utf-8"))
    metric = report["scoring"]["metrics"]["numeric"]
    assert (metric["mean"], metric["n"], metric["counts"]["scored"]) == (1.0, 1319, 1319)
