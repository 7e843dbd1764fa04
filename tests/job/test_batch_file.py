"""`run-batch`: result lines that OpenAI's own client reads, an error file in the API's form, and resuming."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from openai.types import Completion as TextCompletion
from openai.types.chat import ChatCompletion
from openai.types.responses import Response
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.support.chat_server import Asked, ChatServer, Said, as_json, completion, echo, fault
from tests.support.jobs import ROOT, Command, read_jsonl, write_jsonl


def line(name: str, text: str = "hi", **body: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    return {
        "custom_id": name,
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {"model": "served", "messages": messages, **body},
    }


def check(results: Path) -> dict[str, ChatCompletion]:
    """The lines as the API's client reads them, by their ids."""
    found = {}
    for one in read_jsonl(results):
        assert list(one) == ["id", "custom_id", "response", "error"]
        assert one["error"] is None
        assert one["response"]["status_code"] == 200
        assert one["response"]["request_id"]
        assert one["id"].startswith("batch_req_")
        assert one["custom_id"] not in found
        found[one["custom_id"]] = ChatCompletion.model_validate(one["response"]["body"], strict=True)
    return found


def test_lines_of_a_local_model(tmp_path: Path, batchchat: Command, small_model: Path) -> None:
    requests = [
        line("two", n=2, max_completion_tokens=4, temperature=1.0, seed=-5),
        line("logprobs", logprobs=True, top_logprobs=2, max_tokens=3),
        line("plain", max_tokens=3, top_p=0, user="me", prompt_cache_key="k"),
        line("refused", response_format={"type": "xml"}),
        {**line("other"), "url": "/v1/embeddings"},
        line("plain", text="again"),
        "{not json",
    ]
    source, results = write_jsonl(tmp_path / "in.jsonl", requests), tmp_path / "out.jsonl"
    done = batchchat("run-batch", "-i", source, "-o", results, "--model", small_model, "-q", "engine.kind=pipeline")
    assert done.code == 3, done.err
    found = check(results)
    assert list(found) == ["two", "logprobs", "plain"]
    two = found["two"]
    assert [choice.index for choice in two.choices] == [0, 1]
    assert two.choices[0].message.content != two.choices[1].message.content
    assert two.usage is not None
    assert two.usage.completion_tokens <= 8
    assert two.usage.total_tokens == two.usage.prompt_tokens + two.usage.completion_tokens
    assert found["plain"].created > 1_700_000_000
    logprobs = found["logprobs"].choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    for step in logprobs.content:
        assert len(step.top_logprobs) == 2
        assert step.logprob <= 0
        assert step.bytes is None or bytes(step.bytes).decode() == step.token
    errors = read_jsonl(tmp_path / "out.errors.jsonl")
    assert [error["custom_id"] for error in errors] == ["refused", "other", "plain", None]
    for error in errors:
        assert list(error) == ["id", "custom_id", "response", "error"]
        assert error["response"] is None
        assert error["error"]["code"] == "invalid_request"
    said = [error["error"]["message"] for error in errors]
    assert "response_format" in said[0]
    assert "/v1/embeddings" in said[1]
    assert "was given before" in said[2]
    assert "in.jsonl:7" in said[3]


