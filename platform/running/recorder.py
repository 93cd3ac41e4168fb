"""Writes what a sweep's driver is told to the database, and nobody else writes a sweep's rows. Knows nothing of Ray.

What the database cannot take at once waits in memory. A trial's older checkpoint is deleted only once the report that
names the newer one is committed: whenever the driver is killed, the checkpoint that the database names is there.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from db.errors import UserError
from db.schema import ExperimentStatus, TrialStatus
from db.store import explain, read_session, shown_name, write_session
from db.sweeps import recording
from db.sweeps.drivers import Drive, DrivenElsewhereError
from platform.arms.options import renderings
from platform.model.evaluation import Scores
from platform.model.storage import delete_folder
from platform.paint.samples import Painted, read_samples
from platform.running.config import SweepConfig
from platform.running.plan import History, PlannedTrial, is_replicate, plan_replicates, trials_per_arm
from platform.running.progress import Progress

RETRY_AFTER_S = 5.0
LAST_RETRIES_S = 300.0

Report = dict[str, Any]
"""What a worker reports after an epoch: a `training.EpochReport` in plain values, without the checkpoint, and with each
arm's scores as `score_columns` of them."""


@dataclass(frozen=True)
class Rows:
    """The ids of a sweep's rows."""

    experiment: int
    run: int  # of the driver
    arms: dict[str, int]
    images: dict[int, int]  # the samples, by index in the validation split


def score_columns(of_splits: Mapping[str, Scores]) -> dict[str, Any]:
    """An arm's scores by split, in plain values, as `db.schema.Report` has columns for them."""
    return {
        "scores": {split: scores.values for split, scores in of_splits.items()},
        "standard_errors": {split: scores.standard_errors for split, scores in of_splits.items()},
        "class_bin_accuracy": {
            split: scores.class_bin_accuracy for split, scores in of_splits.items() if scores.class_bin_accuracy
        },
    }


class Recorder:
    """Writes one sweep's trials, in order, and tells the progress display of them. An arm that renders another has a
    row for each of that arm's trials, with the same state and from the same reports."""

    def __init__(
        self,
        drive: Drive,
        config: SweepConfig,
        rows: Rows,
        histories: dict[str, History],  # by trained arm
        progress: Progress,
    ) -> None:
        self.problems: list[str] = []  # what could not be recorded at all
        self.unwritten: str | None = None  # after `close`: what is lost, and why
        self.driven_elsewhere: DrivenElsewhereError | None = None  # once it is, nothing is recorded any more
        self.histories = histories
        self.progress = progress
        self._drive = drive
        self._config = config
        self._rows = rows
        self._queue: deque[Callable[[Session], object]] = deque()
        self._retry_at = 0.0
        self._reason = ""

    @property
    def ended(self) -> dict[tuple[str, int], TrialStatus]:
        """By trained arm and number."""
        return {
            (arm, number): status for arm, history in self.histories.items() for number, status in history.ended.items()
        }

    @property
    def is_complete(self) -> bool:
        searched = [number for _, number in self.ended if not is_replicate(self._config, number)]
        if len(searched) < len(self.histories) * trials_per_arm(self._config):
            return False
        replicates = plan_replicates(self._config, self.histories)
        return all((planned.arm, planned.number) in self.ended for planned in replicates)

    def record_plan(self, planned: Sequence[PlannedTrial]) -> None:
        """These have not ended, and all others that there are have been recorded."""
        for trial in planned:
            self.histories[trial.arm].begun[trial.number] = trial.hyperparameters

        def write(session: Session) -> None:
            for trial in planned:
                self._record_trial(session, trial, "pending")

        self._write(write)

    def forget_reports(self, planned: PlannedTrial) -> None:
        """Its checkpoint is gone, and with it what its reports stand for."""

        def write(session: Session) -> None:
            recording.forget_reports(session, list(self._record_trial(session, planned, "pending").values()))

        self.histories[planned.arm].forget(planned.number)
        self._write(write)

    def record_status(self, planned: PlannedTrial, status: TrialStatus) -> None:
        """It runs, or it has come to a rung and is pending: it goes on or ends when the arm's others are there."""
        self._write(lambda session: self._record_trial(session, planned, status))

    def record_report(self, planned: PlannedTrial, report: Report, checkpoint: str) -> None:
        """After its last epoch the trial has finished, and its sample pictures are recorded as well."""
        history, is_last = self.histories[planned.arm], report["epoch"] >= self._config.epochs
        painted: dict[str, Painted] = {}
        if is_last and self._rows.images:
            with suppress(OSError, UserError, ValueError):  # `complete_samples` tries again, and says it
                painted = read_samples(checkpoint)

        def write(session: Session) -> str | None:
            old = recording.checkpoint_of(session, self._rows.arms[planned.arm], planned.number)
            trial = self._trial_columns(planned, "finished" if is_last else "running")
            measured = {name: report[name] for name in ("epoch", "images_seen", "seconds", "device", "loss")}
            for arm in self._arms_of(planned):
                columns = {**measured, **report["scores"][arm], "checkpoint": checkpoint}
                record_measured_trial(session, self._rows, arm, trial, columns, painted.get(arm))
            return old if old != checkpoint else None

        history.add(planned.number, report["epoch"], report["loss"])
        self._write(write)
        if is_last:
            history.ended[planned.number] = "finished"
            self.progress.say_end(planned)
        self.progress.update()

    def record_end(self, planned: PlannedTrial, status: TrialStatus, reason: str | None = None) -> None:
        """It was stopped early, or it failed; what has finished stays so."""
        history = self.histories[planned.arm]
        if planned.number not in history.ended:
            history.begun[planned.number] = planned.hyperparameters
            history.ended[planned.number] = status
            self._write(lambda session: self._record_trial(session, planned, status, reason))
            self.progress.say_end(planned, reason)

    def flush(self) -> bool:
        """Write what waits, in order; return whether nothing waits any more."""
        if self._queue and time.monotonic() < self._retry_at:
            return False
        while self._queue:
            old_checkpoint: object = None
            try:
                with write_session(self._drive.engine) as session:
                    self._drive.renew(session)
                    old_checkpoint = self._queue[0](session)
            except DrivenElsewhereError as error:
                self.driven_elsewhere = error
                self._queue.clear()
                return True
            except OperationalError as error:  # locked, or the disk is full
                self._reason = explain(error, shown_name(self._drive.engine.url))
                if not self._retry_at:
                    self.progress.say(f"{self._reason} Until then results wait in memory.")
                self._retry_at = time.monotonic() + RETRY_AFTER_S
                return False
            except Exception as error:  # one that Ray met would end the sweep
                self.problems.append(f"a record was refused ({error})")
            self._queue.popleft()
            if isinstance(old_checkpoint, str):
                delete_folder(old_checkpoint)
        self._retry_at = 0.0
        return True

    def close(self) -> ExperimentStatus:
        """Write what is left, patiently, and how the experiment ended; nothing else may be called any more."""
        status: ExperimentStatus = "interrupted"
        if self.is_complete:
            status = "failed" if set(self.ended.values()) == {"failed"} else "finished"
        experiment_id = self._rows.experiment
        self._queue.append(lambda session: recording.finish_experiment(session, experiment_id, status))
        give_up_at = time.monotonic() + LAST_RETRIES_S
        while not self.flush() and time.monotonic() < give_up_at:
            time.sleep(1)
        waiting = len(self._queue)
        self.unwritten = f"{waiting} records could not be written. {self._reason}" if waiting else None
        return status

    def _write(self, write: Callable[[Session], object]) -> None:
        self._queue.append(write)
        self.flush()

    def _record_trial(
        self, session: Session, planned: PlannedTrial, status: TrialStatus, reason: str | None = None
    ) -> dict[str, int]:
        """Record the trial in its arm and in those that render it; return the rows' ids by arm."""
        columns = self._trial_columns(planned, status, reason)
        return {arm: record_trial(session, self._rows, arm, columns) for arm in self._arms_of(planned)}

    def _arms_of(self, planned: PlannedTrial) -> list[str]:
        return [planned.arm, *renderings(self._config.arms, planned.arm)]

    def _trial_columns(self, planned: PlannedTrial, status: TrialStatus, reason: str | None = None) -> dict[str, Any]:
        return {
            "number": planned.number,
            "replicate": is_replicate(self._config, planned.number),
            "hyperparameters": asdict(planned.hyperparameters),
            "seed": planned.hyperparameters.seed,
            "status": status,
            "failure_reason": reason,
        }


