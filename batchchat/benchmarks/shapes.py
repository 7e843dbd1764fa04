"""Models to measure with: real shapes with random weights, so that nothing has to be fetched; or any model."""

from __future__ import annotations

from typing import Any

SHAPES: dict[str, dict[str, Any]] = {
    "135m": {
        "model_type": "llama",
        "vocab_size": 49152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": True,
    },
    "0.5b": {
        "model_type": "qwen2",
        "vocab_size": 151936,
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": True,
    },
    "0.6b": {
        "model_type": "qwen3",
        "vocab_size": 151936,
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": True,
    },
    "1.7b": {
        "model_type": "qwen3",
        "vocab_size": 151936,
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": True,
    },
    "8b": {
        "model_type": "llama",
        "vocab_size": 128256,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": False,
    },
}
"""Names of shapes to their configuration."""
GUESSABLE = "135m-guessable"
"""The shape 135m with weights that make its first layers decide most tokens, so that they can draft for the whole."""
SHAPES[GUESSABLE] = SHAPES["135m"]

_DRAFT_LAYERS = 3
_LATER_WEIGHT = 0.08
"""What the later layers' outputs count: chosen so that the first ones alone are right about four times of five."""


def shape_model(name: str, dtype: str) -> Any:
    """A model of a shape, made on the first accelerator, or on the CPU where there is none."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = dict(SHAPES[name])
    config = AutoConfig.for_model(settings.pop("model_type"), **settings)
    torch.manual_seed(0)
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    # On a CPU it is made in float32: random numbers in bfloat16 take many times as long there.
    made_in = torch.float32 if device.type == "cpu" else getattr(torch, dtype)
    with device:
        model = AutoModelForCausalLM.from_config(config, dtype=made_in)
    if name == GUESSABLE:
        with torch.no_grad():
            for layer in model.model.layers[_DRAFT_LAYERS:]:
                layer.self_attn.o_proj.weight.mul_(_LATER_WEIGHT)
                layer.mlp.down_proj.weight.mul_(_LATER_WEIGHT)
    return model.to(getattr(torch, dtype)).eval()


def first_layers(model: Any) -> Any:
    """A model of the first layers of a Llama, with its embedding: a tenth of its arithmetic beside the vocabulary."""
    import copy

    config = copy.deepcopy(model.config)
    config.num_hidden_layers = _DRAFT_LAYERS
    draft = type(model)(config).to(dtype=model.dtype, device=model.device).eval()
    kept = draft.state_dict()
    draft.load_state_dict({name: value for name, value in model.state_dict().items() if name in kept})
    return draft


def shape_tokenizer(name: str) -> Any:
    """A tokenizer that knows one word per id: engines need one to decode with."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = {f"w{number}": number for number in range(SHAPES[name]["vocab_size"])}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="w0")), pad_token="w1")
