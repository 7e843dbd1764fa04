"""Runs, judges and chats answered by a server: a good one, and every kind of bad one."""

from __future__ import annotations

import asyncio
import gzip
import json
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batchchat.chats import Message, Request, Settings
from batchchat.engines import EngineContext, build_engine
from batchchat.engines.endpoint import connection, retry, traffic
from batchchat.engines.facts import EndpointFacts
from batchchat.prompts import MessagesCodec
from batchchat.recipe import load_recipe
from batchchat.reporting.meters import Meters
from batchchat.schedule import Feed
from tests.support.chat_server import Asked, ChatServer, Said, as_json, completion, echo, fault
from tests.support.jobs import ROOT, Command, outputs, read_jsonl, report_of, scripted_recipe, write_jsonl

KEY = "sk-hunter2-9f8e7d"


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(traffic, "_REFUSAL_SECONDS", 0.01)


def questions(count: int, **columns: Any) -> list[dict[str, Any]]:
    return [
        {"id": f"q{n}", "messages": [{"role": "user", "content": f"question {n}"}], **columns} for n in range(count)
    ]


def recipe(
    folder: Path, server: ChatServer | str, rows: list[Any], endpoint: dict[str, Any] | None = None, **sections: Any
) -> Path:
    url = server if isinstance(server, str) else server.url
    engine = {"kind": "endpoint", "endpoint": {"url": url, **(endpoint or {})}}
    source = write_jsonl(folder / "in.jsonl", rows)
    sections = {"model": {"name": "served"}, "engine": engine, **sections}
    return scripted_recipe(folder / "recipe.yaml", source, **sections)


def answers(path: Path, name: str = "test") -> dict[str, Any]:
    rows = read_jsonl(path.parent / "runs" / name / "outputs.jsonl")
    return {row["id"]: row["messages"][-1] for row in rows}


