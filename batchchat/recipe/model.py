"""The `model` section: which model answers, and how it is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from batchchat.recipe.section import MAY_CHANGE, AsTuple, NumberedKeys, Section, Text

NO_MODEL = "scripted"
"""The model name that stands for no model at all."""
FROM_THE_CHAT = "prompt"
"""The draft's name that stands for looking drafts up in the chat."""


class BitsAndBytes(Section):
    """How bitsandbytes quantizes, where model.quantization is 4bit or 8bit."""

    type: Literal["nf4", "fp4"] = Field(default="nf4", description="The numbers that 4 bits stand for.")
    double_quantization: bool = Field(
        default=False, description="Quantize the scales of 4-bit blocks too: 0.4 bits less per weight."
    )
    compute_dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto",
        description="Number format in which 4-bit weights are multiplied; auto is model.dtype, bfloat16 where that is "
        "auto too.",
    )
    skip_modules: Annotated[tuple[Text, ...], AsTuple] = Field(
        default=(),
        description="Names of modules that are not quantized, besides the output layer, which never is.",
        examples=[["self_attn.o_proj"]],
    )


class Draft(Section):
    """Speculative decoding: several next tokens are guessed, and the model verifies them in one pass. Answers stay the
    same; where guesses cost more time than they save they are left out."""

    name: Text = Field(
        default=FROM_THE_CHAT,
        description='Who guesses: a folder or hub id of a much smaller model with the same vocabulary, or "prompt", '
        "which takes what followed the same tokens earlier in the chat.",
        examples=["models/my-small-model", "prompt"],
    )
    tokens: int = Field(
        default=4, ge=1, le=15, description="The most tokens that are guessed at once.", json_schema_extra=MAY_CHANGE
    )
    ngram: int = Field(
        default=3,
        ge=2,
        description="The most last tokens that are looked up, where the chat itself guesses.",
        json_schema_extra=MAY_CHANGE,
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="Number format of the small model's weights; auto is the checkpoint's own."
    )
    revision: Text | None = Field(
        default=None, description="Branch, tag or commit of the small model.", examples=["main"]
    )
    force: bool = Field(
        default=False,
        description="Guess even where it costs more time than it saves, and for a mixture of experts too.",
        json_schema_extra=MAY_CHANGE,
    )


class ModelSection(Section):
    """The model that writes the answers, and how it is loaded."""

    name: Text = Field(
        default="builtin:tiny-chat",
        description='A folder with a model, a hub id, "builtin:tiny-chat" (comes with batchchat), or "scripted" (no '
        "model, with engine.kind: scripted).",
        examples=["models/my-model", "builtin:tiny-chat"],
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto",
        description="Number format of the weights; auto is the checkpoint's own, but float32 on a processor that "
        "cannot multiply 16-bit numbers and has room for it, where the engine does not widen them itself.",
    )
    device_map: Text | Mapping[str, str | int] = Field(
        default="auto",
        description="Where the weights go: auto, one device, or a mapping of module names to devices.",
        examples=["cuda:0", "cpu"],
        json_schema_extra=MAY_CHANGE,
    )
    max_memory: Annotated[Mapping[str | int, str | int], NumberedKeys] | None = Field(
        default=None,
        description="The most memory that device_map: auto may fill, by device.",
        examples=[{0: "20GiB", "cpu": "60GiB"}],
        json_schema_extra=MAY_CHANGE,
    )
    quantization: Literal["none", "8bit", "4bit"] = Field(
        default="none",
        description="Quantize the weights with bitsandbytes while loading. A checkpoint that is quantized already "
        "(GPTQ, AWQ, FP8, …) loads as it is, with none.",
    )
    bitsandbytes: BitsAndBytes = BitsAndBytes()
    gguf_file: Text | None = Field(
        default=None,
        description="A GGUF file of the model's folder or hub repository; its weights are unpacked to model.dtype.",
        examples=["model-q4_0.gguf"],
    )
    adapter: Text | None = Field(
        default=None,
        description="Folder or hub id of an adapter (LoRA, DoRA, IA³, …), loaded with peft.",
        examples=["adapters/mine"],
    )
    merge_adapter: bool = Field(
        default=False, description="Add the adapter to the weights once, instead of computing it beside them."
    )
    draft: Draft | None = Field(
        default=None,
        description="Speculative decoding with a draft; null is without.",
        examples=[{"name": "prompt"}],
        json_schema_extra=MAY_CHANGE,
    )
    parallel: Literal["none", "tensor"] = Field(
        default="none",
        description="tensor splits every layer over the processes that `torchrun` started, each with its device.",
        json_schema_extra=MAY_CHANGE,
    )
    offload_folder: Text | None = Field(
        default=None,
        description="Folder for weights that device_map puts on the disk.",
        examples=["/scratch/weights"],
        json_schema_extra=MAY_CHANGE,
    )
    attn_implementation: Text | None = Field(
        default=None,
        description="The attention code; null is the best that transformers finds.",
        examples=["sdpa", "eager"],
    )
    revision: Text | None = Field(default=None, description="Branch, tag or commit of a hub model.", examples=["main"])
    trust_remote_code: bool = Field(
        default=False,
        description="Run Python code that comes with the model. Only for models whose code you have read.",
    )
    local_files_only: bool = Field(
        default=False, description="Never ask the hub: only what is on this machine.", json_schema_extra=MAY_CHANGE
    )
    endpoint: Text | None = Field(
        default=None,
        description="Address of a mirror of the hub, from which the model's files are fetched.",
        examples=["https://hub.example.org"],
        json_schema_extra=MAY_CHANGE,
    )
    cache_dir: Text | None = Field(
        default=None,
        description="Where hub models are kept; null is the hub library's own place.",
        json_schema_extra=MAY_CHANGE,
    )
