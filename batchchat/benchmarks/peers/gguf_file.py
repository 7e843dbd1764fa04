"""A model's weights as a GGUF file, as llama.cpp reads them. Source of the layout: the package gguf and its tables of
tensor names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from batchchat.errors import EnvironmentFault, UsageError

_ARCHITECTURES = {"llama": "LLAMA", "qwen2": "QWEN2", "qwen3": "QWEN3"}
"""Model types to the names of gguf's architectures."""
_SPECIAL = ("<unk>", "<s>", "</s>")
_BYTES = 256


def write_gguf(model: Any, file: Path, numbers: str) -> None:
    """Write the weights in `numbers`: float32, bfloat16, float16 or q8_0; vectors stay float32, as llama.cpp wants.

    The tokenizer in it has one word for each id and is there because the server wants one: prompts are ids. Raises
    UsageError for a model whose layout in GGUF is not known here.
    """
    try:
        import gguf
    except ImportError as error:
        raise EnvironmentFault(
            "llama.cpp reads GGUF, which takes the package gguf to write; type `pip install 'batchchat[gguf]'`"
        ) from error
    import torch

    config = model.config
    if config.model_type not in _ARCHITECTURES:
        known = ", ".join(_ARCHITECTURES)
        raise UsageError(
            f"llama.cpp is measured with models of the types {known}, not {config.model_type}; leave it out"
        )
    arch = getattr(gguf.MODEL_ARCH, _ARCHITECTURES[config.model_type])
    kind = getattr(
        gguf.GGMLQuantizationType, {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}.get(numbers, "Q8_0")
    )
    writer = gguf.GGUFWriter(file, gguf.MODEL_ARCH_NAMES[arch])
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    _add_words(writer, config.vocab_size, gguf)
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        target = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if target is None:
            raise UsageError(f"llama.cpp has no place for the weight {name} of this model; leave it out")
        kept = weight.detach().to(torch.float32)
        projection = name.split(".")[-2]
        if config.model_type == "llama" and projection in heads:
            kept = _interleaved(kept, heads[projection])
        wide = kind if kept.dim() > 1 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(target, gguf.quants.quantize(kept.contiguous().numpy(), wide), raw_dtype=wide)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _interleaved(weight: Any, heads: int) -> Any:
    """Rows of queries or keys in the order in which llama.cpp turns them for a Llama: neighbours are pairs."""
    halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return halves.swapaxes(1, 2).reshape(weight.shape)


def _add_words(writer: Any, size: int, gguf: Any) -> None:
    words = [*_SPECIAL, *(f"<0x{byte:02X}>" for byte in range(_BYTES))]
    words = [*words, *(f"w{number}" for number in range(len(words), size))][:size]
    kinds = [gguf.TokenType.UNKNOWN, gguf.TokenType.CONTROL, gguf.TokenType.CONTROL]
    kinds += [gguf.TokenType.BYTE] * _BYTES
    kinds = [*kinds, *[gguf.TokenType.NORMAL] * (size - len(kinds))][:size]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(words)
    writer.add_token_scores([0.0] * size)
    writer.add_token_types(kinds)
