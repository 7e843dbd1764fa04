"""Keeping the good answers: each step does what it says, and nothing vanishes."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchchat.recipe import recipe_from_mapping
from batchchat.reporting.scores import Kept
from batchchat.results import open_results
from batchchat.selection.selecting import Selector
from tests.support.jobs import Command, read_jsonl, report_of, scripted_recipe, write_jsonl


def chat(
    chat_id: str, question: str, answer: str, sample: int = 0, reason: str = "stop", **columns: Any
) -> dict[str, Any]:
    """A finished sample, as a run writes it."""
    turns = [{"finish_reason": reason, "prompt_tokens": 3, "completion_tokens": 2}]
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {
        "id": f"{chat_id}#{sample}",
        **columns,
        "messages": messages,
        "batchchat": {"id": chat_id, "sample": sample, "turns": turns},
    }


def selected(
    folder: Path, rows: list[Any], *steps: Any
) -> tuple[Kept, list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
    """(counts, kept, removed, pairs) of finished chats."""
    file = write_jsonl(folder / "in.jsonl", rows)
    recipe = recipe_from_mapping({"source": {"path": str(file)}, "keep": list(steps)})
    selector = Selector(recipe.keep, recipe.metrics)
    with open_results(file) as results:
        counts = selector.select(results, folder)
    pairs = folder / "pairs.jsonl"
    return (
        counts,
        read_jsonl(folder / "kept.jsonl"),
        read_jsonl(folder / "removed.jsonl"),
        read_jsonl(pairs) if pairs.exists() else [],
    )


WORDS = st.sampled_from(["one", "two", "three", "ONE", "two.", "日本"])
TEXT = st.lists(WORDS, max_size=6).map(" ".join)
STEPS = st.lists(
    st.one_of(
        st.sampled_from(["finish_reason == 'stop'", "words(answer) > 2", "matches(answer, 'one')", "grade >= 1"]),
        st.builds(
            lambda of, near: {"duplicates": {"of": of, "near": near, "shingle": 1}},
            st.sampled_from(["question", "answer", "conversation", "topic"]),
            st.sampled_from([None, 0.5, 0.9]),
        ),
        st.builds(
            lambda count, least, pairs: {"best": {"by": "grade", "count": count, "at_least": least, "pairs": pairs}},
            st.integers(1, 3),
            st.sampled_from([None, 1.0]),
            st.sampled_from(["none", "worst", "all"]),
        ),
        st.just({"function": "tests.support.filters:short"}),
    ),
    max_size=5,
)
CHATS = st.lists(
    st.tuples(
        TEXT,
        st.lists(st.tuples(TEXT, st.sampled_from([None, 0, 1, 2.5]), st.sampled_from(["stop", "length"])), max_size=4),
    ),
    max_size=8,
)


@settings(max_examples=60)
@given(chats=CHATS, steps=STEPS, broken=st.booleans())
def test_each_sample_ends_in_one_place_and_the_counts_add_up(
    tmp_path_factory: pytest.TempPathFactory, chats: Any, steps: list[Any], broken: bool
) -> None:
    rows: list[Any] = [
        chat(f"c{number}", question or "?", answer or "-", sample, reason, grade=grade, topic=question)
        for number, (question, samples) in enumerate(chats)
        for sample, (answer, grade, reason) in enumerate(samples)
    ]
    rows += ['{"messages": 3}'] * broken
    if not rows:
        return
    folder = tmp_path_factory.mktemp("kept")
    counts, kept, removed, pairs = selected(folder, rows, *steps)
    assert counts.samples == len(rows) == counts.failed + sum(one.removed for one in counts.stages) + counts.kept
    assert (counts.failed, counts.kept, counts.pairs) == (broken, len(kept), len(pairs))
    came = counts.samples - counts.failed
    for number, stage in enumerate(counts.stages, start=1):
        assert stage.samples == came
        assert stage.removed == sum(row["step"] == number for row in removed)
        came -= stage.removed
    ended = Counter((row["batchchat"]["id"], row["batchchat"]["sample"]) for row in kept)
    ended += Counter((row["id"], row["sample"]) for row in removed)
    read = [row for row in rows if isinstance(row, dict)]
    assert ended == Counter((row["batchchat"]["id"], row["batchchat"]["sample"]) for row in read)
    assert all(row["reason"] for row in removed)
    places = [[row["id"] for row in read].index(row["id"].partition("#")[0] + f"#{row['sample']}") for row in kept]
    assert places == sorted(places), "the order of the input stays"
    assert len({row["id"] for row in kept}) == len(kept)
    for pair in pairs:
        assert pair["score_chosen"] > pair["score_rejected"]
        assert pair["chosen"] != pair["rejected"]


def test_exact_duplicates_are_those_with_the_same_words_of_another_chat(tmp_path: Path) -> None:
    rows = [
        chat("a", "What is 2 + 2?", "4", 0),
        chat("a", "What is 2 + 2?", "four", 1),
        chat("b", "what is  2+2", "4.", 0),
        chat("c", "What is 2 + 3?", "4", 0),
    ]
    _, kept, removed, _ = selected(tmp_path, rows, {"duplicates": {}})
    assert [row["id"] for row in kept] == ["a", "a#1", "c"]
    assert removed[0]["reason"] == "it has the question of chat a"
    _, kept, removed, _ = selected(tmp_path, rows, {"duplicates": {"of": "answer"}})
    assert [row["id"] for row in kept] == ["a", "a#1"]
    assert [row["id"] for row in removed] == ["b", "c"]


def test_near_duplicates_are_found_by_their_jaccard_similarity(tmp_path: Path) -> None:
    base = [f"word{number}" for number in range(100)]
    near, far = [*base[:97], "x", "y", "z"], [*base[:50], *(f"other{number}" for number in range(50))]
    chinese = "今天天气很好我们一起去公园散步然后回家吃晚饭看书睡觉"
    texts = [" ".join(base), " ".join(near), " ".join(far), chinese, chinese.replace("睡", "喝")]
    rows = [chat(f"c{number}", text, "ok") for number, text in enumerate(texts)]
    _, kept, removed, _ = selected(tmp_path, rows, {"duplicates": {"near": 0.7}})
    assert [row["id"] for row in kept] == ["c0", "c2", "c3"]
    assert [row["id"] for row in removed] == ["c1", "c4"]
    assert "is like that of chat c0: 0.9" in removed[0]["reason"]
    assert len(selected(tmp_path, rows, {"duplicates": {}})[1]) == 5


def test_contaminated_samples_share_words_with_a_named_text(tmp_path: Path) -> None:
    bench = write_jsonl(
        tmp_path / "bench.jsonl",
        [
            {"question": "How many apples does Rosa have after she buys seven more of them today?", "note": "easy"},
            {"question": "Short one?", "note": ["a b c d e f"]},
        ],
    )
    rows = [
        chat("whole", "Say: how many apples DOES Rosa have after, she buys some?", "1"),
        chat("part", "how many apples does Rosa own", "1"),
        chat("short", "short one", "1"),
        chat("longer", "is this a short one", "1"),
        chat("nested", "x a b c d e f", "1"),
    ]
    _, kept, removed, _ = selected(tmp_path, rows, {"contaminated": {"by": str(bench), "words": 6}})
    assert [row["id"] for row in kept] == ["part", "longer"]
    assert removed[0]["reason"] == (f"these words of its question stand in {bench}:1: how many apples does rosa have")
    assert removed[1]["reason"] == f"its question is a text of {bench}:2"
    only = {"contaminated": {"by": str(bench), "words": 6, "columns": ["question"]}}
    assert [row["id"] for row in selected(tmp_path, rows, only)[1]] == ["part", "longer", "nested"]


def test_the_best_of_several_and_the_losers_as_pairs(tmp_path: Path) -> None:
    rows = [
        *(chat("a", "q", f"a{n}", n, grade=grade) for n, grade in enumerate([1, 3, None, 2])),
        *(chat("b", "q", f"b{n}", n, grade=grade) for n, grade in enumerate([0.4, 0.2])),
    ]
    best = {"by": "grade", "at_least": 0.5, "pairs": "all"}
    _, kept, removed, pairs = selected(tmp_path, rows, {"best": best})
    assert [row["id"] for row in kept] == ["a#1"]
    reasons = {row["row"]["id"]: row["reason"] for row in removed}
    assert reasons == {
        "a": "it has 1 by grade, sample 1 has 3",
        "a#2": "it has no score by grade",
        "a#3": "it has 2 by grade, sample 1 has 3",
        "b": "it has 0.4 by grade, less than 0.5",
        "b#1": "it has 0.2 by grade, less than 0.5",
    }
    assert [(pair["chosen"][0]["content"], pair["rejected"][0]["content"]) for pair in pairs] == [
        ("a1", "a0"),
        ("a1", "a3"),
    ]
    assert (pairs[0]["score_chosen"], pairs[0]["score_rejected"]) == (3, 1)
    _, kept, _, pairs = selected(tmp_path, rows, {"best": {"by": "grade", "pairs": "worst", "margin": 0.5}})
    assert [row["id"] for row in kept] == ["a#1", "b"]
    assert [pair["rejected"][0]["content"] for pair in pairs] == ["a0"]


def test_functions_of_ones_own_give_reasons_or_fail_for_their_row(tmp_path: Path) -> None:
    rows = [chat("a", "q", "short"), chat("b", "q", "x" * 50), chat("c", "q", "boom"), chat("d", "q", "odd")]
    _, kept, removed, _ = selected(tmp_path, rows, {"function": "tests.support.filters:short"})
    assert [row["id"] for row in kept] == ["a"]
    assert [row["reason"].removeprefix("tests.support.filters:short") for row in removed] == [
        ": 50 characters are too many",
        " failed: RuntimeError: boom",
        " returned int, not true, false or a text",
    ]


def test_conditions_on_language(tmp_path: Path) -> None:
    rows = [chat("a", "q", "The weather is very nice today, is it not?"), chat("b", "q", "今天天气很好")]
    _, kept, _, _ = selected(tmp_path, rows, "language(answer) == 'en'")
    assert [row["id"] for row in kept] == ["a"]


@pytest.fixture
def kept_run(tmp_path: Path) -> Path:
    rows = [{"id": f"c{n}", "messages": [{"role": "user", "content": f"say {n}"}]} for n in range(10)]
    return scripted_recipe(
        tmp_path / "r.yaml",
        write_jsonl(tmp_path / "in.jsonl", rows),
        engine={"scripted": {"answer": "counting", "fail_every": 5}},
        generation={"samples": 3, "max_new_tokens": 400},
        scoring=[{"length": {"unit": "words"}}],
        keep=["length > 3", {"best": {"by": "length", "pairs": "worst"}}],
        max_error_rate=1.0,
    )


def test_a_run_keeps_says_so_and_keeps_anew_without_generating(
    kept_run: Path, tmp_path: Path, batchchat: Command
) -> None:
    ended = batchchat("run", kept_run)
    assert ended.code == 0, ended.err
    run = tmp_path / "runs/test"
    keep = report_of(kept_run, "test")["keep"]
    assert keep["samples"] == 30
    assert keep["failed"] == 6
    assert [stage["kind"] for stage in keep["stages"]] == ["where", "best"]
    assert keep["kept"] == len(read_jsonl(run / "kept.jsonl")) > 0
    assert {"kept.jsonl", "removed.jsonl", "pairs.jsonl"} <= set(report_of(kept_run, "test")["files"])
    assert "was finished before" in batchchat("run", kept_run).err
    before = (run / "kept.jsonl").read_bytes()
    (run / "kept.jsonl").unlink()
    assert batchchat("run", kept_run).code == 0
    assert (run / "kept.jsonl").read_bytes() == before
    assert batchchat("run", kept_run, "keep=[length > 1000]").code == 0
    assert read_jsonl(run / "kept.jsonl") == []
    assert not (run / "pairs.jsonl").exists()
    assert report_of(kept_run, "test")["session"]["turns"] == 30 - 6
    assert batchchat("score", run, "keep=[sample == 1]").code == 0
    assert {row["sample"] for row in read_jsonl(run / "kept.jsonl")} == {1}
    assert batchchat("run", kept_run, "keep=[]").code == 0
    assert not (run / "kept.jsonl").exists()
    assert "keep" not in report_of(kept_run, "test")


def test_answers_of_other_tools_are_kept_and_scored_in_one(tmp_path: Path, batchchat: Command) -> None:
    rows = [chat("a", "2 + 2?", answer, n, gold="4") for n, answer in enumerate(["4", "5"])]
    file = write_jsonl(tmp_path / "answers.jsonl", rows)
    place = f"sink.directory={tmp_path / 'scored'}"
    ended = batchchat(
        "score", file, "scoring=[{numeric: {reference: gold}}]", "keep=[{best: {by: numeric, pairs: all}}]", place
    )
    assert ended.code == 0, ended.err
    assert [row["id"] for row in read_jsonl(tmp_path / "scored/kept.jsonl")] == ["a"]
    assert len(read_jsonl(tmp_path / "scored/pairs.jsonl")) == 1
    report = json.loads((tmp_path / "scored/report.json").read_text(encoding="utf-8"))
    assert report["keep"]["kept"] == 1


@pytest.mark.parametrize(
    ("keep", "said"),
    [
        ("[lenght > 3]", "did you mean length?"),
        ("[length >]", "keep: 'length >' is no condition"),
        ("[{best: {by: length, pears: all}}]", "did you mean keep[0].best.pairs?"),
        ("[{best: {by: length}, duplicates: {}}]", "must be one step"),
        ("[{contaminated: {by: nowhere.jsonl}}]", "nowhere.jsonl"),
        ("[{function: 'tests.support.filters:gone'}]", "has no 'gone'"),
        ("[{}]", "must be one step"),
    ],
)
def test_what_is_no_step_is_refused_before_anything_is_generated(
    kept_run: Path, tmp_path: Path, batchchat: Command, keep: str, said: str
) -> None:
    ended = batchchat("run", kept_run, f"keep={keep}")
    assert ended.code == 2
    assert said in ended.err
    assert not (tmp_path / "runs").exists()
