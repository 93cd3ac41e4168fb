"""A sweep on a real Ray cluster of several nodes, of which one is killed, and one does not share the storage."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import func, select

from db.schema import Arm, Measurement, Trial
from db.store import open_database, read_session
from tests.faults import count
from tests.processes import Process, hear_from, say_to
from tests.test_platform_module import ENVIRONMENT
from tests.test_sweep import CHECKOUT, CONFIG, command

EPOCHS = 8
UNSHARE = ["unshare", "--user", "--map-root-user", "--mount"]
CLUSTER = """
import json, sys, time
import ray
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
cluster.wait_for_nodes()
raylets = [node.all_processes["raylet"][0].process.pid for node in nodes]
print(json.dumps([cluster.address, raylets]), flush=True)
for line in sys.stdin:
    if line == "kill\\n":
        cluster.remove_node(nodes.pop(), allow_graceful=False)
    else:
        cluster.connect()
        while sum(node["Alive"] for node in ray.nodes()) < int(line):
            time.sleep(0.1)
        ray.shutdown()
    print("done", flush=True)
cluster.shutdown()
"""


@pytest.fixture
def cluster() -> Iterator[Process]:
    """A process that holds a head without CPUs and two nodes with one each; the line "kill" to it kills a node, a
    number waits for so many."""
    with subprocess.Popen(
        [sys.executable, "-c", CLUSTER],
        cwd=CHECKOUT,
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        yield process
        process.communicate(timeout=60)  # its input ends, and with it the cluster


def parents_of_trials() -> set[int]:
    """The parents of the processes that Ray Tune trains in: each is its node's raylet."""
    parents = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if (folder / "cmdline").read_text().startswith("ray::ImplicitFunc"):
                parents.add(int((folder / "stat").read_text().rpartition(")")[2].split()[1]))
        except OSError:
            continue  # it has ended
    return parents


def test_trials_spread_and_outlive_a_node(cluster: Process, tmp_path: Path) -> None:
    address, raylets = json.loads(hear_from(cluster))
    (tmp_path / "tiny.yaml").write_text(CONFIG.replace(", 1e30]", "]").replace("epochs: 3", f"epochs: {EPOCHS}"))
    # From another folder than the checkout's own: the workers get `platform` and `db` from the driver.
    arguments = [sys.executable, "-m", "platform.sweep", *command(tmp_path, "--address", address)]
    output, spread = "", set[int]()
    with subprocess.Popen(
        arguments, cwd=CHECKOUT, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as sweep:
        assert sweep.stdout is not None
        for line in sweep.stdout:
            output += line
            if re.match(r"\[[2-8]/8\]", line):
                spread |= parents_of_trials() & set(raylets)
            if line.startswith("[3/8]"):
                say_to(cluster, "kill")
                assert hear_from(cluster) == "done"
        assert sweep.wait() == 0, output
    assert spread == set(raylets), output
    assert "failed and is tried again from its checkpoint" in output
    engine = open_database(tmp_path / "d.sqlite")
    with read_session(engine) as session:
        of_arms = select(Trial.status, func.count()).join(Arm, Arm.id == Trial.arm_id).where(Arm.kind != "baseline")
        assert session.execute(of_arms.group_by(Trial.status)).all() == [("finished", 8)]
        epochs = session.execute(select(Measurement.trial_id, Measurement.epoch).where(Measurement.epoch > 0)).all()
        assert len(epochs) == 2 * len(set(epochs)) == 2 * 8 * EPOCHS  # each epoch once, on two splits
    engine.dispose()
    count(
        "a cluster's node killed in mid-sweep",
        "once, in every run",
        f"{8 * EPOCHS - len(set(epochs))} of {8 * EPOCHS} epochs",
        "tests/test_faults_cluster.py -k outlive_a_node",
    )


def test_a_cluster_that_does_not_share_the_storage_is_refused(cluster: Process, tmp_path: Path) -> None:
    if shutil.which("unshare") is None:
        pytest.skip("NO unshare: a cluster without shared storage was not tried.")
    address, _ = json.loads(hear_from(cluster))
    storage = tmp_path / "s"
    storage.mkdir()
    (tmp_path / "tiny.yaml").write_text(CONFIG)
    # A third node with a file system of its own in the storage's place.
    script = 'mount -t tmpfs -o size=1m tmpfs "$0" || exit 77; exec "$@"'
    ray = str(Path(sysconfig.get_path("scripts")) / "ray")
    with subprocess.Popen(
        [*UNSHARE, "sh", "-c", script, str(storage), ray, "start", f"--address={address}", "--num-cpus=1", "--block"],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as node:
        try:
            assert node.stdout is not None
            log = ""
            for line in node.stdout:
                log += line
                if "Ray runtime started" in line:
                    break
            else:
                if node.wait() in (1, 77) and "Traceback" not in log:
                    pytest.skip(f"NO MOUNT: a cluster without shared storage was not tried ({log.strip()}).")
                pytest.fail(log)
            say_to(cluster, "4")  # a node is started some time before the cluster knows of it
            assert hear_from(cluster) == "done"
            sweep = [sys.executable, "-m", "platform.sweep", *command(tmp_path, "--address", address)]
            done = subprocess.run(sweep, cwd=CHECKOUT, env=ENVIRONMENT, capture_output=True, text=True)
            assert done.returncode == 2, done.stdout + done.stderr
            assert f"nodes do not share the storage {storage}" in done.stderr
            assert "s3://" in done.stderr
            assert done.stderr.count("\n") == 1, done.stderr
            assert list(storage.glob(".seen*")) == []
        finally:
            os.killpg(node.pid, signal.SIGTERM)
