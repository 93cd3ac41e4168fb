"""Ray itself: a cluster that is joined, or one of this process alone, and what it has for trials."""

import logging
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
import torch
from ray.exceptions import OutOfMemoryError, RayActorError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from db.errors import UserError
from platform.model.storage import StorageError, has_file, locate
from platform.running.budget import AUTO_GPU_SHARE
from platform.running.config import SweepConfig
from platform.running.progress import Say
from platform.running.workers import ray_runtime_env

ATTEMPTS = 3  # to start Ray on a busy machine


class ClusterError(UserError):
    """Ray cannot run the sweep."""


@contextmanager
def ray_started(address: str, say: Say) -> Iterator[None]:
    """Connect to the cluster at `address`, or start one for this process alone ("local"), and leave it at the end."""
    if problem := take_lack_of_memory_for_death():
        say(problem)
    logging.getLogger("ray.tune.tune").addFilter(lambda record: "did not complete" not in record.getMessage())
    source = " (from the environment variable RAY_ADDRESS)" if address == os.environ.get("RAY_ADDRESS") else ""
    if address not in ("local", "auto"):
        _check_reachable(address, source)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _init(address)
            break
        except Exception as error:  # that very class where Ray's processes do not start in time
            ray.shutdown()
            if "timed out during startup" in str(error) and attempt < ATTEMPTS:
                say("Ray did not start within its 30 seconds, as this machine is busy: tried again.")
                continue
            where = "started here" if address == "local" else f"reached at {address}{source}"
            raise ClusterError(f"Ray cannot be {where} ({first_line(error)}).") from error
    try:
        yield
    finally:
        ray.shutdown()


def _init(address: str) -> None:
    options: dict[str, Any] = {}
    if address == "local":
        options = {"include_dashboard": False, "num_gpus": None if torch.cuda.is_available() else 0}
    ray.init(
        address=address, runtime_env=ray_runtime_env(), log_to_driver=False, logging_level=logging.ERROR, **options
    )


def _check_reachable(address: str, source: str) -> None:
    """Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, OverflowError, ValueError) as error:
        raise ClusterError(
            f"Ray cannot be reached at {address}{source} ({first_line(error)}): give the HOST:PORT that `ray start` "
            "prints (6379), or --address local to use this machine alone."
        ) from None


def take_lack_of_memory_for_death() -> str | None:
    """Ray's memory monitor kills a worker with an error that Ray Tune does not expect and ends the sweep with. Taken
    for the death of any other worker, it is retried, and costs its own trial alone.

    Returns a sentence where this Ray cannot be told so.
    """
    try:
        from ray.air.execution._internal.actor_manager import RayActorManager

        handle = RayActorManager._actor_task_failed
    except (ImportError, AttributeError) as error:
        return (
            f"Ray {ray.__version__} differs inside from what HueJury knows ({error}): a trial without memory may end "
            "the sweep, which the same command then goes on with."
        )
    if handle.__module__ == __name__:
        return None

    def handle_lack_of_memory_too(self: Any, tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, OutOfMemoryError):
            exception = RayActorError(error_msg=f"out of memory: {exception}")
        handle(self, tracked_actor_task, exception)

    RayActorManager._actor_task_failed = handle_lack_of_memory_too  # type: ignore[method-assign]
    return None


def cluster_resources() -> dict[str, float]:
    resources: dict[str, float] = ray.cluster_resources()
    return resources


def environment() -> dict[str, Any]:
    """Ray's version and what its cluster has, as it is recorded."""
    return {
        "ray": ray.__version__,
        "cluster": {key: value for key, value in cluster_resources().items() if ":" not in key},
    }


def gpus_per_trial(config: SweepConfig) -> float:
    """What a trial asks Ray for. Raises a UserError if no node of the cluster could ever run one."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cpus, gpus = (max(node.get(kind, 0.0) for node in nodes) for kind in ("CPU", "GPU"))
    wanted: float = config.resources.gpu if config.resources.gpu != "auto" else AUTO_GPU_SHARE if gpus else 0.0
    if config.resources.cpu > cpus or wanted > gpus:
        raise ClusterError(
            f"A trial asks for {config.resources.cpu} CPUs and {wanted:g} GPUs, but the largest node here has {cpus:g} "
            f"and {gpus:g}: change `resources` in the config."
        )
    return wanted


def busy_resources(cpus: float, gpus: float) -> str | None:
    """A sentence if others hold what a trial needs of the cluster."""
    free, there = ray.available_resources(), cluster_resources()
    for kind, wanted in (("CPU", cpus), ("GPU", gpus)):
        if free.get(kind, 0.0) < wanted:
            return (
                f"Waiting for {kind}s: {free.get(kind, 0.0):g} of the cluster's {there.get(kind, 0.0):g} are free, "
                f"and a trial needs {wanted:g}."
            )
    return None


def check_storage(storage: str) -> None:
    """Raise StorageError if a node of a cluster of several does not see what this process keeps in the storage."""
    nodes = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
    if len(nodes) < 2:
        return
    system, root = locate(storage)
    name = f".seen-{secrets.token_hex(8)}"
    try:
        system.create_dir(root, recursive=True)
        with system.open_output_stream(f"{root}/{name}") as stream:
            stream.write(b"Written by a sweep's start, to see whether all nodes share this folder.")
        ask = ray.remote(num_cpus=0)(has_file)
        asked = {  # by id: several nodes may have one address
            node: ask.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(
                storage, name
            )
            for node in nodes
        }
        blind = [nodes[node] for node, answer in asked.items() if not ray.get(answer)]
        system.delete_file(f"{root}/{name}")
    except (OSError, RayError) as error:
        raise StorageError(f"The storage {storage} cannot be used ({first_line(error)}): give another.") from None
    if blind:
        raise StorageError(
            f"The cluster's nodes do not share the storage {storage} (not seen from {', '.join(blind)}), so no trial "
            "could go on elsewhere: give --storage a folder that all of them share, or a URL such as s3://bucket/sweeps."
        )


def first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
