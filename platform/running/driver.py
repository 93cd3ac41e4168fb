"""One sweep and the process that drives it, from a config to results: a new experiment, or one that goes on from the
database. Ray is imported no sooner than it is needed, as that takes seconds.
"""

import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import pydantic
from rich.console import Console
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from db.errors import UserError
from db.schema import Arm, Experiment, Run, StoredDataset, Trial, TrialStatus
from db.store import read_session, shown_name, write_session
from db.surveys.study import open_first_study
from db.sweeps import recording
from db.sweeps.drivers import Drive
from platform.arms.compose import Centers, Task, compose
from platform.arms.options import BASELINES, ArmOptions, describe_decoding, rebalancing_of, trained_arms
from platform.color.counts import ColourCounts, count_colours
from platform.data.datasets import Dataset
from platform.model.evaluation import Scores, evaluate_splits
from platform.model.hyperparameters import Hyperparameters
from platform.model.storage import CHECKPOINT_FILE, delete_all_but, has_file, join
from platform.paint.samples import Painted, choose_sample_indices, encode_truths, paint_of_split
from platform.running.budget import fit_to_seconds, slots
from platform.running.config import MAY_CHANGE, SweepConfig, changes_between
from platform.running.plan import (
    History,
    PlannedTrial,
    is_replicate,
    limit_trials,
    plan_replicates,
    plan_trials,
    trials_in_all,
)
from platform.running.preparation import SweepError, describe_machine, find_code_version, load_data
from platform.running.progress import Progress, command_for, command_to_ask, command_to_resume, say_on
from platform.running.recorder import Recorder, Rows, complete_samples, record_measured_trial, score_columns
from platform.running.verdict import judge
from platform.tables.outcome import print_results, report_failures

MEASURED_S = 1.0  # of each arm and kind of training, where the sweep is to fit into minutes
ENDED: tuple[TrialStatus, ...] = ("finished", "stopped_early", "failed")
MEASURED_COLOURS_OF = 2000  # images: their colours decide no cost, and all would be counted again once some are chosen


