"""Ray's callback: every report of every trial goes to the database here, in the driver process and nowhere else.

Ray pickles its callbacks and, when a sweep is resumed, brings them back: `Recorder` therefore holds nothing and hands
each event to this process's `Recording`. What the database cannot take at once waits in a queue, since an exception
in a callback would abort the sweep or turn a good trial into a failed one.
"""

import pickle
import re
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar
from zipfile import BadZipFile

import numpy as np
import torch
from ray.exceptions import RayActorError
from ray.tune import Callback
from ray.tune.experiment import Trial
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from db import recording
from db.schema import ExperimentStatus, TrialStatus
from db.store import explain, shown_name, write_session
from platform.color import bin_centers
from platform.config import BASELINE_ARMS, SweepConfig
from platform.datasets import Dataset
from platform.progress import Progress
from platform.samples import constant_pngs, read_samples, truth_pngs
from platform.search import EARLIER_REPORTS, EPOCH, FAILURE, LOSS, PlannedTrial
from platform.storage import mend_checkpoint, read_reports
from platform.training import ColourStatistics, Scores

RETRY_AFTER_S = 5.0
LAST_RETRIES_S = 300.0

Write = Callable[[Session], object]
Found = TypeVar("Found")


@dataclass(frozen=True)
class Start:
    """What is known of an experiment before its first trial. samples: indices in the validation split."""

    config: SweepConfig
    config_yaml: str
    profile: str | None
    code_version: str
    environment: dict[str, Any]
    storage_path: str
    data: Dataset
    statistics: ColourStatistics
    baselines: dict[str, tuple[Scores, Scores]]  # on the training and the validation split, see `training.baselines`
    samples: list[int]


def record_start(engine: Engine, start: Start) -> tuple[int, dict[str, int], dict[int, int]]:
    """Record the experiment, its arms, the samples' ground truth, and the baselines, each an arm with one trial.

    Returns the ids of the experiment, of the arms by name and of the images by index in the validation split.
    Raises ValueError if an experiment of this name was begun with other data.
    """
    data, config = start.data, start.config
    photographs = data.validation_images[start.samples]
    truths = truth_pngs(photographs)
    colours = {"most frequent bin": bin_centers()[start.statistics.bin_share.argmax()], "grey": torch.zeros(2)}
    painted = {name: constant_pngs(photographs, colours[name]) for name in BASELINE_ARMS}
    with write_session(engine) as session:  # all is computed before, as others wait for it to end
        dataset_id = recording.record_dataset(
            session,
            name=data.name,
            fingerprint=data.fingerprint,
            note=data.note,
            class_names=data.class_names,
            train_count=len(data.train_images),
            validation_count=len(data.validation_images),
            validation_class_counts=np.bincount(data.validation_labels, minlength=len(data.class_names)).tolist(),
        )
        experiment_id = recording.record_experiment(
            session,
            name=config.experiment,
            dataset_id=dataset_id,
            config=config.model_dump(mode="json"),
            config_yaml=start.config_yaml,
            profile=start.profile,
            decoding=config.fixed()["decoding"],
            code_version=start.code_version,
            environment=start.environment,
            storage_path=start.storage_path,
        )
        arms = {}
        for position, (name, arm) in enumerate(config.arms.items()):
            arms[name] = recording.record_arm(
                session,
                experiment_id=experiment_id,
                name=name,
                position=position,
                kind=arm.kind,
                rebalancing=None if arm.kind == "regression" else 1.0 if arm.rebalancing is None else arm.rebalancing,
            )
        images = {}
        for index, png in zip(start.samples, truths, strict=True):
            images[index] = recording.record_image(
                session,
                dataset_id=dataset_id,
                split="validation",
                index_in_split=index,
                class_index=int(data.validation_labels[index]),
                truth_png=png,
                width=photographs.shape[2],
                height=photographs.shape[1],
            )
        for position, name in enumerate(BASELINE_ARMS, start=len(arms)):
            train, validation = start.baselines[name]
            arm_id = recording.record_arm(
                session,
                experiment_id=experiment_id,
                name=name,
                position=position,
                kind="baseline",
                rebalancing=None,
            )
            trial_id = recording.record_trial(
                session,
                experiment_id=experiment_id,
                arm_id=arm_id,
                ray_id=f"baseline: {name}",
                config={},
                seed=config.seed,
                status="finished",
            )
            recording.record_report(
                session,
                trial_id,
                epoch=0,
                images_seen=0,
                seconds=0.0,
                train=train.scores,
                validation=validation.scores,
                train_standard_errors=train.standard_errors,
                validation_standard_errors=validation.standard_errors,
                train_class_bin_accuracy=train.class_bin_accuracy,
                validation_class_bin_accuracy=validation.class_bin_accuracy,
            )
            for image_id, png in zip(images.values(), painted[name], strict=True):
                recording.record_sample(session, trial_id=trial_id, image_id=image_id, epoch=0, decoding=None, png=png)
    return experiment_id, arms, images


