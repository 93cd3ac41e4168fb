"""What the database costs as trials grow."""

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from benchmarks.dashboard_database import ARMS, Begun, begin, record_report, record_samples, record_trial
from benchmarks.harness import alternate, figure, spread, table
from db.store import open_database, read_session, write_session
from db.sweeps.trials import best_trials, find_experiment, list_experiments, load_arms

TEXT = """\
## The database

An experiment of five arms in SQLite on this machine's disk. *Recording* writes, as a sweep does, each in a transaction
of its own: a trial's start, its three epochs with all scores, and its end with ten sample pictures of {picture_kb} kB.
The queries are those of `db/sweeps/trials.py`, each in a session of its own.
"""

NAME = "benchmark"
EPOCHS = 3
SAMPLES = 10


def section(tiny: bool) -> list[str]:
    rows = []
    for trials in (5, 10) if tiny else (10, 100, 1_000):
        with tempfile.TemporaryDirectory() as folder:
            engine = open_database(str(Path(folder) / "benchmark.sqlite"))
            with write_session(engine) as session:
                begun = begin(session, NAME, ARMS, images=SAMPLES, trials_per_arm=trials // len(ARMS), epochs=EPOCHS)
            started = time.perf_counter()
            for number in range(1, trials // len(ARMS) + 1):
                for arm in ARMS:
                    _record(engine, begun, arm, number)
            seconds = time.perf_counter() - started
            with read_session(engine) as session:
                assert {trial.arm.name for trial in best_trials(session, begun.experiment_id)} == set(ARMS)
            times = _milliseconds(engine, begun.experiment_id, tiny)
            engine.dispose()
        rows.append([f"{trials:,}", figure(seconds), figure(1e3 * seconds / trials), *times.values()])
    bytes_each = [len(png) for arm in ARMS for png in begun.pictures[arm]]
    return [
        TEXT.format(picture_kb=figure(sum(bytes_each) / len(bytes_each) / 1e3, 2)),
        *table(["trials", "recording, s", "ms per trial", *(f"`{name}`, ms" for name in times)], rows),
    ]


def _record(engine: Engine, begun: Begun, arm: str, number: int) -> None:
    with write_session(engine) as session:
        trial_id = record_trial(session, begun, arm, number, "running")
    for epoch in range(1, EPOCHS + 1):
        with write_session(engine) as session:
            record_report(session, begun, trial_id, arm, number, epoch)
    with write_session(engine) as session:
        record_trial(session, begun, arm, number, "finished")
        record_samples(session, begun, trial_id, arm, EPOCHS)


def _milliseconds(engine: Engine, experiment_id: int, tiny: bool) -> dict[str, str]:
    """How long each query of a sweep's tables takes, in a session of its own."""
    queries: dict[str, Callable[[Session], object]] = {
        "list_experiments": list_experiments,
        "find_experiment": partial(find_experiment, name=NAME),
        "load_arms": partial(load_arms, experiment_id=experiment_id),
    }

    def ask(query: Callable[[Session], object]) -> None:
        with read_session(engine) as session:
            query(session)

    times = alternate({name: partial(ask, query) for name, query in queries.items()}, 1 if tiny else 15)
    return {name: spread([1e3 * value for value in values]) for name, values in times.items()}