def errors(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = read_jsonl(path.parent / "runs" / "test" / "errors.jsonl")
    return found


def test_every_chat_is_answered_with_all_its_turns_and_settings(tmp_path: Path, batchchat: Command) -> None:
    row = '{"id": "x", "turns": ["first", "second"], "kept": 1.10}'
    with ChatServer() as server:
        path = recipe(
            tmp_path,
            server,
            [row],
            {"extra_body": {"reasoning_effort": "low"}, "headers": {"X-Title": "mine"}, "omit": ["top_p"]},
            chat={"system": "Be kind."},
            generation={"temperature": 0.5, "top_p": 0.9, "top_k": 7, "max_new_tokens": 9, "stop": ["END"]},
        )
        done = batchchat("run", path, "-q")
    assert done.code == 0, done.err
    first, second = (asked.body for asked in server.asked)
    assert first == {
        "model": "served",
        "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "first"}],
        "max_tokens": 9,
        "temperature": 0.5,
        "top_k": 7,
        "stop": ["END"],
        "seed": first["seed"],
        "reasoning_effort": "low",
    }
    assert second["messages"][2:] == [{"role": "assistant", "content": "first"}, {"role": "user", "content": "second"}]
    assert second["seed"] != first["seed"]
    assert server.asked[0].headers["x-title"] == "mine"
    report = report_of(path, "test")
    assert report["engine"]["served_model"] == "served"
    assert report["engine"]["concurrency"][0] == {**report["engine"]["concurrency"][0], "limit": 4, "why": "start"}
    assert report["tokens"] == {"prompt": 20, "generated": 2}
    assert '"kept": 1.10' in outputs(path, "test").decode()


def test_what_a_server_says_of_an_answer_is_kept(tmp_path: Path, batchchat: Command) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": 1.0}'}}
    said = completion(None, finish="tool_calls", reasoning="let me see", tool_calls=[call])
    said["usage"] |= {
        "prompt_tokens_details": {"cached_tokens": 8},
        "completion_tokens_details": {"reasoning_tokens": 3},
    }
    bite = {"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": [{"token": "b", "logprob": -9999.0}]}
    said["choices"][0]["logprobs"] = {"content": [bite]}

    async def answer(asked: Asked) -> Said:
        return as_json(said)

    tools = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
    with ChatServer(answer) as server:
        path = recipe(tmp_path, server, questions(1, tools=tools), generation={"logprobs": 1})
        assert batchchat("run", path, "-q").code == 0
    assert server.asked[0].body["tools"] == tools
    assert server.asked[0].body["logprobs"] is True
    assert server.asked[0].body["top_logprobs"] == 1
    (row,) = read_jsonl(path.parent / "runs" / "test" / "outputs.jsonl")
    assert row["messages"][-1]["reasoning_content"] == "let me see"
    assert row["messages"][-1]["tool_calls"][0]["function"]["name"] == "look"
    turn = row["batchchat"]["turns"][0]
    assert turn["finish_reason"] == "tool_calls"
    assert (turn["cached_tokens"], turn["reasoning_tokens"]) == (8, 3)
    assert turn["logprobs"] == [
        {"token": "a", "logprob": -0.5, "bytes": [97], "top": [{"token": "b", "logprob": -9999.0}]}
    ]


@pytest.mark.parametrize(
    ("structured", "sent"),
    [
        ({"json": True}, {"response_format": {"type": "json_object"}}),
        ({"choice": ["a", "b"]}, {"structured_outputs": {"choice": ["a", "b"]}}),
        ({"regex": "[ab]"}, {"structured_outputs": {"regex": "[ab]"}}),
        ({"grammar": 'start: "a"'}, {"structured_outputs": {"grammar": 'start: "a"'}}),
        (
            {"json_schema": {"type": "string", "uniqueItems": True}},
            {"response_format": {"type": "json_schema", "json_schema": {
                "name": "answer", "schema": {"type": "string", "uniqueItems": True}, "strict": True}}},
        ),
    ],
)  # fmt: skip
def test_a_server_is_asked_for_forms_in_the_words_of_its_api(
    tmp_path: Path, batchchat: Command, structured: dict[str, Any], sent: dict[str, Any]
) -> None:
    """What it makes of them is its own matter, and every answer is looked at."""
    with ChatServer() as server:
        path = recipe(tmp_path, server, questions(1), generation={"structured": structured})
        assert batchchat("run", path).code == 0
    (asked,) = server.asked
    assert sent.items() <= asked.body.items()
    (row,) = read_jsonl(tmp_path / "runs/test/outputs.jsonl")
    assert row["batchchat"]["turns"][0]["structure"] == "invalid"


def test_tool_calls_that_cannot_be_read_stay_as_text_with_a_note(tmp_path: Path, batchchat: Command) -> None:
    async def answer(asked: Asked) -> Said:
        call = {"type": "function", "function": {"name": "look", "arguments": '{"at": '}}
        return as_json(completion("see:", tool_calls=[call]))

    with ChatServer(answer) as server:
        path = recipe(tmp_path, server, questions(1))
        assert batchchat("run", path, "-q").code == 0
    (row,) = read_jsonl(path.parent / "runs" / "test" / "outputs.jsonl")
    assert "not JSON" in row["batchchat"]["turns"][0]["note"]
    assert '"name": "look"' in row["messages"][-1]["content"]


def test_parameters_of_a_batch_line_reach_the_server(tmp_path: Path, batchchat: Command) -> None:
    body = {
        "model": "whatever",
        "messages": [{"role": "user", "content": "hi"}],
        "response_format": {"type": "json_object"},
        "tool_choice": "required",
        "ignore_eos": True,
        "n": 2,
        "temperature": 1,
    }
    line = {"custom_id": "r1", "method": "POST", "url": "/v1/chat/completions", "body": body}
    with ChatServer() as server:
        path = recipe(tmp_path, server, [line])
        assert batchchat("run", path, "-q").code == 0
    assert len(server.asked) == 2
    for asked in server.asked:
        sent = asked.body
        assert sent["response_format"] == {"type": "json_object"}
        assert (sent["tool_choice"], sent["ignore_eos"], sent["model"]) == ("required", True, "served")
        assert "n" not in sent
    (row,) = read_jsonl(path.parent / "runs" / "test" / "outputs.jsonl")
    assert len(row["response"]["body"]["choices"]) == 2


def test_forms_are_asked_of_the_server_and_looked_at(tmp_path: Path, batchchat: Command) -> None:
    schema = {"type": "object", "properties": {"a": {"const": None}}, "not": {"required": ["b"]}}
    described = {"name": "answer", "schema": schema, "strict": True}
    forms: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"json_schema": schema}, {"response_format": {"type": "json_schema", "json_schema": described}}),
        ({"json": True}, {"response_format": {"type": "json_object"}}),
        ({"choice": ["yes", "no"]}, {"structured_outputs": {"choice": ["yes", "no"]}}),
        ({"regex": "[0-9]"}, {"structured_outputs": {"regex": "[0-9]"}}),
    ]

    async def answer(asked: Asked) -> Said:
        return as_json(completion('{"a": null}'))

    rows = [{**row, "generation": {"structured": form}} for row, (form, _) in zip(questions(4), forms, strict=True)]
    with ChatServer(answer) as server:
        path = recipe(tmp_path, server, rows)
        assert batchchat("run", path, "-q").code == 0
    for asked in server.asked:
        number = int(asked.body["messages"][0]["content"].removeprefix("question "))
        names = ("response_format", "structured_outputs")
        assert {name: asked.body[name] for name in names if name in asked.body} == forms[number][1]
    found = read_jsonl(path.parent / "runs" / "test" / "outputs.jsonl")
    turns = [row["batchchat"]["turns"][0] for row in found]
    assert [turn["structure"] for turn in turns] == ["valid", "valid", "invalid", "invalid"]
    assert "none of the choices" in turns[2]["note"]


