"""The main job: train every arm of a config fairly tuned, store what it measured and painted, print the results.

python -m platform.sweep tune_configs/rebalance.yaml
"""

import _thread
import argparse
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from sqlalchemy import Engine, select
from sqlalchemy.exc import OperationalError

from db import recording
from db.drivers import Drive, driven_by_this_process
from db.errors import UserError, run_command
from db.schema import Experiment, Run, TrialStatus
from db.store import StoreError, explain, open_database, open_existing, read_session, shown_name, write_session
from db.studies import open_study_of
from platform.arm_options import trained_arms
from platform.budget import (
    cost_lines,
    fit_to_seconds,
    kinds_to_measure,
    measure_costs,
    part_to_measure,
    slots,
    slots_here,
)
from platform.colour_counts import count_colours
from platform.compose import compose
from platform.config import SweepConfig, read_config
from platform.hyperparameters import Hyperparameters
from platform.jury import judge
from platform.options import command_for, command_to_ask, command_to_resume, parse_options
from platform.palettes import centers_as_list
from platform.preparation import (
    SweepError,
    config_to_run,
    find_experiment,
    load_data,
    prepare,
    settings_of,
)
from platform.progress import Progress, Say, open_console, say_on
from platform.recorder import Recorded, Recorder, Start, complete_samples, record_start
from platform.renderings import run_additions
from platform.results import print_results, report_failures
from platform.storage import CHECKPOINT_FILE, delete_all_but, has_file, join
from platform.trials import PlannedTrial, fates, is_replicate, plan_lines, plan_replicates, plan_trials, trials_in_all
from platform.workers import CHECKOUT, set_ray_variables

if TYPE_CHECKING:
    from platform import ray_trials

MEASURED_S = 1.0  # of each arm and kind of training, before the start
AROUND_S = 15.0  # before a sweep can measure, and after its last trial: imports, samples, tables
BUSY_TIMEOUT_S = 10.0  # the recorder tries again later, and meanwhile Ray is not kept waiting for long


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_options(arguments)
    console = open_console()
    _take_sigterm_for_interrupt()
    began = time.monotonic()
    return run_command(lambda: _sweep_or_say_how_to_go_on(options, console, began))


def _sweep_or_say_how_to_go_on(options: argparse.Namespace, console: Console, began: float) -> int:
    try:
        return _sweep(options, console, began)
    except KeyboardInterrupt:  # before or after the trials, or a second time while they ended
        say_on(console)("Interrupted. The same command goes on where this ended.")
        return 130


def _sweep(options: argparse.Namespace, console: Console, began: float) -> int:
    if options.add:
        return run_additions(options, console)
    say = say_on(console)
    chosen = None if options.config is None else read_config(options.config, settings_of(options))
    if options.dry_run and chosen is not None:
        _say_plan(chosen.config, options, say)
        return 0
    cluster, source = options.address, ""
    if cluster is None and os.environ.get("RAY_ADDRESS"):
        cluster, source = os.environ["RAY_ADDRESS"], " (from the environment variable RAY_ADDRESS)"
    with ExitStack() as stack:
        if cluster not in (None, "local"):
            stack.enter_context(_ray_started(cluster, source, say))
        open_it = open_database if options.resume is None else open_existing
        engine = open_it(options.database, say=say, busy_timeout_s=BUSY_TIMEOUT_S)
        stack.callback(engine.dispose)
        try:
            name = options.resume if chosen is None else chosen.config.experiment
            drive = stack.enter_context(driven_by_this_process(engine, name, _thread.interrupt_main))
            known = find_experiment(engine, name)
            chosen = config_to_run(chosen, known, options, engine)
            if known is not None and known.status in ("finished", "failed"):
                say(
                    f"Experiment {known.name!r} is finished already: nothing is trained, these are its results. "
                    f"To run it again, give it another name: --set 'experiment={known.name[:78]} 2'."
                )
                return _show(engine, known.id, known.name, console, [])
            storage = options.storage or (known.storage_path if known else str(CHECKOUT / "results"))
            storage = storage if "://" in storage else _folder(storage)
            start = prepare(chosen, known, options, storage, engine, say)
            if cluster in (None, "local"):
                stack.enter_context(_ray_started("local", "", say))
            if chosen.config.minutes is not None and known is None:
                chosen = chosen._replace(config=_fit_to_minutes(start, began, say))
                start = prepare(chosen, known, options, storage, engine, lambda line: None)
            return _run(start, known, engine, drive, console, options.address)
        except OperationalError as error:
            raise StoreError(explain(error, shown_name(engine.url))) from None


