"""Tools that really run: calls are executed, what goes wrong is told to the model, and nothing is called twice."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.jobs import ROOT, Command, outputs, read_jsonl, report_of, scripted_recipe, write_jsonl

CODE = '''
import os, pathlib, sys, time

def add(a: int, b: int = 1) -> int:
    """Add two numbers."""
    return a + b

def logged(text: str) -> str:
    """Say it again, and write down that it was asked."""
    with open(pathlib.Path(__file__).with_name("calls.txt"), "a") as file:
        file.write(text + "\\\\n")
    time.sleep(0.02)
    return text

def shouts(text: str) -> str:
    print("this is no reply")
    return {"said": text.upper()}

def fails() -> str:
    raise ValueError("no such thing")

def leaves() -> str:
    sys.exit(3)

def dies() -> str:
    os._exit(1)

def hangs() -> str:
    time.sleep(600)

def huge() -> str:
    return "x" * 10_000_000

def binary() -> bytes:
    return b"\\\\xff\\\\x00"

def nul() -> str:
    return "a\\\\0b"

def starred(*values: int) -> int:
    return 1

# --- the model ---

def _call(name, **arguments):
    return {"id": "c1", "type": "function", "function": {"name": name, "arguments": arguments}}

def calls_once(messages):
    """The question names the tool; the answer gives back what it said."""
    last = messages[-1]
    if last["role"] == "tool":
        return "It says " + last["content"]
    name, _, text = last["content"].partition(" ")
    return {"tool_calls": [_call(name, **({"text": text} if text else {}))]}

def adds_twice(messages):
    results = [m for m in messages if m["role"] == "tool"]
    if len(results) < 2:
        return {"content": "Let me see.", "tool_calls": [_call("add", a=len(messages)), _call("add", a=1, b=2)]}
    return "Done: " + " ".join(m["content"] for m in results)

def never_answers(messages):
    return {"tool_calls": [_call("add", a=1)]}
'''


@pytest.fixture(autouse=True)
def _functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "handy.py").write_text(CODE.replace("\\\\", "\\"), encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("handy", None)


def job(folder: Path, questions: list[Any], model: str, run: list[str], **tools: Any) -> Path:
    rows = [{"id": n, "messages": [{"role": "user", "content": text}]} for n, text in enumerate(questions)]
    return scripted_recipe(
        folder / "r.yaml",
        write_jsonl(folder / "in.jsonl", rows),
        engine={"scripted": {"function": f"handy:{model}"}, "max_batch_rows": 4},
        tools={"run": [f"handy:{name}" for name in run], **tools},
        max_error_rate=1.0,
    )


def rows_of(recipe: Path) -> list[Any]:
    return read_jsonl(recipe.parent / "runs/test/outputs.jsonl")


def test_calls_run_until_the_model_answers(tmp_path: Path, batchchat: Command) -> None:
    recipe = job(tmp_path, ["hello", "hello"], "adds_twice", ["add"], processes=1)
    ended = batchchat("run", recipe)
    assert ended.code == 0, ended.err
    for row in rows_of(recipe):
        assert [message["role"] for message in row["messages"]] == ["user", "assistant", "tool", "tool", "assistant"]
        assert [message["content"] for message in row["messages"][1:]] == ["Let me see.", "2", "3", "Done: 2 3"]
        assert row["messages"][2] == {"role": "tool", "content": "2", "tool_call_id": "c1", "name": "add"}
        turns = row["batchchat"]["turns"]
        assert [turn.get("role") for turn in turns] == [None, "tool", "tool", None]
        assert [turn["finish_reason"] for turn in turns] == ["tool_calls", "tool_result", "tool_result", "stop"]
    report = report_of(recipe, "test")
    assert report["finish_reasons"] == {"stop": 2, "tool_calls": 2, "tool_result": 4}
    assert sum(report["lengths"]["answer"]["counts"]) == 4, "results of tools are no answers"


def test_what_a_tool_does_wrong_is_told_to_the_model_and_costs_its_row_at_most(
    tmp_path: Path, batchchat: Command
) -> None:
    wrong = {
        "fails": "ValueError: no such thing",
        "leaves": "SystemExit: 3",
        "dies": "the tool ended the process that ran it",
        "hangs": "the tool gave no answer within 1 s and was ended",
        "huge": "the result has 10,000,000 characters",
        "binary": "2 bytes that are no text",
        "nul": "the result is binary",
        "add": "validation error",
        "nothing": "there is no tool nothing; there are fails",
        "shouts loud": '{"said": "LOUD"}',
    }
    named = [name.split()[0] for name in wrong if name != "nothing"]
    recipe = job(tmp_path, list(wrong), "calls_once", named, seconds=1.0, processes=2)
    begun = time.monotonic()
    ended = batchchat("run", recipe)
    assert ended.code == 0, ended.err
    assert time.monotonic() - begun < 60
    found = rows_of(recipe)
    assert len(found) == len(wrong)
    for row, words in zip(found, wrong.values(), strict=True):
        result = row["messages"][2]["content"]
        assert words in result
        assert row["messages"][3]["content"] == f"It says {result}"
        assert ("note" in row["batchchat"]["turns"][1]) == result.startswith("Error: ")


def test_a_model_that_never_answers_is_stopped(tmp_path: Path, batchchat: Command) -> None:
    recipe = job(tmp_path, ["hello"], "never_answers", ["add"], max_rounds=2, processes=1)
    assert batchchat("run", recipe).code == 0
    (row,) = rows_of(recipe)
    assert [message["role"] for message in row["messages"]] == ["user", *["assistant", "tool"] * 2, "assistant"]
    assert row["batchchat"]["ended"] == "call_cap"
    two = write_jsonl(tmp_path / "two.jsonl", [{"turns": ["one", "two"]}])
    batchchat("run", recipe, "name=two", f"source.path={two}")
    (error,) = read_jsonl(tmp_path / "runs/two/errors.jsonl")
    assert "called tools 3 times in a row" in error["reason"]


def test_a_killed_run_calls_nothing_twice_whose_result_it_has(tmp_path: Path) -> None:
    questions = [f"logged {n}" for n in range(80)]
    recipe = job(tmp_path, questions, "calls_once", ["logged"], processes=2)
    store, calls = tmp_path / "runs/test/run.sqlite", tmp_path / "calls.txt"

    def start() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "batchchat", "run", str(recipe)]
        places = {"PYTHONPATH": f"{tmp_path}:{ROOT}", "PATH": ""}
        return subprocess.Popen(command, cwd=tmp_path, env=places, stdout=subprocess.DEVNULL)

    process = start()
    while not calls.exists() or calls.read_text(encoding="utf-8").count("\n") < 20:
        assert process.poll() is None, "it was too short to be killed"
        time.sleep(0.01)
    process.kill()
    process.wait()
    with closing(sqlite3.connect(store)) as db:
        kept = [found for (found,) in db.execute("SELECT idx FROM turns WHERE finish_reason = 'tool_result'")]
    assert 0 < len(kept) < 80
    time.sleep(1.0)  # processes of tools end with theirs
    before = calls.read_text(encoding="utf-8").split()
    assert start().wait(60) == 0
    again = calls.read_text(encoding="utf-8").split()[len(before) :]
    assert sorted(map(int, again)) == sorted(set(range(80)) - set(kept))
    assert [row["messages"][-1]["content"] for row in rows_of(recipe)] == [f"It says {n}" for n in range(80)]
    assert outputs(recipe, "test")


def test_tools_of_a_server_over_stdio(tmp_path: Path, batchchat: Command) -> None:
    server = {"command": [sys.executable, "-m", "tests.support.mcp_server"], "environment": {"PYTHONPATH": str(ROOT)}}
    recipe = job(tmp_path, ["add", "sleep", "picture"], "calls_once", [], mcp={"n": server}, seconds=1.0, processes=1)
    ended = batchchat("run", recipe)
    assert ended.code == 0, ended.err
    results = [row["messages"][2]["content"] for row in rows_of(recipe)]
    assert "Field required" in results[0]
    assert results[1] == "Error: the server gave no answer within 1 s and was ended"
    assert results[2] == "(image content is left out)"


def test_calls_are_counted_by_tool(tmp_path: Path, batchchat: Command) -> None:
    recipe = job(tmp_path, ["add", "fails", "logged x", "logged y"], "calls_once", ["add", "fails", "logged"])
    ended = batchchat("run", recipe)
    assert ended.code == 0, ended.err
    tools = report_of(recipe, "test")["tools"]
    assert {name: (used["calls"], used["failed"]) for name, used in tools.items()} == {
        "add": (1, 1), "fails": (1, 1), "logged": (2, 0)
    }  # fmt: skip
    assert tools["logged"]["seconds"] >= 0.04
    assert 0.02 <= tools["logged"]["longest_seconds"] <= tools["logged"]["seconds"]
    page = (tmp_path / "runs/test/report.md").read_text(encoding="utf-8")
    assert "2 calls, 0 failed" in page.partition("## Tools")[2].partition("## ")[0]


@pytest.mark.parametrize("by", ["functions", "a server"])
def test_the_recipe_calls_tools_and_what_it_writes_can_be_trained_on(
    by: str, tmp_path: Path, batchchat: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The built-in model calls the right tool and says what it said; rows and exports name the tools."""
    monkeypatch.chdir(tmp_path)
    server = f"tools.mcp={{samples: {{command: [{sys.executable}, -m, batchchat.engines.tools.samples], "
    server += f"environment: {{PYTHONPATH: {ROOT}}}}}}}"
    ended = batchchat("run", "builtin:tools", *(["tools.run=[]", server] if by == "a server" else []))
    assert ended.code == 0, ended.err
    rows = read_jsonl(tmp_path / "runs/tools/outputs.jsonl")
    assert len(rows) == 6
    for row in rows:
        called, result, answer = row["messages"][1:]
        function = called["tool_calls"][0]["function"]
        assert function["arguments"]
        assert not result["content"].startswith("Error")
        said = result["content"]
        if function["name"] == "get_weather":
            weather = json.loads(said)
            assert (str(weather["degrees"]) in answer["content"], weather["sky"] in answer["content"]) == (True, True)
        elif function["name"] == "get_time":
            assert said in answer["content"]
        assert row["batchchat"]["turns"][0]["structure"] == "valid"
        assert [tool["function"]["name"] for tool in row["tools"]] == ["get_weather", "get_time", "set_timer"]
    counts = json.loads((tmp_path / "runs/tools/report.json").read_text(encoding="utf-8"))["tools"]
    assert {name: (used["calls"], used["failed"]) for name, used in counts.items()} == {
        "get_time": (2, 0), "get_weather": (2, 0), "set_timer": (2, 0)
    }  # fmt: skip
    for form in ("messages", "rows", "prompt-completion"):
        assert batchchat("export", "runs/tools", "--output", f"{form}.jsonl", "--form", form).code == 0
        assert [row["tools"] for row in read_jsonl(tmp_path / f"{form}.jsonl")] == [row["tools"] for row in rows]
    assert batchchat("export", "runs/tools", "--output", "sft.parquet", "--form", "messages").code == 0
    from datasets import load_dataset

    data = load_dataset("parquet", data_files="sft.parquet", split="train", cache_dir=str(tmp_path / "cache"))
    tools = data[0]["tools"]
    assert (json.loads(tools) if isinstance(tools, str) else tools) == rows[0]["tools"]


@pytest.mark.parametrize(
    ("tools", "code", "words"),
    [
        ({"run": ["handy:starred"]}, 2, "takes *values: int, which no call can name"),
        ({"run": ["handy:nowhere"]}, 2, "has no 'nowhere'"),
        ({"run": ["handy:add", "handy:add"]}, 2, "two tools named add"),
        ({}, 2, "neither run nor mcp"),
        ({"mcp": {"x": {"command": ["/nowhere/server"]}}}, 5, "the MCP server x cannot be asked"),
    ],
)
def test_what_is_no_tool_is_said_first(
    tmp_path: Path, batchchat: Command, tools: dict[str, Any], code: int, words: str
) -> None:
    named = [target.removeprefix("handy:") for target in tools.get("run", [])]
    recipe = job(tmp_path, ["a"], "calls_once", named, mcp=tools.get("mcp", {}))
    ended = batchchat("run", recipe)
    assert (ended.code, words in ended.err) == (code, True), ended.err
    assert not (tmp_path / "runs").exists()