# --- bad servers -----------------------------------------------------------------------------------------------------


def only_for(number: int, said: Said, then_well: bool = False) -> Any:
    """A server that says this to one question, only once if it is well `then_well`, and answers the others."""
    seen = threading.Event()

    async def answer(asked: Asked) -> Said:
        if asked.question == f"question {number}" and not seen.is_set():
            if then_well:
                seen.set()
            await asyncio.sleep(0.1)  # another answer is the first, which says how the model is called
            return said
        return await echo(asked)

    return answer


HTML = Said(200, {"content-type": "text/html"}, b"<html>a proxy's page</html>")
GOOD = as_json(completion("question 3"))
HALF = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n" + GOOD.body[:60]
CHUNKS = b'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{"cho\r\n'
BAD = {
    "html": (HTML, "text/html"),
    "invalid JSON": (Said(200, {}, GOOD.body[:-3]), "no JSON"),
    "not UTF-8": (Said(200, {}, b'{"choices": "\xff\xfe"}'), "no JSON"),
    "no choices": (as_json({"object": "chat.completion"}), "without an answer"),
    "closed within the answer": (Said(wire=HALF), "broke"),
    "closed within a chunk": (Said(wire=CHUNKS), "broke"),
    "closed at once": (Said(wire=b""), "broke"),
    "no HTTP": (Said(wire=b"SSH-2.0-OpenSSH\r\n"), "broke"),
    "silence": (Said(pause_after=0, pause=3.0, body=GOOD.body), "said nothing for 0.4 s"),
    "503": (fault(503, "busy"), "busy"),
    "408": (fault(408, "late"), "late"),
    "a wrong length": (Said(200, {"content-encoding": "gzip"}, b"no gzip"), "broke"),
}
QUICK = {"retries": 2, "silence_seconds": 0.4, "answer_seconds": 1.0}


@pytest.mark.parametrize("kind", BAD)
def test_what_a_server_does_to_one_request_costs_that_row(kind: str, tmp_path: Path, batchchat: Command) -> None:
    said, words = BAD[kind]
    with ChatServer(only_for(3, said)) as server:
        path = recipe(tmp_path, server, questions(6), QUICK)
        done = batchchat("run", path, "-q")
    assert done.code == 3, done.err
    (error,) = errors(path)
    assert error["id"] == "q3"
    assert words in error["reason"]
    assert "sent 3 times" in error["reason"]
    assert set(answers(path)) == {"q0", "q1", "q2", "q4", "q5"}
    assert len([asked for asked in server.asked if asked.question == "question 3"]) == 3


