"""From a sweep's command to what it starts with: the config, checked against the database, the data and the arms."""

import argparse
import importlib.util
import json
import subprocess
from collections.abc import Sequence
from typing import Any

import torch
from sqlalchemy import Engine, select

import platform
from db.errors import UserError
from db.schema import Arm, Dataset, Experiment
from db.store import read_session, shown_name
from platform import datasets
from platform.arm_options import BASELINES, ArmOptions, trained_arms
from platform.colour_counts import ColourCounts, count_colours
from platform.compose import compose
from platform.config import ConfigFile, SweepConfig, changes_between
from platform.progress import Say
from platform.recorder import Start
from platform.workers import CHECKOUT

# Beside other work two threads were seen to take 40 times as long as one, waiting for each other: only much is shared.
THREADS_FROM_IMAGES = 100_000


class SweepError(UserError):
    """The sweep cannot start or go on."""


def settings_of(options: argparse.Namespace) -> list[str]:
    dataset = [f"dataset={json.dumps(options.dataset)}"] if options.dataset else []
    return [*options.set, *([f"minutes={options.minutes}"] if options.minutes is not None else []), *dataset]


def config_to_run(
    chosen: ConfigFile | None, known: Experiment | None, options: argparse.Namespace, engine: Engine
) -> ConfigFile:
    """The config of the command or, to resume, of the database. Raises SweepError where they disagree."""
    if chosen is None:
        if known is None:
            raise SweepError(f"There is no experiment {options.resume!r} in {shown_name(engine.url)} to resume.")
        chosen = ConfigFile(SweepConfig.model_validate(known.config), known.config_yaml)
    elif known is not None and (changed := changes_between(known.config, chosen.config)):
        raise SweepError(
            f"Experiment {known.name!r} is in the database with another config: {'; '.join(changed)}. Give this one "
            f"another name (--set experiment=NAME), or go on with the old one (--resume '{known.name}')."
        )
    if chosen.config.search.method == "optuna" and importlib.util.find_spec("optuna") is None:
        raise SweepError("Optuna is not installed: pip install -c constraints.txt optuna, or change search.method.")
    return chosen


def find_experiment(engine: Engine, name: str) -> Experiment | None:
    with read_session(engine) as session:
        return session.scalar(select(Experiment).where(Experiment.name == name))


def prepare(
    chosen: ConfigFile, known: Experiment | None, options: argparse.Namespace, storage: str, engine: Engine, say: Say
) -> Start:
    """Load the data, and compose the arms: from what the database holds of them, where it does."""
    config = chosen.config
    names = config.dataset
    with read_session(engine) as session:
        if known is not None:
            names = list(session.scalars(select(Dataset.name).where(Dataset.id == known.dataset_id)))
        found = select(Arm.name, Arm.centers).where(Arm.experiment_id == (known.id if known else None))
        centers = dict(session.execute(found).all())
    data = load_data(config, options.dataset or names, say)
    with read_session(engine) as session:
        counts = session.scalar(select(Dataset.colour_counts).where(Dataset.fingerprint == data.fingerprint))
    if counts:
        colours = ColourCounts.from_bytes(counts)
    else:
        colours = count_colours(data.train_images, data.train_labels, len(data.class_names))
    arms: dict[str, ArmOptions] = {**config.arms, **BASELINES}
    tasks = {
        name: compose(arms, name, colours, seed=config.seed, centers=centers.get(name))
        for name in (*trained_arms(arms), *BASELINES)
    }
    return Start(
        config=config,
        config_yaml=chosen.text,
        code_version=find_code_version(say),
        environment=describe_machine(),
        storage_path=storage,
        data=data,
        colours=colours,
        tasks=tasks,
    )


def load_data(config: SweepConfig, names: list[str], say: Say) -> datasets.Dataset:
    data = datasets.load_dataset(
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


def load_recorded_data(
    experiment: Experiment, stored: Dataset, say: Say, names: Sequence[str] | None = None
) -> datasets.Dataset:
    """The data that an experiment ran on, by its recorded name or the first of these that can be had. Raises SweepError
    where that is other data."""
    data = load_data(SweepConfig.model_validate(experiment.config), list(names or [stored.name]), say)
    if data.fingerprint != stored.fingerprint:
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
