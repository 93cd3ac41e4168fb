"""The main job: train every arm of a config fairly tuned, store what it measured and painted, print the results.

python -m platform.sweep tune_configs/rebalance.yaml
"""

import argparse
import importlib.util
import json
import logging
import os
import pickle
import re
import secrets
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import OutOfMemoryError, RayActorError, RayError
from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from rich.console import Console
from sqlalchemy import Engine, select
from sqlalchemy.exc import OperationalError

import platform
from db.schema import Dataset as DatasetRow
from db.schema import Experiment
from db.store import (
    StoreError,
    address,
    explain,
    open_database,
    read_session,
    shown_name,
)
from db.studies import open_study_of
from platform.config import ConfigError, Hardware, Range, SweepConfig, changes_between, read_config
from platform.datasets import Dataset, DatasetError, DatasetUnavailable, load_dataset
from platform.options import command_to_ask, command_to_resume, parse_options
from platform.progress import Progress
from platform.recorder import Recorder, Recording, Start, planned_trial_of, record_start
from platform.results import print_results, report_failures
from platform.samples import colorized_pngs, sample_indices, write_samples
from platform.search import (
    EARLIER_REPORTS,
    EPOCH,
    FAILURE,
    LOSS,
    PlannedTrial,
    plan_lines,
    plan_trials,
    planned_trial,
    trials_per_arm,
)
from platform.storage import (
    CHECKPOINT_FILE,
    StorageError,
    alone,
    holds,
    is_restorable,
    located,
    newest_checkpoint,
    newest_reports,
    write_reports,
)
from platform.training import (
    ColourStatistics,
    TrainingDiverged,
    baselines,
    colour_statistics,
    load_model,
    save_checkpoint,
    train,
)
from platform.workers import CHECKOUT, ray_runtime_env

AUTO_GPU_SHARE = 0.25  # of a GPU a trial: one of these small models leaves most of it idle
# Beside other work two threads were seen to take 40 times as long as one, waiting for each other: only much is shared.
THREADS_FROM_IMAGES = 100_000
BUSY_TIMEOUT_S = 10.0  # the recorder tries again later, and meanwhile Ray is not kept waiting for long


class SweepError(Exception):
    """The sweep cannot start or go on; the message is one sentence with what is wrong and what to do."""


# What runs in Ray's workers


def run_trial(
    config: dict[str, Any], data: Dataset, statistics: ColourStatistics, samples: list[int], threads: int
) -> None:
    """Train one trial, from its checkpoint if it has one, reporting each epoch to Ray Tune.

    config: {"trial": a PlannedTrial as a dict}. samples: the images of the validation split to paint at the end.
    """
    torch.set_num_threads(threads)  # also decides in which order sums are taken, so it is part of what a seed fixes
    run = PlannedTrial.from_dict(config["trial"]).run
    resume: dict[str, Any] | None = None
    reports: list[dict[str, Any]] = []
    if (checkpoint := tune.get_checkpoint()) is not None:
        with tempfile.TemporaryDirectory() as name:
            found = newest_checkpoint(checkpoint.filesystem, str(Path(checkpoint.path).parent), Path(name))
            if found is not None:
                resume, reports = found
                # Said again, with all before: the process that was told may have been killed before it was written.
                again = reports[-1] | {EARLIER_REPORTS: reports[:-1]}
                tune.report(again, checkpoint=tune.Checkpoint.from_directory(name))
    try:
        for report in train(run, data, statistics, resume=resume):
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                save_checkpoint(folder / CHECKPOINT_FILE, report.checkpoint)
                if report.epoch == run.epochs and samples:
                    _, model = load_model(report.checkpoint, torch.device("cpu"))
                    pngs = colorized_pngs(run, model, data.validation_images[samples])
                    write_samples(folder, dict(zip(samples, pngs, strict=True)))
                metrics: dict[str, Any] = {
                    EPOCH: report.epoch,
                    LOSS: report.validation.scores["loss"],
                    "images_seen": report.images_seen,
                    "seconds": report.seconds,
                    "device": report.device,
                    "train": report.train.scores,
                    "validation": report.validation.scores,
                    "train_standard_errors": report.train.standard_errors,
                    "validation_standard_errors": report.validation.standard_errors,
                    "train_class_bin_accuracy": report.train.class_bin_accuracy,
                    "validation_class_bin_accuracy": report.validation.class_bin_accuracy,
                }
                reports.append(metrics)
                write_reports(folder, reports)
                tune.report(metrics, checkpoint=tune.Checkpoint.from_directory(folder))
    except TrainingDiverged as error:
        # Reported, not raised: it would diverge again, so Ray must not try again.
        tune.report({FAILURE: f"diverged: {error}"})


