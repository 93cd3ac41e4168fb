"""Further renderings of a finished experiment, read and scored from its stored weights; nothing is trained.

python -m platform.sweep --resume rebalance --add 'tilted 0.3: {renders: classification, tilt: 0.3}'

The experiment's recorded config stays what its sweep was begun with, so that the sweep's own command still finds it
finished. What was added stands among its arms, and its reports name the run that scored them.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import pydantic
from rich.console import Console
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from db.schema import Arm, Experiment, Report, StoredDataset, Trial, TrialStatus
from db.store import open_existing, read_session, shown_name, write_session
from db.sweeps import recording
from db.sweeps.trials import arm_results
from platform.arms.compose import Reading
from platform.arms.options import ArmOptions, read_options, rebalancing_of, renderings
from platform.color.scores import JURY
from platform.data.datasets import Dataset
from platform.model.evaluation import evaluate_splits
from platform.model.hyperparameters import Hyperparameters
from platform.model.stored import load_trial
from platform.model.training import autocast_dtype, pick_device
from platform.paint.samples import Painted, paint_samples
from platform.running.config import SweepConfig, arm_mistakes
from platform.running.preparation import (
    SweepError,
    describe_machine,
    find_code_version,
    find_experiment,
    load_recorded_data,
)
from platform.running.progress import Say, say_on
from platform.running.recorder import record_samples, score_columns
from platform.running.verdict import judge
from platform.tables.outcome import print_results

READ: tuple[TrialStatus, ...] = ("finished", "stopped_early")  # trials whose weights are read; pictures: if finished


@dataclass(frozen=True)
class _Read:
    """What added arms make of one trial's weights."""

    trial: Trial
    report: Report  # its last one
    scores: dict[str, dict[str, Any]]  # by added arm, as `db.schema.Report` has columns for them
    painted: dict[str, Painted]  # by added arm


def run_additions(options: argparse.Namespace, console: Console) -> int:
    """What `--add` does: add the arms, have the jury judge them where one was held, print the results; return the exit
    status. No study is opened."""
    say = say_on(console)
    engine = open_existing(options.database)
    experiment = find_experiment(engine, options.resume)
    if experiment is None:
        raise SweepError(f"There is no experiment {options.resume!r} in {shown_name(engine.url)}.")
    add_renderings(engine, experiment, options.add, say, dataset=options.dataset)
    if _lacks_jury(engine, experiment):
        say("The whole jury is held again, as its critics are not kept: the marks of all arms may change.")
        judge(engine, experiment.name, say)
    print_results(engine, experiment.name, console)
    return 0


def add_renderings(
    engine: Engine, experiment: Experiment, texts: Sequence[str], say: Say, *, dataset: Sequence[str] | None = None
) -> None:
    """Give a finished experiment the arms of the texts, each like `NAME: {renders: ARM, tilt: 0.3}`: every trial of the
    rendered arm is read, scored and painted from its weights. An arm that is there already is said to be.

    dataset: names by one of which the data can be had, where not by the recorded one. All is recorded at once, or
    nothing. Raises UserError for an arm that would train or is there with other options, and where data or weights are
    gone.
    """
    if experiment.status != "finished":
        raise SweepError(f"Experiment {experiment.name!r} has not finished: go on with it first, without --add.")
    with read_session(engine) as session:
        models = select(Arm).where(Arm.experiment_id == experiment.id, Arm.baseline.is_(False))
        there = {row.name: row.options for row in session.scalars(models.order_by(Arm.position, Arm.id))}
        stored = session.get_one(StoredDataset, experiment.dataset_id)
        images = recording.sample_images(session, experiment.id)
    wanted = _read_arms(texts, experiment.config, there)
    for name in wanted.keys() & there.keys():
        say(f"{name} is there already.")
    arms = {name: read_options(options) for name, options in there.items()}
    added = {name: options for name, options in wanted.items() if name not in there}
    if not added:
        return
    code_version = find_code_version(say)
    data = load_recorded_data(experiment, stored, say, dataset)
    found = []
    for trained in arms:
        if names := renderings(added, trained):
            say(f"Reading the weights of {trained}: {', '.join(names)}.")
            found += _read_weights(engine, experiment.id, trained, {name: added[name] for name in names}, data, images)
    with write_session(engine) as session:  # all is computed before, as others wait for it to end
        run_id = recording.record_run(session, experiment.id, code_version=code_version, environment=describe_machine())
        _record(session, experiment.id, run_id, arms | added, list(added), found, images)


def _lacks_jury(engine: Engine, experiment: Experiment) -> bool:
    """Whether a jury was held on the experiment, but not on all its arms."""
    with read_session(engine) as session:
        trials = [result.best for result in arm_results(session, experiment.name) if result.best is not None]
        held = session.get_one(Experiment, experiment.id).jury is not None
    return held and any(trial.score(JURY) is None for trial in trials)


