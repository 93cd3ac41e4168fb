"""Further renderings of a finished experiment, read and scored from its stored weights; nothing is trained.

python -m platform.sweep --resume rebalance --add 'tilted 0.3: {renders: classification, tilt: 0.3}'

The experiment's recorded config stays what its sweep was begun with, so that the sweep's own command still finds it
finished. What was added stands among its arms, and its reports name the run that scored them.
"""

import _thread
import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from rich.console import Console
from sqlalchemy import Engine, select

from db.schema import Arm, Experiment, Trial, TrialStatus
from db.store import open_existing, read_session, shown_name, write_session
from db.sweeps import recording
from db.sweeps.drivers import Drive, driven_by_this_process
from db.sweeps.trials import load_arms
from platform.arms.options import ArmOptions, describe_decoding, read_options, rebalancing_of, renderings
from platform.color.scores import JURY
from platform.data.datasets import Dataset
from platform.model.evaluation import evaluate_splits
from platform.model.hyperparameters import Hyperparameters
from platform.model.stored import load_trial
from platform.model.training import autocast_dtype, pick_device
from platform.paint.samples import Painted, paint_of_split
from platform.running.config import check_config
from platform.running.preparation import (
    SweepError,
    describe_machine,
    find_code_version,
    find_experiment,
    load_recorded_data,
)
from platform.running.progress import Say, say_on
from platform.running.recorder import Rows, record_measured_trial, score_columns
from platform.running.verdict import judge
from platform.running.yaml_input import Key, Place, read_yaml
from platform.tables.outcome import print_results

READ: tuple[TrialStatus, ...] = ("finished", "stopped_early")  # trials whose weights are read; pictures: if finished


@dataclass(frozen=True)
class _Read:
    """What an added arm makes of one trial's weights."""

    arm: str
    trial: dict[str, Any]  # columns of `db.schema.Trial`
    report: dict[str, Any]  # columns of `db.schema.Report`, and the checkpoint
    painted: Painted | None


def run_additions(options: argparse.Namespace, console: Console) -> int:
    """What `--add` does: add the arms, have the jury judge them where one was held, print the results; return the exit
    status. No study is opened."""
    say = say_on(console)
    engine = open_existing(options.database)
    with driven_by_this_process(engine, options.resume, _thread.interrupt_main) as drive:
        experiment = find_experiment(engine, options.resume)
        if experiment is None:
            raise SweepError(f"There is no experiment {options.resume!r} in {shown_name(engine.url)}.")
        add_renderings(drive, experiment, options.add, say, dataset=options.dataset)
        if _lacks_jury(engine, experiment):
            say("The whole jury is held again, as its critics are not kept: the marks of all arms may change.")
            judge(engine, experiment.name, say)
    print_results(engine, experiment.name, console)
    return 0


def add_renderings(
    drive: Drive, experiment: Experiment, texts: Sequence[str], say: Say, *, dataset: Sequence[str] | None = None
) -> None:
    """Give a finished experiment the arms of the texts, each like `NAME: {renders: ARM, tilt: 0.3}`: every trial of the
    rendered arm is read, scored and painted from its weights. An arm that is there already is said to be.

    dataset: names by one of which the data can be had, where not by the recorded one. All is recorded at once, or
    nothing. Raises UserError for an arm that would train or is there with other options, and where data or weights are
    gone.
    """
    if experiment.status != "finished":
        raise SweepError(f"Experiment {experiment.name!r} has not finished: go on with it first, without --add.")
    with read_session(drive.engine) as session:
        models = select(Arm).where(Arm.experiment_id == experiment.id, Arm.baseline.is_(False))
        rows = {row.name: row for row in session.scalars(models.order_by(Arm.position, Arm.id))}
        images = recording.sample_images(session, experiment.id)
    arms = {name: read_options(row.options) for name, row in rows.items()}
    wanted = _read_arms(texts, experiment.config, {name: row.options for name, row in rows.items()})
    for name in wanted.keys() & arms.keys():
        say(f"{name} is there already.")
        if wanted[name] != arms[name]:
            raise SweepError(f"--add {name}: it is there with other options, which stay; give this one another name.")
    added = {name: options for name, options in wanted.items() if name not in arms}
    if not added:
        return
    code_version = find_code_version(say)
    data = load_recorded_data(experiment, say, dataset)
    found = []
    for trained in arms:
        if names := renderings(added, trained):
            say(f"Reading the weights of {trained}: {', '.join(names)}.")
            found += _read_weights(drive.engine, rows[trained], {name: added[name] for name in names}, data, images)
    with write_session(drive.engine) as session:  # all is computed before, as others wait for it to end
        drive.renew(session)
        position = recording.make_room_for_arms(session, experiment.id, len(added))
        ids = {
            name: recording.record_arm(
                session,
                experiment_id=experiment.id,
                name=name,
                position=place,
                options=asdict(options),
                rebalancing=rebalancing_of(arms | added, name),
                decoding=describe_decoding(options, arms[str(options.renders)]),
                centers=rows[str(options.renders)].centers,
            )
            for place, (name, options) in enumerate(added.items(), start=position)
        }
        run = recording.record_run(session, experiment.id, code_version=code_version, environment=describe_machine())
        for read in found:
            written = Rows(experiment.id, run, ids, images)
            record_measured_trial(session, written, read.arm, read.trial, read.report, read.painted)


