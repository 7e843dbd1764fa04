"""One measurement of a peer: `PYTHON worker.py JOB.json`, with the Python of an environment that has the peer.

It stands alone: that environment has neither batchchat nor its version of transformers. The job names the `engine`, the
`folder` with the model in the form that it reads, `dtype`, `rows`, `threads`, `mark`, `requests` as pairs of prompt ids
and answer length, and for llama.cpp the command `server`. Prints one marked JSON line. With `prepare` behind the job,
it makes what the peer reads instead.
"""

from __future__ import annotations

import ctypes
import http.client
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from pathlib import Path
from typing import Any, NoReturn

_BEGUN = time.time()
_START_SECONDS = 600
"""How long a server may take to load a model."""
_END_SECONDS = 20
"""How long a server may take to end, before it is killed."""
_PR_SET_PDEATHSIG = 1

_LAST_LINES = 4
"""Of a server's log, where it fails."""
_VECTORS = re.compile(r"AVX|AMX|NEON|SVE|SME|DOTPROD|MATMUL|RVV|VSX|VXE|WASM")
"""What llama.cpp calls the units of processors that its code is for."""

_SHORT = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
Job = dict[str, Any]
Pairs = Sequence[Sequence[Any]]
"""Prompt ids and answer lengths."""


class Vllm:
    """vLLM's engine, step by step, in this process."""

    children: Sequence[int] = ()

    def __init__(self, job: Job) -> None:
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "4")
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # in this process, so that its memory is counted
        import vllm  # type: ignore[import-not-found, unused-ignore]

        self._vllm = vllm
        self._model = vllm.LLM(
            model=str(Path(job["folder"]) / "model"),
            dtype=job["dtype"],
            max_model_len=job["max_model_len"],
            max_num_seqs=job["rows"],
            enable_prefix_caching=True,
        )
        self.facts = {"version": vllm.__version__, "numbers": f"{job['dtype']} weights and cache"}

    def drain(self, requests: Pairs, name: str) -> Iterator[int]:
        engine = self._model.llm_engine
        for number, (ids, length) in enumerate(requests):
            settings = self._vllm.SamplingParams(temperature=0.0, max_tokens=length, ignore_eos=True, detokenize=False)
            engine.add_request(f"{name}-{number}", {"prompt_token_ids": ids}, settings)
        while engine.has_unfinished_requests():
            for output in engine.step():
                if output.finished:
                    yield len(output.outputs[0].token_ids)

    def close(self) -> None: ...