def record_trial(session: Session, rows: Rows, arm: str, trial: Mapping[str, Any]) -> int:
    return recording.record_trial(session, experiment_id=rows.experiment, arm_id=rows.arms[arm], **trial)


def record_measured_trial(
    session: Session,
    rows: Rows,
    arm: str,
    trial: Mapping[str, Any],  # columns of `db.schema.Trial`
    report: Mapping[str, Any],  # columns of `db.schema.Report`, of its last epoch, and the checkpoint
    painted: Painted | None,
) -> None:
    """Record a trial with what it measured and painted."""
    trial_id = record_trial(session, rows, arm, trial)
    recording.record_report(session, trial_id, run_id=rows.run, **report)
    if painted is not None:
        record_samples(session, trial_id, rows.images, painted, report["epoch"])


def record_samples(session: Session, trial_id: int, image_ids: dict[int, int], painted: Painted, epoch: int) -> None:
    for index, picture in painted.items():
        if index in image_ids:
            recording.record_sample(
                session,
                trial_id=trial_id,
                image_id=image_ids[index],
                epoch=epoch,
                png=picture.png,
                scores=picture.scores,
                segments_png=picture.segments_png,
            )


def complete_samples(engine: Engine, experiment_id: int) -> list[str]:
    """Record the sample pictures that finished trials lack, from their checkpoints; return what is still missing."""
    problems = []
    with read_session(engine) as session:
        image_ids = recording.sample_images(session, experiment_id)
        lacking = recording.trials_without_samples(session, experiment_id, len(image_ids))
    for trial in lacking:
        try:
            if trial.checkpoint is None:
                raise ValueError("it has no checkpoint")
            painted = read_samples(trial.checkpoint).get(trial.arm.name, {})
            if missing := image_ids.keys() - painted.keys():
                raise ValueError(f"{trial.checkpoint} lacks {len(missing)} of them")
        except (OSError, UserError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            problems.append(f"The sample pictures of {trial.arm.name} #{trial.number} are missing ({reason}).")
            continue
        with write_session(engine) as session:
            record_samples(session, trial.id, image_ids, painted, trial.epochs_done)
    return problems
