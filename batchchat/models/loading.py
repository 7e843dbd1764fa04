"""Weights: format, dtype, devices, quantization; safetensors unless the recipe names a GGUF file."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Collection
from typing import Any

from batchchat.errors import EnvironmentFault, UsageError
from batchchat.models.adapters import with_adapter
from batchchat.models.arithmetic import computing_dtype
from batchchat.models.checkpoint import require_files, require_whole
from batchchat.models.devices import require_usable_cuda
from batchchat.models.group import require_group
from batchchat.models.kinds import require_causal
from batchchat.models.lean import settle, unfilled
from batchchat.models.names import explained, hub_arguments, locate
from batchchat.models.text import load_config
from batchchat.recipe.model import ModelSection

_OUTPUT = "lm_head"
"""The output layer: transformers leaves it as it is, but only where no other module is named."""
_OF_A_LAYOUT = "bitsandbytes.backends.cpu.ops"
"""Who warns that there is no kernel for a layout of 4-bit weights that none are given here."""


def load_model(section: ModelSection, widened: Collection[str] = ()) -> Any:
    """The causal language model of the recipe's `model` section, in evaluation mode, on its devices.

    Weights are safetensors, whose reading runs no code, or GGUF where the recipe names such a file. `device_map: auto`
    means the accelerators of the machine, the CPU where it has none; `widened`: see `computing_dtype`. Raises
    UsageError for a name that is no such model, EnvironmentFault for what this machine lacks.
    """
    from transformers import AutoModelForCausalLM

    settle()
    name = locate(section)
    config = load_config(section)
    require_causal(section.name, config)
    if section.gguf_file is None:
        require_files(section.name, name)
    logging.getLogger(_OF_A_LAYOUT).setLevel(logging.ERROR)
    with explained(section.name), unfilled():
        model, found = AutoModelForCausalLM.from_pretrained(
            name,
            config=config,
            dtype=section.dtype if section.gguf_file else computing_dtype(section, config, widened=widened),
            max_memory=None if section.max_memory is None else dict(section.max_memory),
            quantization_config=_quantization(section, config),
            attn_implementation=_attention(section, config),
            offload_folder=section.offload_folder,
            ignore_mismatched_sizes=True,  # so that they are named below
            output_loading_info=True,
            **_format(section),
            **_places(section),
            **hub_arguments(section),
        )
        require_whole(section.name, found, config)
        if getattr(model, "is_quantized", False):
            from batchchat.models.quantized import correct_4_bits

            correct_4_bits(model)
        if section.adapter is not None:
            model = with_adapter(model, section)
    return model.eval()


def _attention(section: Any, config: Any) -> str | None:
    """What the recipe asks for, else transformers' own choice; but for soft-capped scores the plain one: up to some
    version transformers takes torch's attention there, which leaves the cap out in silence."""
    softcapped = getattr(config.get_text_config(), "attn_logit_softcapping", None) is not None
    return section.attn_implementation or ("eager" if softcapped else None)


def show_loading(shown: bool) -> None:
    """Whether bars of what is fetched and loaded are drawn on standard error."""
    from transformers.utils import logging

    (logging.enable_progress_bar if shown else logging.disable_progress_bar)()


def _format(section: ModelSection) -> dict[str, Any]:
    return {"use_safetensors": True} if section.gguf_file is None else {"gguf_file": section.gguf_file}


def _places(section: ModelSection) -> dict[str, Any]:
    """Where the weights go: to the devices of this process, or split over the processes of a group."""
    if section.parallel == "none":
        return {"device_map": place_of(section)}
    from transformers.distributed import DistributedConfig

    require_group()
    return {"distributed_config": DistributedConfig(tp_plan="auto")}


def place_of(section: ModelSection) -> Any:
    """transformers' `device_map` for the recipe's. Raises EnvironmentFault for a device that cannot be used."""
    import torch

    if isinstance(section.device_map, str):
        if section.device_map != "cpu":
            require_usable_cuda(f"the model {section.name}")
        if section.device_map == "auto" and not torch.accelerator.is_available():
            return None if section.quantization == "none" else {"": "cpu"}
        if section.device_map.startswith("cuda") and not torch.cuda.is_available():
            raise EnvironmentFault(
                f"model.device_map is {section.device_map}, but this machine has no CUDA device that torch can use; "
                "set model.device_map=auto"
            )
        return section.device_map
    return dict(section.device_map)


def _quantization(section: ModelSection, config: Any) -> Any:
    """The recipe's bitsandbytes settings; None leaves a checkpoint as it is, quantized or not."""
    if section.quantization == "none":
        return None
    stored = getattr(config, "quantization_config", None)
    if stored is not None:
        method = stored.get("quant_method") if isinstance(stored, dict) else stored.quant_method
        raise UsageError(
            f"the checkpoint of {section.name} is quantized already ({getattr(method, 'value', method)}), and cannot "
            "be once more; set model.quantization=none"
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        raise EnvironmentFault(
            f"model.quantization={section.quantization} needs bitsandbytes, which is not installed; "
            "type `pip install bitsandbytes`, or set model.quantization=none"
        )
    import torch
    from transformers import BitsAndBytesConfig

    options = section.bitsandbytes
    skipped = [*options.skip_modules, _OUTPUT] if options.skip_modules else None
    if section.quantization == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=skipped)
    compute = next((name for name in (options.compute_dtype, section.dtype) if name != "auto"), "bfloat16")
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=options.type,
        bnb_4bit_use_double_quant=options.double_quantization,
        bnb_4bit_compute_dtype=getattr(torch, compute),
        llm_int8_skip_modules=skipped,
    )
