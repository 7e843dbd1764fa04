"""The parts, the ones worth most first, as time may be cut."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """`function` ("module:name") takes a `Bench` and yields `Finding`s."""

    name: str
    title: str
    text: str
    function: str
    limit: float
    """Seconds after which it is ended."""
    least: float = 5.0
    """Seconds below which it is not begun."""
    alone: bool = False
    """Nothing else may compute beside it: it measures speed, or takes all memory."""


def _part(name: str, title: str, text: str, function: str, limit: float, **others: float | bool) -> Part:
    return Part(name, title, text, f"scripts.gpu_check.parts.{function}", limit, **others)  # type: ignore[arg-type]


PARTS: tuple[Part, ...] = (
    _part("machine", "The machine", "What it is, and what it can do at best.", "machine:run", 60, alone=True),
    _part(
        "kernels",
        "Kernels against float64",
        "Attention over pages of scattered blocks, all other places being NaN, norms and gates: the largest "
        "difference to plain arithmetic in float64.",
        "kernels:run",
        100,
    ),
    _part(
        "strict",
        "Strict mode",
        "32 requests: tokens and log-probabilities together, alone, and where memory for keys and values is so short "
        "that some give up their place.",
        "strict:run",
        90,
    ),
    _part(
        "zoo-bfloat16",
        "Architectures in bfloat16",
        "Each answers prompts of 1 to 700 tokens, with shared beginnings and second turns; every token is held "
        "against the plain forward's logits, in standard deviations of them.",
        "zoo:bfloat16",
        120,
    ),
    _part("zoo-float32", "Architectures in float32", "The same.", "zoo:float32", 120),
    _part("graphs", "Recorded steps", "The same answers with `engine.cuda_graphs` on and off.", "graphs:run", 90),
    _part(
        "forms",
        "Answers in a form",
        "Two of three rows must be JSON of a schema: those are, and all are the same among other rows.",
        "forms:run",
        60,
    ),
    _part(
        "quantized",
        "Quantized weights",
        "A model saved, loaded in 8 and 4 bits by bitsandbytes, and run.",
        "weights:quantized",
        90,
    ),
    _part(
        "offload",
        "Weights on the CPU",
        "`device_map: auto` with room for only a part of the weights on the GPU; the answers are those of the whole.",
        "weights:offloaded",
        60,
    ),
    _part(
        "speed-8b",
        "Speed of the shape of 8 billion weights",
        "Decode steps of equal rows, prompts, strict mode, and steps that are not recorded.",
        "speed:eight_billion",
        100,
        least=25,
        alone=True,
    ),
    _part(
        "beside-1.7b",
        "Side by side",
        "128 chats of mixed lengths, 64 at once, on the shape of 1.7 billion weights. `plain` is `generate` in padded "
        "batches of 8 in arrival order, `transformers` its own continuous batching.",
        "beside:run",
        150,
        least=20,
        alone=True,
    ),
    _part(
        "memory",
        "Out of memory",
        "So much of the device is taken that batches do not fit: they are split, and the limit is learned.",
        "memory:run",
        45,
        alone=True,
    ),
    _part(
        "mt-bench",
        "MT-Bench",
        "The recipe `mt-bench` with the built-in model, whole.",
        "mt_bench:run",
        90,
        least=15,
        alone=True,
    ),
    _part(
        "uniform-8b",
        "256 requests of 100 to 1,024 tokens, 8 billion weights",
        "Prompt and answer lengths all equally likely.",
        "uniform:eight_billion",
        90,
        least=30,
        alone=True,
    ),
    _part(
        "uniform-0.6b",
        "256 requests of 100 to 1,024 tokens, 0.6 billion weights",
        "Prompt and answer lengths all equally likely.",
        "uniform:small",
        60,
        least=15,
        alone=True,
    ),
    _part(
        "speed-1.7b",
        "Speed of the shape of 1.7 billion weights",
        "As above.",
        "speed:two_billion",
        50,
        least=15,
        alone=True,
    ),
    _part(
        "speed-0.5b",
        "Speed of the shape of half a billion weights",
        "As above.",
        "speed:half_billion",
        50,
        least=15,
        alone=True,
    ),
    _part(
        "attention",
        "Attention alone",
        "Decode attention over pages, by each way to compute it.",
        "attention:run",
        30,
        least=10,
        alone=True,
    ),
    _part(
        "watcher",
        "The watcher",
        "What NVML tells, and what listening to it costs.",
        "watcher:run",
        40,
        least=10,
        alone=True,
    ),
)