@pytest.mark.parametrize("kind", ["html", "closed within the answer", "closed at once", "503"])
def test_what_passes_costs_nothing(kind: str, tmp_path: Path, batchchat: Command) -> None:
    with ChatServer(only_for(3, BAD[kind][0], then_well=True)) as server:
        path = recipe(tmp_path, server, questions(6), QUICK)
        assert batchchat("run", path, "-q").code == 0
    assert len(answers(path)) == 6
    assert len(server.asked) == 7
    assert report_of(path, "test")["engine"]["retries"] == 1


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (fault(400, "the prompt is too long"), "the prompt is too long"),
        (as_json(completion("x", finish="content_filter")), "content_filter"),
        (as_json({**completion("x"), "model": "another"}), "another"),
        (as_json({**completion("x"), "usage": None}), "usage"),
        (as_json({**completion("x"), "choices": [{"message": "x"}]}), "a string as its message"),
        (as_json(completion("\ud800")), "surrogate"),
        (Said(200, {}, b'{"choices": [{"message": {"content": "' + b"x" * 3_000_000 + b'"}}]}'), "larger|too large"),
    ],
)
def test_what_is_refused_or_cannot_be_kept_is_asked_once(
    said: Said, words: str, tmp_path: Path, batchchat: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "MOST_BYTES", 2_000_000)
    with ChatServer(only_for(3, said)) as server:
        path = recipe(tmp_path, server, questions(6), QUICK, max_error_rate=0.2)
        assert batchchat("run", path, "-q").code == 0
    (error,) = errors(path)
    assert error["id"] == "q3"
    assert any(word in error["reason"] for word in words.split("|"))
    assert len(server.asked) == 6


def test_an_answer_that_comes_in_halves_is_whole(tmp_path: Path, batchchat: Command) -> None:
    said = as_json(completion("question 3"))
    halves = Said(200, said.headers, said.body, pause_after=120, pause=0.2)
    with ChatServer(only_for(3, halves)) as server:
        path = recipe(tmp_path, server, questions(6), QUICK)
        assert batchchat("run", path, "-q").code == 0
    assert answers(path)["q3"]["content"] == "question 3"
    assert len(server.asked) == 6