class Recording:
    """Writes one experiment's trials, and tells the progress display of them.

    arms and images: the rows' ids by an arm's name and by an image's index in the validation split.
    """

    def __init__(
        self, engine: Engine, experiment_id: int, arms: dict[str, int], images: dict[int, int], progress: Progress
    ) -> None:
        self.problems: list[str] = []  # what could not be recorded at all
        self.unwritten: str | None = None  # after `close`: what a resumed sweep has to write, and why
        self._engine = engine
        self._experiment_id = experiment_id
        self._arms = arms
        self._images = images
        self._progress = progress
        self._queue: deque[Write] = deque()
        self._retry_at = 0.0
        self._reason = ""
        self._reconciled = False
        self._known: dict[str, Trial] = {}
        self._ended: dict[str, TrialStatus] = {}

    @property
    def ended(self) -> dict[str, TrialStatus]:
        """How each trial that has ended did, by Ray's id."""
        return dict(self._ended)

    # What Ray tells

    def step_begins(self, trials: Sequence[Trial]) -> None:
        if not self._reconciled:
            for trial in trials:
                if trial.checkpoint is not None:
                    mend_checkpoint(trial.checkpoint.filesystem, trial.checkpoint.path)

    def step_ended(self, trials: Sequence[Trial]) -> None:
        if not self._reconciled:
            self._reconcile(trials)
        self._flush()

    def trial_started(self, trial: Trial) -> None:
        self._known[trial.trial_id] = trial
        self._ended.pop(trial.trial_id, None)
        epoch = _checkpoint_epoch(trial)

        def write(session: Session) -> None:
            recording.drop_reports_above(session, self._record_trial(session, trial, "running"), epoch)

        self._progress.trial_at(trial.trial_id, epoch)
        self._record(write)

    def trial_reported(self, trial: Trial, result: dict[str, Any]) -> None:
        if FAILURE in result:
            return

        def write(session: Session) -> None:
            trial_id = self._record_trial(session, trial, "running")
            for report in (*result.get(EARLIER_REPORTS, ()), result):
                _record_report(session, trial_id, report)

        self._record(write)
        self._progress.trial_at(trial.trial_id, result[EPOCH], trained=True)

    def trial_completed(self, trial: Trial, announce: bool = True) -> None:
        result = trial.last_result or {}
        if FAILURE in result:
            self._trial_ended(trial, "failed", result[FAILURE], announce)
        elif result.get(EPOCH, 0) >= planned_trial_of(trial).run.epochs:
            self._trial_ended(trial, "finished", None, announce)
        elif result.get("done"):  # Ray's mark that the scheduler stopped it
            self._trial_ended(trial, "stopped_early", None, announce)
        # Otherwise the sweep was interrupted: the trial goes on when it is resumed.

    def trial_failed(self, trial: Trial, announce: bool = True) -> None:
        self._trial_ended(trial, "failed", _error_of(trial), announce)
        if announce and trial.storage is not None:
            self._progress.say(f"  The whole error is in {trial.storage.trial_fs_path}/error.txt")

    def trial_retried(self, trial: Trial) -> None:
        self._progress.say(f"{_name(trial)} failed and is tried again from its checkpoint: {_error_of(trial)}")

    def experiment_ended(self, trials: Sequence[Trial]) -> None:
        if not self._reconciled:  # a resumed sweep had nothing left to do
            self._reconcile(trials)

    # The end

    def close(self, planned_trials: int) -> ExperimentStatus:
        """Write what is left, patiently, and how the experiment ended; `Recorder` must not be called any more."""
        for ray_id, trial in self._known.items():
            if ray_id not in self._ended:
                self._queue.append(partial(self._record_trial, trial=trial, status="pending"))
        status: ExperimentStatus = "interrupted"
        if len(self._ended) >= planned_trials:
            status = "failed" if set(self._ended.values()) == {"failed"} else "finished"
        self._queue.append(lambda session: recording.finish_experiment(session, self._experiment_id, status))
        give_up_at = time.monotonic() + LAST_RETRIES_S
        while not self._flush() and time.monotonic() < give_up_at:
            time.sleep(1)
        waiting = len(self._queue)
        self.unwritten = f"{waiting} records could not be written. {self._reason}" if waiting else None
        return status

    # Writing

    def _trial_ended(self, trial: Trial, status: TrialStatus, reason: str | None, announce: bool) -> None:
        samples = self._from_checkpoint(trial, read_samples) if status == "finished" and self._images else None
        # An earlier process may not have been able to write all that it was told before it ended.
        reports = None if announce else self._from_checkpoint(trial, read_reports)
        result = dict(trial.last_result or {})
        run = planned_trial_of(trial).run
        decoding = None if run.kind == "regression" else run.decoding

        def write(session: Session) -> None:
            trial_id = self._record_trial(session, trial, status, reason)
            for report in (*(reports or ()), *([result] if LOSS in result else [])):
                _record_report(session, trial_id, report)
            for index, png in (samples or {}).items():
                image_id, epoch = self._images[index], result[EPOCH]
                recording.record_sample(
                    session, trial_id=trial_id, image_id=image_id, epoch=epoch, decoding=decoding, png=png
                )

        self._known[trial.trial_id] = trial
        self._ended[trial.trial_id] = status
        self._record(write)
        self._progress.trial_ended(trial.trial_id)
        if announce:
            self._progress.say_ended(planned_trial_of(trial), status, reason, result)

    def _reconcile(self, trials: Sequence[Trial]) -> None:
        """At a sweep's first step: write every trial as Ray knows it, and mark those that it does not as lost."""
        self._reconciled = True
        before = len(self._ended)
        known = [trial.trial_id for trial in trials]
        self._queue.append(lambda session: recording.mark_lost_trials(session, self._experiment_id, known))
        for trial in trials:
            if trial.status == Trial.TERMINATED:
                self.trial_completed(trial, announce=False)
            elif trial.status == Trial.ERROR:
                self.trial_failed(trial, announce=False)
            elif trial.trial_id not in self._known:
                self._known[trial.trial_id] = trial
                self._queue.append(partial(self._record_trial, trial=trial, status="pending"))
        if len(self._ended) > before:
            self._progress.say(f"{len(self._ended) - before} trials had ended before.")

    def _record_trial(self, session: Session, trial: Trial, status: TrialStatus, reason: str | None = None) -> int:
        planned = planned_trial_of(trial)
        device = (trial.last_result or {}).get("device")
        return recording.record_trial(
            session,
            experiment_id=self._experiment_id,
            arm_id=self._arms[planned.arm],
            ray_id=trial.trial_id,
            config=asdict(planned.run) | ({"device": device} if device else {}),
            seed=planned.run.seed,
            status=status,
            failure_reason=reason,
        )

    def _from_checkpoint(self, trial: Trial, read: Callable[[Path], Found]) -> Found | None:
        try:
            if trial.checkpoint is None:
                return None
            with trial.checkpoint.as_directory() as folder:
                return read(Path(folder))
        except (OSError, ValueError, BadZipFile) as error:
            self.problems.append(f"the last checkpoint of {_name(trial)} could not be read ({error})")
            return None

    def _record(self, write: Write) -> None:
        self._queue.append(write)
        self._flush()

    def _flush(self) -> bool:
        """Write what waits, in order; return whether nothing waits any more."""
        if self._queue and time.monotonic() < self._retry_at:
            return False
        while self._queue:
            try:
                with write_session(self._engine) as session:
                    self._queue[0](session)
            except OperationalError as error:  # locked, or the disk is full
                self._reason = explain(error, shown_name(self._engine.url))
                if not self._retry_at:
                    self._progress.say(f"{self._reason} Until then results wait in memory.")
                self._retry_at = time.monotonic() + RETRY_AFTER_S
                return False
            except Exception as error:
                self.problems.append(f"a record was refused ({error})")
            self._queue.popleft()
        self._retry_at = 0.0
        return True