class OpenVino:
    """OpenVINO GenAI's continuous batching, step by step, in this process."""

    children: Sequence[int] = ()

    def __init__(self, job: Job) -> None:
        import openvino  # type: ignore[import-not-found, unused-ignore]
        import openvino_genai  # type: ignore[import-not-found, unused-ignore]

        self._genai = openvino_genai
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.max_num_seqs = job["rows"]
        scheduler.cache_size = 4
        scheduler.enable_prefix_caching = True
        asked = _SHORT[job["dtype"]]
        able = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        name = asked if asked.upper() in able else "f32"  # it fails where the processor has no such numbers
        properties = {
            "INFERENCE_PRECISION_HINT": name,
            "KV_CACHE_PRECISION": name,
            "INFERENCE_NUM_THREADS": job["threads"],
        }
        self._pipeline = openvino_genai.ContinuousBatchingPipeline(
            str(Path(job["folder"]) / "openvino"), scheduler, "CPU", properties
        )
        self.facts = {"version": openvino_genai.__version__, "numbers": f"{asked} weights, {name} arithmetic and cache"}
        self._rows, self._number = job["rows"], 0

    @staticmethod
    def prepare(job: Job) -> None:
        import openvino  # type: ignore[import-not-found, unused-ignore]
        from openvino_tokenizers import convert_tokenizer  # type: ignore[import-not-found, unused-ignore]
        from optimum.intel import OVModelForCausalLM  # type: ignore[import-not-found, unused-ignore]
        from transformers import AutoTokenizer

        source, target = Path(job["folder"]) / "model", Path(job["folder"]) / "openvino"
        OVModelForCausalLM.from_pretrained(source, export=True, compile=False, load_in_8bit=False).save_pretrained(
            target
        )
        both = convert_tokenizer(AutoTokenizer.from_pretrained(source), with_detokenizer=True)
        for name, made in zip(("openvino_tokenizer.xml", "openvino_detokenizer.xml"), both, strict=True):
            openvino.save_model(made, target / name)

    def drain(self, requests: Pairs, name: str) -> Iterator[int]:
        import numpy
        import openvino

        waiting, flying = list(reversed(requests)), list[Any]()
        while waiting or flying:
            while waiting and len(flying) < self._rows:  # its own limit of sequences does not hold them back
                ids, length = waiting.pop()
                settings = self._genai.GenerationConfig()
                settings.max_new_tokens, settings.ignore_eos, settings.do_sample = length, True, False
                settings.set_eos_token_id(0)  # ignored; a model that has none would be refused
                self._number += 1
                tensor = openvino.Tensor(numpy.array([ids], numpy.int64))
                flying.append(self._pipeline.add_request(self._number, tensor, settings))
            self._pipeline.step()
            for handle in list(flying):
                if handle.get_status() == self._genai.GenerationStatus.FINISHED:
                    flying.remove(handle)
                    yield len(handle.read_all()[0].generated_ids)

    def close(self) -> None: ...


