"""Judges as runs of their own: what they are asked, how their grades count, and what their audit shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.jobs import Command, read_jsonl, scripted_recipe, write_jsonl

JUDGES = """
import re

def always_a(messages):
    return "The first one. [[A]]"

def longer(messages):
    prompt = messages[-1]["content"]
    a, b = (re.search(rf"BEGIN \\\\w+ {side}>>>(.*?)<<<END", prompt, re.DOTALL)[1] for side in "AB")
    return "[[C]]" if len(a) == len(b) else "[[A]]" if len(a) > len(b) else "[[B]]"

def by_length(messages):
    answer = re.search(r"BEGIN ANSWER>>>\\n(.*?)\\n<<<END", messages[-1]["content"], re.DOTALL)[1]
    return f"[[{min(10, len(answer))}]]"

def babble(messages):
    return "Well [[well]] [[11]]"

def refuses(messages):
    raise ValueError("no")
""".replace("\\\\", "\\")


@pytest.fixture
def judges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_judges.py").write_text(JUDGES, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))


def judge(function: str, **options: Any) -> dict[str, Any]:
    engine = {"kind": "scripted", "scripted": {"function": f"own_judges:{function}"}}
    return {"model": {"name": "scripted"}, "engine": engine, **options}


def report_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return found


def chats(count: int) -> list[dict[str, Any]]:
    return [
        {"id": f"c{n}", "messages": [{"role": "user", "content": "x" * (1 + n % 7)}], "reference": "xxxx", "rating": 4}
        for n in range(count)
    ]


@pytest.mark.usefixtures("judges")
def test_a_pointwise_judge_grades_every_answer_in_a_run_of_its_own(tmp_path: Path, batchchat: Command) -> None:
    section = judge("by_length", human="rating", generation={"samples": 2})
    recipe = scripted_recipe(
        tmp_path / "r.yaml", write_jsonl(tmp_path / "in.jsonl", chats(14)), judges={"quality": section}
    )
    ended = batchchat("run", recipe)
    assert ended.code == 0, ended.err
    run = tmp_path / "runs/test"
    asked = read_jsonl(run / "judges/quality.jsonl")
    assert len(asked) == 14
    assert asked[0]["judged"] == {"id": "c0", "sample": 0, "turn": 0}
    assert "<<<BEGIN REFERENCE ANSWER>>>\nxxxx" in asked[0]["messages"][1]["content"]
    assert len(read_jsonl(run / "judges/quality/outputs.jsonl")) == 28
    values = [line["value"] for line in read_jsonl(run / "scores.jsonl")]
    assert values == [1.0 + n % 7 for n in range(14)]
    report = report_of(run)
    assert report["scoring"]["metrics"]["quality"]["mean"] == 4.0
    figures = report["judges"]["quality"]["figures"]
    assert figures["length_bias"]["value"] == pytest.approx(1.0)
    assert figures["repeat_agreement"]["value"] == 1.0
    assert figures["parse_failures"]["value"] == 0.0
    assert figures["parse_failures"]["n"] == 28


@pytest.mark.usefixtures("judges")
@pytest.mark.parametrize(("function", "words"), [("babble", "off its scale"), ("refuses", "could not answer")])
def test_nonsense_is_counted_and_is_no_grade(tmp_path: Path, batchchat: Command, function: str, words: str) -> None:
    recipe = scripted_recipe(
        tmp_path / "r.yaml",
        write_jsonl(tmp_path / "in.jsonl", chats(3)),
        judges={"quality": judge(function)},
        gates=["quality.scorer_errors <= 1%"],
    )
    assert batchchat("run", recipe).code == 4
    metric = report_of(tmp_path / "runs/test")["scoring"]["metrics"]["quality"]
    assert (metric["mean"], metric["counts"]["scorer_errors"]) == (None, 3)
    assert all(words in line["reason"] for line in read_jsonl(tmp_path / "runs/test/scores.jsonl"))


@pytest.mark.usefixtures("judges")
def test_a_judge_goes_on_where_it_stopped_and_begins_anew_where_it_was_changed(
    tmp_path: Path, batchchat: Command
) -> None:
    recipe = scripted_recipe(
        tmp_path / "r.yaml", write_jsonl(tmp_path / "in.jsonl", chats(5)), judges={"quality": judge("by_length")}
    )
    run = tmp_path / "runs/test"
    assert batchchat("run", recipe).code == 0
    assert batchchat("score", run, "scoring=[exact]").code == 0
    assert not (run / "judges/quality.old-1").exists()
    assert list(report_of(run)["scoring"]["metrics"]) == ["exact", "quality"]
    sessions = report_of(run / "judges/quality")["sessions"]
    assert [session["completed"] for session in sessions] == [5], "no answer was judged twice"
    assert batchchat("score", run, "judges.quality.show_reference=never").code == 0
    assert (run / "judges/quality.old-1").exists()
    assert "REFERENCE" not in (run / "judges/quality.jsonl").read_text(encoding="utf-8")


@pytest.mark.usefixtures("judges")
def test_an_interrupted_judge_is_asked_only_what_it_had_not_answered(
    tmp_path: Path, batchchat: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tired_judge.py").write_text(
        "asked = []\n"
        "def grade(messages):\n"
        "    asked.append(messages[-1]['content'])\n"
        "    if len(asked) == 4:\n        raise KeyboardInterrupt\n"
        "    return '[[5]]'\n",
        encoding="utf-8",
    )
    section = judge("by_length")
    section["engine"] = {"kind": "scripted", "max_batch_rows": 1, "scripted": {"function": "tired_judge:grade"}}
    recipe = scripted_recipe(
        tmp_path / "r.yaml", write_jsonl(tmp_path / "in.jsonl", chats(8)), judges={"quality": section}
    )
    assert batchchat("run", recipe).code == 130
    assert batchchat("run", recipe).code == 0
    import tired_judge  # type: ignore[import-not-found]

    assert len(tired_judge.asked) == 9, "eight answers, and the one that was being judged at the interrupt"
    assert report_of(tmp_path / "runs/test")["scoring"]["metrics"]["quality"]["n"] == 8
    sessions = report_of(tmp_path / "runs/test/judges/quality")["sessions"]
    assert [session["completed"] for session in sessions] == [3, 5]


def finished(path: Path, answers: dict[str, list[str]], questions: dict[str, list[str]]) -> Path:
    """A file of finished chats as any tool may write it."""
    return write_jsonl(
        path,
        [
            {
                "id": chat,
                "messages": [
                    message
                    for question, answer in zip(questions[chat], turns, strict=True)
                    for message in ({"role": "user", "content": question}, {"role": "assistant", "content": answer})
                ],
            }
            for chat, turns in answers.items()
        ],
    )


@pytest.fixture
def mt_bench(shared_data: Path, tmp_path: Path) -> tuple[Path, Path]:
    """MT-Bench's answers of two models, as files of finished chats."""
    folder = shared_data / "mt_bench"
    questions = {str(row["question_id"]): row["turns"] for row in read_jsonl(folder / "question.jsonl")}
    files = []
    for model in ("gpt-3.5-turbo", "vicuna-7b-v1.3"):
        rows = read_jsonl(folder / f"answer_{model}.jsonl")
        answers = {str(row["question_id"]): row["choices"][0]["turns"] for row in rows}
        files.append(finished(tmp_path / f"{model}.jsonl", answers, questions))
    return files[0], files[1]


