"""How fast the continuous engine computes models of many families: `python -m scripts.families [dtype] [family ...]`.

Models of some 60 million parameters with random weights, 16 answers of 48 tokens at once to prompts of 64; tokens per
second as torch computes the model's modules, with kernels in them, and by a program.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import torch
import transformers as t

from batchchat.chats import Request, Settings
from batchchat.engines.continuous import prepare
from batchchat.engines.continuous.model_runner import PROGRAMS
from batchchat.schedule import Feed
from tests.support.engines import continuous

_ROWS, _PROMPT, _ANSWER = 16, 64, 48
_ROUNDS = 3
_COMMON: dict[str, Any] = {
    "vocab_size": 16384,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 12,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "head_dim": 64,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
    "pad_token_id": 2,
}
_EXPERTS = {"num_experts": 16, "num_experts_per_tok": 2, "moe_intermediate_size": 384}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "gemma2": {"sliding_window": 64, "attn_implementation": "eager"},
    "gemma3_text": {"sliding_window": 64},
    "phi3": {},
    "olmo2": {},
    "granite": {"embedding_multiplier": 12.0, "residual_multiplier": 0.22, "logits_scaling": 8.0},
    "smollm3": {},
    "mixtral": {"num_local_experts": 8, "intermediate_size": 768},
    "qwen2_moe": {"shared_expert_intermediate_size": 768, **_EXPERTS},
    "qwen3_moe": _EXPERTS,
    "gpt_oss": {"num_local_experts": 16, "num_experts_per_tok": 2, "intermediate_size": 384, "sliding_window": 64},
}


class _Meter:
    """Knows the time, and hears of nothing else."""

    def now(self, wait: bool = True) -> float:
        return time.perf_counter()

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


def measure(family: str, dtype: torch.dtype) -> dict[str, float]:
    """Tokens per second, prompts not counted, by each way that there is: the model's modules as torch computes them,
    those with our kernels, and a program. In turns; the best round of each counts."""
    torch.manual_seed(0)
    config = t.AutoConfig.for_model(family, **{**_COMMON, **FAMILIES[family]})
    model = t.AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
    plain = continuous(model, _Meter(), max_rows=_ROWS)
    rounds = {"modules": [_round(plain) for _ in range(1 + _ROUNDS)]}  # apart, as preparing changes the model
    plain.close()
    undo = prepare(model)
    engines = {"kernels": continuous(model, _Meter(), max_rows=_ROWS)}
    program = PROGRAMS.get(model)
    if program is not None:
        engines["program"] = engines.pop("kernels")
        del PROGRAMS[model]
        engines["kernels"] = continuous(model, _Meter(), max_rows=_ROWS)
        PROGRAMS[model] = program
    for _ in range(1 + _ROUNDS):
        for name, engine in engines.items():
            rounds.setdefault(name, []).append(_round(engine))
    undo()
    return {name: max(speeds[1:]) for name, speeds in rounds.items()}  # in the first one engines learn


def _round(engine: Any) -> float:
    asked = [_request(index) for index in range(_ROWS)]
    begun = time.perf_counter()
    assert sum(len(done.token_ids) for done in engine.run(Feed(iter(asked), look_ahead=_ROWS))) == _ROWS * _ANSWER
    return _ROWS * _ANSWER / (time.perf_counter() - begun)


def _request(index: int) -> Request:
    ids = tuple((7919 * index + 104729 * place) % 16000 + 5 for place in range(_PROMPT))
    settings = Settings(max_new_tokens=_ANSWER)
    return Request(chat_id=str(index), index=index, sample=0, turn=0, prompt_ids=ids, settings=settings, seed=index)


if __name__ == "__main__":
    _, name, *families = [*sys.argv, "float32"][: max(2, len(sys.argv))]
    print("| family | numbers | modules | kernels | program |\n|---|---|---|---|---|")
    for family in families or FAMILIES:
        found = measure(family, getattr(torch, name))
        speeds = " | ".join(f"{found[way]:.0f}" if way in found else "" for way in ("modules", "kernels", "program"))
        print(f"| {family} | {name} | {speeds} |", flush=True)
