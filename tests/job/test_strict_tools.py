"""Strict tools in whole runs: held by the local engines, asked of servers, looked at in every answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from batchchat.structure import calls_agreement, strict_schemas
from tests.support.calls import TOOLS
from tests.support.chat_server import Asked, ChatServer, Said, as_json, completion
from tests.support.jobs import Command, read_jsonl, scripted_recipe, write_jsonl

QUESTIONS = ("What is the weather in Lisbon?", "Set a timer for 12 minutes.", "Tell Anna something.", "Hello!")
STRICT = [{**tool, "function": {**tool["function"], "strict": True}} for tool in TOOLS]
ODD = {"type": "function", "function": {
    "name": "odd", "strict": True,
    "parameters": {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}}}}  # fmt: skip


def rows_with(tools: Any, count: int = 4) -> list[dict[str, Any]]:
    return [
        {"id": n, "messages": [{"role": "user", "content": QUESTIONS[n % 4]}], "tools": tools} for n in range(count)
    ]


def recipe(folder: Path, rows: list[Any], kind: str = "continuous", **sections: Any) -> Path:
    settings = {"max_new_tokens": 120, "temperature": 1.6, "samples": 4, **sections.pop("generation", {})}
    return scripted_recipe(
        folder / "recipe.yaml",
        write_jsonl(folder / "in.jsonl", rows),
        model=sections.pop("model", {"name": "builtin:tiny-chat"}),
        engine={"kind": kind, "max_batch_rows": 8},
        generation=settings,
        max_error_rate=1.0,
        **sections,
    )


def results(folder: Path) -> tuple[list[Any], dict[Any, str]]:
    errors = read_jsonl(folder / "runs/test/errors.jsonl")
    return read_jsonl(folder / "runs/test/outputs.jsonl"), {error["index"]: error["reason"] for error in errors}


@pytest.mark.parametrize("kind", ["continuous", "pipeline"])
@pytest.mark.parametrize("by", ["the recipe", "the rows"])
def test_calls_are_held_to_the_schemas(kind: str, by: str, tmp_path: Path, batchchat: Command) -> None:
    """However hot the model runs: without, it calls with arguments of its own making."""
    tools = {} if by == "the rows" else {"tools": "strict"}
    path = recipe(tmp_path, rows_with(STRICT if by == "the rows" else list(TOOLS)), kind, **tools)
    ended = batchchat("run", path, "-q")
    assert ended.code == 0, ended.err
    found, errors = results(tmp_path)
    assert not errors
    schemas = strict_schemas(TOOLS, every=True)
    assert schemas is not None
    calls = 0
    for row in found:
        turn, message = row["batchchat"]["turns"][0], row["messages"][-1]
        assert turn.get("structure") in (None, "valid", "cut off"), turn
        if message.get("tool_calls"):
            calls += 1
            assert turn["structure"] == "valid"
            assert calls_agreement(schemas, message["tool_calls"]).state == "valid"
    assert calls >= 4


def test_a_tool_that_cannot_be_held_costs_its_row(tmp_path: Path, batchchat: Command) -> None:
    rows = [*rows_with(STRICT, 1), *rows_with([*STRICT, ODD], 1), *rows_with(STRICT, 1)]
    rows[2]["generation"] = {"structured": {"choice": ["a"]}}
    for index, row in enumerate(rows):
        row["id"] = index
    path = recipe(tmp_path, rows)
    assert batchchat("run", path, "-q").code == 0
    found, errors = results(tmp_path)
    assert {row["id"] for row in found} == {0}
    assert "of the tool odd, its json_schema has the keyword uniqueItems, which cannot be enforced" in errors[1]
    assert "leaves no room for calls of strict tools" in errors[2]


def test_a_model_whose_calls_are_not_known_is_refused_before_the_run(
    tmp_path: Path, batchchat: Command, small_model: Path
) -> None:
    for command in ("check", "run"):
        ended = batchchat(command, recipe(tmp_path, rows_with(TOOLS), model={"name": str(small_model)}, tools="strict"))
        assert ended.code == 2
        assert "its tokenizer has no response_template that reads calls from an answer" in ended.err
        assert ended.err.splitlines()[-1].startswith("batchchat: the arguments of tool calls cannot be held")
    assert not (tmp_path / "runs").exists()


def test_a_form_and_strict_tools_of_a_recipe_do_not_go_together(tmp_path: Path, batchchat: Command) -> None:
    path = recipe(tmp_path, rows_with(TOOLS, 1), tools="strict", generation={"structured": {"choice": ["a"]}})
    assert batchchat("run", path, "-q").code == 0
    assert "leave one of them out" in results(tmp_path)[1][0]


def test_check_warns_of_arguments_without_a_limit(tmp_path: Path, batchchat: Command) -> None:
    tool = {"type": "function", "function": {"name": "say", "parameters": {
        "type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"],
        "additionalProperties": False}}}  # fmt: skip
    checked = batchchat("check", recipe(tmp_path, rows_with([tool], 1), tools="strict"), "--json")
    assert checked.code == 0, checked.err
    told = [finding["what"] for finding in json.loads(checked.out)["findings"]]
    assert any("strict tools have a string without maxLength at #/properties/text of the tool say" in w for w in told)


def test_a_server_is_asked_to_hold_them_and_looked_at(tmp_path: Path, batchchat: Command) -> None:
    def call(name: str, **arguments: Any) -> dict[str, Any]:
        return {"id": "c", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}

    answers = [call("add", a=1), call("add", a=100), call("nothing"), None]

    async def handler(asked: Asked) -> Said:
        number = next(n for n, question in enumerate(QUESTIONS) if question == asked.question)
        if answers[number] is None:
            return as_json(completion("Hello."))
        return as_json(completion(None, finish="tool_calls", tool_calls=[answers[number]]))

    with ChatServer(handler) as server:
        path = scripted_recipe(
            tmp_path / "recipe.yaml",
            write_jsonl(tmp_path / "in.jsonl", rows_with(TOOLS)),
            model={"name": "served"},
            engine={"kind": "endpoint", "endpoint": {"url": server.url}},
            tools="strict",
        )
        ended = batchchat("run", path, "-q")
    assert ended.code == 0, ended.err
    assert all(asked.body["tools"] == STRICT for asked in server.asked)
    found, _ = results(tmp_path)
    turns = [row["batchchat"]["turns"][0] for row in found]
    assert [turn.get("structure") for turn in turns] == ["valid", "invalid", "invalid", None]
    assert "the arguments of add are not those that its schema asks for: $.a: 100 is greater" in turns[1]["note"]
    assert "calls nothing, which is none of its tools" in turns[2]["note"]
    assert all(row["tools"] == list(TOOLS) for row in found), "rows stay as they came"
