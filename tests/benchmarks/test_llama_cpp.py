"""llama.cpp beside batchchat's engines: its executable and its package, what they are asked, and how they may fail."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from batchchat.benchmarks.peers import llama_server, worker
from batchchat.benchmarks.shapes import SHAPES
from tests.support.jobs import ROOT, Command
from tests.support.llama_server import VERSION, WEIGHTS, executable, package

REQUESTS = [([5, 6, 7], 4), ([8], 3), ([9, 10], 5)]


@pytest.fixture
def pid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLAMA_PID", str(tmp_path / "pid"))
    return tmp_path / "pid"


@pytest.fixture
def python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A Python that has the package."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(package(tmp_path)), str(ROOT)]))
    return sys.executable


def is_running(pid: Path) -> bool:
    try:
        os.kill(int(pid.read_text()), 0)
    except ProcessLookupError:
        return False
    return True


def job(folder: Path, server: list[str]) -> list[str]:
    """The command of one measurement with three connections."""
    (folder / "llama.cpp.gguf").touch()
    given = {
        "engine": "llama.cpp",
        "folder": str(folder),
        "dtype": "float32",
        "rows": 3,
        "threads": 2,
        "mark": "found ",
    }
    file = folder / "job.json"
    file.write_text(json.dumps({**given, "max_model_len": 100, "requests": REQUESTS, "server": server}))
    return [sys.executable, worker.__file__, str(file)]


def measured(folder: Path, server: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(job(folder, server), capture_output=True, text=True)


def test_the_executable_is_measured_beside_our_engines(
    tmp_path: Path, pid: Path, monkeypatch: pytest.MonkeyPatch, batchchat: Command
) -> None:
    monkeypatch.setitem(SHAPES, "tiny", {**SHAPES["135m"], "num_hidden_layers": 1, "vocab_size": 8000})
    asked = ("bench", "--model", "tiny", "--engines", "llama.cpp,llama.cpp-q8", "--workload", "four", "--rows", "4")
    ended = batchchat(*asked, "--peer", f"llama.cpp={executable(tmp_path)}")
    assert ended.code == 0, ended.err
    assert "24 answers, 1440 prompt and 3072 new tokens" in ended.out
    bits = [f"llama.cpp {VERSION}: bfloat16 weights, bf16 cache, built for AVX AVX2"]
    bits.append(f"llama.cpp-q8 {VERSION}: q8_0 weights, f16 cache, built for AVX AVX2.")
    assert "; ".join(bits) in ended.out.splitlines()
    assert not is_running(pid)


@pytest.mark.parametrize("kind", ["executable", "package"])
def test_both_are_asked_alike_and_end(kind: str, tmp_path: Path, pid: Path, request: pytest.FixtureRequest) -> None:
    """As many requests in flight as there are rows, which the server waits for."""
    if kind == "executable":
        server, version = [str(executable(tmp_path))], VERSION
    else:
        server, version = [request.getfixturevalue("python"), llama_server.__file__], "xllamacpp 7.8"
    ended = measured(tmp_path, server)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout.removeprefix("found "))
    assert (found["requests"], found["prompt_tokens"], found["generated_tokens"]) == (3, 6, 12)
    assert 0 < found["to_first_completion"] <= found["seconds"]
    assert WEIGHTS < found["host_peak_bytes"] < 2 * WEIGHTS
    assert found["facts"]["version"] == version
    assert found["facts"]["numbers"] == "float32 weights, f32 cache, built for AVX AVX2"
    log = (tmp_path / "llama.cpp.log").read_text()
    assert json.loads(log.partition("loading with ")[2]) == {"-c": 300, "-t": 2, "-ctk": "f32", "-ctv": "f32"}
    assert not is_running(pid)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("start", "llama.cpp's server did not start and ended with 3; its log ends with: loading with "),
        ("start", "error: no room for the cache"),
        ("death", "llama.cpp's server broke off"),
        ("death", " / terminate called"),
        ("slots", "answers 1 requests at once instead of 3"),
        ("refusal", 'answered 400, {"error": "too long"}'),
        ("short", "wrote 9 tokens instead of the 12 that were asked for"),
    ],
)
def test_a_server_that_fails_is_told_in_one_line_and_ended(
    fault: str, said: str, tmp_path: Path, pid: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMA_FAULT", fault)
    ended = measured(tmp_path, [str(executable(tmp_path))])
    assert ended.returncode == 1
    assert said in ended.stderr.splitlines()[-1]
    assert not is_running(pid)


def test_a_package_that_cannot_serve_says_why(tmp_path: Path, pid: Path, python: str) -> None:
    command = job(tmp_path, [python, llama_server.__file__])
    (tmp_path / "llama.cpp.gguf").unlink()
    ended = subprocess.run(command, capture_output=True, text=True)
    assert "log ends with: Failed to init server" in ended.stderr.splitlines()[-1]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends children with their parent")
def test_the_server_ends_with_the_measurement_however_that_ends(
    tmp_path: Path, pid: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = job(tmp_path, [str(executable(tmp_path))])
    given = json.loads(Path(command[-1]).read_text())
    Path(command[-1]).write_text(json.dumps({**given, "requests": REQUESTS[:2]}))  # a third one is waited for
    measurement = subprocess.Popen(command)
    until = time.monotonic() + 30
    while not (pid.exists() and pid.read_text()) and time.monotonic() < until:
        time.sleep(0.02)
    measurement.send_signal(signal.SIGKILL)
    measurement.wait()
    while is_running(pid) and time.monotonic() < until:
        time.sleep(0.02)
    assert not is_running(pid)


def test_what_is_neither_is_refused_with_what_to_type(tmp_path: Path, batchchat: Command) -> None:
    other = tmp_path / "other"
    other.write_text("#!/bin/sh\necho hello\n")
    other.chmod(0o755)
    foreign = tmp_path / "foreign"
    foreign.write_bytes(b"no program")
    foreign.chmod(0o755)
    for path, said in (
        (other, "is neither llama-server nor a Python; give --peer llama.cpp=DIR/bin/python or "),
        (foreign, "cannot be run (Exec format error); give --peer llama.cpp="),
    ):
        ended = batchchat("bench", "--engines", "llama.cpp", "--peer", f"llama.cpp={path}")
        assert (ended.code, ended.out) == (2, "")
        assert f"{path} {said}" in ended.err


needs_package = pytest.mark.skipif(
    find_spec("xllamacpp") is None, reason="xllamacpp is not installed (pip install xllamacpp)"
)


@pytest.mark.skipif(find_spec("xllamacpp") is not None, reason="xllamacpp is installed")
def test_a_python_without_the_package_is_told_how_to_get_it(batchchat: Command) -> None:
    ended = batchchat("bench", "--engines", "llama.cpp", "--peer", f"llama.cpp={sys.executable}")
    assert (ended.code, ended.out) == (2, "")
    assert f"No module named 'xllamacpp'); type `{sys.executable} -m pip install xllamacpp`" in ended.err


@needs_package
def test_the_package_really_computes_what_we_compute(tmp_path: Path) -> None:
    """Greedy token ids of a real small model in float32, by the model's own weights as GGUF."""
    import torch

    from batchchat.benchmarks.peers.gguf_file import write_gguf
    from batchchat.benchmarks.worker import load

    model, codec = load("builtin:tiny-chat", "float32")
    write_gguf(model, tmp_path / "model.gguf", "float32")
    with serving(tmp_path / "model.gguf") as url:
        for text in ("What is the capital of France?", "What is 12 + 30?", "How are you?"):
            ids = codec.tokenizer.apply_chat_template([{"role": "user", "content": text}], add_generation_prompt=True)
            ids = list(ids["input_ids"])
            body = {"prompt": ids, "n_predict": 12, "temperature": 0, "ignore_eos": True, "return_tokens": True}
            told = answered(f"{url}/completion", body)
            with torch.inference_mode():
                bias = {(2,): float("-inf")}  # as the server ignores the end
                made = model.generate(
                    torch.tensor([ids]), max_new_tokens=12, do_sample=False, eos_token_id=None, sequence_bias=bias
                )
            assert told["tokens_evaluated"] == len(ids)
            assert told["tokens"] == made[0, len(ids) :].tolist()


