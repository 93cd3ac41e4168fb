"""Sweeps without training or without Ray: trials that report what a script says, and trials trained in this process."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from sqlalchemy import Engine, select

from db.schema import Arm, Experiment, Report, Trial
from db.store import read_session
from db.sweeps.drivers import Drive
from platform.arms.compose import compose
from platform.data.datasets import Dataset
from platform.model.storage import CHECKPOINT_FILE
from platform.model.training import load_model, save_checkpoint, train
from platform.paint.samples import choose_sample_indices, paint_of_split, write_samples
from platform.running.config import SweepConfig
from platform.running.driver import Sweep
from platform.running.on_ray import run_trials
from platform.running.plan import PlannedTrial
from platform.running.preparation import find_experiment
from platform.running.progress import Progress
from platform.running.recorder import Recorder, score_columns
from tests.contracts import colours_of, drawn_data
from tests.running.test_trials import TRAINING

EPOCHS = 4  # with two rungs below the last, after 1 and 3
Trainable = Callable[[dict[str, Any]], None]


def sweep_config(search: dict[str, Any], **more: Any) -> SweepConfig:
    return SweepConfig.model_validate(
        {
            "experiment": "scripted",
            "dataset": "photos",
            "epochs": EPOCHS,
            "arms": {
                "regression": {"kind": "regression"},
                "rebalanced": {"kind": "classification", "rebalancing": 0.25},
                "tilted": {"renders": "rebalanced", "tilt": 0.5},
            },
            "training": TRAINING,
            "search": search,
            "samples": {"images": 0},
            "resources": {"max_concurrent": 1},
            **more,
        }
    )


def rates(*values: float) -> dict[str, Any]:
    return {"method": "grid", "space": {"learning_rate": list(values)}}


EARLY = {"early_stopping": {"grace_epochs": 1, "reduction_factor": 3}}
BEST_AND_REST = [("finished", EPOCHS), *[("stopped_early", 1)] * 3]


def scripted_report(arms: list[str], epoch: int, loss: float) -> dict[str, Any]:
    columns = {
        "scores": {
            "train": {"loss": loss, "bin_accuracy": 0.5},
            "tuning": {"loss": loss},
            "validation": {"loss": loss, "bin_accuracy": 0.25},
        },
        "standard_errors": {"validation": {"bin_accuracy": 0.01}},
        "class_bin_accuracy": {"train": [0.5], "validation": [0.25, None]},
    }
    return {
        "epoch": epoch,
        "images_seen": 20 * epoch,
        "seconds": 0.1 * epoch,
        "device": "script",
        "loss": loss,
        "scores": dict.fromkeys(arms, columns),
    }


def script() -> Callable[[dict[str, Any], Callable[[int], float]], None]:
    """What a scripted trial does: it reports `loss(epoch)` after each epoch, going on from its checkpoint.

    A closure, so that it travels to the workers by value: they do not have this file.
    """
    arms_of = {"regression": ["regression"], "rebalanced": ["rebalanced", "tilted"]}
    globals_needed = {"scripted_report": scripted_report, "file": CHECKPOINT_FILE}

    def follow(config: dict[str, Any], loss: Callable[[int], float]) -> None:
        import tempfile
        from pathlib import Path

        from ray import tune

        planned, newest = config["trial"], tune.get_checkpoint()
        folder = newest.path if newest is not None else planned.checkpoint
        done = 0 if folder is None else int((Path(folder) / str(globals_needed["file"])).read_text())
        for epoch in range(done + 1, config["until"] + 1):
            report: Any = globals_needed["scripted_report"]
            report = report(arms_of[planned.arm], epoch, loss(epoch))
            with tempfile.TemporaryDirectory() as name:
                (Path(name) / str(globals_needed["file"])).write_text(str(epoch))
                tune.report(report, checkpoint=tune.Checkpoint.from_directory(name))

    return follow


def begin(config: SweepConfig, data: Dataset, engine: Engine, folder: Path) -> tuple[Recorder, list[PlannedTrial], str]:
    """Record the start of a run of the driver; return its recorder, what is left to do, and the run's folder."""
    drive, console = Drive(engine, config.experiment), Console(quiet=True)
    drive.take()
    row = find_experiment(engine, config.experiment)
    if row is None:
        sweep = Sweep(drive, console, config, "", str(folder), None, config.dataset)
    else:
        sweep = Sweep.resume(drive, console, row, config)
    sweep.data = data
    sweep.record_start("test", {})
    name = sweep.clean_up()
    recorder = Recorder(drive, config, sweep.rows, sweep.histories, Progress(console, config, sweep.histories))
    return recorder, sweep.find_unfinished(recorder), name


