"""What runs trials: Ray Tune, told what to do by `trials` and telling `recorder` what happens.

Nothing that Ray keeps of a sweep is ever read again: whoever goes on with a sweep starts a new Tuner over the trials
that have not ended. Beside this module and `cluster` none imports Ray.
"""

import itertools
import os
import pickle
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune
from ray.exceptions import RayActorError
from ray.tune import Callback
from ray.tune.experiment import Trial
from ray.tune.search import Searcher

from platform.arms.compose import Task
from platform.arms.options import trained_arms
from platform.data.datasets import Dataset
from platform.model.storage import CHECKPOINT_FILE, address_in, locate, read_file, trial_folder
from platform.model.training import TrainingDiverged, load_checkpoint, load_model, pick_device, save_checkpoint, train
from platform.paint.samples import choose_sample_indices, paint_of_split, write_samples
from platform.running.budget import Costs, kinds_to_measure, mean_costs, measure_costs, part_to_measure, slots
from platform.running.cluster import cluster_resources
from platform.running.config import SweepConfig
from platform.running.plan import (
    Limit,
    PlannedTrial,
    hyperparameters_of,
    limit_trials,
    plan_replicates,
    propose,
    trials_per_arm,
)
from platform.running.recorder import Recorder, score_columns
from platform.running.workers import PENDING_VARIABLE

FAILURE = "failure"  # a report with this key has no measurements: the trial gave up, and this is why
MOST_PENDING = 200  # trials that Ray is told of beforehand
MOST_MEASURING = 8  # workers

ComposeArm = Callable[..., Task]
"""`compose.compose` of a sweep's arms: of an arm's name and a device."""


# What runs in Ray's workers


def run_trial(
    trial: dict[str, Any],
    config: SweepConfig,
    data: Dataset,
    compose_arm: ComposeArm,
) -> None:
    """Train trial["trial"], from its checkpoint if it has one, until the end of the epoch trial["until"], and report
    each epoch to Ray Tune."""
    # Also decides in which order sums are taken, so it is part of what a seed fixes.
    torch.set_num_threads(config.resources.cpu)
    planned: PlannedTrial = trial["trial"]
    checkpoint = _checkpoint_of(planned)
    if checkpoint is not None and checkpoint["epoch"] >= trial["until"]:
        return  # the worker had died just then
    task = compose_arm(planned.arm, device=pick_device())
    samples = choose_sample_indices(data.validation_labels, config.samples.images)
    try:
        for report in train(task, planned.hyperparameters, data, resume=checkpoint):
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                save_checkpoint(folder / CHECKPOINT_FILE, report.checkpoint)
                if report.epoch == planned.hyperparameters.epochs and samples:
                    model = load_model(report.checkpoint, task)
                    of_split = data.validation_images, data.validation_labels
                    write_samples(folder, paint_of_split(task, model, *of_split, samples))
                metrics = {
                    "epoch": report.epoch,
                    "images_seen": report.images_seen,
                    "seconds": report.seconds,
                    "device": report.device,
                    "loss": report.loss,
                    "scores": {arm: score_columns(of_splits) for arm, of_splits in report.scores.items()},
                }
                tune.report(metrics, checkpoint=tune.Checkpoint.from_directory(folder))
            if report.epoch >= trial["until"]:
                break
    except TrainingDiverged as error:
        # Reported, not raised: it would diverge again, so Ray must not try again.
        tune.report({FAILURE: f"diverged: {error}"})


def _checkpoint_of(planned: PlannedTrial) -> dict[str, Any] | None:
    """The trial's newest: Ray's where this run of the driver has made one, else the one that it goes on from."""
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / CHECKPOINT_FILE
        if (newest := tune.get_checkpoint()) is not None:
            with newest.filesystem.open_input_stream(f"{newest.path}/{CHECKPOINT_FILE}") as stream:
                file.write_bytes(stream.read())
        elif planned.checkpoint is not None:
            file.write_bytes(read_file(planned.checkpoint, CHECKPOINT_FILE))
        else:
            return None
        return load_checkpoint(file)


def trainable(config: SweepConfig, data: Dataset, compose_arm: ComposeArm) -> Any:
    """`run_trial` with what all trials of a sweep share, which travels to each node once, into Ray's object store."""
    return tune.with_parameters(run_trial, config=config, data=data, compose_arm=compose_arm)


