"""Sweeps killed again and again: `make faults`. `make test-all` does a little of it in test_sweep.py."""

import random
import signal
import subprocess
import sys
import sysconfig
import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import select

from db.schema import Arm, Experiment, Report, Trial
from db.store import open_database, read_session
from platform.arms.compose import compose
from platform.data.datasets import load_dataset
from platform.model.training import train
from platform.running.config import read_config
from platform.running.plan import plan_trials
from tests.contracts import colours_of
from tests.faults import TIMES, count
from tests.processes import check_integrity
from tests.running.test_sweep import CHECKOUT, CONFIG, command
from tests.test_platform_module import ENVIRONMENT

EPOCHS = 6
TRIALS = 6


def run_for(arguments: list[str], seconds: float | None) -> tuple[int, str]:
    """Run the command to its end, or kill it that long after its training has begun."""
    with subprocess.Popen(
        [sys.executable, "-m", "platform.sweep", *arguments],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        output = ""
        for line in process.stdout:
            output += line
            if seconds is not None and line.startswith("Training "):
                threading.Timer(seconds, process.send_signal, [signal.SIGKILL]).start()
        return process.wait(), output


def test_a_sweep_killed_again_and_again_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(CONFIG.replace(", 1e30]", "]").replace("epochs: 3", f"epochs: {EPOCHS}"))
    config = read_config(tmp_path / "tiny.yaml", []).config
    data = load_dataset(["photos"], train_images=40, validation_images=20, say=lambda line: None)
    colours = colours_of(data)
    expected = {
        (planned.arm, planned.number, report.epoch): report.loss
        for planned in plan_trials(config)
        for report in train(compose(config.arms, planned.arm, colours), planned.hyperparameters, data)
    }
    chance = random.Random(0)
    kills = epochs = lost = 0
    began = time.monotonic()
    sweeps = max(1, TIMES // 5)
    for sweep in range(sweeps):
        folder = tmp_path / str(sweep)
        folder.mkdir()
        (folder / "tiny.yaml").write_text((tmp_path / "tiny.yaml").read_text())
        # The first kill comes before any machine has trained all of it.
        arguments, longest = command(folder), 1.0
        while True:
            status, output = run_for(arguments, chance.uniform(0.05, longest))
            if status != -signal.SIGKILL:
                break
            kills += 1
            # Ever later, as a slow machine needs more than 5 s until its first epoch.
            arguments, longest = ["--resume", "tiny", *command(folder)[1:3]], max(5.0, 1.2 * longest)
        assert status == 0, output
        engine = open_database(folder / "d.sqlite")
        check_integrity(engine)
        with read_session(engine) as session:
            assert session.scalars(select(Experiment.status)).one() == "finished"
            trials = session.execute(
                select(Arm.name, Trial).join(Arm, Arm.id == Trial.arm_id).where(~Arm.baseline)
            ).all()
            assert sorted(
                (arm, trial.number, trial.hyperparameters["learning_rate"]) for arm, trial in trials
            ) == sorted(
                (planned.arm, planned.number, planned.hyperparameters.learning_rate) for planned in plan_trials(config)
            ), "trials were lost or doubled"
            assert {trial.status for _, trial in trials} == {"finished"}
            measured = {
                (arm, trial.number, epoch): loss
                for arm, trial in trials
                for epoch, loss in session.execute(select(Report.epoch, Report.loss).where(Report.trial_id == trial.id))
            }
        engine.dispose()
        lost += len(expected.keys() - measured.keys())
        assert measured == pytest.approx(expected, rel=1e-6)
        epochs += len(measured)
    assert kills >= sweeps
    count(
        "`kill -9` of a sweep's driver, at random moments of its training",
        f"{kills} times in {sweeps} sweeps ({time.monotonic() - began:.0f} s)",
        f"{lost} of {epochs} epochs; the same {sweeps * TRIALS} trials, with the losses of an undisturbed sweep",
        "tests/running/faults_sweep.py -k killed",
    )


SUBMIT = """
import socket, subprocess, sys, time
import ray
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
ray.init("local", num_cpus=2, include_dashboard=True, dashboard_port=port)
command = [sys.argv[1], "job", "submit", "--address", f"http://127.0.0.1:{port}", "--working-dir", ".", "--"]
for _ in range(20):
    job = subprocess.run([*command, sys.executable, "-m", *sys.argv[2:]], capture_output=True, text=True)
    if "No available agent to submit job" not in job.stderr:
        break
    time.sleep(1)  # the dashboard answers a little before the agent that starts jobs
print(job.stdout, job.stderr)
ray.shutdown()
sys.exit(job.returncode)
"""


def test_a_sweep_as_a_submitted_job(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(CONFIG.replace(", 1e30]", "]"))
    ray = str(Path(sysconfig.get_path("scripts")) / "ray")
    done = subprocess.run(
        [sys.executable, "-c", SUBMIT, ray, "platform.sweep", *command(tmp_path)],
        cwd=CHECKOUT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    engine = open_database(tmp_path / "d.sqlite")
    with read_session(engine) as session:
        assert session.scalars(select(Experiment.status)).one() == "finished"
        of_arms = select(Trial.status).join(Arm, Arm.id == Trial.arm_id).where(~Arm.baseline)
        assert session.scalars(of_arms).all() == ["finished"] * TRIALS
    engine.dispose()
