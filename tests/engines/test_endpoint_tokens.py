"""`engine.endpoint.prompts: tokens`: our own template's token ids go to the server, and its token ids come back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support.chat_server import Asked, ChatServer, Said, as_json
from tests.support.jobs import Command, read_jsonl, report_of, scripted_recipe, write_jsonl

WRITTEN = (70, 71, 72)


class Tokens:
    """Answers every prompt with the same three tokens and the end token that the request names, as vLLM does."""

    def __init__(self, **changes: Any):
        self.bodies: list[dict[str, Any]] = []
        self.changes = changes

    async def __call__(self, asked: Asked) -> Said:
        body = asked.body
        self.bodies.append(body)
        ids = [*WRITTEN, body["stop_token_ids"][0]]
        marks = [f"token_id:{number}" for number in ids]
        logprobs = {
            "tokens": marks,
            "token_logprobs": [-0.5] * 4,
            "top_logprobs": [{mark: -0.5, "token_id:9": -1.5} for mark in marks],
        }
        choice = {"index": 0, "text": "?", "finish_reason": "stop", "token_ids": ids, "logprobs": logprobs}
        usage = {"prompt_tokens": len(body["prompt"]), "completion_tokens": 4}
        return as_json({"id": "c", "model": "served", "choices": [choice | self.changes], "usage": usage})


def recipe(folder: Path, server: ChatServer, model: Path) -> Path:
    endpoint = {"url": server.url, "prompts": "tokens", "model": "served"}
    return scripted_recipe(
        folder / "recipe.yaml",
        write_jsonl(folder / "in.jsonl", [{"id": "a", "turns": ["first", "second"]}]),
        model={"name": str(model)},
        generation={"logprobs": 2, "max_new_tokens": 9},
        engine={"kind": "endpoint", "endpoint": endpoint},
    )


def test_prompts_are_rendered_here(tmp_path: Path, batchchat: Command, small_model: Path) -> None:
    with ChatServer(served := Tokens()) as server:
        done = batchchat("run", recipe(tmp_path, server, small_model), "-q")
    assert done.code == 0, done.err
    assert {asked.path for asked in server.others} == {"/v1/models", "/v1/completions"}
    first, second = served.bodies
    assert first["model"] == "served"
    assert first["return_token_ids"] is True
    assert (first["max_tokens"], first["logprobs"]) == (9, 2)
    assert second["prompt"][: len(first["prompt"])] == first["prompt"]
    place = len(first["prompt"])
    assert tuple(second["prompt"][place : place + 3]) == WRITTEN
    (row,) = read_jsonl(tmp_path / "runs" / "test" / "outputs.jsonl")
    turn = row["batchchat"]["turns"][0]
    assert turn["token_ids"][:3] == list(WRITTEN)
    assert (turn["finish_reason"], turn["completion_tokens"], turn["prompt_tokens"]) == ("stop", 4, place)
    assert turn["raw"] == row["messages"][1]["content"]
    assert [step["token_id"] for step in turn["logprobs"]] == turn["token_ids"]
    assert [top["token_id"] for top in turn["logprobs"][0]["top"]] == [70, 9]
    assert report_of(tmp_path / "recipe.yaml", "test")["tokens"]["generated"] == 8


def test_a_server_that_gives_no_token_ids_is_said(tmp_path: Path, batchchat: Command, small_model: Path) -> None:
    with ChatServer(Tokens(token_ids=None)) as server:
        assert batchchat("run", recipe(tmp_path, server, small_model), "-q").code == 3
    (error,) = read_jsonl(tmp_path / "runs" / "test" / "errors.jsonl")
    assert "engine.endpoint.prompts=messages" in error["reason"]