# Before the trials


def _take_sigterm_for_interrupt() -> None:
    """Take SIGTERM, by which Slurm and spot machines end a process, and SIGHUP, of a lost ssh, for Ctrl-C."""
    if threading.current_thread() is threading.main_thread():
        for which in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(which) is not signal.SIG_IGN:  # as nohup has it
                signal.signal(which, lambda *_: signal.raise_signal(signal.SIGINT))


@contextmanager
def _ray_started(address: str, source: str, say: Say) -> Iterator[None]:
    """See `ray_cluster.ray_started`. Ray is imported no sooner than it is needed, as that takes seconds."""
    for line in set_ray_variables(os.environ):
        say(line)
    from platform import ray_cluster

    with ray_cluster.ray_started(address, source, say):
        _take_sigterm_for_interrupt()  # Ray has a handler of its own, which prints a stack
        yield


def _folder(path: str) -> str:
    try:
        return str(Path(path).expanduser().resolve())
    except (OSError, RuntimeError) as error:  # too long, links in a circle, ~nobody
        raise SweepError(f"Checkpoints cannot be kept in {path[:100]} ({error}): give another --storage.") from None


# What it costs


def _say_plan(config: SweepConfig, options: argparse.Namespace, say: Say) -> None:
    """Say what would be trained and, by a few steps of each kind in this process, how long that takes here."""
    try:
        data = load_data(config, options.dataset or config.dataset, say)
    except UserError as error:
        for line in plan_lines(config):
            say(line)
        say(f"  How long it takes is not known: {error}")
        return
    colours = count_colours(data.train_images, data.train_labels, len(data.class_names))
    tasks = {name: compose(config.arms, name, colours, seed=config.seed) for name in trained_arms(config.arms)}
    kinds = kinds_to_measure(config)
    measured = measure_costs(tasks, kinds, part_to_measure(data, kinds), MEASURED_S, config.resources.cpu)
    at_once = slots_here(config)
    if config.minutes is not None:
        config = fit_to_seconds(config, measured, data, at_once, 60 * config.minutes - AROUND_S)
    for line in (*plan_lines(config), *cost_lines(config, measured, data, at_once)):
        say(line)


def _fit_to_minutes(start: Start, began: float, say: Say) -> SweepConfig:
    """The config with as many images and epochs as fit. Ray has been started."""
    from platform import ray_cluster, ray_trials

    config = start.config
    gpus = ray_cluster.gpus_per_trial(config)
    at_once = slots(config, ray_cluster.cluster_resources(), gpus)
    costs = ray_trials.measure_on_ray(_setting(start), config, gpus, at_once, MEASURED_S)
    assert config.minutes is not None
    left = 60 * config.minutes - (time.monotonic() - began) - AROUND_S
    fitted = fit_to_seconds(config, costs, start.data, at_once, left)
    images = fitted.train_images or len(start.data.train_images)
    say(f"In {config.minutes:g} minutes every trial can train {fitted.epochs} epochs of {images:,} images here.")
    return fitted


# The trials


