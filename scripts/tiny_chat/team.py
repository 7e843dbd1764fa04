"""Processes that train one model together, each on its own rows of a batch.

Two processes of one thread each take less time than one of two threads, which wait for each other at every operator.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import distributed, multiprocessing, nn


class Team:
    """This process among `size`, which has the number `rank`."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank = rank
        self.size = size

    def wait(self) -> None:
        """Until all have come here."""
        if self.size > 1:
            distributed.barrier()

    def add_up(self, parameters: Iterable[nn.Parameter]) -> None:
        """Gradients become the sums of those of all processes: of two the same bits each time."""
        if self.size > 1:
            gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
            joined = torch.cat([gradient.flatten() for gradient in gradients])
            distributed.all_reduce(joined)
            for gradient, part in zip(gradients, joined.split([g.numel() for g in gradients]), strict=True):
                gradient.copy_(part.view_as(gradient))


def run_team(size: int, work: Callable[..., None], *arguments: Any) -> None:
    """Call `work(team, *arguments)` in `size` processes and wait for all; where one fails, the others are ended."""
    if size == 1:
        work(Team(), *arguments)
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    multiprocessing.spawn(_work, (size, port, work, arguments), nprocs=size)


def _work(rank: int, size: int, port: int, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=size)
    try:
        work(Team(rank, size), *arguments)
    finally:
        distributed.destroy_process_group()