def _lacks_jury(engine: Engine, experiment: Experiment) -> bool:
    """Whether a jury was held on the experiment, but not on all its arms."""
    with read_session(engine) as session:
        trials = [arm.best for arm in load_arms(session, experiment.id) if arm.best is not None]
        held = session.get_one(Experiment, experiment.id).jury is not None
    return held and any(trial.score(JURY) is None for trial in trials)


def _read_arms(
    texts: Sequence[str], config: Mapping[str, Any], there: Mapping[str, dict[str, Any]]
) -> dict[str, ArmOptions]:
    """The arms of the texts, by name. config and there: of the experiment, as recorded. Raises UserError."""
    given: dict[str, Any] = {}
    places: dict[Key, Place] = {}
    for text in texts:
        data, found = read_yaml(text, f"--add {text}")
        if not isinstance(data, dict):
            raise SweepError(f"--add {text}: expected an arm, as in 'tilted 0.3: {{renders: ARM, tilt: 0.3}}'.")
        given |= data
        places |= {("arms", *key): Place(place.source) for key, place in found.items()}
    arms = check_config({**config, "arms": {**there, **given}}, places).arms
    for name in given:
        if arms[name].kind is not None:
            raise SweepError(f"--add {name}: it would be trained, and a finished experiment is given renderings only.")
    return {name: arms[name] for name in given}


def _read_weights(
    engine: Engine, trained: Arm, added: Mapping[str, ArmOptions], data: Dataset, images: Mapping[int, int]
) -> list[_Read]:
    """What the added arms make of each trial of the trained arm. images: the samples' ids, by index in validation."""
    with read_session(engine) as session:
        of_arm = select(Trial).where(Trial.arm_id == trained.id, Trial.status.in_(READ)).order_by(Trial.number)
        trials = session.scalars(of_arm).all()
    if not trials:
        raise SweepError(f"No trial of {trained.name} has weights to be read.")
    indices, found = list(images), []
    for trial in trials:
        with read_session(engine) as session:
            task, model = load_trial(session, trial.id, pick_device())
        readings = {
            name: task.readings[trained.name] if task.reread is None else task.reread(options)
            for name, options in added.items()
        }
        task = replace(task, readings=readings, segment_pngs=None)  # its pictures show the segments
        dtype = autocast_dtype(task.device, Hyperparameters(**trial.hyperparameters).precision)
        of_split = data.validation_images, data.validation_labels
        painted = paint_of_split(task, model, *of_split, indices) if trial.status == "finished" else {}
        columns = {name: getattr(trial, name) for name in ("number", "replicate", "hyperparameters", "seed", "status")}
        measured = {name: getattr(trial.last, name) for name in ("epoch", "images_seen", "seconds", "device", "loss")}
        for name, scores in evaluate_splits(task, model, data, dtype).items():
            report = {**measured, **score_columns(scores), "checkpoint": trial.checkpoint}
            found.append(_Read(name, columns, report, painted.get(name)))
    return found
