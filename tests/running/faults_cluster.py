"""A sweep on a real Ray cluster of several nodes, of which one is killed, and one does not share the storage."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, func, select

from db.schema import Arm, Report, Trial
from db.store import open_database, read_session
from platform.data.datasets import load_dataset
from tests.faults import UNSHARE, count
from tests.processes import Process, hear_from, say_to
from tests.running.test_sweep import CHECKOUT, CONFIG, command
from tests.test_platform_module import ENVIRONMENT

EPOCHS = 8
SLOTS = 2  # trials at once on each of two nodes
MAPPING = re.compile(  # of /proc/…/smaps, readable memory only: begin, end, offset, inode, name, resident kB
    r"^(\w+)-(\w+) r\S+ (\w+) \S+ (\d+) *(.*)\n(?:.*\n)*?Rss: *(\d+) kB$", re.MULTILINE
)
CLUSTER = """
import json, sys, time
import ray
from ray._private.internal_api import node_stats
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
nodes = [cluster.add_node(num_cpus=int(sys.argv[1]), object_store_memory=80 * 2**20) for _ in range(2)]
cluster.wait_for_nodes()
raylets = [node.all_processes["raylet"][0].process.pid for node in nodes]
print(json.dumps([cluster.address, raylets]), flush=True)
for line in sys.stdin:
    answer = None
    if line == "kill\\n":
        cluster.remove_node(nodes.pop(), allow_graceful=False)
    elif line == "hold\\n":
        cluster.connect()
        sleep = ray.remote(num_cpus=1)(lambda: time.sleep(3600))
        held = [sleep.remote() for _ in range(2 * int(sys.argv[1]))]
        while ray.available_resources().get("CPU"):
            time.sleep(0.1)
    elif line == "release\\n":
        ray.shutdown()
    elif line == "store\\n":
        stats = node_stats(nodes[0].node_ip_address, nodes[0].node_manager_port, include_memory_info=False)
        answer = stats.store_stats.cumulative_created_bytes
    else:
        cluster.connect()
        while sum(node["Alive"] for node in ray.nodes()) < int(line):
            time.sleep(0.1)
        ray.shutdown()
    print(json.dumps(answer), flush=True)
cluster.shutdown()
"""


@pytest.fixture
def cluster() -> Iterator[Process]:
    """A process with a head without CPUs and two nodes with some. It answers in JSON: to "kill" by killing the
    last, to "store" with the bytes ever put into the first one's object store, to a number when there are so many."""
    with subprocess.Popen(
        [sys.executable, "-c", CLUSTER, str(SLOTS)],
        cwd=CHECKOUT,
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        yield process
        process.communicate(timeout=60)  # its input ends, and with it the cluster


def ask(cluster: Process, line: str) -> Any:
    say_to(cluster, line)
    return json.loads(hear_from(cluster))


def trial_processes() -> dict[int, int]:
    """The processes that Ray Tune trains in, and the parent of each: its node's raylet."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            if (folder / "cmdline").read_text().startswith("ray::ImplicitFunc"):
                parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    return parents


def places(process: int, patterns: list[bytes]) -> list[set[tuple[str, int]]]:
    """Where in a process's memory each pattern is: names of what is mapped there, and the positions in it.

    Looked at is all that is writable or shared memory, so everything but libraries. `process` has to stand still.
    """
    found: list[set[tuple[str, int]]] = [set() for _ in patterns]
    smallest = min(map(len, patterns))
    with Path(f"/proc/{process}/mem").open("rb", buffering=0) as memory:
        for begin, end, offset, inode, name, resident_kb in MAPPING.findall(Path(f"/proc/{process}/smaps").read_text()):
            shared = name.startswith("/dev/shm/")
            if (name.startswith("/") and not shared) or (not shared and int(resident_kb) * 1024 < smallest):
                continue
            memory.seek(int(begin, 16))
            content = memory.read(int(end, 16) - int(begin, 16))
            where = f"{name}, inode {inode}" if shared else f"private memory at {begin}"
            for of_pattern, pattern in zip(found, patterns, strict=True):
                at = content.find(pattern)
                while at >= 0:
                    of_pattern.add((where, int(offset, 16) + at))
                    at = content.find(pattern, at + 1)
    return found


def has_data(process: int) -> bool:
    """Whether the process has opened its node's object store, which a trial does to get its data."""
    with suppress(OSError):
        return "/dev/shm/plasma" in Path(f"/proc/{process}/maps").read_text()
    return False


def signal_all(processes: Iterable[int], which: signal.Signals) -> None:
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, which)


def epochs_done(engine: Engine) -> dict[int, int]:
    """How far the trials are that have been started."""
    begun = select(Trial.id, Trial.epochs_done).join(Arm, Arm.id == Trial.arm_id)
    with read_session(engine) as session:
        return dict(session.execute(begun.where(~Arm.baseline, Trial.status != "pending")).all())


