"""Scores of whole runs: what is written, what is counted, what stays when a run goes on, and gates."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from batchchat.scoring.statistics import wilson
from tests.support.jobs import Command, read_jsonl, scripted_recipe, write_jsonl


def rows(count: int, **columns: Any) -> list[dict[str, Any]]:
    """Chats that the echoing engine answers with their own text; every third has another reference."""
    return [
        {"id": f"c{n}", "messages": [{"role": "user", "content": f"{n}"}], "reference": str(n if n % 3 else n + 1)}
        | {name: values[n % len(values)] for name, values in columns.items()}
        for n in range(count)
    ]


def report_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return found


def test_every_answer_is_scored_and_summed_up(tmp_path: Path, batchchat: Command) -> None:
    recipe = scripted_recipe(
        tmp_path / "r.yaml",
        write_jsonl(tmp_path / "in.jsonl", rows(30, category=["a", "b", None])),
        scoring=["exact", {"length": {"unit": "characters"}}],
        summary={"by": ["category"]},
    )
    ended = batchchat("run", recipe)
    assert ended.code == 0, ended.err
    run = tmp_path / "runs/test"
    lines = read_jsonl(run / "scores.jsonl")
    assert [(line["id"], line["metric"]) for line in lines[:2]] == [("c0", "exact"), ("c0", "length")]
    assert len(lines) == 60
    assert all(line["reason"] for line in lines)
    metrics = report_of(run)["scoring"]["metrics"]
    expected = wilson(20, 30)
    assert (metrics["exact"]["mean"], metrics["exact"]["n"]) == (pytest.approx(expected.value), 30)
    assert (metrics["exact"]["low"], metrics["exact"]["high"]) == (expected.low, expected.high)
    assert {part: metric["n"] for part, metric in metrics["exact"]["by"].items()} == dict.fromkeys(
        ["category=a", "category=b", "category=(none)"], 10
    )
    assert metrics["exact"]["options"]["normalisation"] == ["unicode", "collapse_spaces", "strip"]
    assert "n 30" in ended.out
    assert "n 30" in (run / "report.md").read_text(encoding="utf-8")


def test_what_is_no_complete_answer_is_counted_apart(tmp_path: Path, batchchat: Command) -> None:
    source = [
        {"id": "right", "messages": [{"role": "user", "content": "1"}], "reference": "1"},
        {"id": "long", "messages": [{"role": "user", "content": "1" * 50}], "reference": "1" * 50},
        {"id": "blank", "messages": [{"role": "user", "content": " "}], "reference": " x"},
        {"id": "none", "messages": [{"role": "user", "content": "1"}]},
        {"id": "refused", "messages": [{"role": "user", "content": "I am sorry, I cannot help"}], "reference": "1"},
        '{"id": "bad", "messages": 3}',
    ]
    recipe = scripted_recipe(
        tmp_path / "r.yaml",
        write_jsonl(tmp_path / "in.jsonl", source),
        scoring=["exact"],
        generation={"max_new_tokens": 30},
        max_error_rate=1.0,
    )
    assert batchchat("run", recipe).code == 0
    counts = report_of(tmp_path / "runs/test")["scoring"]["metrics"]["exact"]["counts"]
    assert counts == {
        "answers": 6, "scored": 5, "unscored": 1, "skipped": 0, "scorer_errors": 0,
        "complete": 2, "failed": 1, "empty": 1, "truncated": 1, "refused": 1,
    }  # fmt: skip
    assert batchchat("run", recipe, "summary.treatments={failed: skip, truncated: skip, empty: skip}").code == 0
    metric = report_of(tmp_path / "runs/test")["scoring"]["metrics"]["exact"]
    assert (metric["n"], metric["mean"], metric["counts"]["skipped"]) == (2, 0.5, 3)


def test_other_scores_of_a_finished_run_cost_no_answer(tmp_path: Path, batchchat: Command) -> None:
    recipe = scripted_recipe(tmp_path / "r.yaml", write_jsonl(tmp_path / "in.jsonl", rows(12)))
    run = tmp_path / "runs/test"
    assert batchchat("run", recipe).code == 0
    outputs = (run / "outputs.jsonl").read_bytes()
    assert not (run / "scores.jsonl").exists()
    assert batchchat("run", recipe, "scoring=[exact]").code == 0
    report = report_of(run)
    assert len(report["sessions"]) == 1
    assert report["scoring"]["metrics"]["exact"]["n"] == 12
    assert report["session"]["turns"] == 12, "the speed of the session that answered is kept"
    assert batchchat("score", run, "scoring=[includes]").code == 0
    assert list(report_of(run)["scoring"]["metrics"]) == ["includes"]
    other = tmp_path / "other.yaml"
    other.write_text("source: {path: unused.jsonl}\nscoring: [numeric]\n", encoding="utf-8")
    ended = batchchat("score", run, other, "--json")
    assert list(json.loads(ended.out)["scoring"]["metrics"]) == ["numeric"]
    assert batchchat("run", recipe).code == 0
    assert "scoring" not in report_of(run)
    assert not (run / "scores.jsonl").exists()
    assert (run / "outputs.jsonl").read_bytes() == outputs


def test_turns_and_samples_share_their_chat(tmp_path: Path, batchchat: Command) -> None:
    source = [
        {"id": n, "messages": [{"role": "user", "content": c} for c in "ab"], "answers": ["a", "x"]} for n in range(5)
    ]
    recipe = scripted_recipe(
        tmp_path / "r.yaml",
        write_jsonl(tmp_path / "in.jsonl", source),
        generation={"samples": 2},
        scoring=[{"exact": {"turn": "all", "reference": "answers", "reference_per_turn": True}}],
        summary={"pass_at": [1, 2]},
    )
    assert batchchat("run", recipe).code == 0
    metric = report_of(tmp_path / "runs/test")["scoring"]["metrics"]["exact"]
    assert (metric["n"], metric["clusters"], metric["mean"]) == (20, 5, 0.5)
    assert metric["pass_at"] == {"1": 0.5, "2": 0.5}
    assert metric["majority"] == 0.5


def test_a_scorer_that_raises_costs_its_row(
    tmp_path: Path, batchchat: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_scorers.py").write_text(
        "def odd(answer, reference, columns):\n"
        "    if answer == '3':\n        raise KeyError('three')\n    return int(answer) % 2\n",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    recipe = scripted_recipe(
        tmp_path / "r.yaml",
        write_jsonl(tmp_path / "in.jsonl", rows(6)),
        scoring=[{"python": {"function": "own_scorers:odd"}}],
    )
    assert batchchat("run", recipe).code == 0
    metric = report_of(tmp_path / "runs/test")["scoring"]["metrics"]["python"]
    assert (metric["n"], metric["mean"], metric["counts"]["scorer_errors"]) == (5, 0.4, 1)
    (failed,) = [line for line in read_jsonl(tmp_path / "runs/test/scores.jsonl") if line["status"] == "error"]
    assert "KeyError: 'three'" in failed["reason"]


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"scoring": ["numerc"]}, "did you mean numeric?"),
        ({"scoring": [{"regex": {"pattern": "("}}]}, "scoring[0].regex.pattern is not a regular expression"),
        ({"scoring": [{"json": {"json_schema": {"type": "foo"}}}]}, "is not a JSON schema"),
        ({"scoring": [{"numeric": {"tolrance": 1}}]}, "did you mean scoring[0].numeric.tolerance?"),
        ({"scoring": [{"exact": {}, "f1": {}}]}, "must name one scorer"),
        ({"scoring": ["exact", "exact"]}, "two metrics named exact"),
        ({"scoring": [{"python": {"function": "nowhere:f"}}]}, "'nowhere' cannot be imported"),
        ({"gates": ["errors => 1"]}, "gates[0] is no gate"),
        ({"scoring": ["numeric"], "gates": ["numerc.mean >= 1"]}, "did you mean 'numeric.mean'?"),
        ({"scoring": ["exact"], "gates": ["exact.mean[x=1] >= 1"]}, "set summary.by"),
        ({"scoring": ["exact"], "gates": ["exact.low not worse than r by 1"]}, "compare one of mean"),
        ({"scoring": ["exact"], "gates": ["exact.mean not worse than nowhere by 1"]}, "no run directory nowhere"),
        ({"summary": {"pass_at": [2]}}, "raise that one"),
        ({"judges": {"q": {"against": "x"}}}, "write kind: pairwise"),
        ({"judges": {"q": {"template": "pairwse", "kind": "pairwise"}}}, "did you mean 'pairwise'?"),
        ({"judges": {"q": {"template": "pairwise"}}}, "is pairwise, but the judge is pointwise"),
        ({"judges": {"q": {"kind": "pairwise", "against": "nowhere"}}}, "nowhere"),
        ({"scoring": ["exact"], "judges": {"exact": {}}}, "rename one of them"),
    ],
)  # fmt: skip
def test_mistakes_are_found_before_the_run(
    tmp_path: Path, batchchat: Command, sections: dict[str, Any], words: str
) -> None:
    recipe = scripted_recipe(tmp_path / "r.yaml", write_jsonl(tmp_path / "in.jsonl", rows(2)), **sections)
    ended = batchchat("run", recipe)
    assert ended.code == 2
    assert words in ended.err
    assert not (tmp_path / "runs").exists()


def test_a_failed_gate_is_exit_code_4_and_ci_is_told(
    tmp_path: Path, batchchat: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n", encoding="utf-8")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(page))
    recipe = scripted_recipe(
        tmp_path / "r.yaml",
        write_jsonl(tmp_path / "in.jsonl", rows(30)),
        scoring=["exact"],
        gates=["exact.mean >= 0.9", "errors <= 1%", "exact.n >= 30"],
    )
    junit = tmp_path / "reports" / "gates.xml"
    for _ in range(2):  # a finished run fails again
        ended = batchchat("run", recipe, "--junit", junit)
        assert ended.code == 4
        assert "1 of 3 gates failed" in ended.err
        assert "exact.mean is 0.666667" in ended.err
    root = ElementTree.parse(junit).getroot()
    failed = [case.get("name") for case in root.iter("testcase") if case.find("failure") is not None]
    assert failed == ["exact.mean >= 0.9"]
    text = page.read_text(encoding="utf-8")
    assert text.startswith("before\n")
    assert "1 of 3 gates failed" in text
    assert batchchat("run", recipe, "gates=[exact.mean >= 0.5]").code == 0
    assert batchchat("score", tmp_path / "runs/test", "gates=[exact.mean >= 0.9]").code == 4


def test_a_gate_on_a_figure_that_did_not_come_up_fails(tmp_path: Path, batchchat: Command) -> None:
    recipe = scripted_recipe(
        tmp_path / "r.yaml",
        write_jsonl(tmp_path / "in.jsonl", rows(3, category=["a"])),
        scoring=["exact"],
        summary={"by": "category"},
        gates=["exact.mean[category=b] >= 0"],
    )
    ended = batchchat("run", recipe)
    assert ended.code == 4
    assert "was not measured" in ended.err
