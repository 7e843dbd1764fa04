"""The ways in which one recipe is answered; each must leave the same bytes."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from scripts.many_devices.job import PYTHON, Job

_SHARDS = 4
CALM = "one"
"""The way that all others are held against."""
REPLICAS = 2
"""Wherever their number makes no difference to what is shown."""

Way = Callable[[Job, str], float]
"""Runs a job under a name and returns the seconds that it took."""


def replicas(number: int) -> Way:
    return lambda job, name: job.call(name, [*PYTHON, *job.arguments(name, f"engine.replicas={number}")])


def accelerate(job: Job, name: str) -> float:
    started = ["accelerate.commands.launch", "--cpu", "--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no"]
    processes = [f"--num_processes={REPLICAS}", f"--num_cpu_threads_per_process={REPLICAS}"]
    return job.call(name, [*PYTHON, *started, *processes, "-m", *job.arguments(name)])


def torchrun(job: Job, name: str) -> float:
    return job.call(
        name, [*PYTHON, "torch.distributed.run", f"--nproc-per-node={REPLICAS}", "-m", *job.arguments(name)]
    )


def shards(job: Job, name: str) -> float:
    seconds = 0.0
    parts = []
    for number in range(_SHARDS):
        part = f"{name}-parts"
        seconds += job.call(name, [*PYTHON, *job.arguments(part, f"source.shard={number}/{_SHARDS}")])
        parts.append(str(job.folder / part / f"shard-{number}-of-{_SHARDS}"))
    return seconds + job.call(name, [*PYTHON, "batchchat", "merge", *parts, "--output", str(job.folder / name)])


def ray(job: Job, name: str) -> float:
    with simulated_cluster() as cluster:
        return job.call(name, [*PYTHON, *job.arguments(name, *on_ray(cluster))])


WAYS: dict[str, Way] = {
    CALM: replicas(1),
    "two-replicas": replicas(2),
    "four-replicas": replicas(4),
    "accelerate": accelerate,
    "torchrun": torchrun,
    "shards": shards,
    **({"ray": ray} if importlib.util.find_spec("ray") is not None else {}),
}


def on_ray(cluster: Any) -> tuple[str, ...]:
    """Overrides for a run with replicas on its nodes, which have no accelerators."""
    where = ("engine.launcher=ray", f"engine.ray_address={cluster.address}", "model.device_map=cpu")
    return (*where, f"engine.replicas={REPLICAS}")


@contextmanager
def simulated_cluster() -> Iterator[Any]:
    """A Ray cluster of a head that computes nothing and two nodes, all on this machine."""
    from ray.cluster_utils import Cluster

    # Replicas get their share of a machine that others use too: Ray lets its workers wait for everybody else.
    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "_system_config": {"worker_niceness": 0}})
    try:
        for _ in range(2):
            found.add_node(num_cpus=2)
        yield found
    finally:
        found.shutdown()