def sweep(config: SweepConfig, trainable: Trainable, data: Dataset, engine: Engine, folder: Path) -> Recorder:
    """Run a sweep of scripted trials, one at a time, or go on with it; return its recorder, closed."""
    recorder, unfinished, name = begin(config, data, engine, folder)
    run_trials(config, trainable, recorder, unfinished, storage=str(folder), folder=name)
    recorder.close()
    return recorder


def trained_sweep(engine: Engine, folder: Path) -> None:
    """Record a finished sweep of a regression, a classification and its tilt, trained here on drawn pictures."""
    training = {"width": 8, "depth": 2, "batch_size": 16, "precision": "float32"}
    config = sweep_config(rates(3e-3), epochs=2, training=training)
    train_here(config, drawn_data(), engine, folder)


def train_here(config: SweepConfig, data: Dataset, engine: Engine, folder: Path) -> None:
    """Train and record a sweep as Ray's workers would, in this process."""
    recorder, planned, _ = begin(config, data, engine, folder)
    for trial in planned:
        task = compose(config.arms, trial.arm, colours_of(data))
        kept = folder / trial.name
        kept.mkdir(parents=True)
        indices = choose_sample_indices(data.validation_labels, config.samples.images)
        for report in train(task, trial.hyperparameters, data):
            save_checkpoint(kept / CHECKPOINT_FILE, report.checkpoint)
            if indices and report.epoch == config.epochs:
                model, of_split = load_model(report.checkpoint, task), (data.validation_images, data.validation_labels)
                write_samples(kept, paint_of_split(task, model, *of_split, indices))
            measured = {name: getattr(report, name) for name in ("epoch", "images_seen", "seconds", "device", "loss")}
            scores = {arm: score_columns(of_splits) for arm, of_splits in report.scores.items()}
            recorder.record_report(trial, measured | {"scores": scores}, str(kept))
    if recorder.close() == "interrupted":  # the replicates follow
        train_here(config, data, engine, folder)


def trials_by_arm(engine: Engine) -> dict[str, list[tuple[str, int]]]:
    """Status and epochs of each arm's trials in the order of their numbers, baselines left out."""
    found: dict[str, list[tuple[str, int]]] = {}
    statement = select(Arm.name, Trial.status, Trial.epochs_done).join(Arm, Arm.id == Trial.arm_id)
    with read_session(engine) as session:
        for arm, status, epochs in session.execute(statement.where(~Arm.baseline).order_by(Trial.number)):
            found.setdefault(arm, []).append((status, epochs))
    return found


def alike(trials: list[tuple[str, int]]) -> dict[str, list[tuple[str, int]]]:
    """All arms with such trials, for comparison."""
    return {arm: trials for arm in ("regression", "rebalanced", "tilted")}  # noqa: C420 - equal, and never changed


def reported_epochs(engine: Engine) -> list[tuple[int, int]]:
    with read_session(engine) as session:
        rows = session.execute(select(Report.trial_id, Report.epoch).where(Report.epoch > 0))
        return [(trial_id, epoch) for trial_id, epoch in rows]


def experiment_status(engine: Engine) -> str:
    with read_session(engine) as session:
        return session.scalars(select(Experiment.status)).one()
