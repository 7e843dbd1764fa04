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
    """`falls_back` is a word of the reason why the continuous engine cannot run it, None where it can; then `batches`
    says which rows share a padded batch."""

    name: str
    config: Callable[[], Any]
    falls_back: str | None = None
    batches: str = "rows of any length"

    def model(self, seed: int = 0) -> Any:
        torch.manual_seed(seed)
        return t.AutoModelForCausalLM.from_config(self.config(), dtype=torch.float32).eval()


def _like(kind: str, drop: tuple[str, ...] = (), **own: Any) -> Callable[[], Any]:
    def config() -> Any:
        values = {key: value for key, value in {**_COMMON, **own}.items() if key not in drop}
        return t.AutoConfig.for_model(kind, **values)

    return config


_HEADS = ("num_attention_heads", "num_key_value_heads")
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

_LINEAR = {
    "head_dim": 8,
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
_STATE = {"num_hidden_layers": 2, "mamba_n_heads": 8, "mamba_d_head": 8, "mamba_n_groups": 1, "mamba_d_state": 8}
_MATRYOSHKA = {
    "head_dim": 8,
    "num_hidden_layers": 4,
    "num_kv_shared_layers": 2,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
    "sliding_window": 50,
    "vocab_size_per_layer_input": VOCABULARY,
    "hidden_size_per_layer_input": 8,
}


def _rope(kind: str, **own: Any) -> dict[str, Any]:
    return {"rope_type": kind, "rope_theta": 10000.0, **own}


_YARN = _rope("yarn", factor=4.0, original_max_position_embeddings=64)
_LONGROPE = _rope("longrope", short_factor=[1.0] * 4, long_factor=[4.0] * 4, original_max_position_embeddings=64)

ARCHITECTURES: tuple[Architecture, ...] = (
    Architecture("llama", _like("llama")),
    Architecture("llama, multi-query", _like("llama", num_key_value_heads=1)),
    Architecture("qwen2", _like("qwen2")),
    Architecture("qwen3", _like("qwen3", head_dim=8)),
    Architecture("mistral, window 50", _like("mistral", sliding_window=50, head_dim=8)),
    Architecture(
        "gemma2, window 50",
        _like(
            "gemma2",
            head_dim=8,
            sliding_window=50,
            query_pre_attn_scalar=8,
            attn_logit_softcapping=20.0,
            attn_implementation="eager",  # which transformers 5.17 does not choose by itself, and so loses the cap
        ),
    ),
    Architecture(
        "gemma3, window 50",
        _like("gemma3_text", head_dim=8, sliding_window=50, query_pre_attn_scalar=8, num_hidden_layers=6),
    ),
    Architecture("gemma", _like("gemma", head_dim=8)),
    Architecture("phi3", _like("phi3")),
    Architecture("phi3, half of each head turned", _like("phi3", partial_rotary_factor=0.5)),
    Architecture("gpt_neox", _like("gpt_neox", drop=("num_key_value_heads",))),
    Architecture("olmo2", _like("olmo2")),
    Architecture("olmo3, window 50", _like("olmo3", sliding_window=50)),
    Architecture("smollm3", _like("smollm3", no_rope_layers=[1, 0])),
    Architecture(
        "granite",
        _like(
            "granite",
            attention_multiplier=0.3,
            embedding_multiplier=2.0,
            residual_multiplier=0.8,
            logits_scaling=3.0,
        ),
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
"""In flight they are tried with prompts that share beginnings and with second turns."""

OF_OTHER_KINDS: tuple[Architecture, ...] = (
    Architecture("llama, yarn", _like("llama", rope_parameters=_YARN)),
    Architecture(
        "ministral3, queries scaled by position",
        _like(
            "ministral3",
            head_dim=8,
            rope_parameters={**_YARN, "llama_4_scaling_beta": 0.8, "mscale": 1.0, "mscale_all_dim": 1.0},
        ),
    ),
    Architecture("gemma4, heads of each layer, shared keys", _like("gemma4_text", global_head_dim=16, **_MATRYOSHKA)),
    Architecture(
        "gemma3n, shared keys",
        _like("gemma3n_text", activation_sparsity_pattern=[0.0] * 4, altup_num_inputs=2, laurel_rank=4, **_MATRYOSHKA),
    ),
    Architecture(
        "phimoe, a window in the mask alone",
        _like("phimoe", num_local_experts=4, num_experts_per_tok=2, sliding_window=300),
        falls_back="sliding_window 300",
    ),
    Architecture(
        "llama4, chunks and scaled queries",
        _like(
            "llama4_text",
            head_dim=8,
            attention_chunk_size=128,
            floor_scale=64,
            attn_scale=0.3,
            intermediate_size_mlp=64,
            no_rope_layers=[1, 0],
            layer_types=["chunked_attention", "full_attention"],
            num_local_experts=4,
        ),
        falls_back="chunked_attention",
        batches="rows of equal length",
    ),
    Architecture(
        "phi3, longrope",
        _like("phi3", original_max_position_embeddings=64, rope_parameters=_LONGROPE),
        falls_back="rotary embedding",
        batches="rows on one side of 64 tokens",
    ),
    Architecture(
        "llama, dynamic rope",
        _like("llama", max_position_embeddings=64, rope_parameters=_rope("dynamic", factor=4.0)),
        falls_back="rotary embedding",
        batches="rows on one side of 64 tokens",
    ),
    Architecture(
        "minimax, linear",
        _like(
            "minimax",
            head_dim=8,
            num_local_experts=4,
            num_experts_per_tok=2,
            layer_types=["linear_attention", "full_attention"],
        ),
        falls_back="linear_attention",
        batches="rows of equal length",
    ),
    Architecture(
        "qwen3_next, gated norms",
        _like("qwen3_next", shared_expert_intermediate_size=32, **_LINEAR, **_EXPERTS),
        falls_back="linear_attention",
    ),
    Architecture("qwen3_5, gated norms", _like("qwen3_5_text", **_LINEAR), falls_back="linear_attention"),
    Architecture("olmo_hybrid, gated norms", _like("olmo_hybrid", **_LINEAR), falls_back="linear_attention"),
    Architecture("mamba", _like("mamba", _HEADS, state_size=8), falls_back="linear_attention"),
    Architecture(
        "mamba2",
        _like("mamba2", _HEADS, state_size=8, num_heads=8, head_dim=8, n_groups=1, chunk_size=16),
        falls_back="linear_attention",
    ),
    Architecture(
        "bamba, hybrid",
        _like("bamba", attn_layer_indices=[1], mamba_chunk_size=16, **_STATE),
        falls_back="linear_attention",
    ),
    Architecture(
        "falcon_h1, both in a layer",
        _like("falcon_h1", head_dim=8, mamba_d_ssm=64, mamba_chunk_size=16, **_STATE),
        falls_back="hybrid",
    ),
    Architecture(
        "rwkv",
        _like("rwkv", _HEADS, context_length=2048, attention_hidden_size=32),
        falls_back=_NO_HOOK,
        batches="one row",
    ),
)
"""Attention that depends on the position, recurrent layers, norms with a gate, heads that differ between layers."""
