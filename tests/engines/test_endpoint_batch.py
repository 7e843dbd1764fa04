"""`engine.endpoint.batch`: the provider's Batch API behind the same feed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.chat_server import Asked, ChatServer, Said, as_json, completion, fault
from tests.support.jobs import Command, read_jsonl, report_of, scripted_recipe, write_jsonl


class Provider:
    """Files and batches as the API has them. `ready_after` looks a batch is completed; `says` makes a result line."""

    def __init__(self, ready_after: int = 1, says: Any = None):
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.looks: dict[str, int] = {}
        self.ready_after = ready_after
        self.says = says or self.good

    def good(self, line: dict[str, Any]) -> dict[str, Any]:
        said = completion(f"re: {line['body']['messages'][-1]['content']}")
        return {"custom_id": line["custom_id"], "response": {"status_code": 200, "body": said}, "error": None}

    def lines(self, batch: str) -> list[dict[str, Any]]:
        raw = self.files[self.batches[batch]["input_file_id"]]
        return [json.loads(line) for line in raw.splitlines()]

    async def __call__(self, asked: Asked) -> Said:
        path = asked.path.removeprefix("/v1")
        if path == "/files":
            name = f"file-{len(self.files)}"
            (lines,) = re.findall(rb"jsonl\r\n\r\n(.*)\r\n--", asked.raw, re.DOTALL)
            self.files[name] = lines.strip()
            assert b'name="purpose"\r\n\r\nbatch' in asked.raw
            return as_json({"id": name})
        if path == "/batches":
            name = f"batch-{len(self.batches)}"
            self.batches[name] = {**asked.body, "id": name, "status": "in_progress"}
            return as_json(self.batches[name])
        if path.startswith("/batches/"):
            return self._look(path.removeprefix("/batches/"))
        return Said(200, {}, self.files[path.split("/")[2]])

    def _look(self, name: str) -> Said:
        self.looks[name] = self.looks.get(name, 0) + 1
        batch = self.batches[name]
        if self.looks[name] >= self.ready_after and batch["status"] == "in_progress":
            results = [found for line in self.lines(name) if (found := self.says(line)) is not None]
            self.files[f"out-{name}"] = b"\n".join(json.dumps(line).encode() for line in reversed(results))
            batch |= {"status": "completed", "output_file_id": f"out-{name}"}
        return as_json(batch)


def recipe(folder: Path, server: ChatServer, rows: list[Any], **endpoint: Any) -> Path:
    options = {"url": server.url, "batch": True, "batch_poll_seconds": 0.01, **endpoint}
    engine = {"kind": "endpoint", "endpoint": options}
    source = write_jsonl(folder / "in.jsonl", rows)
    return scripted_recipe(folder / "recipe.yaml", source, model={"name": "served"}, engine=engine)


def chats(count: int, turns: int = 1) -> list[Any]:
    return [{"id": f"q{n}", "turns": [f"turn {turn} of {n}" for turn in range(turns)]} for n in range(count)]


def results(path: Path, name: str = "outputs") -> list[Any]:
    return read_jsonl(path.parent / "runs" / "test" / f"{name}.jsonl")


def test_each_turn_is_a_batch(tmp_path: Path, batchchat: Command) -> None:
    provider = Provider(ready_after=3)
    with ChatServer(provider) as server:
        path = recipe(tmp_path, server, chats(30, 2), prices={"input": 1.0, "output": 1.0})
        done = batchchat("run", path, "-q")
    assert done.code == 0, done.err
    assert [len(provider.lines(name)) for name in provider.batches] == [30, 30]
    assert [row["messages"][-1]["content"] for row in results(path)] == [f"re: turn 1 of {n}" for n in range(30)]
    assert not server.asked
    assert report_of(path, "test")["engine"]["cost"]["spent"] == pytest.approx(60 * 15e-6)


def test_files_are_cut_and_what_has_no_answer_goes_again(tmp_path: Path, batchchat: Command) -> None:
    tries: dict[str, int] = {}

    def says(line: dict[str, Any]) -> dict[str, Any] | None:
        name = line["custom_id"]
        tries[name] = tries.get(name, 0) + 1
        if name.startswith("3-"):
            error = {"error": {"message": "too long"}}
            return {"custom_id": name, "response": {"status_code": 400, "body": error}}
        if name.startswith("5-"):
            return {"custom_id": name, "response": None, "error": {"code": "batch_expired", "message": "expired"}}
        return None if name.startswith("4-") and tries[name] == 1 else provider.good(line)

    provider = Provider(says=says)
    with ChatServer(provider) as server:
        path = recipe(tmp_path, server, chats(10), batch_requests=6, retries=2)
        assert batchchat("run", path, "-q").code == 3
    assert all(len(provider.lines(name)) <= 6 for name in provider.batches)
    reasons = {row["id"]: row["reason"] for row in results(path, "errors")}
    assert reasons.keys() == {"q3", "q5"}
    assert "too long" in reasons["q3"]
    assert "expired" in reasons["q5"]
    assert "in 3 batches" in reasons["q5"]
    assert len(results(path)) == 8


def test_a_run_that_is_ended_meanwhile_waits_for_the_same_batch(tmp_path: Path, batchchat: Command) -> None:
    provider = Provider(ready_after=10_000)
    with ChatServer(provider) as server:
        path = recipe(tmp_path, server, chats(5), retries=0)
        real = provider._look
        provider._look = lambda name: fault(500, "away")  # type: ignore[method-assign]
        stopped = batchchat("run", path, "-q")
        assert stopped.code == 5
        assert "away" in stopped.err
        provider._look, provider.ready_after = real, 1  # type: ignore[method-assign]
        assert batchchat("run", path, "-q").code == 0
    assert len(provider.batches) == 1
    assert len(results(path)) == 5


def test_a_provider_without_batches_is_said(tmp_path: Path, batchchat: Command) -> None:
    async def nothing(asked: Asked) -> Said:
        return fault(404, "no such thing")

    with ChatServer(nothing) as server:
        done = batchchat("run", recipe(tmp_path, server, chats(2)), "-q")
    assert done.code == 5
    assert "Batch API cannot be used" in done.err