class LlamaCpp:
    """llama.cpp's server on loopback, with as many connections as rows."""

    def __init__(self, job: Job) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = int(free.getsockname()[1])
        self._program, self._rows = job["server"], job["rows"]
        self._weights, self._cache = job["dtype"], _SHORT[job["dtype"]]
        if job["engine"].endswith("q8"):
            self._weights, self._cache = "q8_0", "f16"
        options = {
            "-m": Path(job["folder"]) / f"{job['engine']}.gguf",
            "--host": "127.0.0.1",
            "--port": self._port,
            "-np": self._rows,
            "-c": self._rows * job["max_model_len"],
            "-t": job["threads"],
            "-ctk": self._cache,
            "-ctv": self._cache,
        }
        command = [*self._program, *(str(word) for option in options.items() for word in option)]
        self._log = Path(job["folder"]) / f"{job['engine']}.log"
        with open(self._log, "wb") as log:
            self._server = subprocess.Popen(command, stdout=log, stderr=log, preexec_fn=_end_with_parent)
        self.children = (self._server.pid,)
        try:
            self._await()
        except BaseException:
            self.close()
            raise

    def _await(self) -> None:
        until = time.monotonic() + _START_SECONDS
        while not self._is_ready():
            if (code := self._server.poll()) is not None:
                ended = signal.Signals(-code).name if -code in set(signal.Signals) else str(code)
                self._fail(f"did not start and ended with {ended}")
            if time.monotonic() > until:
                self._fail("did not start")
            time.sleep(0.05)
        slots = self._said("GET", "/props")["total_slots"]
        if slots != self._rows:
            self._fail(f"answers {slots} requests at once instead of {self._rows}")

    def _is_ready(self) -> bool:
        try:
            with closing(http.client.HTTPConnection("127.0.0.1", self._port, timeout=5)) as connection:
                connection.request("GET", "/health")
                return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False

    def _said(self, method: str, path: str, body: Any = None) -> Any:
        try:
            with closing(http.client.HTTPConnection("127.0.0.1", self._port)) as connection:
                connection.request(method, path, json.dumps(body), {"Content-Type": "application/json"})
                response = connection.getresponse()
                told = response.read()
        except (OSError, http.client.HTTPException) as error:
            self._fail(f"broke off ({type(error).__name__})")
        if response.status != 200:
            self._fail(f"answered {response.status}, {told.decode(errors='replace')}")
        return json.loads(told)

    def _fail(self, what: str) -> NoReturn:
        """Raises SystemExit with what happened and the end of the server's log, in one line."""
        last = self._log.read_text(errors="replace").strip().splitlines()[-_LAST_LINES:]
        raise SystemExit(f"llama.cpp's server {what}; its log ends with: {' / '.join(last) or 'nothing'}")

    def _ask(self, request: Sequence[Any]) -> int:
        ids, length = request
        body = {"prompt": ids, "n_predict": length, "temperature": 0, "ignore_eos": True, "cache_prompt": True}
        return int(self._said("POST", "/completion", body)["tokens_predicted"])

    def drain(self, requests: Pairs, name: str) -> Iterator[int]:
        pool = ThreadPoolExecutor(self._rows)
        try:
            for done in as_completed([pool.submit(self._ask, request) for request in requests]):
                yield done.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def close(self) -> None:
        self._server.terminate()
        try:
            self._server.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()

    @property
    def facts(self) -> dict[str, str]:
        """What it says of itself, and before it notices that there is no such model."""
        version = self._told(r"version: (.+)", "--version")
        told = self._told(r"system_info: (.+)", "-lv", "4", "-m", f"{self._log}.none")
        units = " ".join(name for name, on in re.findall(r"(\w+) = (\d)", told) if on == "1" and _VECTORS.match(name))
        numbers = f"{self._weights} weights, {self._cache} cache, built for {units or 'an unknown processor'}"
        return {"version": version, "numbers": numbers}

    def _told(self, wanted: str, *arguments: str) -> str:
        done = subprocess.run(
            [*self._program, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        found = re.search(wanted, done.stdout)
        return found[1] if found else "unknown"


def _end_with_parent() -> None:
    """In a server before it begins: the kernel ends it with this process, however that ends (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _peak_bytes(pid: int) -> int:
    """The largest resident set of a process so far; 0 where the system has no status file of it.

    Linux's `getrusage` begins with what the process that started this one held then.
    """
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0
    return int(found[1]) * 1024 if found else 0


def _peak_bytes_of_ended() -> int:
    used = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return used if sys.platform == "darwin" else used * 1024


_PEERS: dict[str, Any] = {"vllm": Vllm, "openvino": OpenVino, "llama.cpp": LlamaCpp, "llama.cpp-q8": LlamaCpp}


def main(job: Job) -> dict[str, Any]:
    """Load, warm up with two short requests, drain."""
    peer = _PEERS[job["engine"]](job)
    try:
        loaded = time.time() - _BEGUN
        list(peer.drain([(ids, 2) for ids, _ in job["requests"][:2]], "warm"))
        to_first = time.time() - _BEGUN
        start = time.perf_counter()
        first = None
        counts = []
        for count in peer.drain(job["requests"], "request"):
            first = first or time.perf_counter() - start
            counts.append(count)
        seconds = time.perf_counter() - start
        peak = max(_peak_bytes(pid) for pid in (os.getpid(), *peer.children))
    finally:
        peer.close()
    asked = sum(length for _, length in job["requests"])
    if sum(counts) != asked:
        raise SystemExit(f"it wrote {sum(counts)} tokens instead of the {asked} that were asked for")
    return {
        "seconds": seconds,
        "load_seconds": loaded,
        "process_to_first_completion": to_first,
        "to_first_completion": first,
        "requests": len(counts),
        "prompt_tokens": sum(len(ids) for ids, _ in job["requests"]),
        "generated_tokens": sum(counts),
        "host_peak_bytes": peak or _peak_bytes_of_ended(),
        "device_peaks": {},
        "facts": {"engine": job["engine"], "rows": job["rows"], **peer.facts},
    }


if __name__ == "__main__":
    given = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    if sys.argv[2:] == ["prepare"]:
        _PEERS[given["engine"]].prepare(given)
    else:
        print(given["mark"] + json.dumps(main(given)), flush=True)