@needs_package
def test_the_package_is_really_measured(monkeypatch: pytest.MonkeyPatch, batchchat: Command) -> None:
    monkeypatch.setitem(SHAPES, "tiny", {**SHAPES["135m"], "num_hidden_layers": 1, "vocab_size": 8000})
    for dtype in ("float32", "bfloat16"):
        asked = ("bench", "--model", "tiny", "--engines", "llama.cpp,llama.cpp-q8", "--workload", "mixed16")
        ended = batchchat(*asked, "--dtype", dtype, "--rows", "16", "--peer", f"llama.cpp={sys.executable}")
        assert ended.code == 0, ended.err
        assert "16 answers, 944 prompt and 1378 new tokens" in ended.out


@contextmanager
def serving(file: Path) -> Iterator[str]:
    """The address of the package's server."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, llama_server.__file__, "-m", str(file), "--port", str(port), "-np", "2", "-c", "1024"]
    server = subprocess.Popen([*command, "-t", "1", "-ctk", "f32", "-ctv", "f32"])
    url = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + 60
        while True:
            try:
                answered(f"{url}/health")
                break
            except OSError:
                assert time.monotonic() < until
                assert server.poll() is None
                time.sleep(0.1)
        yield url
    finally:
        server.terminate()
        assert server.wait(20) == 0


def answered(url: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    asked = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(asked, timeout=60) as response:
        return json.loads(response.read())