def _read_arms(
    texts: Sequence[str], config: Mapping[str, Any], there: Mapping[str, dict[str, Any]]
) -> dict[str, ArmOptions]:
    """The arms of the texts, by name. config and there: of the experiment, as recorded. Raises SweepError."""
    given: dict[str, Any] = {}
    for text in texts:
        try:
            data = YAML(typ="safe", pure=True).load(text)
        except YAMLError as error:
            raise SweepError(f"--add {text}: is not valid YAML ({str(error).splitlines()[0]}).") from None
        if not isinstance(data, dict):
            raise SweepError(f"--add {text}: expected an arm, as in 'tilted 0.3: {{renders: ARM, tilt: 0.3}}'.")
        given |= {str(name): options for name, options in data.items()}
    try:
        arms = SweepConfig.model_validate({**config, "arms": {**there, **given}}).arms
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"][1:]))
        raise SweepError(f"--add {place}: {first['msg']}, found {first['input']!r}.") from None
    for name in given:
        if arms[name].renders is None and arms[name].kind is not None:
            raise SweepError(f"--add {name}: it would be trained, and a finished experiment is given renderings only.")
        if name in there and read_options(there[name]) != arms[name]:
            raise SweepError(f"--add {name}: it is there with other options, which stay; give this one another name.")
    for name, option, message in arm_mistakes(arms):
        if name in given:
            raise SweepError(f"--add {name}{'' if option is None else f'.{option}'}: {message}.")
    return {name: arms[name] for name in given}


def _read_weights(
    engine: Engine,
    experiment_id: int,
    trained: str,
    added: Mapping[str, ArmOptions],
    data: Dataset,
    images: Mapping[int, int],
) -> list[_Read]:
    """What the added arms make of each trial of the trained arm. images: the samples' ids, by index in validation."""
    with read_session(engine) as session:
        rows = session.execute(
            select(Trial, Report)
            .join(Report, (Report.trial_id == Trial.id) & (Report.epoch == Trial.epochs_done))
            .join(Arm, Arm.id == Trial.arm_id)
            .where(Arm.experiment_id == experiment_id, Arm.name == trained, Trial.status.in_(READ))
            .order_by(Trial.number)
        ).all()
    if not rows:
        raise SweepError(f"No trial of {trained} has weights to be read.")
    indices, found = list(images), []
    for trial, report in rows:
        with read_session(engine) as session:
            task, model = load_trial(session, trial.id, pick_device())
        readings: dict[str, Reading] = {
            name: task.readings[trained] if task.reread is None else task.reread(options)
            for name, options in added.items()
        }
        task = replace(task, readings=readings, segment_pngs=None)  # its pictures show the segments
        dtype = autocast_dtype(task.device, Hyperparameters(**trial.hyperparameters).precision)
        scores = {name: score_columns(of) for name, of in evaluate_splits(task, model, data, dtype).items()}
        painted: dict[str, Painted] = {}
        if indices and trial.status == "finished":
            pictures = paint_samples(task, model, data.validation_images[indices])
            painted = {
                name: Painted(readings[name].decoding, dict(zip(indices, of_arm, strict=True)))
                for name, of_arm in pictures.items()
            }
        found.append(_Read(trial, report, scores, painted))
    return found


def _record(
    session: Session,
    experiment_id: int,
    run_id: int,
    arms: Mapping[str, ArmOptions],
    added: Sequence[str],
    found: Sequence[_Read],
    images: dict[int, int],
) -> None:
    """Record the added arms before the baselines, and in each of them a trial beside each that was read."""
    if session.scalar(select(Arm.id).where(Arm.experiment_id == experiment_id, Arm.name.in_(added))) is not None:
        raise SweepError(f"{', '.join(added)}: somebody else has added it meanwhile.")
    position = recording.make_room_for_arms(session, experiment_id, len(added))
    for place, name in enumerate(added, start=position):
        of_arm = [read for read in found if name in read.scores]
        centers = session.get_one(Arm, of_arm[0].trial.arm_id).centers
        arm_id = recording.record_arm(
            session,
            experiment_id=experiment_id,
            name=name,
            position=place,
            options=asdict(arms[name]),
            rebalancing=rebalancing_of(arms, name),
            centers=centers,
        )
        for read in of_arm:
            trial, report = read.trial, read.report
            trial_id = recording.record_trial(
                session,
                experiment_id=experiment_id,
                arm_id=arm_id,
                number=trial.number,
                replicate=trial.replicate,
                hyperparameters=trial.hyperparameters,
                seed=trial.seed,
                status=trial.status,
            )
            recording.record_report(
                session,
                trial_id,
                run_id=run_id,
                epoch=report.epoch,
                images_seen=report.images_seen,
                seconds=report.seconds,
                device=report.device,
                loss=report.loss,
                checkpoint=trial.checkpoint,
                **read.scores[name],
            )
            if name in read.painted:
                record_samples(session, trial_id, images, read.painted[name], trial.epochs_done)