def test_lines_of_a_server(tmp_path: Path, batchchat: Command) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": 1}'}}

    async def answer(asked: Asked) -> Said:
        step = {"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}
        said = completion(None, finish="tool_calls", tool_calls=[call], reasoning="hm")
        said["choices"][0]["logprobs"] = {"content": [step]}
        return as_json(said)

    source = write_jsonl(tmp_path / "in.jsonl", [line("a", logprobs=True, tool_choice="auto")])
    with ChatServer(answer) as server:
        results = tmp_path / "out.jsonl"
        done = batchchat("run-batch", "-i", source, "-o", results, "--endpoint", server.url, "-q")
    assert done.code == 0, done.err
    assert server.asked[0].body["model"] == "served"
    choice = check(results)["a"].choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.tool_calls is not None
    assert choice.message.tool_calls[0].to_dict() == call
    assert choice.logprobs is not None
    assert choice.logprobs.content is not None
    assert choice.logprobs.content[0].bytes == [97]
    assert not (tmp_path / "out.errors.jsonl").exists()


def test_lines_of_the_responses_api(tmp_path: Path, batchchat: Command) -> None:
    tool = {"type": "function", "name": "look", "parameters": {"type": "object"}, "strict": False}
    history = [
        {"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
        {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "3"},
    ]
    bodies = {
        "plain": {"model": "served", "input": "hi", "instructions": "Be kind.", "max_output_tokens": 7},
        "calls": {"model": "served", "input": history, "tools": [tool], "text": {"format": {"type": "json_object"}}},
        "stored": {"model": "served", "input": "hi", "previous_response_id": "resp_1"},
        "image": {"model": "served", "input": [{"role": "user", "content": [{"type": "input_image"}]}]},
    }
    lines = [
        {"custom_id": name, "method": "POST", "url": "/v1/responses", "body": body} for name, body in bodies.items()
    ]
    call = {"id": "c2", "type": "function", "function": {"name": "look", "arguments": "{}"}}

    async def answer(asked: Asked) -> Said:
        if asked.body["messages"][-1]["role"] == "tool":
            return as_json(completion(None, finish="tool_calls", tool_calls=[call], reasoning="hm"))
        return as_json(completion("hello", finish="length"))

    source, results = write_jsonl(tmp_path / "in.jsonl", lines), tmp_path / "out.jsonl"
    with ChatServer(answer) as server:
        done = batchchat("run-batch", "-i", source, "-o", results, "--endpoint", server.url, "-q")
    assert done.code == 3, done.err
    sent = {asked.body["messages"][-1]["role"]: asked.body for asked in server.asked}
    assert sent["user"]["messages"][0] == {"role": "system", "content": "Be kind."}
    assert sent["user"]["max_tokens"] == 7
    assert sent["tool"]["response_format"] == {"type": "json_object"}
    assert sent["tool"]["tools"][0]["function"]["name"] == "look"
    plain, calls = (Response.model_validate(one["response"]["body"]) for one in read_jsonl(results))
    assert (plain.output_text, plain.status) == ("hello", "incomplete")
    assert plain.usage is not None
    assert plain.usage.output_tokens == 1
    assert [item.type for item in calls.output] == ["reasoning", "function_call"]
    said = {error["custom_id"]: error["error"]["message"] for error in read_jsonl(tmp_path / "out.errors.jsonl")}
    assert "previous_response_id" in said["stored"]
    assert "no text" in said["image"]


def test_the_examples_of_the_api(tmp_path: Path, batchchat: Command, shared_data: Path) -> None:
    folder = shared_data / "batch_api"
    results = tmp_path / "out.jsonl"
    with ChatServer() as server:
        source = folder / "vllm_openai_example_batch.jsonl"
        assert batchchat("run-batch", "-i", source, "-o", results, "--endpoint", server.url, "-q").code == 0
    assert list(check(results)) == ["request-1", "request-2"]
    (theirs, *_), (ours, *_) = read_jsonl(folder / "example_results.jsonl"), read_jsonl(results)
    assert theirs.keys() == ours.keys()
    body, choice = theirs["response"], theirs["response"]["choices"][0]
    assert body.keys() == ours["response"]["body"].keys()
    assert choice.keys() - {"stop_reason"} == ours["response"]["body"]["choices"][0].keys()


def test_a_call_that_was_killed_goes_on_where_it_stopped(tmp_path: Path, batchchat: Command) -> None:
    async def slow(asked: Asked) -> Said:
        await asyncio.sleep(0.01)
        return await echo(asked)

    count = 400
    prices = ["engine.endpoint.prices={input: 1.0, output: 1.0}"]
    source = write_jsonl(tmp_path / "in.jsonl", [line(f"r{n}", f"question {n}") for n in range(count)])
    results = tmp_path / "out.jsonl"
    with ChatServer(slow) as server:
        arguments = ["run-batch", "-i", str(source), "-o", str(results), "--endpoint", server.url, "-q"]
        running = subprocess.Popen(
            [sys.executable, "-m", "batchchat", *arguments, "engine.endpoint.max_in_flight=16", *prices],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )
        while len(server.asked) < 100 and running.poll() is None:
            time.sleep(0.005)
        os.kill(running.pid, signal.SIGKILL)
        running.communicate()
        assert not results.exists()
        kept, turns = stored(tmp_path / "out.jsonl.run/run.sqlite")
        assert turns > 0
        assert kept == pytest.approx(turns * 12e-6), "an answer and what it cost are stored together"
        done = batchchat(*arguments, *prices)
        assert done.code == 0, done.err
        asked = len(server.asked)
        assert batchchat(*arguments).code == 0
        assert len(server.asked) == asked, "a finished call asks for nothing"
    assert list(check(results)) == [f"r{n}" for n in range(count)]
    assert count <= asked <= count + 48, "only what was in flight, or not yet stored, is asked again"


def stored(database: Path) -> tuple[float, int]:
    """What a run spent, and its answers, as a resumed run finds them."""
    with closing(sqlite3.connect(database)) as store:
        (value,) = store.execute("SELECT value FROM meta WHERE key = 'engine'").fetchone()
        (turns,) = store.execute("SELECT count(*) FROM turns").fetchone()
    return json.loads(value)["spent"][0], turns


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "--model or a server with --endpoint"),
        (("--model", "m", "-o", "in.jsonl"), "would be one file"),
        (("--endpoint", "http://x:y@localhost/v1"), "password or a key"),
    ],
)
def test_what_cannot_be_used_is_said_and_nothing_is_written(
    arguments: tuple[str, ...], words: str, tmp_path: Path, batchchat: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_jsonl(tmp_path / "in.jsonl", [line("a")])
    done = batchchat("run-batch", "-i", "in.jsonl", *(() if "-o" in arguments else ("-o", "out.jsonl")), *arguments)
    assert done.code == 2
    assert words in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_a_file_without_a_models_name_needs_one(tmp_path: Path, batchchat: Command) -> None:
    nameless = line("a")
    del nameless["body"]["model"]
    source = write_jsonl(tmp_path / "in.jsonl", [nameless])
    out = tmp_path / "out.jsonl"
    done = batchchat("run-batch", "-i", source, "-o", out, "--endpoint", "http://localhost:1/v1")
    assert done.code == 2
    assert "--model" in done.err
    assert json.loads(source.read_text())["custom_id"] == "a"


def text_line(name: str, prompt: Any, **body: Any) -> dict[str, Any]:
    head = {"custom_id": name, "method": "POST", "url": "/v1/completions"}
    return {**head, "body": {"model": "served", "prompt": prompt, **body}}


def text_answers(results: Path) -> dict[str, TextCompletion]:
    return {
        one["custom_id"]: TextCompletion.model_validate(one["response"]["body"], strict=True)
        for one in read_jsonl(results)
    }


def test_prompts_that_are_no_chats(tmp_path: Path, batchchat: Command, small_model: Path) -> None:
    """A text and its token ids are one prompt, without a template around it, and have the answer that the model itself
    gives."""
    tokenizer = AutoTokenizer.from_pretrained(small_model)
    text = "The cat sat on the"
    ids = tokenizer(text)["input_ids"]
    lines = [
        text_line("text", text, max_tokens=5, temperature=0, logprobs=2),
        text_line("ids", ids, max_tokens=5, temperature=0, logprobs=0),
        text_line("one", [text], temperature=1.0, n=2, best_of=2),
        text_line("echo", text, echo=True),
        text_line("two", [text, text]),
        text_line("none", ""),
        text_line("beyond", [1, 99_999]),
        text_line("many", text, best_of=3),
        text_line("long", ids * 200, max_tokens=5),
        line("chat", max_tokens=3),
    ]
    source, results = write_jsonl(tmp_path / "in.jsonl", lines), tmp_path / "out.jsonl"
    done = batchchat("run-batch", "-i", source, "-o", results, "--model", small_model, "-q", "chat.system=Be kind.")
    assert done.code == 3, done.err
    model = AutoModelForCausalLM.from_pretrained(small_model)
    given = torch.tensor([ids])
    written = model.generate(given, max_new_tokens=5, do_sample=False)[0, len(ids) :].tolist()
    chat = results.read_text().splitlines()[-1]
    results.write_text("\n".join(results.read_text().splitlines()[:-1]))
    found = text_answers(results)
    assert list(found) == ["text", "ids", "one"]
    expected = tokenizer.decode(written, skip_special_tokens=True)
    assert [found[name].choices[0].text for name in ("text", "ids")] == [expected, expected]
    assert found["text"].usage is not None
    assert found["text"].usage.prompt_tokens == len(ids)
    logprobs, alone = (found[name].choices[0].logprobs for name in ("text", "ids"))
    assert logprobs is not None
    assert alone is not None
    assert logprobs.tokens == [tokenizer.decode([number]) for number in written]
    assert logprobs.text_offset is not None
    assert logprobs.text_offset[:2] == [0, len(logprobs.tokens[0])]
    for token, chosen, top, own in zip(
        logprobs.tokens, logprobs.token_logprobs, logprobs.top_logprobs, alone.top_logprobs, strict=True
    ):
        assert top[token] == chosen
        assert len(top) <= 3
        assert own == {token: pytest.approx(chosen, abs=1e-4)}
    one = found["one"]
    assert [choice.index for choice in one.choices] == [0, 1]
    assert one.usage is not None
    assert one.usage.completion_tokens <= 32
    assert one.object == "text_completion"
    assert json.loads(chat)["response"]["body"]["object"] == "chat.completion"
    said = {one["custom_id"]: one["error"]["message"] for one in read_jsonl(tmp_path / "out.errors.jsonl")}
    assert list(said) == ["echo", "two", "none", "beyond", "many", "long"]
    assert "body.echo gives back the prompt" in said["echo"]
    assert "give each a line of its own" in said["two"]
    assert "body.prompt is empty" in said["none"]
    assert "token id 99999" in said["beyond"]
    assert "body.best_of is 3" in said["many"]
    assert "more than the context of 256 tokens" in said["long"]


def test_prompts_that_are_no_chats_for_a_server(tmp_path: Path, batchchat: Command) -> None:
    def said(asked: Asked) -> dict[str, Any]:
        step = {"tokens": ["a", "b"], "token_logprobs": [-0.5, -2.0], "text_offset": [0, 1]}
        top = [{"a": -0.5, "z": -0.1}, {"b": -2.0}]
        choice = {"index": 0, "text": "ab", "finish_reason": "length", "logprobs": {**step, "top_logprobs": top}}
        usage = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
        return {"id": "c", "object": "text_completion", "model": "served", "choices": [choice], "usage": usage}

    async def answer(asked: Asked) -> Said:
        if asked.path == "/v1/completions":
            return fault(400, "no such prompt") if asked.body["prompt"] == [5] else as_json(said(asked))
        return await echo(asked)

    lines = [
        text_line("text", "Once upon", max_tokens=2, logprobs=1, suffix="the end"),
        text_line("ids", [3, 4], seed=7, temperature=0.5),
        text_line("bad", [5]),
        line("chat"),
    ]
    source, results = write_jsonl(tmp_path / "in.jsonl", lines), tmp_path / "out.jsonl"
    with ChatServer(answer) as server:
        done = batchchat("run-batch", "-i", source, "-o", results, "--endpoint", server.url, "-q")
    assert done.code == 3, done.err
    sent = {json.dumps(asked.body["prompt"]): asked.body for asked in server.others if asked.path == "/v1/completions"}
    text, ids = sent['"Once upon"'], sent["[3, 4]"]
    assert (text["max_tokens"], text["logprobs"], text["suffix"]) == (2, 1, "the end")
    assert "messages" not in text
    assert (ids["max_tokens"], ids["temperature"]) == (16, 0.5)
    assert "logprobs" not in ids
    assert [asked.body["messages"][-1]["content"] for asked in server.asked] == ["hi"]
    read = {one["custom_id"]: one["response"]["body"] for one in read_jsonl(results)}
    assert list(read) == ["text", "ids", "chat"]
    body = TextCompletion.model_validate(read["text"], strict=True)
    assert (body.choices[0].text, body.choices[0].finish_reason) == ("ab", "length")
    assert body.usage is not None
    assert body.usage.total_tokens == 9
    logprobs = body.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.token_logprobs == [-0.5, -2.0]
    assert logprobs.top_logprobs == [{"a": -0.5, "z": -0.1}, {"b": -2.0}]
    (error,) = read_jsonl(tmp_path / "out.errors.jsonl")
    assert "no such prompt" in error["error"]["message"]


def test_a_server_without_completions_is_named(tmp_path: Path, batchchat: Command) -> None:
    async def answer(asked: Asked) -> Said:
        return fault(404, "Not Found")

    source = write_jsonl(tmp_path / "in.jsonl", [text_line("a", "Once upon")])
    with ChatServer(answer) as server:
        results = tmp_path / "out.jsonl"
        done = batchchat("run-batch", "-i", source, "-o", results, "--endpoint", server.url, "-q")
    assert done.code == 5
    assert f"{server.url}/completions answers 404" in done.err
