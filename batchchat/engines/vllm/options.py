"""The `engine.vllm` section."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, JsonValue, field_validator

from batchchat.recipe.section import MAY_CHANGE, Section, Text

_OURS: Mapping[str, str] = {
    "model": "write model.name",
    "tokenizer": "the recipe's own tokenizer is used",
    "skip_tokenizer_init": "the recipe's own tokenizer is used",
    "revision": "write model.revision",
    "dtype": "write model.dtype",
    "download_dir": "write model.cache_dir",
    "trust_remote_code": "write model.trust_remote_code",
    "seed": "write generation.seed",
    "generation_config": "write generation.model_defaults",
    "override_generation_config": "write the section generation",
    "logprobs_mode": "write generation.logprobs_of",
    "max_model_len": "write chat.max_context",
    "max_num_seqs": "write engine.max_batch_rows",
    "num_gpu_blocks_override": "write engine.max_batch_tokens",
    "enforce_eager": "write engine.cuda_graphs",
    "tensor_parallel_size": "write engine.vllm.tensor_parallel",
    "quantization": "write engine.vllm.quantization",
    "gpu_memory_utilization": "write engine.vllm.gpu_memory",
    "enable_prefix_caching": "write engine.vllm.prefix_caching",
    "enable_lora": "write model.adapter",
    "max_lora_rank": "write model.adapter",
    "data_parallel_size": "write engine.replicas",
    "disable_log_stats": "the run has a report of its own",
}
"""Arguments of vLLM that stand elsewhere in a recipe."""


class VllmOptions(Section):
    """vLLM, which must be installed (the extra vllm). engine.max_batch_rows and engine.max_batch_tokens are what it has
    in flight, and engine.cuda_graphs says whether it compiles and records."""

    tensor_parallel: int | None = Field(
        default=None,
        ge=1,
        description="Devices over which every layer is split; null is all that the process sees, 1 on a CPU.",
        json_schema_extra=MAY_CHANGE,
    )
    quantization: Text | None = Field(
        default=None,
        description="How vLLM quantizes the weights; null is as the checkpoint has them, quantized ones included.",
        examples=["fp8", "bitsandbytes"],
    )
    gpu_memory: float = Field(
        default=0.9,
        gt=0,
        le=1,
        description="The share of each GPU's memory that it may take, weights included.",
        json_schema_extra=MAY_CHANGE,
    )
    prefix_caching: bool = Field(
        default=True,
        description="Take over what a prompt shares with earlier ones, instead of computing it again.",
        json_schema_extra=MAY_CHANGE,
    )
    args: Mapping[str, JsonValue] = Field(
        default={},
        description="Further arguments, by their names in vLLM's EngineArgs.",
        examples=[{"kv_cache_dtype": "fp8"}],
    )

    @field_validator("args")
    @classmethod
    def _leave_the_recipe_alone(cls, args: Mapping[str, Any]) -> Mapping[str, Any]:
        for name in args:
            if name in _OURS:
                raise ValueError(f"has {name}, which batchchat sets itself: {_OURS[name]}")
        return args


_MODEL: Mapping[str, str] = {
    "max_memory": "write engine.vllm.gpu_memory",
    "quantization": "write engine.vllm.quantization",
    "gguf_file": "name a model with safetensors",
    "merge_adapter": "it computes adapters beside the weights; leave it out",
    "draft": "write engine.vllm.args: {speculative_config: …}",
    "offload_folder": "write engine.vllm.args: {cpu_offload_gb: …}",
    "attn_implementation": "write engine.vllm.args: {attention_backend: …}",
}
"""Settings of the `model` section that vLLM does otherwise or not at all."""


def cannot(sections: Mapping[str, Any], options: VllmOptions) -> str | None:
    """What of a recipe's other sections vLLM does not do."""
    model, generation = sections.get("model"), sections.get("generation")
    if model is not None:
        for name, advice in _MODEL.items():
            if getattr(model, name) not in (None, False, "none"):
                return f"model.{name}: {advice}"
        if model.device_map not in ("auto", "cpu"):
            return "model.device_map: choose devices with CUDA_VISIBLE_DEVICES"
    if generation is None:
        return None
    if generation.bad_words:
        return "generation.bad_words, since it bans tokens and not texts: leave it out"
    if generation.structured is not None and "speculative_config" in options.args:
        return "generation.structured with engine.vllm.args: {speculative_config: …}: leave one of them out"
    if generation.structured is not None and generation.logprobs is not None:
        return (
            "generation.logprobs with generation.structured, as it gives those of what the form allows: leave one out"
        )
    if generation.passthrough():
        return f"generation.{generation.passthrough()[0][0]}, which is a flag of transformers: leave it out"
    return None
