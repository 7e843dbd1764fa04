"""What llama.cpp's server says and does as far as a measurement sees it, as an executable and as the package xllamacpp.

Each writes its process id to the file that `LLAMA_PID` names, and has the fault that `LLAMA_FAULT` names.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

from tests.support.jobs import ROOT

VERSION = "1234 (abc)"
WEIGHTS = 128 * 2**20
"""Bytes that it takes."""
SYSTEM = "CPU : SSE3 = 1 | AVX = 1 | AVX2 = 1 | AVX512 = 0 | NEON_FUTURE = 0 | LLAMAFILE = 1 | "


def executable(folder: Path) -> Path:
    """A program that takes the arguments of llama-server."""
    file = folder / "llama-server"
    lines = [f"#!{sys.executable}", "import sys", f"sys.path.insert(0, {str(ROOT)!r})"]
    file.write_text("\n".join([*lines, f"from {__name__} import main", "main()"]))
    file.chmod(0o755)
    return file


def package(folder: Path) -> Path:
    """A folder for a Python's path, in which xllamacpp 7.8 is installed."""
    module, known = folder / "xllamacpp", folder / "xllamacpp-7.8.dist-info"
    module.mkdir()
    (module / "__init__.py").write_text(f"from {__name__} import *")
    known.mkdir()
    (known / "METADATA").write_text("Metadata-Version: 2.1\nName: xllamacpp\nVersion: 7.8\n")
    return folder


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--version", action="store_true")
    parser.add_argument("-lv")
    parser.add_argument("-m", type=Path)
    for name in ("-np", "-c", "-t", "--port"):
        parser.add_argument(name, type=int)
    for name in ("--host", "-ctk", "-ctv"):
        parser.add_argument(name)
    given = parser.parse_args()
    if given.version:
        print(f"version: {VERSION}\nbuilt with GNU", file=sys.stderr)
        return
    if given.lv == "4":
        print(f"system_info: n_threads = 2 / 2 | {SYSTEM}", file=sys.stderr)
    if not given.m.is_file():
        sys.exit(f"error: failed to open {given.m}")
    told = {"-c": given.c, "-t": given.t, "-ctk": given.ctk, "-ctv": given.ctv}
    _server(given.host, given.port, given.np, told).serve_forever()


def get_system_info() -> str:
    return SYSTEM


ggml_type = ModuleType("ggml_type")
ggml_type.__dict__.update(GGML_TYPE_F32="f32", GGML_TYPE_F16="f16", GGML_TYPE_BF16="bf16")


class CommonParams:
    def __init__(self) -> None:
        self.model, self.cpuparams, self.cpuparams_batch = (argparse.Namespace() for _ in range(3))


class Server:
    """As the package has it: it serves from threads of its own."""

    def __init__(self, given: CommonParams):
        if not Path(given.model.path).is_file():
            raise RuntimeError("Failed to init server, please check the input params.")
        assert given.cpuparams.n_threads == given.cpuparams_batch.n_threads
        told = {"-c": given.n_ctx, "-t": given.cpuparams.n_threads}  # type: ignore[attr-defined]
        told |= {"-ctk": given.cache_type_k, "-ctv": given.cache_type_v}  # type: ignore[attr-defined]
        address = (given.hostnames[0], given.port, given.n_parallel)  # type: ignore[attr-defined]
        threading.Thread(target=_server(*address, told).serve_forever, daemon=True).start()


def _server(host: str, port: int, rows: int, told: dict[str, object]) -> ThreadingHTTPServer:
    Path(os.environ["LLAMA_PID"]).write_text(str(os.getpid()))
    bytearray(b"x") * WEIGHTS
    fault = os.environ.get("LLAMA_FAULT")
    print(f"loading with {json.dumps(told)}", flush=True)
    if fault == "start":
        print("error: no room for the cache", flush=True)
        os._exit(3)
    asked = threading.Event()
    together = threading.Barrier(rows, timeout=30)
    waited = iter(range(rows))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/health":  # it loads while it is asked for the first time
                self._send(200 if asked.is_set() else 503, {"status": "ok"})
                asked.set()
            else:
                self._send(200, {"total_slots": 1 if fault == "slots" else rows})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert all(type(id_) is int for id_ in body["prompt"]), "prompts are token ids"
            assert (self.path, body["ignore_eos"], body["temperature"]) == ("/completion", True, 0)
            if body["n_predict"] > 2:  # no warm-up
                if next(waited, None) is not None:
                    together.wait()  # as many as there are rows, at once
                if fault == "death":
                    print("terminate called", flush=True)
                    os._exit(9)
            short = fault == "short" and body["n_predict"] > 2
            code = 400 if fault == "refusal" else 200
            self._send(code, {"tokens_predicted": body["n_predict"] - short} if code == 200 else {"error": "too long"})

        def _send(self, code: int, what: object) -> None:
            data = json.dumps(what).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None: ...

    return ThreadingHTTPServer((host, port), Handler)
