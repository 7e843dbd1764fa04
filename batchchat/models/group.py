"""The group of processes over which one model is split (tensor parallelism): `torchrun` starts them.

The first process, the leader, runs the recipe; the others follow: they compute the same batches at the same time and
write nothing.
"""

from __future__ import annotations

import os
from typing import Any

from batchchat.errors import UsageError
from batchchat.recipe.model import ModelSection


def is_follower(section: ModelSection) -> bool:
    """Whether this process only helps another to compute."""
    return section.parallel != "none" and int(os.environ.get("RANK", "0")) > 0


def require_group() -> None:
    """Join the group of processes. Raises UsageError where there is none."""
    import torch
    from torch import distributed

    if distributed.is_initialized():
        return
    if "RANK" not in os.environ:
        raise UsageError(
            "model.parallel=tensor splits the model over several processes, and this is only one; start them with "
            "`torchrun --nproc-per-node=2 -m batchchat run …`, or set model.parallel=none"
        )
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")


def num_processes() -> int:
    """How many processes the group has; 1 where there is none."""
    from torch import distributed

    return distributed.get_world_size() if distributed.is_initialized() else 1


def broadcast(what: Any) -> None:
    """From the leader to every follower; returns when all have it."""
    from torch import distributed

    distributed.broadcast_object_list([what], src=0)


def receive() -> Any:
    """What the leader tells."""
    from torch import distributed

    told = [None]
    distributed.broadcast_object_list(told, src=0)
    return told[0]


def destroy() -> None:
    """End the group, as a process should before it ends."""
    from torch import distributed

    if distributed.is_initialized():
        distributed.destroy_process_group()
