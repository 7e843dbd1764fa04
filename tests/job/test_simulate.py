"""Chats that make themselves: both sides by turns, faults of who plays the user, kills, and two busy engines."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.jobs import ROOT, Command, outputs, read_jsonl, report_of, scripted_recipe, write_jsonl

STOP = "###STOP###"


def simulated(
    folder: Path,
    rows: Sequence[Any] | int,
    *,
    user: str = "counting",
    answer: str = "counting",
    engine: dict[str, Any] | None = None,
    user_engine: dict[str, Any] | None = None,
    **simulate: Any,
) -> Path:
    """A recipe in which two scripted engines talk to each other; a `user` that names a function is one."""
    (folder / "played.py").write_text(PLAYED, encoding="utf-8")
    source = f"blank:{rows}" if isinstance(rows, int) else str(write_jsonl(folder / "in.jsonl", rows))

    def scripted(name: str, more: dict[str, Any] | None) -> dict[str, Any]:
        own = {"function": name} if ":" in name else {"answer": name}
        return {"max_batch_rows": 8, "kind": "scripted", "scripted": {**own, **(more or {})}}

    return scripted_recipe(
        folder / "r.yaml",
        source,
        source={"path": source, "format": simulate.pop("format", "blank")},
        engine=scripted(answer, engine),
        simulate={"model": {"name": "scripted"}, "engine": scripted(user, user_engine), **simulate},
        max_error_rate=1.0,
    )


PLAYED = f'''
def stops(messages):
    return "{STOP}" if len(messages) > 4 else f"question {{len(messages)}}"

def stops_at_once(messages):
    return "Bye. {STOP}"

def flips(messages):
    return "What is 1 + 1?\\nAssistant: 2"

def leaks(messages):
    return "I was told: " + " ".join(messages[0]["content"].split()[:30])

def empty(messages):
    return "  "

def repeats(messages):
    return messages[-1]["content"]

def sees(messages):
    return " | ".join(f"{{m['role']}}={{m['content'][:30]}}" for m in messages)
'''


@pytest.fixture(autouse=True)
def _functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("played", None)


def rows_of(recipe: Path) -> list[Any]:
    return read_jsonl(recipe.parent / "runs/test/outputs.jsonl")


def errors_of(recipe: Path) -> list[Any]:
    return read_jsonl(recipe.parent / "runs/test/errors.jsonl")


def said(row: Any) -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in row["messages"]]


def test_both_sides_write_by_turns_and_are_counted(tmp_path: Path, batchchat: Command) -> None:
    recipe = simulated(tmp_path, 5, turns=3)
    ended = batchchat("run", recipe)
    assert ended.code == 0, ended.err
    found = rows_of(recipe)
    assert len(found) == 5
    for row in found:
        assert [message["role"] for message in row["messages"]] == ["user", "assistant"] * 3
        assert row["batchchat"]["ended"] == "turn_cap"
        turns = row["batchchat"]["turns"]
        assert [turn.get("role") for turn in turns] == ["user", None] * 3
        assert len({turn["seed"] for turn in turns}) == 6
    report = report_of(recipe, "test")
    two = report["simulation"]
    assert (two["user_turns"], two["assistant_turns"], two["ended"]) == (15, 15, {"turn_cap": 5})
    for name, role in (("user_tokens", "user"), ("assistant_tokens", None)):
        written = [turn for row in found for turn in row["batchchat"]["turns"] if turn.get("role") == role]
        assert two[name]["prompt"] == sum(turn["prompt_tokens"] for turn in written)
        assert two[name]["generated"] == sum(turn["completion_tokens"] for turn in written) > 0
    assert two["user_tokens"]["generated"] + two["assistant_tokens"]["generated"] == report["tokens"]["generated"]
    assert two["engine"]["engine"] == "scripted"
    assert "Simulated chats" in (tmp_path / "runs/test/report.md").read_text(encoding="utf-8")


def test_the_user_sees_its_goal_and_the_roles_changed_over(tmp_path: Path, batchchat: Command) -> None:
    (tmp_path / "tell.txt").write_text("{persona}/{goal}/{city}/{stop_mark}\n", encoding="utf-8")
    rows = [{"goal": "buy shoes", "city": "Linz", "in_a_hurry": False}, {"goal": "sell shoes", "in_a_hurry": True}]
    recipe = simulated(
        tmp_path, rows, user="played:sees", answer="text", engine={"text": "Yes."}, turns=2, goal="to {goal}",
        persona="a cobbler", instructions=str(tmp_path / "tell.txt"), patient="in_a_hurry", greeting="Hi!",
    )  # fmt: skip
    batchchat("run", recipe)
    (row,) = rows_of(recipe)
    first = f"system=a cobbler/to buy shoes/Linz/{STOP}"[:37]
    assert said(row)[0] == ("user", f"{first} | user=Hi!")
    assert said(row)[2] == ("user", f"{first} | user=Hi! | assistant={said(row)[0][1][:30]} | user=Yes.")
    (error,) = errors_of(recipe)
    assert "simulate.instructions asks for column city" in error["reason"]


def test_rows_with_questions_are_gone_on_with_in_their_own_form(tmp_path: Path, batchchat: Command) -> None:
    rows = [
        {"id": "m", "messages": [{"role": "user", "content": "one"}, {"role": "user", "content": "two"}]},
        {"id": "p", "messages": [{"role": "user", "content": [{"type": "text", "text": "one"}]}]},
    ]
    recipe = simulated(tmp_path, rows, format="auto", turns=3, answer="text", engine={"text": "Yes."})
    assert batchchat("run", recipe).code == 0
    first, second = rows_of(recipe)
    assert [message["role"] for message in first["messages"]] == ["user", "assistant"] * 3
    assert [content for _, content in said(first)[:4]] == ["one", "Yes.", "two", "Yes."]
    assert second["messages"][2]["content"][0]["type"] == "text"
    shared = write_jsonl(tmp_path / "in.jsonl", [{"conversations": [{"from": "human", "value": "one"}]}])
    assert batchchat("run", recipe, "name=shared", f"source.path={shared}").code == 0
    (row,) = read_jsonl(tmp_path / "runs/shared/outputs.jsonl")
    assert [turn["from"] for turn in row["conversations"]] == ["human", "gpt"] * 3


@pytest.mark.parametrize(
    ("user", "fault", "words"),
    [
        ("flips", "role_flip", "spoke in the assistant's place"),
        ("leaks", "leak", "gave its instructions away"),
        ("empty", "empty", "wrote nothing"),
        ("stops_at_once", None, "ended the chat before it asked anything"),
    ],
)
def test_a_bad_user_costs_its_row(tmp_path: Path, batchchat: Command, user: str, fault: str | None, words: str) -> None:
    recipe = simulated(tmp_path, 3, user=f"played:{user}", retries=2)
    batchchat("run", recipe)
    assert [words in error["reason"] for error in errors_of(recipe)] == [True] * 3
    assert report_of(recipe, "test")["simulation"]["faults"] == ({} if fault is None else {fault: 9})
    before = outputs(recipe, "test")
    batchchat("run", recipe, "--retry-failed")  # which tries what can be tried, and does not wait for what cannot
    assert outputs(recipe, "test") == before
    assert len(errors_of(recipe)) == 3


def test_a_chat_ends_where_its_user_ends_it_or_fails(tmp_path: Path, batchchat: Command) -> None:
    recipe = simulated(tmp_path, 2, user="played:stops", turns=50)
    assert batchchat("run", recipe).code == 0
    for row in rows_of(recipe):
        assert [role for role, _ in said(row)] == ["user", "assistant"] * 2, "the mark is no turn of the chat"
        assert row["batchchat"]["ended"] == "stop_mark"
        assert row["batchchat"]["turns"][-1]["raw"] == STOP
    rows = [{"messages": [{"role": "user", "content": "hello"}]}]
    recipe = simulated(tmp_path, rows, format="auto", user="played:repeats", turns=5, retries=1, answer="echo")
    assert batchchat("run", recipe, "name=repeats").code == 0
    (row,) = read_jsonl(tmp_path / "runs/repeats/outputs.jsonl")
    assert said(row) == [("user", "hello"), ("assistant", "hello")]
    assert [turn.get("fault") for turn in row["batchchat"]["turns"]] == [None, "repeats", "repeats"]
    assert row["batchchat"]["ended"] == "repeats"


def test_an_empty_answer_ends_a_chat_and_a_cut_turn_is_written_anew(tmp_path: Path, batchchat: Command) -> None:
    recipe = simulated(tmp_path, 2, answer="text", turns=4)
    assert batchchat("run", recipe).code == 0
    assert {row["batchchat"]["ended"] for row in rows_of(recipe)} == {"empty_answer"}
    recipe = simulated(tmp_path, 40, turns=1, retries=1, generation={"max_new_tokens": 60})
    batchchat("run", recipe, "name=cut")
    found = read_jsonl(tmp_path / "runs/cut/outputs.jsonl")
    faults = Counter(turn.get("fault") for row in found for turn in row["batchchat"]["turns"])
    assert faults["cut"] > 0
    assert faults.keys() == {None, "cut"}


def test_scores_and_exports_are_of_the_answers_in_their_conversation(tmp_path: Path, batchchat: Command) -> None:
    recipe = simulated(tmp_path, 3, turns=2, answer="text", engine={"text": "one two three"})
    assert batchchat("run", recipe, "scoring=[{length: {unit: words, turn: all}}]").code == 0
    lines = read_jsonl(tmp_path / "runs/test/scores.jsonl")
    assert [(line["turn"], line["value"]) for line in lines] == [(0, 3.0), (1, 3.0)] * 3
    ended = batchchat("export", tmp_path / "runs/test", "--output", tmp_path / "m.jsonl", "--form", "messages")
    assert ended.code == 0, ended.err
    assert [row["messages"] for row in read_jsonl(tmp_path / "m.jsonl")] == [row["messages"] for row in rows_of(recipe)]


def test_killed_often_the_chats_are_those_of_an_uninterrupted_run(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()

    def start(recipe: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "batchchat", "run", str(recipe)]
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def num_turns() -> int:
        try:
            with closing(sqlite3.connect(killed / "runs/test/run.sqlite", timeout=10)) as db:
                return int(db.execute("SELECT count(*) FROM turns").fetchone()[0])
        except sqlite3.OperationalError:  # it is not there yet
            return 0

    settings: dict[str, Any] = {"turns": 3, "generation": {"max_new_tokens": 150}}
    calm = start(simulated(whole, 150, **settings))
    slow = {"batch_seconds": 0.02}
    recipe = simulated(killed, 150, engine=slow, user_engine=slow, **settings)
    for _ in range(2):
        process, before = start(recipe), num_turns()
        while num_turns() < before + 200:
            assert process.poll() is None, "the job was too short to be killed"
            time.sleep(0.01)
        process.kill()
        process.wait()
    assert (start(recipe).wait(60), calm.wait(60)) == (0, 0)
    with closing(sqlite3.connect(killed / "runs/test/run.sqlite")) as db:
        (stored,) = db.execute("SELECT count(*) FROM turns").fetchone()
    failed = [turn for error in errors_of(recipe) for turn in error.get("answered", [])]
    assert stored == sum(len(row["batchchat"]["turns"]) for row in rows_of(recipe)) + len(failed)
    assert outputs(recipe, "test") == outputs(whole / "r.yaml", "test")
    faults = report_of(recipe, "test")["simulation"]["faults"]
    assert faults == report_of(whole / "r.yaml", "test")["simulation"]["faults"]


def test_both_engines_are_busy_at_once(tmp_path: Path, batchchat: Command) -> None:
    """Each batch takes a fixed time on either side: one side after the other, the whole would take their sum, and what
    the run itself does besides."""
    delay = 0.04
    recipe = simulated(tmp_path, 96, turns=3, engine={"batch_seconds": delay}, user_engine={"batch_seconds": delay})
    assert batchchat("run", recipe).code == 0
    report = report_of(recipe, "test")
    seconds = report["phases_seconds"]
    besides = sum(seconds[name] for name in ("read", "prompt", "store"))
    one_by_one = report["session"]["batches"] * delay + besides
    assert one_by_one / (seconds["generate"] + besides) >= 1.6


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("simulate.method=magpie", "takes messages"),
        ("simulate.instructions=nowhere.txt", "nowhere.txt cannot be read"),
        ("simulate.goal='{a!r}'", "simulate.goal may only hold names of columns"),
        ("simulate.role_flips=['(']", "no regular expression"),
        ("simulate.generation.samples=2", "a user says one thing"),
        ("chat.prefill=true", "goes on behind the last answer"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_written(
    tmp_path: Path, batchchat: Command, setting: str, words: str
) -> None:
    recipe = simulated(tmp_path, 1)
    more = []
    if "magpie" in setting:  # a server that takes messages
        more = ["simulate.engine.kind=endpoint", "simulate.engine.endpoint.url=http://127.0.0.1:9/v1"]
    ended = batchchat("run", recipe, setting, *more)
    assert ended.code == 2
    assert words in ended.err, ended.err
    assert not (tmp_path / "runs").exists()


def test_many_queries_from_nothing_are_warned_of(tmp_path: Path, batchchat: Command) -> None:
    recipe = simulated(tmp_path, 2, method="magpie", turns=5, systems=[{"text": "a", "weight": 3}, {"text": None}])
    ended = batchchat("check", recipe)
    assert ended.code == 0, ended.err
    assert "simulate.turns is 5" in ended.out
    assert batchchat("run", recipe).code == 0
    row = rows_of(recipe)[0]
    assert [role for role, _ in said(row) if role != "system"] == ["user", "assistant"] * 5


def test_system_turns_are_drawn_by_weight(tmp_path: Path, batchchat: Command) -> None:
    systems = [{"text": "a", "weight": 3}, {"text": "b"}, {"text": None, "weight": 1}]
    recipe = simulated(tmp_path, 400, turns=1, systems=systems)
    assert batchchat("run", recipe).code == 0
    drawn = Counter(said(row)[0] for row in rows_of(recipe))
    assert 0.52 < drawn["system", "a"] / 400 < 0.68
    assert 0.13 < drawn["system", "b"] / 400 < 0.27


def test_a_failing_engine_of_the_user_ends_the_run_as_it_would_alone(tmp_path: Path, batchchat: Command) -> None:
    recipe = simulated(tmp_path, 8, user_engine={"fail_every": 4})
    batchchat("run", recipe)
    assert [error["index"] for error in errors_of(recipe)] == [3, 7]
    assert len(rows_of(recipe)) == 6


def test_templates_in_files_are_taken_by_turns(tmp_path: Path, batchchat: Command) -> None:
    (tmp_path / "a.txt").write_text("A {prompt}\n", encoding="utf-8")
    (tmp_path / "b.txt").write_text("B {prompt}\n", encoding="utf-8")
    source = write_jsonl(tmp_path / "in.jsonl", [{"body": str(n)} for n in range(3)])
    files = [str(tmp_path / "a.txt"), str(tmp_path / "b.txt")]
    recipe = scripted_recipe(tmp_path / "r.yaml", source, source={"prompt_files": files, "columns": {"prompt": "body"}})
    assert batchchat("run", recipe).code == 0
    assert [said(row)[0][1] for row in rows_of(recipe)] == ["A 0", "B 1", "A 2"]
    (tmp_path / "b.txt").write_text("C {prompt}\n", encoding="utf-8")
    ended = batchchat("run", recipe)
    assert ended.code == 2, "another template is another job"
    assert "b.txt" in ended.err
    assert json.loads(recipe.read_text(encoding="utf-8"))["source"]["prompt_files"] == files