class Recorder(Callback):
    """What Ray calls. It stays empty, so that it can be pickled; `recording` is set by the process that sweeps."""

    recording: ClassVar[Recording]

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        self.recording.step_begins(trials)

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        self.recording.step_ended(trials)

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self.recording.trial_started(trial)

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        self.recording.trial_reported(trial, result)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self.recording.trial_completed(trial)

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self.recording.trial_retried(trial)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self.recording.trial_failed(trial)

    def on_experiment_end(self, trials: list[Trial], **info: Any) -> None:
        self.recording.experiment_ended(trials)


def planned_trial_of(trial: Trial) -> PlannedTrial:
    return PlannedTrial.from_dict(trial.config["trial"])


def _record_report(session: Session, trial_id: int, result: dict[str, Any]) -> None:
    names = ("images_seen", "seconds", "train", "validation")
    classes = ("train_class_bin_accuracy", "validation_class_bin_accuracy")
    values = {name: result[name] for name in (*names, *classes)}
    for name in ("train_standard_errors", "validation_standard_errors"):
        values[name] = result.get(name)  # a sweep that an older HueJury began has reports without
    recording.record_report(session, trial_id, epoch=result[EPOCH], **values)


def _checkpoint_epoch(trial: Trial) -> int:
    """The epoch after which the trial goes on, 0 for a trial that starts afresh."""
    latest = trial.latest_checkpoint_result
    return int(latest.metrics[EPOCH]) if latest is not None else 0


def _name(trial: Trial) -> str:
    planned = planned_trial_of(trial)
    return f"{planned.arm} #{planned.number}"


def _error_of(trial: Trial) -> str:
    """The trial's error in one line, from this session's files or, after a resume, from the storage."""
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
