"""What a sweep stands on and its record names: its experiment, its data, the code's version and the machine."""

import subprocess
from collections.abc import Sequence
from typing import Any

import torch
from sqlalchemy import Engine, select

import platform
from db.errors import UserError
from db.schema import Experiment
from db.store import read_session
from platform.data.datasets import Dataset, load_dataset
from platform.running.config import SweepConfig
from platform.running.progress import Say
from platform.running.workers import CHECKOUT

# Beside other work two threads were seen to take 40 times as long as one, waiting for each other: only much is shared.
THREADS_FROM_IMAGES = 100_000


class SweepError(UserError):
    """The sweep cannot start or go on."""


def find_experiment(engine: Engine, name: str) -> Experiment | None:
    with read_session(engine) as session:
        return session.scalar(select(Experiment).where(Experiment.name == name))


def load_data(config: SweepConfig, names: Sequence[str], say: Say) -> Dataset:
    data = load_dataset(
        names,
        train_images=config.train_images,
        tuning_images=config.tuning_images,
        validation_images=config.validation_images,
        seed=config.seed,
        say=say,
    )
    if len(data.train_images) < THREADS_FROM_IMAGES:
        torch.set_num_threads(1)
    return data


def load_recorded_data(experiment: Experiment, say: Say, names: Sequence[str] | None = None) -> Dataset:
    """The data that an experiment ran on, by its recorded name or the first of these that can be had. Raises SweepError
    where that is other data."""
    data = load_data(SweepConfig.model_validate(experiment.config), names or [experiment.dataset.name], say)
    if data.fingerprint != experiment.dataset.fingerprint:
        raise SweepError(f"The data found as {data.name!r} are not those of the experiment: name its HUEJURY_DATA.")
    return data


def find_code_version(say: Say) -> str:
    # The checkout may belong to somebody else, whose repositories git does not trust by itself.
    command = ["git", "-c", f"safe.directory={CHECKOUT}", "-C", str(CHECKOUT), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except OSError as error:
        reason = f"git: {error.strerror}"
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.strip().splitlines() or ["git failed"])[0]
    say(f'The version of the code is recorded as "unknown" ({reason}).')
    return "unknown"


def describe_machine() -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": platform.platform(),
        "processor": torch.cpu.get_capabilities().get("cpu_name") or platform.processor(),
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
    }
