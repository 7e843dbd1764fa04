"""Mixtures of experts through the padded engine: alone as in a crowd, with their active parameters told."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GptOssConfig, MixtralConfig, Qwen3MoeConfig

from batchchat.prompts import TokenizerCodec
from batchchat.schedule import Feed
from tests.support import zoo
from tests.support.engines import padded

SIZES: dict[str, Any] = {
    "vocab_size": 480, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 256, "initializer_range": 0.4,
    "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": None, "num_experts_per_tok": 2,
}  # fmt: skip
CONFIGS = {
    "mixtral": MixtralConfig(**SIZES, num_local_experts=4),
    "qwen3_moe": Qwen3MoeConfig(**SIZES, num_experts=8, moe_intermediate_size=24),
    "gpt_oss": GptOssConfig(**SIZES, num_local_experts=4, sliding_window=16),
}


def answers(model: Any, max_rows: int) -> tuple[dict[int, tuple[int, ...]], Any]:
    codec = TokenizerCodec(zoo.byte_bpe())
    engine = padded(model, zoo.Clock(), codec, max_rows=max_rows)
    prompts = [tuple(range(5, 9 + 5 * n)) for n in range(5)]
    requests = [zoo.request(n, prompts[n], max_new_tokens=12, temperature=0.8 * (n % 2)) for n in range(5)]
    done = list(engine.run(Feed(iter(requests), look_ahead=9)))
    assert all(completion.error is None for completion in done)
    return {completion.request.index: completion.token_ids for completion in done}, engine.describe().as_dict()


@pytest.mark.parametrize("kind", CONFIGS)
def test_rows_of_a_crowd_get_what_they_get_alone(kind: str) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[kind], dtype=torch.float32).eval()
    alone, _ = answers(model, 1)
    together, facts = answers(model, 5)
    assert together == alone
    experts = sum(parameter.numel() for name, parameter in model.named_parameters() if ".experts." in name)
    chosen, count = facts["experts"]["per_token"], facts["experts"]["in_all"]
    assert (chosen, count) == (2, 8 if kind == "qwen3_moe" else 4)
    assert facts["active_parameters"] == facts["parameters"] - experts * (count - chosen) // count