def measure_on_ray(
    config: SweepConfig,
    data: Dataset,
    compose_arm: ComposeArm,
    *,
    gpus: float,  # per trial
    at_once: int,
    seconds: float,
) -> Costs:
    """See `budget.measure_costs`: of as many workers beside each other as trials will run, up to a few."""
    kinds = kinds_to_measure(config)
    part = ray.put(part_to_measure(data, kinds))

    def measure(part: Dataset) -> Costs:
        tasks = {arm: compose_arm(arm, device=pick_device()) for arm in trained_arms(config.arms)}
        return measure_costs(tasks, kinds, part, seconds, config.resources.cpu)

    remote = ray.remote(num_cpus=config.resources.cpu, num_gpus=gpus)(measure)
    return mean_costs(ray.get([remote.remote(part) for _ in range(min(at_once, MOST_MEASURING))]))


# What Ray asks and tells in the driver


class _OfThisProcess:
    """Ray pickles what it is given into a state of its own, which is never read again."""

    def __reduce__(self) -> tuple[Any, ...]:
        return object, ()


class _Searcher(_OfThisProcess, Searcher):
    """Hands out the trials that have not ended, from rung to rung, then, with Optuna, those that it proposes, the arms
    in turn, and last the replicates. A trial that waits at a rung occupies nothing: to go on is to be handed out again.
    """

    def __init__(
        self, config: SweepConfig, recorder: Recorder, unfinished: Sequence[PlannedTrial], at_once: int
    ) -> None:
        super().__init__()
        self._config = config
        self._recorder = recorder
        self._histories = recorder.histories
        self._unfinished = list(unfinished)  # not handed out, or waiting at a rung
        self._at_once = at_once
        self._running: set[str] = set()

    def suggest(self, trial_id: str) -> Any:
        if len(self._running) >= self._at_once:
            return None
        self._end_those_that_stop()
        if (suggestion := self._take_first()) is None:
            arm = min(self._histories, key=lambda name: len(self._histories[name].begun))
            if len(self._histories[arm].begun) < trials_per_arm(self._config):
                self._add([self._propose(arm)])
            elif self._unfinished or self._running:
                return None
            else:  # the search has ended
                planned = plan_replicates(self._config, self._histories)
                self._add([trial for trial in planned if trial.number not in self._histories[trial.arm].begun])
            if (suggestion := self._take_first()) is None:
                return Searcher.FINISHED
        self._running.add(trial_id)
        return suggestion

    def wait(self, planned: PlannedTrial) -> None:
        """The trial has come to a rung."""
        self._recorder.record_status(planned, "pending")
        self._unfinished.append(planned)

    def _end_those_that_stop(self) -> None:
        """Say of the trials that early stopping leaves where they are that they have ended."""
        limits = self._limits()
        for planned in list(self._unfinished):
            limit = limits[planned.arm][planned.number]
            if limit.is_final and planned.epochs_done >= limit.epoch:
                self._unfinished.remove(planned)
                self._recorder.record_end(planned, "stopped_early")

    def _take_first(self) -> dict[str, Any] | None:
        """Take the first trial that may go on, and until when."""
        limits = self._limits()
        for planned in self._unfinished:
            until = limits[planned.arm][planned.number].epoch
            if planned.epochs_done < until:
                self._unfinished.remove(planned)
                return {"trial": planned, "until": until}
        return None

    def _limits(self) -> dict[str, dict[int, Limit]]:
        return {arm: limit_trials(self._config, history) for arm, history in self._histories.items()}

    def _add(self, planned: Sequence[PlannedTrial]) -> None:
        self._recorder.record_plan(planned)
        self._unfinished += planned

    def _propose(self, arm: str) -> PlannedTrial:
        history = self._histories[arm]
        number = next(number for number in itertools.count(1) if number not in history.begun)
        drawn = propose(self._config, history, number)
        return PlannedTrial(arm, number, hyperparameters_of(self._config, number, drawn))

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        self._running.discard(trial_id)

    def save(self, checkpoint_path: str) -> None:
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        raise NotImplementedError("a sweep goes on from the database")


