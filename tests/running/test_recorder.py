"""What the recorder writes of a sweep on a real Ray, with trials that follow a script instead of training."""

import os
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from sqlalchemy import Engine, event, select

from db.schema import Trial
from db.store import open_database, read_session
from db.sweeps.drivers import Drive
from db.sweeps.trials import best_trials, replicate_scores
from platform.data.datasets import Dataset, load_dataset
from platform.model.storage import CHECKPOINT_FILE, has_file
from platform.running import driver
from platform.running import recorder as recorder_module
from platform.running.cluster import ray_started
from platform.running.config import EPOCHS_OF_MINUTES
from platform.running.driver import Sweep
from platform.running.workers import set_ray_variables
from tests.running.scripted_sweep import (
    BEST_AND_REST,
    EARLY,
    EPOCHS,
    alike,
    begin,
    experiment_status,
    rates,
    reported_epochs,
    script,
    sweep,
    sweep_config,
    trials_by_arm,
)

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("default")]  # Ray's own


@pytest.fixture(scope="module")
def ray_here() -> Iterator[None]:
    set_ray_variables(os.environ)
    with ray_started("local", print):
        yield


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load_dataset(["photos"], train_images=20, validation_images=10, say=lambda line: None)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = open_database(tmp_path / "sweep.sqlite", busy_timeout_s=0.2)
    yield engine
    engine.dispose()