@dataclass(eq=False)
class Sweep:
    """One experiment as its driver has it."""

    drive: Drive
    console: Console
    config: SweepConfig
    config_yaml: str
    storage: str
    row: Experiment | None  # as it was found; None in a new experiment
    dataset: Sequence[str]  # names by the first of which that can be had its data are found
    # Once they are loaded, and once its start is recorded:
    data: Dataset = field(init=False)
    rows: Rows = field(init=False)
    known: dict[tuple[str, int], Trial] = field(init=False)  # as recorded, by trained arm and number
    histories: dict[str, History] = field(init=False)  # by trained arm

    def __post_init__(self) -> None:
        if self.config.search.method == "optuna" and importlib.util.find_spec("optuna") is None:
            raise SweepError("Optuna is not installed: pip install -c constraints.txt optuna, or change search.method.")

    @property
    def engine(self) -> Engine:
        return self.drive.engine

    def say(self, line: str) -> None:
        say_on(self.console)(line)

    @classmethod
    def resume(
        cls,
        drive: Drive,
        console: Console,
        row: Experiment,
        told: SweepConfig | None = None,
        storage: str | None = None,
        dataset: Sequence[str] | None = None,
    ) -> "Sweep":
        """One that is in the database, by its config there; what may change is as it is `told` now, where anything is.

        dataset: by which names to look for its data, where not by their own. Raises SweepError where `told` is another
        config.
        """
        config = config_to_resume(row, told)
        with read_session(drive.engine) as session:
            name = session.scalars(select(StoredDataset.name).where(StoredDataset.id == row.dataset_id)).one()
        names = dataset or ([name] if told is None or name in told.dataset else told.dataset)
        return cls(drive, console, config, row.config_yaml, storage or row.storage_path, row, names)

    # What it works on

    def load(self) -> None:
        self.data = load_data(self.config, self.dataset, self.say)

    @cached_property
    def colours(self) -> ColourCounts:
        """Of the training pixels, from the database where it has them."""
        with read_session(self.engine) as session:
            of_data = StoredDataset.fingerprint == self.data.fingerprint
            counts = session.scalar(select(StoredDataset.colour_counts).where(of_data))
        if counts:
            return ColourCounts.from_bytes(counts)
        return count_colours(self.data.train_images, self.data.train_labels, len(self.data.class_names))

    @cached_property
    def tasks(self) -> dict[str, Task]:
        """Of the trained arms and the baselines."""
        with read_session(self.engine) as session:
            found = select(Arm.name, Arm.centers).where(Arm.experiment_id == (self.row.id if self.row else None))
            centers = dict(session.execute(found).all())
        compose_arm = composer(self.config, self.colours, centers)
        return {name: compose_arm(name) for name in (*trained_arms(self.config.arms), *BASELINES)}

    @property
    def centers(self) -> dict[str, Centers]:
        """Of the palettes, by arm that has one."""
        return {name: task.palette.centers.cpu().tolist() for name, task in self.tasks.items() if task.palette}

    @cached_property
    def samples(self) -> list[int]:
        """The images that are painted, as indices in the validation split."""
        return choose_sample_indices(self.data.validation_labels, self.config.samples.images)

    # From start to end

    def fit_to_seconds(self, seconds: float) -> None:
        """Choose as many images and epochs as fit, by what trials cost here. Ray has been started."""
        from platform.running import cluster, on_ray

        gpus = cluster.gpus_per_trial(self.config)
        at_once = slots(self.config, cluster.cluster_resources(), gpus)
        compose_arm = composer(self.config, count_some_colours(self.data))
        costs = on_ray.measure_on_ray(
            self.config, self.data, compose_arm, gpus=gpus, at_once=at_once, seconds=MEASURED_S
        )
        self.config = config = fit_to_seconds(self.config, costs, self.data, at_once, seconds)
        if config.train_images is not None:
            self.data = self.data.with_train_images(config.train_images, config.seed)
        images = len(self.data.train_images)
        self.say(
            f"In {config.minutes:g} minutes every trial can train {config.epochs} epochs of {images:,} images here."
        )

    def run(self, address: str | None = None) -> int:
        """Train what has not been trained, record it and finish; return the exit status. Ray has been started, at
        this address where one was given. Raises DrivenElsewhereError where another process takes the sweep over."""
        from platform.running import cluster, on_ray

        config = self.config
        gpus = cluster.gpus_per_trial(config)
        cluster.check_storage(self.storage)
        self.record_start(find_code_version(self.say), describe_machine() | cluster.environment())
        folder = self.clean_up()
        progress = Progress(self.console, config, self.histories)
        recorder = Recorder(self.drive, config, self.rows, self.histories, progress)
        unfinished = self.find_unfinished(recorder)
        resumed_by = command_to_resume(config.experiment, self.engine, address)
        trials, before = trials_in_all(config), len(recorder.ended)
        self.say(self.data.summary())
        self.say(f"Training {trials} trials of at most {config.epochs} epochs; checkpoints go to {self.storage}.")
        if before:
            self.say(f"{before} trials had ended before.")
        self.say(f"If it is interrupted, this goes on with it: {resumed_by}")
        if busy := cluster.busy_resources(config.resources.cpu, gpus):
            self.say(f"{busy} Trials start by themselves when other work on the cluster ends.")
        failure = None
        try:
            with progress.shown():
                trainable = on_ray.trainable(config, self.data, composer(config, self.colours, self.centers))
                on_ray.run_trials(
                    config, trainable, recorder, unfinished, gpus=gpus, storage=self.storage, folder=folder
                )
        except Exception as error:
            failure = cluster.first_line(error)
        finally:
            status = recorder.close()
        if recorder.driven_elsewhere:
            raise recorder.driven_elsewhere
        if recorder.unwritten:
            self.say(f"{recorder.unwritten} What they say is trained again by: {resumed_by}")
        if status == "interrupted":
            self._show_results()
            why = f"Ray stopped the sweep ({failure})" if failure else "Interrupted"
            self.say(f"{why}; {len(recorder.ended)} of {trials} trials have ended. To go on: {resumed_by}")
            return 1 if failure else 130
        return 1 if recorder.unwritten else self.finish(recorder.problems)

    def finish(self, problems: Sequence[str] = ()) -> int:
        """Complete the record where it lacks something, hear the jury, open the survey, print the results; return the
        exit status. problems: what could not be recorded."""
        engine, name = self.engine, self.config.experiment
        with write_session(engine) as session:
            self.drive.renew(session)
            experiment = session.scalars(select(Experiment).where(Experiment.name == name)).one()
            experiment.config = self.config.model_dump(mode="json")  # also where all had finished before
            experiment_id, jury_is_due = experiment.id, self.config.jury and experiment.jury is None
        missing, survey = complete_samples(engine, experiment_id), ""
        try:
            if jury_is_due:
                judge(engine, name, self.say)
        except UserError as error:
            missing.append(f"The machine jury's word is missing ({error})")
        try:
            study = open_first_study(engine, name, say=self.say)
            if study is not None and study.status == "open":
                survey = f"The survey {study.name!r} is open; to ask people: {command_to_ask(engine)}"
        except UserError as error:
            missing.append(f"The survey is missing ({error})")
        failures = self._show_results()  # of the jury and the survey, too
        for line in (
            *([survey] if survey else []),
            *(f"Not recorded: {problem}." for problem in problems),
            *(f"{line} The same command tries again." for line in missing),
            f"Everything is in {shown_name(engine.url)}; again: {command_for('results', name, engine)}",
        ):
            self.say(line)
        return 1 if failures or problems or missing else 0

    # Parts of it

    def record_start(self, code_version: str, environment: Mapping[str, Any]) -> None:
        """Record the experiment, a run of the driver, the arms, the samples' ground truth and the baselines unless they
        have been; read how far trials are. Raises SweepError if the experiment was begun with other data."""
        with read_session(self.engine) as session:
            known = recording.recorded_baselines(session, self.config.experiment)
        lacking = [name for name in BASELINES if known.get(name) != set(self.samples)]
        images, labels = self.data.validation_images, self.data.validation_labels
        truths = encode_truths(images[self.samples]) if self.samples else []
        scores = {name: evaluate_splits(self.tasks[name], None, self.data)[name] for name in lacking}
        painted = {name: paint_of_split(self.tasks[name], None, images, labels, self.samples) for name in lacking}
        with write_session(self.engine) as session:  # all is computed before, as others wait for it to end
            self.drive.renew(session)
            if self.row is not None and self.row.storage_path != self.storage:
                recording.move_checkpoints(session, self.row.id, self.row.storage_path, self.storage)
            dataset_id = self._record_dataset(session)
            try:
                experiment_id = recording.record_experiment(
                    session,
                    name=self.config.experiment,
                    dataset_id=dataset_id,
                    config=self.config.model_dump(mode="json"),
                    config_yaml=self.config_yaml,
                    storage_path=self.storage,
                )
            except ValueError as error:
                raise SweepError(str(error)) from None
            self.rows = Rows(
                experiment=experiment_id,
                run=recording.record_run(session, experiment_id, code_version=code_version, environment=environment),
                arms=self._record_arms(session, experiment_id),
                images=self._record_truths(session, dataset_id, truths),
            )
            for name in lacking:
                self._record_baseline(session, name, scores[name], painted[name].get(name))
            trials = recording.recorded_trials(session, experiment_id)
            losses = recording.reported_losses(session, experiment_id)
        self.histories = {name: History() for name in trained_arms(self.config.arms)}
        self.known = {(trial.arm.name, trial.number): trial for trial in trials if trial.arm.name in self.histories}
        for (arm, number), trial in self.known.items():
            if trial.status in ENDED:
                self.histories[arm].begun[number] = Hyperparameters(**trial.hyperparameters)
                self.histories[arm].ended[number] = trial.status
        for arm, number, epoch, loss in losses:
            if arm in self.histories:
                self.histories[arm].add(number, epoch, loss)

    def find_unfinished(self, recorder: Recorder) -> list[PlannedTrial]:
        """The trials that have not ended, with their checkpoints; the recorder is told of them, and of those that
        early stopping ends and an earlier run of the driver did not say so of."""
        unfinished = []
        for trial in self._plan():
            before = self.known.get((trial.arm, trial.number))
            if trial.number in self.histories[trial.arm].ended:
                continue
            limit = limit_trials(self.config, self.histories[trial.arm])[trial.number]
            if before is None or before.epochs_done == 0:
                unfinished.append(trial)
            elif before.epochs_done >= limit.epoch and limit.is_final:
                recorder.record_end(trial, "stopped_early")
            elif before.checkpoint is not None and has_file(before.checkpoint, CHECKPOINT_FILE):
                unfinished.append(replace(trial, checkpoint=before.checkpoint, epochs_done=before.epochs_done))
            else:
                self.say(f"{trial.name} begins anew, as its checkpoint {before.checkpoint} is not there any more.")
                recorder.forget_reports(trial)
                unfinished.append(trial)
        recorder.record_plan(unfinished)
        return unfinished

    def _plan(self) -> Iterator[PlannedTrial]:
        """The trials of the search, of Optuna's those that it has proposed, and then the replicates, if by then all of
        the search have ended."""
        if self.config.search.method == "optuna":
            for trial in self.known.values():
                if not is_replicate(self.config, trial.number):
                    yield PlannedTrial(trial.arm.name, trial.number, Hyperparameters(**trial.hyperparameters))
        else:
            yield from plan_trials(self.config)
        yield from plan_replicates(self.config, self.histories)

    def clean_up(self) -> str:
        """Delete what earlier runs of the driver left behind, and return the name of this one's folder.

        A folder belongs to one run of one database, so that two databases may share a storage.
        """
        with read_session(self.engine) as session:
            runs = session.scalars(select(Run).where(Run.experiment_id == self.rows.experiment).order_by(Run.id)).all()
            folders = [f"run-{run.started_at:%Y%m%dT%H%M%S%f}" for run in runs]
        kept = [trial.checkpoint for trial in self.known.values() if trial.checkpoint is not None]
        for folder in folders[:-1]:
            delete_all_but(join(self.storage, self.config.experiment, folder), kept)
        return folders[-1]

    def _record_dataset(self, session: Session) -> int:
        data = self.data
        return recording.record_dataset(
            session,
            name=data.name,
            fingerprint=data.fingerprint,
            note=data.note,
            class_names=data.class_names,
            validation_class_counts=np.bincount(data.validation_labels, minlength=len(data.class_names)).tolist(),
            colour_counts=self.colours.to_bytes(),
        )

    def _record_arms(self, session: Session, experiment_id: int) -> dict[str, int]:
        arms: dict[str, ArmOptions] = {**self.config.arms, **BASELINES}
        centers = self.centers
        return {
            name: recording.record_arm(
                session,
                experiment_id=experiment_id,
                name=name,
                position=position,
                options=asdict(options),
                baseline=name in BASELINES,
                rebalancing=rebalancing_of(arms, name),
                decoding=describe_decoding(options, arms[options.renders or name]),
                centers=centers.get(options.renders or name),
            )
            for position, (name, options) in enumerate(arms.items())
        }

    def _record_truths(self, session: Session, dataset_id: int, truths: Sequence[bytes]) -> dict[int, int]:
        """Record the samples' ground truth, as PNGs; the images' ids by index in validation."""
        height, width = self.data.validation_images.shape[1:3]
        return {
            index: recording.record_image(
                session,
                dataset_id=dataset_id,
                split="validation",
                index_in_split=index,
                class_index=int(self.data.validation_labels[index]),
                truth_png=png,
                width=width,
                height=height,
            )
            for index, png in zip(self.samples, truths, strict=True)
        }

    def _record_baseline(self, session: Session, name: str, scores: dict[str, Scores], painted: Painted | None) -> None:
        """Record an arm of one trial, reported before any epoch."""
        trial = {"number": 1, "hyperparameters": {}, "seed": self.config.seed, "status": "finished"}
        nothing: dict[str, Any] = {"epoch": 0, "images_seen": 0, "seconds": 0.0, "device": "none", "loss": None}
        record_measured_trial(session, self.rows, name, trial, nothing | score_columns(scores), painted)

    def _show_results(self) -> int:
        """Print the tables and what failed; return 1 if any trial did, else 0."""
        print_results(self.engine, self.config.experiment, self.console)
        return report_failures(self.engine, self.config.experiment, self.say)


