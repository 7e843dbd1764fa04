"""What a loaded model is, for the report."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from batchchat.chats.record import Bytes, Flops, Numbers, Record, Unit
from batchchat.models.kept_shapes import shape_like

Count = Annotated[int, Unit("experts")]


class Experts(Record):
    """The experts of a mixture."""

    per_token: Count = Field(description="Experts that one token passes through.")
    in_all: Count = Field(description="Experts that there are in a layer.")


class ModelFacts(Record):
    """A loaded model: class, sizes, number format and places."""

    model_class: str | None = Field(default=None, description="The class in transformers that computes.")
    parameters: Numbers | None = Field(default=None, description="Weights of the model.")
    active_parameters: Numbers | None = Field(
        default=None, description="Those that one token passes through: of a mixture of experts the chosen ones only."
    )
    footprint_bytes: Bytes | None = Field(default=None, description="Weights and buffers as they lie in memory.")
    dtype: str | None = Field(default=None, description="Number type of the weights.")
    devices: tuple[str, ...] = Field(default=(), description="Where the model lies.")
    attention: str | None = Field(
        default=None, description="Which attention of transformers the model was loaded with."
    )
    cache_bytes_per_token: Bytes | None = Field(default=None, description="Keys and values of one token in all layers.")
    state_bytes_per_row: Bytes | None = Field(
        default=None, description="What recurrent layers keep of a row, however long it is; of models with such only."
    )
    flops_per_token: Flops | None = Field(
        default=None, description="A token's way through the layers, but for attention and the output layer."
    )
    flops_per_output: Flops | None = Field(default=None, description="The logits of one token.")
    flops_per_context_token: Flops | None = Field(
        default=None, description="Attention, for each token that a token sees, in all layers."
    )
    experts: Experts | None = Field(default=None, description="Of a mixture of experts only.")
    missing: dict[str, str] = Field(default={}, description="Facts that could not be had, and why.")


def model_facts(model: Any) -> ModelFacts:
    """Class, sizes, number format and places of a model. Of a mixture of experts, the parameters that one token passes
    through as well. What cannot be had of a model is absent, and `missing` says why."""
    placed = getattr(model, "hf_device_map", None)
    told = {
        "model_class": type(model).__name__,
        "parameters": model.num_parameters(),
        "footprint_bytes": model.get_memory_footprint(),
        "dtype": str(model.dtype).removeprefix("torch."),
        "devices": tuple(sorted({str(device) for device in placed.values()}) if placed else [str(model.device)]),
        "attention": model.config._attn_implementation,
    }
    try:
        shape = shape_like(model)
    except Exception as error:  # what only describes a model must not keep it from working
        why = f"the model's sizes cannot be told ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
        return ModelFacts(**told, missing=dict.fromkeys(("cache_bytes_per_token", "flops_per_token"), why))
    cache = None if "cache" in shape.missing else shape.cache_growth(1) * model.dtype.itemsize
    return ModelFacts(
        **told,
        active_parameters=shape.active_parameters,
        cache_bytes_per_token=cache,
        **({"state_bytes_per_row": shape.state * model.dtype.itemsize} if shape.state else {}),
        flops_per_token=shape.flops_per_token,
        flops_per_output=shape.flops_per_output,
        flops_per_context_token=shape.flops_per_context_token,
        experts=None if shape.experts is None else Experts(per_token=shape.experts[0], in_all=shape.experts[1]),
        missing={} if cache is not None else {"cache_bytes_per_token": shape.missing["cache"]},
    )