def test_a_budget_reads_the_data_once(
    ray_here: None, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = sweep_config(rates(0.1), minutes=1, validation_images=10, epochs=EPOCHS_OF_MINUTES)
    begun = Sweep(Drive(engine, "scripted"), Console(quiet=True), config, "", str(tmp_path), None, config.dataset)
    begun.load()
    whole = begun.data
    monkeypatch.setattr(driver, "load_data", None)  # it cannot be called
    monkeypatch.setattr(driver, "fit_to_seconds", lambda config, *_: config.model_copy(update={"train_images": 70}))
    begun.fit_to_seconds(30)
    assert len(begun.data.train_images) == 70 < len(whole.train_images)


def test_early_stopping_compares_within_an_arm_only(
    ray_here: None, data: Dataset, engine: Engine, tmp_path: Path
) -> None:
    follow = script()

    def trainable(config: dict[str, Any]) -> None:
        # Every loss of one arm is far above every loss of the other; within an arm the first trial is the best.
        scale = 1000 if config["trial"].arm == "rebalanced" else 1
        follow(config, lambda epoch: scale * (config["trial"].hyperparameters.learning_rate + 1 / epoch))

    recorder = sweep(sweep_config(rates(0.1, 0.2, 0.3, 0.4), **EARLY), trainable, data, engine, tmp_path)
    assert trials_by_arm(engine) == alike(BEST_AND_REST)
    assert experiment_status(engine) == "finished"
    assert recorder.problems == []


def test_a_resumed_sweep_stops_what_an_undisturbed_one_would(
    ray_here: None, data: Dataset, engine: Engine, tmp_path: Path
) -> None:
    follow, marker, driver = script(), tmp_path / "interrupted once", os.getpid()

    def trainable(config: dict[str, Any]) -> None:
        rate = config["trial"].hyperparameters.learning_rate

        def loss(epoch: int) -> float:
            if rate == 0.3 and epoch == 1 and not marker.exists():
                marker.touch()
                os.kill(driver, signal.SIGUSR1)  # Ray Tune's second name for Ctrl-C
                time.sleep(0.5)
            return float(rate + 1 / epoch)

        follow(config, loss)

    config = sweep_config(rates(0.1, 0.2, 0.3, 0.4), **EARLY)
    sweep(config, trainable, data, engine, tmp_path)
    assert experiment_status(engine) == "interrupted"
    assert ("pending", 0) in trials_by_arm(engine)["regression"]
    sweep(config, trainable, data, engine, tmp_path)
    assert trials_by_arm(engine) == alike(BEST_AND_REST)
    assert experiment_status(engine) == "finished"


def test_optuna_studies_each_arm_by_itself_and_goes_on(
    ray_here: None, data: Dataset, engine: Engine, tmp_path: Path
) -> None:
    follow, marker, driver = script(), tmp_path / "interrupted once", os.getpid()

    def trainable(config: dict[str, Any]) -> None:
        planned = config["trial"]
        if planned.number == 2:
            from ray import tune

            tune.report({"failure": "diverged: as scripted"})
            return
        if planned.number == 3 and not marker.exists():
            marker.touch()
            os.kill(driver, signal.SIGUSR1)
            time.sleep(0.5)
        follow(config, lambda epoch: float(planned.hyperparameters.learning_rate))

    search = {"method": "optuna", "trials_per_arm": 4, "space": {"learning_rate": {"loguniform": [1e-3, 1e-1]}}}
    config = sweep_config(search)
    for expected in ("interrupted", "finished"):
        sweep(config, trainable, data, engine, tmp_path)
        assert experiment_status(engine) == expected
    each = [("finished", EPOCHS), ("failed", 0), ("finished", EPOCHS), ("finished", EPOCHS)]
    assert trials_by_arm(engine) == alike(each)
    with read_session(engine) as session:
        tried = [
            trial.hyperparameters["learning_rate"] for trial in session.scalars(select(Trial)) if trial.hyperparameters
        ]
    assert all(1e-3 <= rate <= 1e-1 for rate in tried)
    assert len(set(tried)) == 4  # an arm's first draws are the other's, as both have the same seed


def test_the_best_of_each_arm_is_trained_again_with_further_seeds(
    ray_here: None, data: Dataset, engine: Engine, tmp_path: Path
) -> None:
    follow, marker, driver = script(), tmp_path / "interrupted once", os.getpid()

    def trainable(config: dict[str, Any]) -> None:
        planned = config["trial"]

        def loss(epoch: int) -> float:
            if planned.number == 5 and epoch == 2 and not marker.exists():
                marker.touch()
                os.kill(driver, signal.SIGUSR1)
                time.sleep(0.5)
            # The second replicate is better than the first, and both than anything in the search.
            return float(
                1 / planned.number if planned.number > 4 else planned.hyperparameters.learning_rate + 1 / epoch
            )

        follow(config, loss)

    config = sweep_config(rates(0.3, 0.1, 0.2, 0.4), **EARLY, replicates=2)
    sweep(config, trainable, data, engine, tmp_path)
    assert experiment_status(engine) == "interrupted"
    sweep(config, trainable, data, engine, tmp_path)
    assert experiment_status(engine) == "finished"
    searched = [("stopped_early", 1), ("finished", EPOCHS), *[("stopped_early", 1)] * 2]
    assert trials_by_arm(engine) == alike([*searched, *[("finished", EPOCHS)] * 2])
    epochs = reported_epochs(engine)
    assert len(epochs) == len(set(epochs))
    with read_session(engine) as session:
        best = best_trials(session, 1)
        replicates = session.scalars(select(Trial).where(Trial.replicate)).all()
        assert {trial.number for trial in replicates} == {5, 6}
        assert {trial.hyperparameters["learning_rate"] for trial in replicates} == {0.1}
        assert len({(trial.number, trial.seed) for trial in replicates}) == 2  # the same seeds in every arm
        assert [trial.number for trial in best] == [5] * 3
        scores = replicate_scores(session, 1)
    assert scores.keys() == {"regression", "rebalanced", "tilted"}
    assert all(of_seeds.keys() == {5, 6} for of_seeds in scores.values())


def test_failures_and_retries_are_recorded(ray_here: None, data: Dataset, engine: Engine, tmp_path: Path) -> None:
    follow, marker = script(), tmp_path / "failed once"

    def trainable(config: dict[str, Any]) -> None:
        def loss(epoch: int) -> float:
            arm, number = config["trial"].arm, config["trial"].number
            if epoch == 3 and arm == "rebalanced" and number == 1:
                raise ValueError("always\nand a second line")
            if epoch == 3 and arm == "rebalanced" and number == 2 and not marker.exists():
                marker.touch()
                raise RuntimeError("once")
            return 1 / epoch

        follow(config, loss)

    config = sweep_config(rates(0.1, 0.2), failures={"max_retries": 1})
    recorder = sweep(config, trainable, data, engine, tmp_path)
    both = [("finished", EPOCHS), ("finished", EPOCHS)]
    one = [("failed", 2), ("finished", EPOCHS)]
    assert trials_by_arm(engine) == {"regression": both, "rebalanced": one, "tilted": one}
    with read_session(engine) as session:
        reasons = session.scalars(select(Trial.failure_reason).where(Trial.failure_reason.is_not(None))).all()
    assert reasons == ["ValueError: always"] * 2
    epochs = reported_epochs(engine)
    assert len(set(epochs)) == len(epochs) == 4 * EPOCHS + 2 * 2
    assert set(recorder.ended.values()) == {"finished", "failed"}


def test_the_checkpoint_that_the_database_names_is_always_there_and_no_other(
    ray_here: None, data: Dataset, engine: Engine, tmp_path: Path
) -> None:
    follow, over = script(), threading.Event()
    seen: set[str | None] = set()
    missing: list[str | None] = []

    def watch() -> None:
        named = select(Trial.checkpoint).where(Trial.checkpoint.is_not(None))
        while not over.wait(0.01):
            with read_session(engine) as session:
                before = set(session.scalars(named))
            absent = {path for path in before if not has_file(str(path), CHECKPOINT_FILE)}
            with read_session(engine) as session:  # unless a newer one was named meanwhile
                missing.extend(absent & set(session.scalars(named)))
            seen.update(before)

    def trainable(config: dict[str, Any]) -> None:
        import time

        def loss(epoch: int) -> float:
            time.sleep(0.2)
            return 1 / epoch

        follow(config, loss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        sweep(sweep_config(rates(0.1)), trainable, data, engine, tmp_path)
    finally:
        over.set()
        watcher.join()
    assert missing == []
    assert len(seen) > 2  # it was watched while they changed
    with read_session(engine) as session:
        named = set(session.scalars(select(Trial.checkpoint).where(Trial.checkpoint.is_not(None))))
    assert {str(path.parent) for path in tmp_path.rglob(CHECKPOINT_FILE)} == named
    assert len(named) == 2


def test_a_locked_database_delays_records_and_loses_none(
    ray_here: None, data: Dataset, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder_module, "RETRY_AFTER_S", 0.5)  # so that it finds the lock several times
    follow, started, released = script(), tmp_path / "started", tmp_path / "released"
    seen: list[int] = []

    def trainable(config: dict[str, Any]) -> None:
        import time

        def loss(epoch: int) -> float:
            started.touch()
            while epoch == EPOCHS and not released.exists():  # the last epoch waits until the lock is gone
                time.sleep(0.05)
            return 1 / epoch

        follow(config, loss)

    def hold_the_lock() -> None:
        while not started.exists():
            time.sleep(0.01)
        connection = sqlite3.connect(tmp_path / "sweep.sqlite", isolation_level=None, timeout=30)
        connection.execute("BEGIN IMMEDIATE")
        time.sleep(2)
        seen.extend(connection.execute("SELECT count(*) FROM reports WHERE epoch > 0").fetchone())
        connection.rollback()
        connection.close()
        released.touch()

    holder = threading.Thread(target=hold_the_lock)
    holder.start()
    recorder = sweep(sweep_config(rates(0.1)), trainable, data, engine, tmp_path)
    holder.join()
    assert len(seen) == 1
    assert seen[0] < EPOCHS - 1  # what was reported meanwhile was not yet recorded
    assert recorder.problems == []
    assert trials_by_arm(engine) == alike([("finished", EPOCHS)])
    epochs = reported_epochs(engine)
    assert len(epochs) == len(set(epochs)) == 3 * EPOCHS
    assert experiment_status(engine) == "finished"


def test_a_full_database_is_said_and_its_records_wait(
    ray_here: None, data: Dataset, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite's own limit of pages fills it here; a full disk, and a sweep that is resumed: faults_sweep_disk.py."""
    monkeypatch.setattr(recorder_module, "RETRY_AFTER_S", 0.1)
    monkeypatch.setattr(recorder_module, "LAST_RETRIES_S", 0.5)
    follow = script()
    config = sweep_config(rates(0.1, 0.2, 0.3))
    begin(config, data, engine, tmp_path)
    with closing(sqlite3.connect(tmp_path / "sweep.sqlite")) as connection:
        connection.execute("VACUUM")  # there are no free pages left
        [(pages,)] = connection.execute("PRAGMA page_count")

    @event.listens_for(engine, "checkout")
    def limit(connection: sqlite3.Connection, *_: object) -> None:
        connection.execute(f"PRAGMA max_page_count = {pages}")

    recorder = sweep(config, lambda config: follow(config, lambda epoch: 1 / epoch), data, engine, tmp_path)
    assert recorder.problems == []
    assert f"The disk of the database {tmp_path / 'sweep.sqlite'} is full" in str(recorder.unwritten)
    assert experiment_status(engine) == "running"  # so that the command goes on with it
    pages *= 100
    assert recorder.close() == "finished"
    assert recorder.unwritten is None
    assert trials_by_arm(engine) == alike([("finished", EPOCHS)] * 3)
    assert experiment_status(engine) == "finished"