class _Callback(_OfThisProcess, Callback):
    def __init__(self, recorder: Recorder, searcher: _Searcher, storage: str) -> None:
        self._recorder = recorder
        self._searcher = searcher
        self._storage = storage

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        self._recorder.flush()

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._recorder.record_status(planned_trial_of(trial), "running")

    def on_checkpoint(self, iteration: int, trials: list[Trial], trial: Trial, checkpoint: Any, **info: Any) -> None:
        checkpoint_address = address_in(self._storage, checkpoint.path)
        self._recorder.record_report(planned_trial_of(trial), dict(trial.last_result), checkpoint_address)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        planned, result = planned_trial_of(trial), trial.last_result or {}
        epoch = result.get("epoch", 0)
        if FAILURE in result:
            self._recorder.record_end(planned, "failed", result[FAILURE])
        elif planned.epochs_done < epoch == trial.config["until"] < planned.hyperparameters.epochs:
            assert trial.checkpoint is not None  # as with every report of an epoch
            checkpoint = address_in(self._storage, trial.checkpoint.path)
            self._searcher.wait(replace(planned, checkpoint=checkpoint, epochs_done=epoch))
        # Otherwise it has finished, or the sweep was interrupted.

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        name = planned_trial_of(trial).name
        self._recorder.progress.say(f"{name} failed and is tried again from its checkpoint: {_error_of(trial)}")

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._recorder.record_end(planned_trial_of(trial), "failed", _error_of(trial))
        if trial.storage is not None:
            self._recorder.progress.say(f"  The whole error is in {trial.storage.trial_fs_path}/error.txt")


def planned_trial_of(trial: Trial) -> PlannedTrial:
    planned: PlannedTrial = trial.config["trial"]
    return planned


def _error_of(trial: Trial) -> str:
    """The trial's error in one line."""
    try:
        pickled = Path(trial.pickled_error_file or "")
        error = pickle.loads(pickled.read_bytes()) if pickled.is_file() else trial.get_pickled_error()
    except Exception as unreadable:  # whatever is needed to make such an error again may be missing here
        return f"an error that cannot be shown ({unreadable})"
    cause = getattr(error, "cause", None) or error or "an error that was not kept"
    if isinstance(cause, RayActorError) and (detail := re.search(r"exit detail: ([^.]+)", str(cause))):
        return f"its worker died: {detail[1]}"
    lines = str(cause).strip().splitlines() or [""]
    return f"{type(cause).__name__}: {lines[0]}" if isinstance(cause, BaseException) else lines[0]


def run_trials(
    config: SweepConfig,
    trainable: Any,  # what a worker calls with {"trial": a PlannedTrial}
    recorder: Recorder,
    unfinished: Sequence[PlannedTrial],
    *,
    gpus: float = 0.0,  # per trial
    storage: str,
    folder: str,  # of this run of the driver, below the experiment's own
) -> None:
    """Run trials until all have ended, or until SIGINT. Whatever happens to them, the recorder is told."""
    system, root = locate(storage)
    arms = list(config.arms)

    def folder_of(planned: PlannedTrial) -> str:
        return trial_folder(arms.index(planned.arm), planned.arm, planned.number, planned.epochs_done)

    if recorder.is_complete:
        return
    at_once = config.resources.max_concurrent or MOST_PENDING
    if config.search.method == "optuna":  # a proposal learns from trials that have ended, so none is made in advance
        at_once = min(at_once, slots(config, cluster_resources(), gpus))
    os.environ[PENDING_VARIABLE] = str(at_once)
    searcher = _Searcher(config, recorder, unfinished, at_once)
    tune.Tuner(
        tune.with_resources(trainable, {"cpu": config.resources.cpu, "gpu": gpus}),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            num_samples=-1,  # until the searcher says that all is done
            reuse_actors=True,
            trial_name_creator=lambda trial: planned_trial_of(trial).name,
            trial_dirname_creator=lambda trial: folder_of(planned_trial_of(trial)),
        ),
        run_config=tune.RunConfig(
            name=folder,
            storage_path=f"{root.rstrip('/')}/{config.experiment}",
            storage_filesystem=system,
            callbacks=[_Callback(recorder, searcher, storage)],
            failure_config=tune.FailureConfig(max_failures=config.failures.max_retries),
            verbose=0,
        ),
    ).fit()
