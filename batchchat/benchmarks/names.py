"""The names that a benchmark takes, known without importing what they stand for."""

from __future__ import annotations

from difflib import get_close_matches

from batchchat.errors import UsageError

NAMES: dict[str, tuple[str, ...]] = {
    "engine": (
        *("plain", "pipeline", "pipeline-unknown", "continuous", "strict", "drafted", "transformers"),
        *("vllm", "openvino", "llama.cpp", "llama.cpp-q8"),
    ),
    "workload": (
        *("mixed48", "mixed480", "mixed16", "four", "uniform256"),
        *("two-turns", "shared-prefix", "separate-prefixes"),
    ),
    "dtype": ("bfloat16", "float16", "float32"),
}


def chosen(kind: str, name: str) -> str:
    """The name, if there is such a one of its kind. Raises UsageError with the nearest one."""
    if name in NAMES[kind]:
        return name
    near = get_close_matches(name, NAMES[kind], 1)
    advice = f"did you mean {near[0]}?" if near else f"it is one of {', '.join(NAMES[kind])}"
    raise UsageError(f"there is no {kind} {name!r} to measure; {advice}")
