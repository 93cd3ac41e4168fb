"""What the database costs as trials grow."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from benchmarks.harness import alternate, figure, spread, table
from db import recording
from db.results import arm_results, experiment_progress, list_experiments
from db.schema import SCORE_NAMES
from db.store import open_database, read_session, write_session

TEXT = """\
## The database

An experiment of five arms in SQLite on this machine's disk. *Recording* writes, as a sweep does, each in a transaction
of its own: a trial's start, its three epochs with all scores, and its end with ten sample pictures of 2 kB. The queries
are those of `db/results.py`, each in a session of its own.
"""

ARMS = 5
EPOCHS = 3
SAMPLES = 10


def section(tiny: bool) -> list[str]:
    rows = []
    for trials in (2, 5) if tiny else (10, 100, 1_000):
        with tempfile.TemporaryDirectory() as folder:
            engine = open_database(str(Path(folder) / "benchmark.sqlite"))
            experiment_id, arms, images = _begin(engine)
            started = time.perf_counter()
            for number in range(trials):
                _record_trial(engine, experiment_id, arms[number % ARMS], images, number)
            seconds = time.perf_counter() - started
            queries: dict[str, Callable[[Session], object]] = {
                "list_experiments": list_experiments,
                "experiment_progress": lambda session: experiment_progress(session, "benchmark"),
                "arm_results": lambda session: arm_results(session, "benchmark"),
            }

            def asked(query: Callable[[Session], object], engine: Engine = engine) -> Callable[[], None]:
                def ask() -> None:
                    with read_session(engine) as session:
                        query(session)

                return ask

            times = alternate({name: asked(query) for name, query in queries.items()}, 3 if tiny else 15)
            engine.dispose()
        milliseconds = [spread([1e3 * value for value in values]) for values in times.values()]
        rows.append([f"{trials:,}", figure(seconds), figure(1e3 * seconds / trials), *milliseconds])
    return [TEXT, *table(["trials", "recording, s", "ms a trial", *(f"`{name}`, ms" for name in queries)], rows)]


def _begin(engine: Engine) -> tuple[int, list[int], list[int]]:
    with write_session(engine) as session:
        dataset_id = recording.record_dataset(
            session,
            name="random",
            fingerprint="benchmark",
            note="Random bytes.",
            class_names=["none"],
            train_count=1,
            validation_count=SAMPLES,
        )
        experiment_id = recording.record_experiment(
            session,
            name="benchmark",
            dataset_id=dataset_id,
            config={},
            config_yaml="",
            profile=None,
            decoding="mode",
            code_version="benchmark",
            environment={},
            storage_path="",
        )
        arms = [
            recording.record_arm(
                session,
                experiment_id=experiment_id,
                name=f"arm {number}",
                position=number,
                kind="classification",
                rebalancing=number / ARMS,
            )
            for number in range(ARMS)
        ]
        images = [
            recording.record_image(
                session,
                dataset_id=dataset_id,
                split="validation",
                index_in_split=index,
                class_index=0,
                truth_png=bytes(2000),
                width=32,
                height=32,
            )
            for index in range(SAMPLES)
        ]
    return experiment_id, arms, images


def _record_trial(engine: Engine, experiment_id: int, arm_id: int, images: list[int], number: int) -> None:
    def record(session: Session, status: str) -> int:
        return recording.record_trial(
            session,
            experiment_id=experiment_id,
            arm_id=arm_id,
            ray_id=f"{number:08d}",
            config={"learning_rate": 1e-3, "seed": number},
            seed=number,
            status="running" if status == "running" else "finished",
        )

    with write_session(engine) as session:
        record(session, "running")
    for epoch in range(1, EPOCHS + 1):
        scores = {"loss": 3 + (number * 7919 % 1000) / 1000 - epoch / 10, **dict.fromkeys(SCORE_NAMES, 0.5)}
        with write_session(engine) as session:
            recording.record_report(
                session,
                record(session, "running"),
                epoch=epoch,
                images_seen=epoch,
                seconds=float(epoch),
                train=scores,
                validation=scores,
                train_class_bin_accuracy=[0.2] * 10,
                validation_class_bin_accuracy=[0.2] * 10,
            )
    with write_session(engine) as session:
        trial_id = record(session, "finished")
        for image_id in images:
            recording.record_sample(
                session, trial_id=trial_id, image_id=image_id, epoch=EPOCHS, decoding="mode", png=bytes(2000)
            )
