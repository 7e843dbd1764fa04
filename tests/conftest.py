"""Fixtures: the command line run in this process, small models, and the folder of real input."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from tests.support.jobs import SHARED_DATA, Command, Finished, write_jsonl

# Triton's kernels run on the CPU, in its interpreter. Libraries import Triton, and it decides when it is imported.
os.environ.setdefault("TRITON_INTERPRET", "1")

# Processes that test side by side have a core each: more threads than cores wait for each other at every barrier.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"

# A busy machine is slow, not wrong. A build tries the same examples every time; developers' machines try new ones.
hypothesis.settings.register_profile("patient", deadline=None, derandomize=bool(os.environ.get("CI")))
hypothesis.settings.load_profile("patient")


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What runs remember of this machine stays within the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def batchchat(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run the command line in this process."""

    def command(*args: str | Path) -> Finished:
        from batchchat.cli import main

        monkeypatch.setattr(sys, "argv", ["batchchat", *map(str, args)])
        capfd.readouterr()
        code = 0
        try:
            main()
        except SystemExit as exit_:
            code = exit_.code if isinstance(exit_.code, int) else 1
        out, err = capfd.readouterr()
        return Finished(code, out, err)

    return command


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a Llama of random weights, its tokenizer, and a context of 256 tokens."""
    from tests.support import zoo

    folder = tmp_path_factory.mktemp("small-model")
    zoo.byte_bpe().save_pretrained(folder)
    zoo.llama().save_pretrained(folder)
    return folder


@pytest.fixture
def memory_recipe(tmp_path: Path, small_model: Path) -> Path:
    """14 sampled chats of up to three turns, of very different lengths."""
    from tests.support import zoo

    rows = [{"question_id": n, "turns": [turn * (1 + n % 3) for turn in zoo.TURNS[: 1 + n % 3]]} for n in range(14)]
    data = {
        "model": {"name": str(small_model)},
        "source": {"path": str(write_jsonl(tmp_path / "in.jsonl", rows))},
        "chat": {"overflow": "drop_oldest_turns"},
        "generation": {"max_new_tokens": 12, "temperature": 0.8},
        "engine": {"kind": "pipeline", "max_batch_rows": 8},
        "sink": {"directory": str(tmp_path / "runs/{name}")},
        "max_error_rate": 1.0,
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


@pytest.fixture
def shared_data() -> Path:
    """The folder of real input beside the repository."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the folder of real input, ../shared/data, is not on this machine")
    return SHARED_DATA
