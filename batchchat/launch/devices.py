"""Where replicas compute: which accelerators each gets, or which of the CPU's cores."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

from batchchat.errors import EnvironmentFault, UsageError
from batchchat.process import cores, num_cores
from batchchat.recipe import Recipe

_USABLE = 0.8
"""Share of a device's memory that weights may take, so that there is room for rows."""


@dataclass(frozen=True)
class Place:
    """One replica's devices. `environment` makes them the only ones that it sees; `cores` are those it may use."""

    name: str
    environment: Mapping[str, str] = field(default_factory=dict)
    cores: tuple[int, ...] | None = None


def places_for(recipe: Recipe, replicas: int) -> Sequence[Place]:
    """Places for so many replicas, also for one. Raises as `find_places`."""
    asked = recipe.model_copy(update={"engine": recipe.engine.model_copy(update={"replicas": replicas})})
    found = find_places(asked)
    if found is not None:
        return found
    return _on_cores(1) if not _accelerators(recipe) else [Place("all accelerators")]


def find_places(recipe: Recipe) -> Sequence[Place] | None:
    """One place per replica that the recipe asks for, or None where its engine computes in the run's own process.

    Raises UsageError where the recipe contradicts itself or the launcher (`torchrun`, `accelerate launch`),
    EnvironmentFault where there are not so many devices.
    """
    wanted = _wanted(recipe)
    if wanted == 1:
        return None
    devices = _accelerators(recipe)
    if not devices:
        return _on_cores(wanted) if isinstance(wanted, int) else None
    each = recipe.engine.devices_per_replica
    size = _devices_for(recipe, len(devices)) if each == "auto" else each
    if size > len(devices):
        raise EnvironmentFault(
            f"engine.devices_per_replica is {size}, but there {_are(len(devices))}; set it to {len(devices)} at most"
        )
    most = len(devices) // size
    replicas = wanted if isinstance(wanted, int) else most
    if replicas == 1:
        return None
    if replicas > most:
        together = f" with {size} devices each" if size > 1 else ""
        raise EnvironmentFault(
            f"engine.replicas is {replicas}{together}, but there {_are(len(devices))}; set engine.replicas={most}"
        )
    groups = [devices[number * size : (number + 1) * size] for number in range(replicas)]
    threads = _threads(max(1, num_cores() // replicas))
    return [
        Place("cuda:" + ",".join(group), {"CUDA_VISIBLE_DEVICES": ",".join(group), "OMP_NUM_THREADS": str(threads)})
        for group in groups
    ]


def _wanted(recipe: Recipe) -> int | Literal["auto"]:
    """How many replicas: the recipe's number, or that of the processes that a launcher started."""
    section = recipe.engine
    launched = int(os.environ.get("WORLD_SIZE", "1")) if recipe.model.parallel == "none" else 1
    if recipe.model.parallel != "none":
        return 1
    if launched > 1:
        local = int(os.environ.get("LOCAL_WORLD_SIZE", str(launched)))
        if local != launched:
            raise UsageError(
                f"{launched} processes were started on several machines, but replicas of one run live on one; start "
                "one run on each machine with source.shard=i/n and join them with batchchat merge, or use "
                "engine.launcher=ray"
            )
        if section.replicas not in ("auto", launched):
            raise UsageError(
                f"engine.replicas is {section.replicas}, but {launched} processes were started; write "
                "engine.replicas: auto, or start as many"
            )
        return launched
    if section.replicas == "auto" and (not section.needs.local_model or recipe.model.device_map != "auto"):
        return 1
    return section.replicas


def is_idle_rank() -> bool:
    """Whether a launcher started this process beside the one that runs the recipe, whose replicas do its work."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and int(os.environ.get("RANK", "0")) > 0


def _accelerators(recipe: Recipe) -> list[str]:
    """What names the accelerators that this process may use; empty where the recipe's engine uses none."""
    if not recipe.engine.needs.local_model or recipe.model.device_map == "cpu":
        return []
    import torch

    count = torch.cuda.device_count()  # asks the driver and makes no context
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [name.strip() for name in named.split(",")] if named else [str(number) for number in range(count)]
    return names[:count]


def _devices_for(recipe: Recipe, most: int) -> int:
    """The smallest number of devices whose memory holds the model's weights."""
    import torch

    needed = _weights(recipe)
    room = min(torch.cuda.get_device_properties(number).total_memory for number in range(most)) * _USABLE
    return next((size for size in range(1, most + 1) if size * room >= needed), most)


def _weights(recipe: Recipe) -> int:
    """Bytes of the model's weights, from its config."""
    from batchchat.models import load_config
    from batchchat.models.memory import DTYPE_BYTES, weight_bytes
    from batchchat.models.shape import empty_model, shape_of
    from batchchat.models.text import checkpoint_dtype

    section = recipe.model
    config = load_config(section)
    dtype = checkpoint_dtype(config) if section.dtype == "auto" else section.dtype
    shape = shape_of(empty_model(config, section.trust_remote_code))
    return weight_bytes(shape, DTYPE_BYTES.get(dtype, 2), section.quantization)


def require_free(recipe: Recipe) -> None:
    """Raises EnvironmentFault where the accelerators that this process sees have no room for the model's weights, since
    others use them. Called before any weight is read."""
    if not _accelerators(recipe):
        return
    import torch

    numbers = range(torch.cuda.device_count())
    try:
        memory = [torch.cuda.mem_get_info(number) for number in numbers]
    except RuntimeError as error:
        words = (str(error).strip().splitlines() or ["no message"])[0]
        raise EnvironmentFault(
            f"the accelerator cannot be used ({words}): end what holds it, or choose others"
        ) from error
    free, total, needed = sum(one for one, _ in memory), sum(one for _, one in memory), _weights(recipe)
    if free < needed:
        raise EnvironmentFault(
            f"{torch.cuda.get_device_name(0)} has {free / 2**30:.1f} of {total / 2**30:.1f} GiB free, and the model's "
            f"weights need {needed / 2**30:.1f} GiB: end what else uses it, or choose devices with CUDA_VISIBLE_DEVICES"
        )


def _on_cores(replicas: int) -> list[Place]:
    """The cores of this process, shared out; where there are fewer than replicas, none is bound to one."""
    mine = cores()
    if replicas > len(mine):
        return [Place("cpu", {"OMP_NUM_THREADS": "1"}) for _ in range(replicas)]
    bounds = [number * len(mine) // replicas for number in range(replicas + 1)]
    shares = [tuple(mine[begin:end]) for begin, end in pairwise(bounds)]
    busy = max(1, num_cores() // replicas)
    return [
        Place(_core_names(share), {"OMP_NUM_THREADS": str(_threads(min(busy, len(share))))}, share) for share in shares
    ]


def _threads(cores: int) -> int:
    """Threads of a replica: its cores, or fewer where the user says so."""
    named = os.environ.get("OMP_NUM_THREADS", "")
    return min(cores, int(named)) if named.isdigit() and int(named) > 0 else cores


def _core_names(cores: Sequence[int]) -> str:
    if len(cores) == 1:
        return f"cpu core {cores[0]}"
    whole = list(cores) == list(range(cores[0], cores[-1] + 1))
    return f"cpu cores {cores[0]}-{cores[-1]}" if whole else f"cpu cores {','.join(map(str, cores))}"


def _are(devices: int) -> str:
    return "is 1 accelerator" if devices == 1 else f"are {devices} accelerators"
