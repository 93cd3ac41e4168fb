"""The recorder and the within-arm schedulers, on a real Ray with trials that follow a script instead of training."""

import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import ray
from ray import tune
from rich.console import Console
from sqlalchemy import Engine, event, select

from db.schema import Arm, Experiment, Measurement, Trial
from db.store import open_database, read_session, write_session
from platform import recorder
from platform.config import SweepConfig
from platform.datasets import Dataset, load_dataset
from platform.progress import Progress
from platform.recorder import Recorder, Recording, Start, record_start
from platform.search import plan_trials, trials_per_arm
from platform.sweep import AshaWithinArms, OptunaWithinArms, start_ray
from platform.training import baselines, colour_statistics
from tests.test_search import TRAINING

pytestmark = pytest.mark.filterwarnings("default")  # Ray's own

EPOCHS = 9
Trainable = Callable[[dict[str, Any]], None]


@pytest.fixture(scope="module")
def ray_here() -> Iterator[None]:
    start_ray("local")
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load_dataset(["photos"], train_images=20, validation_images=10, say=lambda line: None)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = open_database(tmp_path / "sweep.sqlite", busy_timeout_s=0.2)
    yield engine
    engine.dispose()


def sweep_config(search: dict[str, Any]) -> SweepConfig:
    return SweepConfig.model_validate(
        {
            "experiment": "scripted",
            "dataset": "photos",
            "epochs": EPOCHS,
            "arms": {
                "regression": {"kind": "regression"},
                "rebalanced": {"kind": "classification", "rebalancing": 0.25},
            },
            "training": {**TRAINING, "optimizer": "sgd", "filter_size": 3},
            "search": search,
            "samples": {"images": 0},
        }
    )


def script() -> Callable[[dict[str, Any], Callable[[int], float]], None]:
    """What a scripted trial does: it reports `loss(epoch)` after each epoch, going on from its checkpoint.

    A closure, so that it travels to the workers by value: they do not have this file.
    """

    def follow(config: dict[str, Any], loss: Callable[[int], float]) -> None:
        import json
        import tempfile
        from pathlib import Path

        from ray import tune

        reports = []
        if (checkpoint := tune.get_checkpoint()) is not None:
            with checkpoint.as_directory() as folder:
                reports = json.loads((Path(folder) / "reports.json").read_text())
        for epoch in range(len(reports) + 1, config["trial"]["run"]["epochs"] + 1):
            value = loss(epoch)
            report = {
                "epoch": epoch,
                "validation_loss": value,
                "images_seen": 20 * epoch,
                "seconds": 0.1 * epoch,
                "device": "script",
                "train": {"loss": value, "bin_accuracy": 0.5},
                "validation": {"loss": value, "bin_accuracy": 0.25},
                "train_class_bin_accuracy": [0.5, None],
                "validation_class_bin_accuracy": [0.25, None],
            }
            reports.append(report)
            with tempfile.TemporaryDirectory() as folder:
                (Path(folder) / "reports.json").write_text(json.dumps(reports))
                tune.report(report, checkpoint=tune.Checkpoint.from_directory(folder))

    return follow


def sweep(
    config: SweepConfig, trainable: Trainable, data: Dataset, engine: Engine, folder: Path, **options: Any
) -> Recording:
    """Run a sweep of scripted trials, one at a time, with the recorder, and return it closed."""
    statistics = colour_statistics(data.train_images, 5.0, "reachable")
    start = Start(config, "", None, "test", {}, str(folder), data, statistics, baselines(data, statistics), [])
    experiment_id, arms, images = record_start(engine, start)
    trials = len(config.arms) * trials_per_arm(config)
    progress = Progress(Console(quiet=True), trials, config.epochs, [])
    recording = Recorder.recording = Recording(engine, experiment_id, arms, images, progress)
    max_failures = options.pop("max_failures", 0)
    parameters = (
        {} if "search_alg" in options else {"trial": tune.grid_search([t.as_dict() for t in plan_trials(config)])}
    )
    if options.pop("resume", False):
        tune.Tuner.restore(str(folder / config.experiment), trainable).fit()
        recording.close(trials)
        return recording
    tune.Tuner(
        trainable,
        param_space=parameters,
        tune_config=tune.TuneConfig(max_concurrent_trials=1, reuse_actors=True, **options),
        run_config=tune.RunConfig(
            name=config.experiment,
            storage_path=str(folder),
            callbacks=[Recorder()],
            failure_config=tune.FailureConfig(max_failures=max_failures),
            checkpoint_config=tune.CheckpointConfig(num_to_keep=1),
            verbose=0,
        ),
    ).fit()
    recording.close(trials)
    return recording