@pytest.mark.parametrize("tells_its_length", [True, False])
def test_an_answer_of_40_mb_costs_its_row_and_little_memory(
    tells_its_length: bool, tmp_path: Path, batchchat: Command
) -> None:
    size, part = 40_000_000, b"x" * 1_000_000
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
    if tells_its_length:
        wire = head + b"content-length: %d\r\n\r\n" % size + part * (size // len(part))
    else:
        chunk = b"%x\r\n%b\r\n" % (len(part), part)
        wire = head + b"transfer-encoding: chunked\r\n\r\n" + chunk * (size // len(part)) + b"0\r\n\r\n"
    with ChatServer(only_for(3, Said(wire=wire))) as server:
        path = recipe(tmp_path, server, questions(6), max_error_rate=0.2)
        assert batchchat("run", path, "-q").code == 0
    (error,) = errors(path)
    assert (error["id"], "more than 32 MiB" in error["reason"]) == ("q3", True)
    assert len(server.asked) == 6


def test_answers_of_another_model_are_taken_where_the_recipe_says_so(tmp_path: Path, batchchat: Command) -> None:
    other = as_json({**completion("hello"), "model": "another"})
    with ChatServer(only_for(3, other)) as server:
        path = recipe(tmp_path, server, questions(6), {"other_model": "allow", "max_in_flight": 1})
        assert batchchat("run", path, "-q").code == 0
    assert answers(path)["q3"]["content"] == "hello"
    report = report_of(path, "test")
    assert report["engine"]["served_model"] == "served"
    assert "answered as another, not as served" in json.dumps(report)


def test_a_server_elsewhere_is_sent_nothing(
    tmp_path: Path, batchchat: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    with ChatServer() as elsewhere:
        moved = Said(308, {"location": f"{elsewhere.url}/chat/completions"})
        with ChatServer(only_for(3, moved)) as server:
            path = recipe(tmp_path, server, questions(6), {"api_key_env": "MY_KEY"})
            done = batchchat("run", path, "-q")
    assert done.code == 5
    assert elsewhere.url in done.err
    assert not elsewhere.asked
    assert not elsewhere.others


def test_a_wrong_key_is_said_before_anything_is_asked(
    tmp_path: Path, batchchat: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    with ChatServer(models=fault(401, "Incorrect API key provided")) as server:
        done = batchchat("run", recipe(tmp_path, server, questions(3), {"api_key_env": "MY_KEY"}), "-q")
    assert done.code == 5
    assert "Incorrect API key provided" in done.err
    assert "put a valid key into the environment variable MY_KEY" in done.err
    assert not server.asked


def test_a_server_that_does_not_take_connections_ends_the_run_in_time(tmp_path: Path, batchchat: Command) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as deaf:
        port = deaf.getsockname()[1]
        waiting = [socket.socket() for _ in range(3)]
        for one in waiting:  # fill what the system keeps for it
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
        path = recipe(tmp_path, f"http://127.0.0.1:{port}/v1", questions(2), {"connect_seconds": 0.3})
        done = batchchat("run", path, "-q")
        for one in waiting:
            one.close()
    assert done.code == 5
    assert "connecting took more than 0.3 s" in done.err


def test_a_ceiling_of_requests_a_minute_holds(tmp_path: Path, batchchat: Command) -> None:
    with ChatServer() as server:
        path = recipe(tmp_path, server, questions(40), {"requests_per_minute": 1200})
        assert batchchat("run", path, "-q").code == 0
    times = [asked.at for asked in server.asked]
    assert len(times) == 40
    assert times[-1] - times[0] >= (40 - 20 - 2) / 20, "a second's worth may go at once"


def test_an_answer_that_drips_ends_at_its_time_limit(tmp_path: Path, batchchat: Command) -> None:
    async def drip(asked: Asked) -> Said:
        if asked.question != "question 0":
            return await echo(asked)
        for _ in range(100):
            await asyncio.sleep(0.05)
        return await echo(asked)

    with ChatServer(drip) as server:
        limits = {"retries": 0, "silence_seconds": 30.0, "answer_seconds": 0.3}
        path = recipe(tmp_path, server, questions(3), limits)
        assert batchchat("run", path, "-q").code == 3
    assert "was not there after 0.3 s" in errors(path)[0]["reason"]


@pytest.mark.parametrize(
    ("said", "endpoint", "words"),
    [
        (fault(401, "bad key"), {}, "set engine.endpoint.api_key_env"),
        (fault(403, "not you"), {"api_key_env": "MY_KEY"}, "MY_KEY"),
        (fault(404, "no such model"), {}, "model.name"),
        (Said(307, {"location": "http://elsewhere/v1"}), {}, "http://elsewhere/v1"),
        (fault(429, "insufficient_quota"), {}, "fill the account up"),
        (fault(500, "out of order"), {"retries": 0}, "nothing but errors"),
        (HTML, {"retries": 0}, "nothing but errors"),
    ],
)
def test_what_no_request_can_pass_ends_the_run_which_goes_on_when_it_is_mended(
    said: Said,
    endpoint: dict[str, Any],
    words: str,
    tmp_path: Path,
    batchchat: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    well = threading.Event()

    async def answer(asked: Asked) -> Said:
        return await echo(asked) if well.is_set() or asked.number < 4 else said

    with ChatServer(answer) as server:
        path = recipe(tmp_path, server, questions(20), endpoint)
        stopped = batchchat("run", path, "-q")
        assert stopped.code == 5
        assert words in stopped.err
        assert "Traceback" not in stopped.err
        well.set()
        assert batchchat("run", path, "-q").code == 0
    assert len(answers(path)) == 20
    answered = [asked.question for asked in server.asked[:4]]
    assert not set(answered) & {asked.question for asked in server.asked[4:]}, "what was answered is not asked again"


def test_a_server_that_is_not_there_is_said_at_once(tmp_path: Path, batchchat: Command) -> None:
    with ChatServer() as gone:
        pass
    done = batchchat("run", recipe(tmp_path, gone.url, questions(3)), "-q")
    assert done.code == 5
    assert "cannot be reached" in done.err


def test_an_address_without_its_version_is_said_with_the_right_one(tmp_path: Path, batchchat: Command) -> None:
    async def answer(asked: Asked) -> Said:
        return await echo(asked) if asked.path == "/v1/chat/completions" else fault(404, "Not Found")

    with ChatServer(answer) as server:
        bare = server.url.removesuffix("/v1")
        done = batchchat("run", recipe(tmp_path, bare, questions(3)), "-q")
    assert done.code == 5
    assert f"engine.endpoint.url={server.url}" in done.err


def test_a_key_that_is_not_set_is_said_before_anything_is_sent(tmp_path: Path, batchchat: Command) -> None:
    with ChatServer() as server:
        done = batchchat("run", recipe(tmp_path, server, questions(1), {"api_key_env": "NO_SUCH_KEY"}), "-q")
    assert done.code == 5
    assert "NO_SUCH_KEY" in done.err
    assert not server.asked
    assert not server.others


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    if shutil.which("openssl") is None:
        pytest.skip("openssl, which makes a certificate, is not on this machine")
    folder = tmp_path_factory.mktemp("certificate")
    files = folder / "key.pem", folder / "certificate.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(files[0]), "-out", str(files[1])]
    subprocess.run([*command.split(), *names], check=True, capture_output=True)
    return files


def test_a_certificate_that_does_not_verify_is_said_and_one_that_is_named_is_trusted(
    certificate: tuple[Path, Path], tmp_path: Path, batchchat: Command
) -> None:
    key, file = certificate
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file, key)
    with ChatServer(context=context) as server:
        path = recipe(tmp_path, server, questions(3))
        done = batchchat("run", path, "-q")
        assert done.code == 5
        assert "engine.endpoint.verify" in done.err
        assert batchchat("run", path, "-q", f"engine.endpoint.verify={file}").code == 0
    assert len(answers(path)) == 3


def test_a_proxy_of_the_environment_carries_what_it_should(
    tmp_path: Path, batchchat: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ChatServer() as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://me:secret@127.0.0.1:{proxy.port}")
        monkeypatch.setenv("http_proxy", f"http://me:secret@127.0.0.1:{proxy.port}")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        path = recipe(tmp_path, "http://served.invalid/v1", questions(3))
        assert batchchat("run", path, "-q").code == 0
        with ChatServer() as near:
            assert batchchat("run", path, "-q", "name=near", f"engine.endpoint.url={near.url}").code == 0
    assert {asked.path for asked in proxy.asked} == {"http://served.invalid/v1/chat/completions"}
    assert {asked.headers["host"] for asked in proxy.asked} == {"served.invalid"}
    assert {asked.headers["proxy-authorization"] for asked in proxy.asked} == {"Basic bWU6c2VjcmV0"}
    assert len(proxy.asked) == len(near.asked) == 3


@pytest.mark.parametrize("packed", [gzip.compress, zlib.compress])
def test_answers_may_be_packed(packed: Callable[[bytes], bytes], tmp_path: Path, batchchat: Command) -> None:
    name = "gzip" if packed is gzip.compress else "deflate"
    said = Said(200, {"content-encoding": name}, packed(as_json(completion("question 3")).body))
    with ChatServer(only_for(3, said)) as server:
        path = recipe(tmp_path, server, questions(6), QUICK)
        assert batchchat("run", path, "-q").code == 0
    assert answers(path)["q3"]["content"] == "question 3"
    assert len(server.asked) == 6


def test_a_connection_that_was_idle_and_closed_is_opened_again(tmp_path: Path, batchchat: Command) -> None:
    """As servers do after a while: nothing is lost, and nothing is sent twice."""

    async def closes(asked: Asked) -> Said:
        said = as_json(completion(asked.question))
        head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(said.body)}\r\n\r\n"
        return Said(wire=head.encode() + said.body)

    with ChatServer(closes) as server:
        path = recipe(tmp_path, server, questions(12), {"max_in_flight": 2, "requests_per_minute": 2400})
        assert batchchat("run", path, "-q").code == 0
    assert len(answers(path)) == 12
    assert 12 <= len(server.asked) <= 12 + report_of(path, "test")["engine"]["retries"]


# --- limits, cost, keys ----------------------------------------------------------------------------------------------


def test_a_server_with_a_rate_limit_answers_everything_within_the_budget(tmp_path: Path, batchchat: Command) -> None:
    async def answer(asked: Asked) -> Said:
        await asyncio.sleep(0.02)
        return fault(429, "slow down", retry_after_ms="60") if asked.in_flight > 6 else await echo(asked)

    with ChatServer(answer) as server:
        path = recipe(tmp_path, server, questions(80))
        assert batchchat("run", path, "-q").code == 0
    assert len(answers(path)) == 80
    counts = [asked.question for asked in server.asked]
    assert max(map(counts.count, set(counts))) <= 9
    facts = report_of(path, "test")["engine"]
    assert facts["refusals"] == len(server.asked) - 80
    limits = [change["limit"] for change in facts["concurrency"]]
    assert max(limits) <= 16
    assert "refused" in [change["why"] for change in facts["concurrency"]]


def test_a_run_ends_before_its_ceiling_and_goes_on_with_a_higher_one(tmp_path: Path, batchchat: Command) -> None:
    with ChatServer() as server:
        endpoint = {"prices": {"input": 1000.0, "output": 1000.0}, "max_cost": 0.6}
        path = recipe(tmp_path, server, questions(60), endpoint, generation={"max_new_tokens": 40})
        stopped = batchchat("run", path, "-q")
        assert stopped.code == 5
        assert "max_cost" in stopped.err
        first = len(server.asked)
        assert 0.6 - 0.3 <= first * 0.012 <= 0.6, "each answer costs 10 + 2 tokens, and at most 0.3"
        assert batchchat("run", path, "-q", "engine.endpoint.max_cost=5.0").code == 0
    assert len(server.asked) == 60
    assert report_of(path, "test")["engine"]["cost"] == {
        "spent": pytest.approx(60 * 0.012),
        "unconfirmed": 0.0,
        "allowed": 5.0,
    }


def test_the_key_is_sent_and_stands_nowhere(
    tmp_path: Path, batchchat: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)

    async def tells(asked: Asked) -> Said:
        said = completion(f"you said {asked.headers.get('authorization')}")
        return fault(400, f"wrong key {KEY}") if asked.question.endswith("1") else as_json(said)

    with ChatServer(tells) as server:
        path = recipe(tmp_path, server, questions(4), {"api_key_env": "MY_KEY"})
        done = batchchat("--debug", "run", path)
        other = batchchat("run", path, "-q", "name=other", "engine.endpoint.api_key_header=api-key")
    assert {asked.headers["authorization"] for asked in server.asked if "authorization" in asked.headers} == {
        f"Bearer {KEY}"
    }
    assert server.asked[-1].headers["api-key"] == KEY
    said = [done.out, done.err, other.out, other.err]
    written = [file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()]
    assert len(written) > 10
    assert not any("hunter2" in text for text in said)
    assert not any(b"hunter2" in data for data in written)


def test_a_killed_server_that_comes_back_costs_nothing(tmp_path: Path, batchchat: Command) -> None:
    started: list[ChatServer] = []

    async def slow(asked: Asked) -> Said:
        await asyncio.sleep(0.03)
        if asked.number == 30 and len(started) == 1:
            threading.Thread(target=again).start()
        return await echo(asked)

    def again() -> None:
        started[0].stop()
        started.append(ChatServer(slow, port=started[0].port).__enter__())

    with ChatServer(slow) as first:
        started.append(first)
        rows = [{"id": f"q{n}", "turns": ["a", f"b {n}"]} for n in range(40)]
        path = recipe(tmp_path, first, rows, {"retries": 12})
        done = batchchat("run", path, "-q")
        started[-1].stop()
    assert done.code == 0, done.err
    assert len(started) == 2
    assert len(read_jsonl(path.parent / "runs" / "test" / "outputs.jsonl")) == 40
    assert 80 <= sum(len(server.asked) for server in started) <= 80 + first.most_in_flight


def test_a_run_that_is_left_early_gives_up_what_is_in_flight_and_counts_it(tmp_path: Path) -> None:
    async def answer(asked: Asked) -> Said:
        if asked.question != "question 0":
            await asyncio.sleep(30)
        return await echo(asked)

    def requests(*numbers: int) -> Feed:
        asked = (Message("user", f"question {n}") for n in numbers)
        return Feed(
            iter(
                [Request(f"c{n}", n, 0, 0, (), Settings(8), n, (one,)) for n, one in zip(numbers, asked, strict=True)]
            ),
            look_ahead=8,
        )

    with ChatServer(answer) as server:
        path = recipe(tmp_path, server, questions(1), {"prices": {"input": 1.0, "output": 1.0}})
        engine = build_engine("endpoint", EngineContext(load_recipe(path), MessagesCodec(), Meters()))
        running = engine.run(requests(0, 1, 2))
        assert next(running).text == "question 0"
        running.close()
        assert not [thread for thread in threading.enumerate() if thread.name == "endpoint"]
        (again,) = engine.run(requests(0))
    assert again.finish_reason == "stop"
    facts = engine.describe()
    assert isinstance(facts, EndpointFacts)
    assert facts.cost is not None
    assert facts.cost.spent == pytest.approx(2 * 12e-6)
    assert facts.cost.unconfirmed > 0


def test_a_word_that_serves_as_key_is_no_secret(
    tmp_path: Path, batchchat: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "EMPTY")

    async def answer(asked: Asked) -> Said:
        return as_json(completion("the box is EMPTY"))

    with ChatServer(answer) as server:
        path = recipe(tmp_path, server, questions(1), {"api_key_env": "MY_KEY"})
        assert batchchat("run", path, "-q").code == 0
    assert answers(path)["q0"]["content"] == "the box is EMPTY"


# --- judges, chats, start --------------------------------------------------------------------------------------------


def test_a_judge_and_a_chat_are_answered_by_a_server(
    tmp_path: Path, batchchat: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def grades(asked: Asked) -> Said:
        return as_json(completion("Rating: [[7]]" if "[[" in str(asked.body) else f"re: {asked.question}"))

    with ChatServer(grades) as server:
        engine = {"kind": "endpoint", "endpoint": {"url": server.url}}
        judge = {"model": {"name": "served"}, "engine": engine}
        path = recipe(tmp_path, server, questions(3), judges={"quality": judge})
        assert batchchat("run", path, "-q").code == 0
        assert report_of(path, "test")["scoring"]["metrics"]["quality"]["mean"] == 7.0
        with open(write_jsonl(tmp_path / "typed", ["hello"])) as typed, monkeypatch.context() as patch:
            patch.setattr("sys.stdin", typed)
            chat = batchchat("chat", "served", "engine.kind=endpoint", f"engine.endpoint.url={server.url}")
    assert chat.code == 0, chat.err
    assert "re: hello" in chat.out


def test_nothing_heavy_is_imported(tmp_path: Path) -> None:
    with ChatServer() as server:
        path = recipe(tmp_path, server, questions(2))
        code = (
            "import sys; from batchchat.recipe import load_recipe; from batchchat.job.run import run\n"
            f"run(load_recipe({str(path)!r}))\n"
            "print([name for name in ('torch', 'transformers', 'pyarrow', 'datasets') if name in sys.modules])"
        )
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
    assert json.loads(outputs(path, "test").splitlines()[0])["messages"][-1]["content"] == "question 0"
