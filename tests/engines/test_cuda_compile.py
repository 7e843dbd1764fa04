"""The Triton kernels compiled ahead for a GPU that is not there, by the compiler and assembler of Triton's wheel."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton")

LEAST_SHARED = 99 * 1024
"""Bytes of shared memory that a block of threads has on every device of compute capability 8.0 and later."""


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What `kernel_compiler` says about each kernel, for compute capability 9.0."""
    root = Path(__file__).parents[2]
    script = root / "tests" / "support" / "kernel_compiler.py"
    environment = {
        **os.environ,
        "TRITON_INTERPRET": "0",
        "TRITON_CACHE_DIR": str(tmp_path_factory.mktemp("triton")),
        "PYTHONPATH": os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
    done = subprocess.run(
        [sys.executable, "-W", "error", script], env=environment, cwd=root, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_every_kernel_is_compiled(compiled: list[dict[str, Any]]) -> None:
    assert {line["kernel"] for line in compiled} == {"decode", "join", "prefill", "write", "norm", "gate"}
    assert len(compiled) > 20


def test_kernels_fit_every_device(compiled: list[dict[str, Any]]) -> None:
    assert not [line for line in compiled if line["shared"] > LEAST_SHARED]


def test_nothing_that_matters_spills(compiled: list[dict[str, Any]]) -> None:
    """Single precision, which nobody runs for its speed, may leave some numbers to memory."""
    allowed = {"torch.float32": 128}
    assert not [line for line in compiled if line["stack"] > allowed.get(line["dtype"], 0)]