def trials_by_arm(engine: Engine) -> dict[str, list[tuple[str, int]]]:
    """Status and epochs of each arm's trials in the order of their learning rates, baselines left out."""
    with read_session(engine) as session:
        rows = session.execute(select(Arm.name, Trial).join(Arm, Arm.id == Trial.arm_id).where(Arm.kind != "baseline"))
        found = sorted((name, trial.config["learning_rate"], trial.status, trial.epochs_done) for name, trial in rows)
    return {
        arm: [(status, epochs) for name, _, status, epochs in found if name == arm]
        for arm in dict.fromkeys(n for n, *_ in found)
    }


def experiment_status(engine: Engine) -> str:
    with read_session(engine) as session:
        return session.scalars(select(Experiment.status)).one()


def test_early_stopping_compares_within_an_arm_only(
    ray_here: None, data: Dataset, engine: Engine, tmp_path: Path
) -> None:
    follow = script()

    def trainable(config: dict[str, Any]) -> None:
        # Every loss of one arm is far above every loss of the other; within an arm the first trial is the best.
        scale = 1000 if config["trial"]["arm"] == "rebalanced" else 1
        follow(config, lambda epoch: scale * (config["trial"]["run"]["learning_rate"] + 1 / epoch))

    config = sweep_config({"method": "grid", "space": {"learning_rate": [0.1, 0.2, 0.3, 0.4]}})
    recording = sweep(config, trainable, data, engine, tmp_path, scheduler=AshaWithinArms(EPOCHS, 1, 3))
    best_and_rest = [("finished", EPOCHS), *[("stopped_early", 1)] * 3]
    assert trials_by_arm(engine) == {"regression": best_and_rest, "rebalanced": best_and_rest}
    assert experiment_status(engine) == "finished"
    assert recording.problems == []


def test_a_resumed_sweep_stops_what_an_undisturbed_one_would(
    ray_here: None, data: Dataset, engine: Engine, tmp_path: Path
) -> None:
    follow, marker, driver = script(), tmp_path / "interrupted once", os.getpid()

    def trainable(config: dict[str, Any]) -> None:
        rate = config["trial"]["run"]["learning_rate"]

        def loss(epoch: int) -> float:
            if rate == 0.3 and epoch == 1 and not marker.exists():
                marker.touch()
                os.kill(driver, signal.SIGUSR1)  # Ray Tune's second name for Ctrl-C
                time.sleep(0.5)
            return float(rate + 1 / epoch)

        follow(config, loss)

    config = sweep_config({"method": "grid", "space": {"learning_rate": [0.1, 0.2, 0.3, 0.4]}})
    sweep(config, trainable, data, engine, tmp_path, scheduler=AshaWithinArms(EPOCHS, 1, 3))
    assert experiment_status(engine) == "interrupted"
    assert ("pending", 0) in trials_by_arm(engine)["regression"]
    sweep(config, trainable, data, engine, tmp_path, resume=True)
    best_and_rest = [("finished", EPOCHS), *[("stopped_early", 1)] * 3]
    assert trials_by_arm(engine) == {"regression": best_and_rest, "rebalanced": best_and_rest}
    assert experiment_status(engine) == "finished"


def test_optuna_studies_each_arm_by_itself(ray_here: None, data: Dataset, engine: Engine, tmp_path: Path) -> None:
    follow = script()

    def trainable(config: dict[str, Any]) -> None:
        if config["trial"]["number"] == 2:
            tune.report({"failure": "diverged: as scripted"})
        else:
            follow(config, lambda epoch: float(config["trial"]["run"]["learning_rate"]))

    search = {"method": "optuna", "trials_per_arm": 3, "space": {"learning_rate": {"loguniform": [1e-3, 1e-1]}}}
    config = sweep_config(search)
    sweep(config, trainable, data, engine, tmp_path, search_alg=OptunaWithinArms(config), num_samples=6)
    each = [("failed", 0), ("finished", EPOCHS), ("finished", EPOCHS)]
    found = {arm: sorted(trials) for arm, trials in trials_by_arm(engine).items()}
    assert found == {"regression": each, "rebalanced": each}
    with read_session(engine) as session:
        rates = [trial.config["learning_rate"] for trial in session.scalars(select(Trial)) if trial.config]
    assert all(1e-3 <= rate <= 1e-1 for rate in rates)
    assert len(set(rates)) == 3  # an arm's first draws are the other's, as both studies have the same seed