def test_trials_share_their_nodes_data_spread_and_outlive_a_node(cluster: Process, tmp_path: Path) -> None:
    address, raylets = json.loads(hear_from(cluster))
    config = CONFIG.replace("1e30]", "2e-2]").replace("epochs: 3", f"epochs: {EPOCHS}")
    config = config.replace("_images: 40", "_images: 160").replace("_images: 20", "_images: 140")
    (tmp_path / "tiny.yaml").write_text(config)
    data = load_dataset(["photos"], train_images=160, validation_images=140, say=lambda line: None)
    data_bytes = data.train_images.nbytes + data.tuning_images.nbytes + data.validation_images.nbytes
    # Neighbours whom no batch brings together.
    patterns = [data.train_images[140:160].tobytes(), data.validation_images[115:135].tobytes()]
    # From another folder than the checkout's own: the workers get `platform` and `db` from the driver.
    arguments = [sys.executable, "-m", "platform.sweep", *command(tmp_path, "--address", address)]
    engine = open_database(tmp_path / "d.sqlite")
    held: dict[int, int] = {}  # trials' processes that were stopped, and their raylets
    with subprocess.Popen(
        arguments, cwd=CHECKOUT, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as sweep:
        assert sweep.stdout is not None
        try:
            while len(held) < SLOTS * len(raylets):  # so that the first trials do not end before the last begin
                assert sweep.poll() is None, sweep.stdout.read()
                for process, raylet in trial_processes().items():
                    if raylet in raylets and process not in held and has_data(process):
                        os.kill(process, signal.SIGSTOP)
                        held[process] = raylet
                time.sleep(0.05)
            begun = epochs_done(engine).keys()
            signal_all(held, signal.SIGCONT)
            while not all(epochs_done(engine)[trial] for trial in begun):
                assert sweep.poll() is None, sweep.stdout.read()
                time.sleep(0.05)
            signal_all(held, signal.SIGSTOP)
            found = {process: places(process, patterns) for process in held}
            stored_bytes = ask(cluster, "store")
            ask(cluster, "kill")
        finally:
            signal_all(held, signal.SIGCONT)
        output = sweep.communicate()[0]
        assert sweep.returncode == 0, output
    # Each trial has its data at one place alone, which is its node's object store's and the same for all of the node.
    for raylet in raylets:
        of_node = [found[process] for process in held if held[process] == raylet]
        assert len(of_node) == SLOTS
        for first, *others in zip(*of_node, strict=True):
            [(mapped, _)] = first
            assert mapped.startswith("/dev/shm/plasma")
            assert others == [first] * (SLOTS - 1)
    # What was left of the cluster trained the rest, and never got the data again.
    # Besides the data there is what is known of their colours.
    assert data_bytes < stored_bytes < 4 * data_bytes
    assert ask(cluster, "store") - stored_bytes < 0.5 * data_bytes
    assert "failed and is tried again from its checkpoint" in output
    with read_session(engine) as session:
        of_arms = select(Trial.status, func.count()).join(Arm, Arm.id == Trial.arm_id).where(~Arm.baseline)
        assert session.execute(of_arms.group_by(Trial.status)).all() == [("finished", 8)]
        epochs = session.execute(select(Report.trial_id, Report.epoch).where(Report.epoch > 0)).all()
        assert len(epochs) == len(set(epochs)) == 8 * EPOCHS  # each epoch once
    engine.dispose()
    lost = 8 * EPOCHS - len(set(epochs))
    count(
        "a cluster's node killed in mid-sweep, whose trials shared their node's one copy of the data",
        f"once, in every run, under {len(held)} trials at once",
        f"{lost} of {8 * EPOCHS} epochs",
        "tests/running/faults_cluster.py -k outlive_a_node",
    )


def test_a_cluster_that_is_busy_is_waited_for_and_said(cluster: Process, tmp_path: Path) -> None:
    address, _ = json.loads(hear_from(cluster))
    (tmp_path / "tiny.yaml").write_text(CONFIG.replace("1e-3, 1e-2, 3e-2, 1e30", "1e-2"))
    ask(cluster, "hold")
    arguments = [sys.executable, "-m", "platform.sweep", *command(tmp_path, "--address", address)]
    with subprocess.Popen(
        arguments, cwd=CHECKOUT, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as sweep:
        assert sweep.stdout is not None
        said = next((line for line in sweep.stdout if line.startswith("Waiting for CPUs")), None)
        assert said is not None
        assert f"0 of the cluster's {2 * SLOTS} are free" in said
        ask(cluster, "release")
        output = sweep.communicate()[0]
        assert sweep.returncode == 0, output
    assert "[2/2]" in output


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
            ask(cluster, "4")  # a node is started some time before the cluster knows of it
            sweep = [sys.executable, "-m", "platform.sweep", *command(tmp_path, "--address", address)]
            done = subprocess.run(sweep, cwd=CHECKOUT, env=ENVIRONMENT, capture_output=True, text=True)
            assert done.returncode == 2, done.stdout + done.stderr
            assert f"nodes do not share the storage {storage}" in done.stderr
            assert "s3://" in done.stderr
            assert done.stderr.count("\n") == 1, done.stderr
            assert list(storage.glob(".seen*")) == []
        finally:
            os.killpg(node.pid, signal.SIGTERM)
