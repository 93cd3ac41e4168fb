"""Prints what `platform` answers in one kind of process; test_platform_module.py runs it in each kind.

Every result is one line: RESULT, then JSON with the process's name, the standard functions' answers, and where
`platform` and the imported submodule came from.
"""

import importlib
import inspect
import json
import socket
import subprocess
import sys
import sysconfig
import time
import warnings
from pathlib import Path
from typing import Any

import platform

MARK = "RESULT "


def answers() -> dict[str, str]:
    """Return the repr of what each public function of `platform` that needs no argument returns here."""
    import platform  # imported here as well: a Ray worker receives this function without its module

    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # java_ver() is deprecated
        for name, function in inspect.getmembers(platform, inspect.isfunction):
            parameters = inspect.signature(function).parameters.values()
            if name.startswith("_") or any(parameter.default is parameter.empty for parameter in parameters):
                continue
            found[name] = repr(function())
    return found


def result(process: str) -> dict[str, Any]:
    """Return this process's answers after importing a submodule."""
    module = importlib.import_module("platform.model.hyperparameters")
    return {"process": process, "answers": answers(), "submodule": module.__file__}


def tell(found: dict[str, Any]) -> None:
    print(MARK + json.dumps(found), flush=True)


def ask_worker(process: str, resources: dict[str, float] | None = None) -> None:
    import ray

    # result() travels by value, since this module is __main__, and answers() with it.
    tell(ray.get(ray.remote(result).options(resources=resources).remote(process)))


def ask_cluster() -> None:
    """Ask a worker on each of two nodes of a cluster, then submit a job to it."""
    import ray
    from ray.cluster_utils import Cluster

    from platform.running.workers import ray_runtime_env

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    head = {"num_cpus": 1, "include_dashboard": True, "dashboard_port": port, "resources": {"first_node": 1}}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    cluster.add_node(num_cpus=1, resources={"second_node": 1})
    ray.init(address=cluster.address, runtime_env=ray_runtime_env())
    ask_worker("worker", {"first_node": 1})
    ask_worker("second node's worker", {"second_node": 1})
    command = [str(Path(sysconfig.get_path("scripts")) / "ray"), "job", "submit"]
    command += ["--address", f"http://127.0.0.1:{port}", "--working-dir", "."]
    command += ["--", sys.executable, "-m", "tests.platform_probe", "job"]
    for _ in range(20):
        job = subprocess.run(command, capture_output=True, text=True)
        if "No available agent to submit job" not in job.stderr:
            break
        time.sleep(1)  # the dashboard answers a little before the agent that starts jobs
    print(job.stdout, job.stderr, sep="\n")
    ray.shutdown()
    cluster.shutdown()
    sys.exit(job.returncode)


def main(process: str) -> None:
    if process == "standard":  # the reference, without our package: run with `python -I`
        tell({"process": process, "answers": answers(), "names": dir(platform)})
    elif process == "cluster":
        ask_cluster()
    elif process == "job":  # what `ray job submit` starts
        import ray

        from platform.running.workers import ray_runtime_env

        tell(result("job's driver"))
        ray.init(runtime_env=ray_runtime_env())
        ask_worker("job's worker")
    else:
        tell(result(process))


if __name__ == "__main__":
    main(sys.argv[1])