# Early stopping and Optuna, within each arm: a loss weighted by one rebalancing says nothing about a loss weighted by
# another, so trials of different arms never meet in one of Ray's schedulers or searchers.


class AshaWithinArms(FIFOScheduler):
    """Asynchronous successive halving among the trials of one arm, by validation loss (Li et al. 2020).

    Ray does not keep rungs: when a sweep is resumed they are filled again from the trials' own reports.
    """

    def __init__(self, epochs: int, grace_epochs: int, reduction_factor: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._epochs = epochs
        self._grace_epochs = grace_epochs
        self._reduction_factor = reduction_factor
        self._of_arm: dict[str, AsyncHyperBandScheduler] = {}

    def _asha(self, trial: Trial) -> AsyncHyperBandScheduler:
        arm = trial.config["trial"]["arm"]
        if arm not in self._of_arm:
            self._of_arm[arm] = AsyncHyperBandScheduler(
                time_attr=EPOCH,
                metric=LOSS,
                mode="min",
                max_t=self._epochs,
                grace_period=self._grace_epochs,
                reduction_factor=self._reduction_factor,
            )
        return self._of_arm[arm]

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        self._asha(trial).on_trial_add(tune_controller, trial)
        if trial.checkpoint is None or trial.storage is None:
            return  # it is new
        reports = newest_reports(trial.storage.storage_filesystem, trial.storage.trial_fs_path)
        # A trial that goes on will say its last again, and only then is it decided whether it may.
        for report in reports if trial.is_finished() else reports[:-1]:
            self.on_trial_result(tune_controller, trial, report)

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        if result.get(EPOCH, 0) >= self._epochs:
            return str(TrialScheduler.CONTINUE)  # it ends by itself; there is nothing left to save
        return str(self._asha(trial).on_trial_result(tune_controller, trial, result))

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        self._asha(trial).on_trial_complete(tune_controller, trial, result)


class OptunaWithinArms(Searcher):
    """One Optuna study (TPE) an arm, all with the same seed and the same number of trials; arms take turns.

    Run it with as many samples as trials an arm times arms, and always with `max_concurrent_trials`: a study learns
    only from trials that have ended.
    """

    def __init__(self, config: SweepConfig) -> None:
        import optuna  # an extra of this project: only a search by Optuna needs it

        super().__init__()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._config = config
        space = {name: _distribution(values) for name, values in config.search.values().items()}
        self._studies = {arm: OptunaSearch(space, metric=LOSS, mode="min", seed=config.seed) for arm in config.arms}
        self._suggested = dict.fromkeys(config.arms, 0)
        self._arm_of: dict[str, str] = {}

    def suggest(self, trial_id: str) -> dict[str, Any]:
        arm = min(self._suggested, key=self._suggested.__getitem__)
        self._suggested[arm] += 1
        self._arm_of[trial_id] = arm
        hyperparameters = self._studies[arm].suggest(trial_id) or {}
        return {"trial": planned_trial(self._config, arm, self._suggested[arm], hyperparameters).as_dict()}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        if LOSS in result:
            step = {LOSS: result[LOSS], "training_iteration": result[EPOCH]}
            self._studies[self._arm_of[trial_id]].on_trial_result(trial_id, step)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        failed = error or result is None or FAILURE in result
        # A trial that was stopped early counts as pruned at its last epoch, not as one whose final loss is known.
        ended = result is not None and LOSS in result and result[EPOCH] >= self._config.epochs
        final = {LOSS: result[LOSS]} if result is not None and ended and not failed else None
        self._studies[self._arm_of[trial_id]].on_trial_complete(trial_id, final, error=failed)

    def save(self, checkpoint_path: str) -> None:
        Path(checkpoint_path).write_bytes(pickle.dumps(self.__dict__))

    def restore(self, checkpoint_path: str) -> None:
        self.__dict__.update(pickle.loads(Path(checkpoint_path).read_bytes()))


def _distribution(values: list[Any] | Range) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if isinstance(values, Range):
        return FloatDistribution(values.low, values.high, log=values.log)
    return CategoricalDistribution(values)


# The command


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_options(arguments)
    console = Console()
    try:
        return _sweep(options, console)
    except (ConfigError, DatasetError, DatasetUnavailable, StorageError, StoreError, SweepError) as error:
        print(error, file=sys.stderr)
        return 2
    except OperationalError as error:
        print(explain(error, shown_name(address(options.database))), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted; the same command goes on from here.", file=sys.stderr)
        return 130
    finally:
        ray.shutdown()


def _sweep(options: argparse.Namespace, console: Console) -> int:
    def say(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    address = options.address or os.environ.get("RAY_ADDRESS")
    if options.config is not None:
        changes = [*options.set, *([f"dataset={json.dumps(options.dataset)}"] if options.dataset else [])]
        file = read_config(options.config, changes)
    if address and not options.dry_run:
        start_ray(address)
    if options.config is not None:
        hardware: Hardware = options.profile or ("gpu" if _has_gpu() else "cpu")
        profile: str | None = hardware if hardware in file.profiles else None
        config, text = file.configs[hardware], file.text
        if profile:
            say(f"Profile {profile} of {options.config}{'' if options.profile else ', by the hardware here'}.")
    if options.dry_run:
        for line in plan_lines(config):
            say(line)
        return 0

    engine = open_database(options.database, say=say, busy_timeout_s=BUSY_TIMEOUT_S)
    known = _experiment(engine, options.resume or config.experiment)
    if options.resume is not None:
        if known is None:
            raise SweepError(f"There is no experiment {options.resume!r} in {shown_name(engine.url)} to resume.")
        config, text, profile = SweepConfig.model_validate(known.config), known.config_yaml, known.profile
    elif known is not None:
        _check_unchanged(known, config)
    if known is not None and known.status in ("finished", "failed"):
        say(
            f"Experiment {known.name!r} is finished already: nothing is trained, these are its results. "
            f"To run it again, give it another name: --set 'experiment={known.name} 2'."
        )
        print_results(engine, known.name, console)
        _open_survey(engine, known.name, say)
        return report_failures(engine, known.id, say)

    if config.search.method == "optuna" and importlib.util.find_spec("optuna") is None:
        raise SweepError("Optuna is not installed: pip install -c constraints.txt optuna, or change search.method.")
    storage = options.storage or (known.storage_path if known else str(CHECKOUT / "results"))
    storage = storage if "://" in storage else str(Path(storage).expanduser().resolve())
    with alone(storage, config.experiment):
        data = load_dataset(
            options.dataset or ([_dataset_name(engine, known)] if known else config.dataset),
            train_images=config.train_images,
            validation_images=config.validation_images,
            seed=config.seed,
            say=say,
        )
        if len(data.train_images) < THREADS_FROM_IMAGES:
            torch.set_num_threads(1)
        fixed = config.fixed()
        statistics = colour_statistics(data.train_images, fixed["soft_label_sigma"], fixed["bins"])
        baseline_scores = baselines(data, statistics)
        if not ray.is_initialized():
            start_ray("local")
        _check_storage(storage)
        start = Start(
            config=config,
            config_yaml=text,
            profile=profile,
            code_version=_code_version(),
            environment=_environment(),
            storage_path=storage,
            data=data,
            statistics=statistics,
            baselines=baseline_scores,
            samples=sample_indices(data.validation_labels, config.samples.images),
        )
        return _run(start, engine, console, resume=known is not None, address=options.address, say=say)


def _run(
    start: Start, engine: Engine, console: Console, *, resume: bool, address: str | None, say: Callable[[str], None]
) -> int:
    """Train, record and print; return the exit status."""
    config = start.config
    gpus = _gpus_per_trial(config)
    try:
        experiment_id, arms, images = record_start(engine, start)
    except ValueError as error:  # the experiment was begun with other data
        raise SweepError(str(error)) from None
    trials = len(config.arms) * trials_per_arm(config)
    progress = Progress(console, trials, config.epochs, list(config.search.values()))
    recording = Recorder.recording = Recording(engine, experiment_id, arms, images, progress)
    tuner = _tuner(start, gpus, resume=resume, say=say)
    say(f"Training {trials} trials of at most {config.epochs} epochs; checkpoints go to {start.storage_path}.")
    resumed_by = command_to_resume(config.experiment, engine, address)
    say(f"If it is interrupted, by whatever: {resumed_by}")
    failure: Exception | None = None
    try:
        with progress.shown():
            tuner.fit()
    except Exception as error:
        failure = error
    finally:
        status = recording.close(trials)

    print_results(engine, config.experiment, console)
    for problem in recording.problems:
        say(f"Not recorded: {problem}.")
    failures = report_failures(engine, experiment_id, say)
    if recording.unwritten:
        say(f"{recording.unwritten} Ray has kept them; to write them then: {resumed_by}")
    if status == "interrupted":
        why = f"Ray stopped the sweep ({_first_line(failure)})" if failure else "Interrupted"
        say(f"{why}; {len(recording.ended)} of {trials} trials have ended. To go on: {resumed_by}")
        return 1 if failure else 130
    if recording.unwritten:
        return 1
    _open_survey(engine, config.experiment, say)
    say(f"Everything is in {engine.url.render_as_string()}; again: python -m platform.results '{config.experiment}'")
    return 1 if failures or recording.problems else 0


def _open_survey(engine: Engine, experiment: str, say: Callable[[str], None]) -> None:
    """Open a study of the best trial of each arm, unless the experiment has one; say how people are asked."""
    study = open_study_of(engine, experiment, say=say)
    if study is not None and study.view.status == "open":
        say(f"The survey {study.view.name!r} is open; to ask people: {command_to_ask(engine)}")


# Before the trials


def start_ray(address: str) -> None:
    """Connect to the cluster at `address`, or start one for this process alone ("local")."""
    _take_lack_of_memory_for_death()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # the database has it all
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the old output is silent when told to be
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
    os.environ.setdefault("TUNE_PRINT_ALL_TRIAL_ERRORS", "0")  # the recorder says them
    logging.getLogger("ray.tune.tune").addFilter(lambda record: "did not complete" not in record.getMessage())
    options: dict[str, Any] = {}
    host, _, port = address.rpartition(":")
    if "://" in address:
        raise SweepError(f"The address {address} is a Ray client's: give HOST:PORT, or use `ray job submit`.")
    if address == "local":
        options = {"include_dashboard": False, "num_gpus": None if torch.cuda.is_available() else 0}
    try:
        if host:
            socket.create_connection((host, int(port)), timeout=10).close()  # Ray itself would try for minutes
        ray.init(
            address=address,
            runtime_env=ray_runtime_env(),
            log_to_driver=False,
            logging_level=logging.ERROR,
            **options,
        )
    except (OSError, ValueError, RuntimeError) as error:
        where = "here" if address == "local" else f"at {address}"
        raise SweepError(f"Ray cannot be started or reached {where} ({_first_line(error)}).") from error


def _take_lack_of_memory_for_death() -> None:
    """Ray's memory monitor kills a worker with an error that Ray Tune does not expect and ends the sweep with. Taken
    for the death of any other worker, it is retried, and costs its own trial alone."""
    handle = RayActorManager._actor_task_failed
    if handle.__module__ == __name__:
        return

    def handle_lack_of_memory_too(self: RayActorManager, tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, OutOfMemoryError):
            exception = RayActorError(error_msg=f"out of memory: {exception}")
        handle(self, tracked_actor_task, exception)

    RayActorManager._actor_task_failed = handle_lack_of_memory_too  # type: ignore[method-assign]


def _has_gpu() -> bool:
    """Whether trials could use one: by Ray's word on a cluster, by PyTorch's on this machine."""
    return bool(_cluster().get("GPU")) if ray.is_initialized() else torch.cuda.is_available()


def _cluster() -> dict[str, float]:
    resources: dict[str, float] = ray.cluster_resources()
    return resources


def _gpus_per_trial(config: SweepConfig) -> float:
    """What a trial asks Ray for. Raises SweepError if no node of the cluster could ever run one."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cpus, gpus = (max(node.get(kind, 0.0) for node in nodes) for kind in ("CPU", "GPU"))
    wanted: float = config.resources.gpu if config.resources.gpu != "auto" else AUTO_GPU_SHARE if gpus else 0.0
    if config.resources.cpu > cpus or wanted > gpus:
        raise SweepError(
            f"A trial asks for {config.resources.cpu} CPUs and {wanted:g} GPUs, but the largest node here has {cpus:g} "
            f"and {gpus:g}: change `resources` in the config."
        )
    return wanted


def _check_storage(storage: str) -> None:
    """Raise SweepError if a node of a cluster of several does not see what this process keeps in the storage."""
    nodes = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
    if len(nodes) < 2:
        return
    system, root = located(storage)
    name = f".seen-{secrets.token_hex(8)}"
    try:
        system.create_dir(root, recursive=True)
        with system.open_output_stream(f"{root}/{name}") as stream:
            stream.write(b"Written by a sweep's start, to see whether all nodes share this folder.")
        ask = ray.remote(num_cpus=0)(holds)
        asked = {  # by id: several nodes may have one address
            node: ask.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(
                storage, name
            )
            for node in nodes
        }
        blind = [nodes[node] for node, answer in asked.items() if not ray.get(answer)]
        system.delete_file(f"{root}/{name}")
    except (OSError, RayError) as error:
        raise SweepError(f"The storage {storage} cannot be used ({_first_line(error)}): give another.") from None
    if blind:
        raise SweepError(
            f"The cluster's nodes do not share the storage {storage} (not seen from {', '.join(blind)}), so no trial "
            "could go on elsewhere: give --storage a folder that all of them share, or a URL such as s3://bucket/sweeps."
        )


def _check_unchanged(known: Experiment, config: SweepConfig) -> None:
    """Raise SweepError if the experiment in the database was begun with another config."""
    if changed := changes_between(known.config, config):
        raise SweepError(
            f"Experiment {known.name!r} is in the database with another config: {'; '.join(changed)}. Give this one "
            f"another name (--set experiment=NAME), or go on with the old one (--resume '{known.name}')."
        )


def _experiment(engine: Engine, name: str) -> Experiment | None:
    with read_session(engine) as session:
        return session.scalar(select(Experiment).where(Experiment.name == name))


def _dataset_name(engine: Engine, experiment: Experiment) -> str:
    with read_session(engine) as session:
        return session.scalars(select(DatasetRow.name).where(DatasetRow.id == experiment.dataset_id)).one()


def _code_version() -> str:
    command = ["git", "-C", str(CHECKOUT), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _environment() -> dict[str, Any]:
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "ray": ray.__version__,
        "machine": platform.platform(),
        "processor": torch.cpu.get_capabilities().get("cpu_name") or platform.processor(),
        "gpus": gpus,
        "cluster": {key: value for key, value in _cluster().items() if ":" not in key},
    }


# The trials


def _tuner(start: Start, gpus: float, *, resume: bool, say: Callable[[str], None]) -> tune.Tuner:
    """A tuner for a new experiment, or for what is left of one that was begun."""
    config = start.config
    system, root = located(start.storage_path)
    folder = f"{root.rstrip('/')}/{config.experiment}"
    trainable = tune.with_resources(
        tune.with_parameters(
            run_trial,
            data=start.data,
            statistics=start.statistics,
            samples=start.samples,
            threads=config.resources.cpu,
        ),
        {"cpu": config.resources.cpu, "gpu": gpus},
    )
    if resume:
        if is_restorable(system, folder):
            return tune.Tuner.restore(folder, trainable, storage_filesystem=system)
        say("Ray's state of the experiment is missing or damaged: all its trials are made again.")
    search: dict[str, Any] = {}
    parameters = {}
    if config.search.method == "optuna":
        slots = int(_cluster()["CPU"] / config.resources.cpu)
        search = {
            "search_alg": OptunaWithinArms(config),
            "num_samples": len(config.arms) * trials_per_arm(config),
            "max_concurrent_trials": config.resources.max_concurrent or slots,
        }
    else:
        parameters = {"trial": tune.grid_search([planned.as_dict() for planned in plan_trials(config)])}
        search = {"max_concurrent_trials": config.resources.max_concurrent}
    stopping = config.early_stopping
    return tune.Tuner(
        trainable,
        param_space=parameters,
        tune_config=tune.TuneConfig(
            scheduler=AshaWithinArms(config.epochs, stopping.grace_epochs, stopping.reduction_factor)
            if stopping
            else None,
            reuse_actors=True,
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_folder,
            **search,
        ),
        run_config=tune.RunConfig(
            name=config.experiment,
            storage_path=root,
            storage_filesystem=system,
            callbacks=[Recorder()],
            failure_config=tune.FailureConfig(max_failures=config.failures.max_retries),
            checkpoint_config=tune.CheckpointConfig(num_to_keep=1),
            verbose=0,
        ),
    )


def _trial_name(trial: Trial) -> str:
    planned = planned_trial_of(trial)
    return f"{planned.arm} #{planned.number}"


def _trial_folder(trial: Trial) -> str:
    planned = planned_trial_of(trial)
    return f"{re.sub('[^A-Za-z0-9]+', '-', planned.arm)}-{planned.number:03d}-{trial.trial_id}"


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"


if __name__ == "__main__":
    # Under its own name, so that what is pickled here is found again by Ray's workers and by a later session.
    from platform.sweep import main as main_by_name

    sys.exit(main_by_name())