def test_failures_retries_and_lost_trials_are_recorded(
    ray_here: None, data: Dataset, engine: Engine, tmp_path: Path
) -> None:
    follow, marker = script(), tmp_path / "failed once"

    def trainable(config: dict[str, Any]) -> None:
        def loss(epoch: int) -> float:
            arm, number = config["trial"]["arm"], config["trial"]["number"]
            if epoch == 4 and arm == "rebalanced" and number == 1:
                raise ValueError("always\nand a second line")
            if epoch == 4 and arm == "rebalanced" and number == 2 and not marker.exists():
                marker.touch()
                raise RuntimeError("once")
            return 1 / epoch

        follow(config, loss)

    config = sweep_config({"method": "grid", "space": {"learning_rate": [0.1, 0.2]}})
    # Left over from a process that was killed before Ray had saved its state: Ray does not know this trial.
    statistics = colour_statistics(data.train_images, 5.0, "reachable")
    start = Start(config, "", None, "test", {}, str(tmp_path), data, statistics, baselines(data, statistics), [])
    experiment_id, arms, _ = record_start(engine, start)
    with write_session(engine) as session:
        session.add(
            Trial(
                experiment_id=experiment_id,
                arm_id=arms["regression"],
                ray_id="ghost",
                config={"learning_rate": 0.3},
                seed=0,
                status="running",
            )
        )
    recording = sweep(config, trainable, data, engine, tmp_path, max_failures=1)
    assert trials_by_arm(engine) == {
        "regression": [("finished", EPOCHS), ("finished", EPOCHS), ("lost", 0)],
        "rebalanced": [("failed", 3), ("finished", EPOCHS)],
    }
    with read_session(engine) as session:
        reasons = session.scalars(select(Trial.failure_reason).where(Trial.failure_reason.is_not(None))).all()
        epochs = session.execute(select(Measurement.trial_id, Measurement.epoch, Measurement.split)).all()
    assert reasons == ["ValueError: always"]
    assert len(set(epochs)) == len(epochs) == 2 * (2 + 3 * EPOCHS + 3)  # two splits; baselines, finished, failed
    assert set(recording.ended.values()) == {"finished", "failed"}


def test_a_locked_database_delays_records_and_loses_none(
    ray_here: None, data: Dataset, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.recorder.RETRY_AFTER_S", 0.5)  # so that it finds the lock several times
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
        seen.extend(connection.execute("SELECT count(*) FROM measurements WHERE epoch > 0").fetchone())
        connection.rollback()
        connection.close()
        released.touch()

    holder = threading.Thread(target=hold_the_lock)
    holder.start()
    config = sweep_config({"method": "grid", "space": {"learning_rate": [0.1]}})
    recording = sweep(config, trainable, data, engine, tmp_path)
    holder.join()
    assert len(seen) == 1
    assert seen[0] < 2 * (EPOCHS - 1)  # what was reported meanwhile, on two splits, was not yet recorded
    assert recording.problems == []
    assert trials_by_arm(engine) == {"regression": [("finished", EPOCHS)], "rebalanced": [("finished", EPOCHS)]}
    with read_session(engine) as session:
        epochs = session.execute(select(Measurement.trial_id, Measurement.epoch).where(Measurement.epoch > 0)).all()
    assert len(epochs) == 2 * len(set(epochs)) == 2 * 2 * EPOCHS
    assert experiment_status(engine) == "finished"


def test_a_full_database_is_said_and_its_records_wait(
    ray_here: None, data: Dataset, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite's own limit of pages fills it here; a full disk, and a sweep that is resumed: faults_sweep_disk.py."""
    monkeypatch.setattr(recorder, "RETRY_AFTER_S", 0.1)
    monkeypatch.setattr(recorder, "LAST_RETRIES_S", 0.5)
    follow = script()
    config = sweep_config({"method": "grid", "space": {"learning_rate": [0.1, 0.2, 0.3]}})
    statistics = colour_statistics(data.train_images, 5.0, "reachable")
    record_start(
        engine, Start(config, "", None, "test", {}, str(tmp_path), data, statistics, baselines(data, statistics), [])
    )
    with closing(sqlite3.connect(tmp_path / "sweep.sqlite")) as connection:
        connection.execute("VACUUM")  # there are no free pages left
        [(pages,)] = connection.execute("PRAGMA page_count")

    @event.listens_for(engine, "checkout")
    def limit(connection: sqlite3.Connection, *_: object) -> None:
        connection.execute(f"PRAGMA max_page_count = {pages}")

    recording = sweep(config, lambda config: follow(config, lambda epoch: 1 / epoch), data, engine, tmp_path)
    assert recording.problems == []
    assert f"The disk of the database {tmp_path / 'sweep.sqlite'} is full" in str(recording.unwritten)
    assert experiment_status(engine) == "running"  # so that the command goes on with it
    pages *= 100
    assert recording.close(6) == "finished"
    assert recording.unwritten is None
    assert trials_by_arm(engine) == {arm: [("finished", EPOCHS)] * 3 for arm in ("regression", "rebalanced")}
    assert experiment_status(engine) == "finished"