@pytest.mark.usefixtures("judges")
def test_mt_bench_judges_that_cheat_are_exposed(
    mt_bench: tuple[Path, Path], tmp_path: Path, batchchat: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ours, theirs = mt_bench
    options = {"kind": "pairwise", "against": str(theirs)}
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        json.dumps(
            {
                "source": {"path": "unused.jsonl"},
                "judges": {"first": judge("always_a", **options), "long": judge("longer", **options)},
            }
        ),
        encoding="utf-8",
    )
    ended = batchchat("score", ours, recipe, "name=mt")
    assert ended.code == 0, ended.err
    report = report_of(tmp_path / "runs/mt")
    lines = read_jsonl(tmp_path / "runs/mt/scores.jsonl")
    assert len(lines) == 2 * 160
    assert {line["value"] for line in lines if line["metric"] == "first"} == {0.5}
    first, longer = (report["judges"][name]["figures"] for name in ("first", "long"))
    assert (first["flips"]["value"], first["first_place"]["value"]) == (1.0, 1.0)
    assert (first["win_rate"]["value"], first["win_rate"]["n"]) == (0.5, 160)
    assert longer["flips"]["value"] == 0.0
    assert longer["length_bias"]["value"] > 0.7
    assert longer["length_bias"]["low"] > 0.5
    second_turn = read_jsonl(tmp_path / "runs/mt/judges/first.jsonl")[2]["messages"][1]["content"]
    assert "<<<BEGIN CONVERSATION A>>>" in second_turn
    assert second_turn.count("<<<ASSISTANT 1>>>") == 2


@pytest.mark.usefixtures("judges")
def test_a_pairwise_judge_compares_with_a_run_or_the_reference(tmp_path: Path, batchchat: Command) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", chats(14))
    before = scripted_recipe(tmp_path / "before.yaml", source, engine={"scripted": {"answer": "text", "text": "xxx"}})
    assert batchchat("run", before, "name=before").code == 0
    versus = judge("longer", kind="pairwise", against=str(tmp_path / "runs/before"))
    recipe = scripted_recipe(tmp_path / "r.yaml", source, judges={"versus": versus})
    assert batchchat("run", recipe).code == 0
    values = [line["value"] for line in read_jsonl(tmp_path / "runs/test/scores.jsonl")]
    assert values == [0.0, 0.0, 0.5, 1.0, 1.0, 1.0, 1.0] * 2
    assert batchchat("run", recipe, "judges.versus.against=null").code == 0
    values = [line["value"] for line in read_jsonl(tmp_path / "runs/test/scores.jsonl")]
    assert values == [0.0, 0.0, 0.0, 0.5, 1.0, 1.0, 1.0] * 2
