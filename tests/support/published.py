"""Configs of published models, for what is told from a config alone."""

from __future__ import annotations

from transformers import LlamaConfig, MixtralConfig, Qwen2Config

LLAMA_8B = LlamaConfig(
    vocab_size=128256, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
    num_key_value_heads=8, max_position_embeddings=131072, tie_word_embeddings=False,
)  # fmt: skip
QWEN_72B = Qwen2Config(
    vocab_size=152064, hidden_size=8192, intermediate_size=29568, num_hidden_layers=80, num_attention_heads=64,
    num_key_value_heads=8, max_position_embeddings=32768, tie_word_embeddings=False,
)  # fmt: skip
MIXTRAL = MixtralConfig(
    vocab_size=32000, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
    num_key_value_heads=8, num_local_experts=8, num_experts_per_tok=2, sliding_window=None, tie_word_embeddings=False,
)  # fmt: skip
