"""What a sweep costs beyond its trainings."""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from sqlalchemy import select

from benchmarks.harness import goal, spread, table
from db.schema import Arm, Trial
from db.store import open_database, read_session
from platform.arms.compose import compose
from platform.color.counts import count_colours
from platform.data.datasets import load_dataset
from platform.model.training import train
from platform.running.config import SweepConfig, read_config
from platform.running.plan import plan_trials
from platform.running.workers import CHECKOUT

CONFIG = CHECKOUT / "tune_configs" / "quick.yaml"
EXPERIMENT = "benchmark"

TEXT = """\
## The sweep

What Ray and recording cost per trial of `python -m platform.sweep tune_configs/quick.yaml` with the settings below, on
the photographs that come with scikit-image. The same trials, one at a time and on one thread: three times by the sweep,
recorded and with sample pictures, and bare, `platform.model.training.train` alone one after another in this process,
before and after each sweep. The sweep's time runs from the end of its first trial to the end of its last, so that Ray's
start is left out, and the first trial is left out of the other times too. *Trainings in the sweep* is the part of it
that its trials spent in `train`, by their own clock: Ray runs them in another process, with lower priority (nice 15)
than whatever else the machine does.
"""


@dataclass(frozen=True)
class Outcome:
    first_ended_to_last_ended_s: float
    trained_s: float  # in trials but the first that ended


def section(tiny: bool) -> list[str]:
    trials, images, width = (3, 64, 8) if tiny else (9, 1000, 24)
    settings = {
        "arms": {"classification": {"kind": "classification"}},
        "search.trials_per_arm": trials,
        "epochs": 1,
        "train_images": images,
        "training.width": width,
        "training.depth": 3,
        "resources": {"max_concurrent": 1},
    }
    config = read_config(CONFIG, _as_settings(settings)).config
    count = trials - 1
    bare = [_bare_seconds(config)]
    outcomes = []
    for _ in range(1 if tiny else 3):
        outcomes.append(_swept(settings))
        bare.append(_bare_seconds(config))
    swept = [outcome.first_ended_to_last_ended_s for outcome in outcomes]
    trained = [outcome.trained_s for outcome in outcomes]
    rows = [
        [name, spread(seconds), spread([each / count for each in seconds])]
        for name, seconds in (("the sweep", swept), ("trainings in the sweep", trained), ("bare", bare))
    ]
    means = [(before + after) / 2 for before, after in pairwise(bare)]
    more = [sweep - mean for sweep, mean in zip(swept, means, strict=True)]
    beyond = [(each - 0.05 * mean) / count for each, mean in zip(more, means, strict=True)]
    return [
        TEXT,
        f"`{' '.join(_as_settings(settings))}`",
        "",
        *table([f"the last {count} of {trials} trials", "s", "s per trial"], rows),
        "",
        goal(
            "seconds per trial that the sweep takes beyond 105 % of the bare trainings",
            [statistics.median(beyond)],
            at_most=0.1,
        ),
        "",
        f"The sweep took {spread(more)} s longer than the mean of the bare runs before and after it, or "
        f"{spread([each / count for each in more])} s per trial; beyond its own trainings "
        f"{spread([(sweep - own) / count for sweep, own in zip(swept, trained, strict=True)])} s per trial.",
    ]


def _bare_seconds(config: SweepConfig) -> float:
    """Seconds of all trainings but the first."""
    data = load_dataset(
        config.dataset,
        train_images=config.train_images,
        tuning_images=config.tuning_images,
        validation_images=config.validation_images,
        seed=config.seed,
        say=lambda _: None,
    )
    colours = count_colours(data.train_images, data.train_labels, len(data.class_names))
    seconds = []
    for planned in plan_trials(config):
        started = time.perf_counter()
        for _ in train(compose(config.arms, planned.arm, colours), planned.hyperparameters, data):
            pass
        seconds.append(time.perf_counter() - started)
    return sum(seconds[1:])


def _as_settings(settings: dict[str, object]) -> list[str]:
    return [f"{key}={json.dumps(value)}" for key, value in settings.items()]


def _swept(settings: dict[str, object]) -> Outcome:
    """Run the sweep in a process of its own, its database and checkpoints in a folder that is removed."""
    with tempfile.TemporaryDirectory() as folder:
        database = str(Path(folder) / "benchmark.sqlite")
        command = [sys.executable, "-m", "platform.sweep", str(CONFIG), "--database", database, "--storage", folder]
        for setting in _as_settings({**settings, "experiment": EXPERIMENT}):
            command += ["--set", setting]
        with subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            said = [(time.perf_counter(), line) for line in process.stdout]
        if process.returncode:
            raise RuntimeError(f"The sweep failed with status {process.returncode}: {[line for _, line in said]}")
        ends = [moment for moment, line in said if line.startswith("[")]  # as in [1/9]
        engine = open_database(database)
        with read_session(engine) as session:
            trials = select(Trial.seconds).join(Arm, Arm.id == Trial.arm_id).where(Arm.baseline.is_(False))
            seconds = session.scalars(trials.order_by(Trial.number)).all()
        engine.dispose()
        return Outcome(first_ended_to_last_ended_s=ends[-1] - ends[0], trained_s=sum(seconds[1:]))