def _run(
    start: Start, known: Experiment | None, engine: Engine, drive: Drive, console: Console, address: str | None
) -> int:
    """Train, record and print; return the exit status."""
    from platform import ray_cluster

    config, say = start.config, say_on(console)
    gpus = ray_cluster.gpus_per_trial(config)
    ray_cluster.check_storage(start.storage_path)
    recorded = _record_start(engine, drive, start, known)
    folder = _clean_up(engine, recorded, start)
    progress = Progress(console, config, recorded.reported)
    recorder = Recorder(engine, drive, config, recorded, progress)
    unfinished = left_to_do(config, recorded, recorder, say)
    resumed_by = command_to_resume(config.experiment, engine, address)
    trials, before = trials_in_all(config), len(recorder.ended)
    say(start.data.summary())
    say(f"Training {trials} trials of at most {config.epochs} epochs; checkpoints go to {start.storage_path}.")
    if before:
        say(f"{before} trials had ended before.")
    say(f"If it is interrupted, this goes on with it: {resumed_by}")
    if busy := ray_cluster.busy_resources(config.resources.cpu, gpus):
        say(f"{busy} Trials start by themselves when other work on the cluster ends.")
    elif before < trials:
        _measure_time_left(start, progress, gpus)
    failure = None
    try:
        _train(start, recorder, unfinished, gpus, folder)
    except Exception as error:
        failure = ray_cluster.first_line(error)
    finally:
        status = recorder.close()
    if recorder.driven_elsewhere:
        say(f"{recorder.driven_elsewhere} This one has ended.")
        return 1
    if recorder.unwritten:
        say(f"{recorder.unwritten} What they say is trained again by: {resumed_by}")
    if status == "interrupted":
        _show_results(engine, recorded.experiment_id, config.experiment, console)
        why = f"Ray stopped the sweep ({failure})" if failure else "Interrupted"
        say(f"{why}; {len(recorder.ended)} of {trials} trials have ended. To go on: {resumed_by}")
        return 1 if failure else 130
    if recorder.unwritten:
        return 1
    return _show(engine, recorded.experiment_id, config.experiment, console, recorder.problems)


def _measure_time_left(start: Start, progress: Progress, gpus: float) -> None:
    """Measure what the trials cost here, and say how long they take."""
    from platform import ray_cluster, ray_trials

    config = start.config
    at_once = slots(config, ray_cluster.cluster_resources(), gpus)
    try:
        costs = ray_trials.measure_on_ray(_setting(start), config, gpus, at_once, MEASURED_S / 5)
    except Exception as error:  # of a worker; the trials have retries for that
        progress.say(f"How long it takes could not be measured ({ray_cluster.first_line(error)}).")
        return
    images, validation_images = len(start.data.train_images), len(start.data.validation_images)
    progress.expect(costs.epoch_seconds(images, validation_images), at_once)


def _record_start(engine: Engine, drive: Drive, start: Start, known: Experiment | None) -> Recorded:
    """See `recorder.record_start`. Raises SweepError if the experiment was begun with other data."""
    from platform import ray_cluster

    if known is not None and known.storage_path != start.storage_path:
        with write_session(engine) as session:
            recording.move_checkpoints(session, known.id, known.storage_path, start.storage_path)
    try:
        return record_start(engine, replace(start, environment=start.environment | ray_cluster.environment()), drive)
    except ValueError as error:
        raise SweepError(str(error)) from None


def _setting(start: Start) -> "ray_trials.Setting":
    """What all trials share."""
    from platform import ray_trials

    return ray_trials.Setting(
        data=start.data,
        arms=dict(start.config.arms),
        colours=start.colours,
        centers={name: centers_as_list(task.palette) for name, task in start.tasks.items() if task.palette},
        seed=start.config.seed,
        samples=start.samples,
        threads=start.config.resources.cpu,
    )


def _train(start: Start, recorder: Recorder, unfinished: list[PlannedTrial], gpus: float, folder: str) -> None:
    from platform import ray_trials

    trainable = ray_trials.with_setting(_setting(start))
    with recorder.progress.shown():
        ray_trials.run_trials(
            start.config, trainable, recorder, unfinished, gpus=gpus, storage=start.storage_path, folder=folder
        )


def _clean_up(engine: Engine, recorded: Recorded, start: Start) -> str:
    """Delete what earlier runs of the driver left behind, and return the name of this one's folder.

    A folder belongs to one run of one database, so that two databases may share a storage.
    """
    with read_session(engine) as session:
        runs = session.scalars(select(Run).where(Run.experiment_id == recorded.experiment_id).order_by(Run.id)).all()
        folders = [f"run-{run.started_at:%Y%m%dT%H%M%S%f}" for run in runs]
    kept = [trial.checkpoint for trial in recorded.trials if trial.checkpoint is not None]
    for folder in folders[:-1]:
        delete_all_but(join(start.storage_path, start.config.experiment, folder), kept)
    return folders[-1]