def config_to_resume(row: Experiment, told: SweepConfig | None) -> SweepConfig:
    """The config that an experiment was begun with, but for what may change, which is as it is told now. Raises
    SweepError where they disagree about the rest."""
    if told is not None and (changed := changes_between(row.config, told)):
        raise SweepError(
            f"Experiment {row.name!r} is in the database with another config: {'; '.join(changed)}. Give this one "
            f"another name (--set experiment=NAME), or go on with the old one (--resume '{row.name}')."
        )
    now = {} if told is None else told.model_dump(mode="json", include=MAY_CHANGE)
    try:
        return SweepConfig.model_validate(row.config | now)
    except pydantic.ValidationError as error:
        keys = ", ".join(".".join(map(str, mistake["loc"])) for mistake in error.errors())
        raise SweepError(
            f"Experiment {row.name!r} cannot go on, as its config has what there is no more ({keys}): begin another."
        ) from None


def count_some_colours(data: Dataset) -> ColourCounts:
    """Of as many images as are enough to measure what trainings cost."""
    part = slice(MEASURED_COLOURS_OF)
    return count_colours(data.train_images[part], data.train_labels[part], len(data.class_names))


def composer(
    config: SweepConfig, colours: ColourCounts, centers: Mapping[str, Centers | None] | None = None
) -> Callable[..., Task]:
    """`compose` of the config's arms and the baselines, by name. centers: what K-means found before, by arm."""
    arms: dict[str, ArmOptions] = {**config.arms, **BASELINES}
    return partial(compose, arms, colours=colours, seed=config.seed, centers=centers)
