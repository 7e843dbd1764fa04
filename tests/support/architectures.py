"""Small models with random weights of many architectures that transformers ships, made in seconds and never stored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import transformers as t

VOCABULARY = 480

_COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "initializer_range": 0.3,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
}


@dataclass(frozen=True)
class Architecture:
    """`falls_back` is a word of the reason why the continuous engine cannot run it, None where it can."""

    name: str
    config: Callable[[], Any]
    falls_back: str | None = None

    def model(self, seed: int = 0) -> Any:
        torch.manual_seed(seed)
        return t.AutoModelForCausalLM.from_config(self.config(), dtype=torch.float32).eval()


def _like(kind: str, drop: tuple[str, ...] = (), **own: Any) -> Callable[[], Any]:
    def config() -> Any:
        values = {key: value for key, value in {**_COMMON, **own}.items() if key not in drop}
        return t.AutoConfig.for_model(kind, **values)

    return config


_NO_HOOK = "attention function cannot be replaced"
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
_LATENT = {
    "num_key_value_heads": 4,
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 12,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "first_k_dense_replace": 1,
}

ARCHITECTURES: tuple[Architecture, ...] = (
    Architecture("llama", _like("llama")),
    Architecture("llama, multi-query", _like("llama", num_key_value_heads=1)),
    Architecture("qwen2", _like("qwen2")),
    Architecture("qwen3", _like("qwen3", head_dim=8)),
    Architecture("mistral, window 50", _like("mistral", sliding_window=50, head_dim=8)),
    Architecture(
        "gemma2, window 50",
        _like("gemma2", head_dim=8, sliding_window=50, query_pre_attn_scalar=8, attn_logit_softcapping=20.0),
    ),
    Architecture(
        "gemma3, window 50",
        _like("gemma3_text", head_dim=8, sliding_window=50, query_pre_attn_scalar=8, num_hidden_layers=6),
    ),
    Architecture("phi3", _like("phi3")),
    Architecture("gpt_neox", _like("gpt_neox", drop=("num_key_value_heads",))),
    Architecture("olmo2", _like("olmo2")),
    Architecture(
        "granite", _like("granite", attention_multiplier=0.3, embedding_multiplier=2.0, residual_multiplier=0.8)
    ),
    Architecture("mixtral", _like("mixtral", num_local_experts=4, num_experts_per_tok=2)),
    Architecture("qwen2_moe", _like("qwen2_moe", shared_expert_intermediate_size=32, **_EXPERTS)),
    Architecture("qwen3_moe", _like("qwen3_moe", head_dim=8, **_EXPERTS)),
    Architecture(
        "gpt_oss, window 50",
        _like("gpt_oss", head_dim=8, num_local_experts=4, num_experts_per_tok=2, sliding_window=50),
    ),
    Architecture("deepseek_v2", _like("deepseek_v2", **_LATENT)),
    Architecture("deepseek_v3", _like("deepseek_v3", n_group=2, topk_group=1, **_LATENT)),
    Architecture("gpt2, learned positions", _like("gpt2", n_embd=32, n_layer=2, n_head=4, n_positions=2048)),
    Architecture("opt, learned positions", _like("opt", ffn_dim=64, word_embed_proj_dim=32)),
    Architecture("starcoder2", _like("starcoder2")),
    Architecture("bloom, ALiBi", _like("bloom", n_layer=2, n_head=4), falls_back=_NO_HOOK),
    Architecture("falcon, ALiBi", _like("falcon", alibi=True, multi_query=True), falls_back=_NO_HOOK),
    Architecture(
        "lfm2, hybrid",
        _like("lfm2", layer_types=["conv", "full_attention"], conv_L_cache=3),
        falls_back="layers that are not plain attention",
    ),
)
