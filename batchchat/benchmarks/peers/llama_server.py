"""llama.cpp's server out of the Python package xllamacpp: `PYTHON llama_server.py ARGUMENTS`, which are those of the
executable llama-server that a measurement takes.

It stands alone: an environment that has xllamacpp has not batchchat.
"""

from __future__ import annotations

import argparse
import signal
from importlib.metadata import version
from typing import Any


def main() -> None:
    import xllamacpp  # type: ignore[import-not-found, unused-ignore]

    parser = argparse.ArgumentParser()
    parser.add_argument("--version", action="store_true")
    parser.add_argument("-lv", "--verbosity", type=int, default=3)
    parser.add_argument("-m", "--model")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("-np", "--parallel", type=int, default=4)
    parser.add_argument("-c", "--ctx-size", type=int, default=0)
    parser.add_argument("-t", "--threads", type=int, default=-1)
    parser.add_argument("-ctk", "--cache-type-k", default="f16")
    parser.add_argument("-ctv", "--cache-type-v", default="f16")
    given = parser.parse_args()
    if given.version:
        print(f"version: xllamacpp {version('xllamacpp')}")
        return
    if given.verbosity > 3:
        print(f"system_info: {xllamacpp.get_system_info()}", flush=True)
    # Blocked in the threads that the server begins too: a signal is waited for here, and the server ends in good order.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    try:
        server = xllamacpp.Server(_parameters(xllamacpp, given))
    except RuntimeError as error:
        raise SystemExit(str(error)) from error
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    del server


def _parameters(xllamacpp: Any, given: argparse.Namespace) -> Any:
    parameters = xllamacpp.CommonParams()
    parameters.model.path = given.model
    parameters.hostnames, parameters.port = [given.host], given.port
    parameters.n_parallel, parameters.n_ctx = given.parallel, given.ctx_size
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = given.threads
    parameters.cache_type_k = getattr(xllamacpp.ggml_type, f"GGML_TYPE_{given.cache_type_k.upper()}")
    parameters.cache_type_v = getattr(xllamacpp.ggml_type, f"GGML_TYPE_{given.cache_type_v.upper()}")
    return parameters


if __name__ == "__main__":
    main()