def left_to_do(config: SweepConfig, recorded: Recorded, recorder: Recorder, say: Say) -> list[PlannedTrial]:
    """The trials that have not ended, with their checkpoints. Those that an earlier run of the driver could not say to
    have ended are now said to."""
    known = {(trial.arm, trial.number): trial for trial in recorded.trials if trial.arm in recorded.reported}
    if config.search.method == "optuna":
        searched = [
            PlannedTrial(trial.arm, trial.number, Hyperparameters(**trial.hyperparameters))
            for trial in known.values()
            if not is_replicate(config, trial.number)
        ]
    else:
        searched = plan_trials(config)
    unfinished = _unfinished_of(searched, known, config, recorder, say)
    unfinished += _unfinished_of(plan_replicates(config, recorder.reported), known, config, recorder, say)
    recorder.trials_planned(unfinished)
    return unfinished


def _unfinished_of(
    planned: Sequence[PlannedTrial],
    known: Mapping[tuple[str, int], recording.RecordedTrial],  # by arm and number
    config: SweepConfig,
    recorder: Recorder,
    say: Say,
) -> list[PlannedTrial]:
    ended: tuple[TrialStatus, ...] = ("finished", "stopped_early", "failed")
    for trial in planned:
        before = known.get((trial.arm, trial.number))
        if before is not None and before.status in ended:
            recorder.had_ended(trial, before.status)
        elif before is not None and before.epochs_done >= config.epochs:
            recorder.trial_ended(trial, "finished", None, before.checkpoint)
    unfinished = []
    for trial in planned:
        before = known.get((trial.arm, trial.number))
        if (trial.arm, trial.number) in recorder.ended:
            continue
        fate = fates(config, recorder.reported[trial.arm])[trial.number]
        if before is None or (before.epochs_done == 0 and before.status in ("pending", "running")):
            unfinished.append(trial)
        elif before.epochs_done >= fate.until and fate.decided:
            recorder.trial_ended(trial, "stopped_early", None, before.checkpoint)
        elif before.checkpoint is not None and has_file(before.checkpoint, CHECKPOINT_FILE):
            unfinished.append(replace(trial, checkpoint=before.checkpoint, epochs_done=before.epochs_done))
        else:
            say(f"{trial.name} begins anew, as its checkpoint {before.checkpoint} is not there any more.")
            recorder.trial_begins_anew(trial)
            unfinished.append(trial)
    return unfinished


# After the trials


def _show(engine: Engine, experiment_id: int, experiment: str, console: Console, problems: list[str]) -> int:
    """Complete the record where it lacks something, print the results, open the survey; return the exit status."""
    say = say_on(console)
    missing = complete_samples(engine, experiment_id)
    with read_session(engine) as session:
        row = session.get_one(Experiment, experiment_id)
        jury_is_due = row.config.get("jury") and row.jury is None
    survey = ""
    try:
        if jury_is_due:
            judge(engine, experiment, say)
    except UserError as error:
        missing.append(f"The machine jury's word is missing ({error})")
    try:
        study = open_study_of(engine, experiment, say=say)
        if study is not None and study.view.status == "open":
            survey = f"The survey {study.view.name!r} is open; to ask people: {command_to_ask(engine)}"
    except UserError as error:
        missing.append(f"The survey is missing ({error})")
    failures = _show_results(engine, experiment_id, experiment, console)  # of the jury and the survey, too
    if survey:
        say(survey)
    for problem in problems:
        say(f"Not recorded: {problem}.")
    for line in missing:
        say(f"{line} The same command tries again.")
    say(f"Everything is in {shown_name(engine.url)}; again: {command_for('results', experiment, engine)}")
    return 1 if failures or problems or missing else 0


def _show_results(engine: Engine, experiment_id: int, experiment: str, console: Console) -> int:
    """Print the tables and what failed; return how many trials did."""
    print_results(engine, experiment, console)
    return report_failures(engine, experiment_id, say_on(console))


if __name__ == "__main__":
    sys.exit(main())
