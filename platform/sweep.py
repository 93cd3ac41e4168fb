"""The main job: train every arm of a config fairly tuned, store what it measured and painted, print the results.

python -m platform.sweep tune_configs/rebalance.yaml
"""

import _thread
import argparse
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from sqlalchemy.exc import OperationalError

from db.errors import UserError, run_command
from db.store import DATABASE_HELP, StoreError, default_database, explain, open_database, open_existing, shown_name
from db.sweeps.drivers import driven_by_this_process
from platform.arms.options import trained_arms
from platform.running.budget import (
    cost_lines,
    fit_to_seconds,
    kinds_to_measure,
    measure_costs,
    part_to_measure,
    slots_here,
)
from platform.running.config import SweepConfig, read_config
from platform.running.driver import MEASURED_S, Sweep, composer, count_some_colours
from platform.running.plan import plan_lines
from platform.running.preparation import SweepError, find_experiment, load_data
from platform.running.progress import Say, open_console, say_on
from platform.running.renderings import run_additions
from platform.running.workers import CHECKOUT, set_ray_variables

AROUND_S = 15.0  # before a sweep can measure, and after its last trial: imports, samples, tables
BUSY_TIMEOUT_S = 10.0  # the recorder tries again later, and meanwhile Ray is not kept waiting for long


EXAMPLES = """\
examples:
  python -m platform.sweep tune_configs/quick.yaml             a first run, under a minute
  python -m platform.sweep tune_configs/rebalance.yaml --dry-run
  python -m platform.sweep tune_configs/rebalance.yaml --set experiment=wider --set training.width=64
  python -m platform.sweep tune_configs/rebalance.yaml --dataset photos
  python -m platform.sweep tune_configs/paper.yaml --address auto      on the Ray cluster of this machine
  python -m platform.sweep --resume rebalance                  go on with an experiment as it was begun
  python -m platform.sweep --resume rebalance --add 'tilted 0.3: {renders: classification, tilt: 0.3}'

An experiment that was interrupted, even by a crash, goes on where it was when the same command is given again.
Exit status: 0 all is well, 1 some trials failed or part of the record is missing (it is said which), 2 something is
wrong with the input, 130 interrupted.
"""


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command's options; wrong ones end the process with a sentence and status 2."""
    parser = argparse.ArgumentParser(
        prog="python -m platform.sweep",
        description="Sweep the arms of a config with Ray Tune, record everything in a database, print the results.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config", nargs="?", type=Path, metavar="CONFIG", help="a YAML file, see tune_configs/")
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would be trained, and how long that takes here; train nothing"
    )
    parser.add_argument("--resume", metavar="NAME", help="go on with this experiment, by its config in the database")
    parser.add_argument(
        "--add",
        action="append",
        metavar="ARM",
        help="'NAME: {renders: ...}': give the finished experiment of --resume this arm, from its stored weights",
    )
    parser.add_argument("--dataset", nargs="+", metavar="NAME", help="use the first of these that can be had")
    parser.add_argument("--database", default=default_database(), help=DATABASE_HELP)
    parser.add_argument(
        "--storage", type=_folder_or_url, metavar="PATH", help="folder or URL for checkpoints (default: results/ here)"
    )
    parser.add_argument("--address", metavar="ADDR", help="of a Ray cluster (default: $RAY_ADDRESS, else this machine)")
    parser.add_argument(
        "--minutes", type=float, metavar="N", help="train as many images as fit; the same as --set minutes=N"
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a value of the config")
    options = parser.parse_args(arguments)
    if (options.config is None) == (options.resume is None):
        parser.error("give either a CONFIG file, or --resume with an experiment's name")
    if options.add and (options.resume is None or options.storage or options.address):
        parser.error(
            "--add goes with --resume and a finished experiment, whose weights stay where they are, without Ray"
        )
    if options.resume is not None and (options.set or options.dry_run or options.minutes):
        parser.error("--set, --minutes and --dry-run go with a CONFIG file; an experiment is resumed as it was begun")
    return options


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
    chosen = None if options.config is None else read_config(options.config, _settings_of(options))
    if options.dry_run and chosen is not None:
        _say_plan(chosen.config, options, say)
        return 0
    open_it = open_existing if chosen is None else open_database
    engine = open_it(options.database, say=say, busy_timeout_s=BUSY_TIMEOUT_S)
    name = options.resume if chosen is None else chosen.config.experiment
    try:
        with driven_by_this_process(engine, name, _thread.interrupt_main) as drive:
            row = find_experiment(engine, name)
            if row is not None:
                config = None if chosen is None else chosen.config
                sweep = Sweep.resume(drive, console, row, config, options.storage, options.dataset)
            elif chosen is not None:
                storage = options.storage or str(CHECKOUT / "results")
                sweep = Sweep(drive, console, chosen.config, chosen.text, storage, None, chosen.config.dataset)
            else:
                raise SweepError(f"There is no experiment {name!r} in {shown_name(engine.url)} to resume.")
            if row is not None and row.status in ("finished", "failed"):
                say(
                    f"Experiment {name!r} is finished already: nothing is trained, these are its results. "
                    f"To run it again, give it another name: --set 'experiment={name[:78]} 2'."
                )
                return sweep.finish()
            sweep.load()  # before Ray starts, as data may be missing
            with _ray_started(options.address or os.environ.get("RAY_ADDRESS") or "local", say):
                if sweep.config.minutes is not None and row is None:
                    sweep.fit_to_seconds(60 * sweep.config.minutes - (time.monotonic() - began) - AROUND_S)
                return sweep.run(options.address)
    except OperationalError as error:
        raise StoreError(explain(error, shown_name(engine.url))) from None
    finally:
        engine.dispose()


def _folder_or_url(text: str) -> str:
    try:
        return text if "://" in text else str(Path(text).expanduser().resolve())
    except (OSError, RuntimeError) as error:  # too long, links in a circle, ~nobody
        raise argparse.ArgumentTypeError(str(error)) from None


def _settings_of(options: argparse.Namespace) -> list[str]:
    """What the command's options change in the config, as `--set` would say it."""
    dataset = [f"dataset={json.dumps(options.dataset)}"] if options.dataset else []
    return [*options.set, *([f"minutes={options.minutes}"] if options.minutes is not None else []), *dataset]


def _take_sigterm_for_interrupt() -> None:
    """Take SIGTERM, by which Slurm and spot machines end a process, and SIGHUP, of a lost ssh, for Ctrl-C."""
    if threading.current_thread() is threading.main_thread():
        for which in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(which) is not signal.SIG_IGN:  # as nohup has it
                signal.signal(which, lambda *_: signal.raise_signal(signal.SIGINT))


@contextmanager
def _ray_started(address: str, say: Say) -> Iterator[None]:
    """See `cluster.ray_started`. Ray is imported no sooner than it is needed, as that takes seconds."""
    set_ray_variables(os.environ)
    from platform.running import cluster

    with cluster.ray_started(address, say):
        _take_sigterm_for_interrupt()  # Ray has a handler of its own, which prints a stack
        yield


def _say_plan(config: SweepConfig, options: argparse.Namespace, say: Say) -> None:
    """Say what would be trained and, by a few steps of each kind in this process, how long that takes here."""
    try:
        data = load_data(config, options.dataset or config.dataset, say)
    except UserError as error:
        for line in plan_lines(config):
            say(line)
        say(f"  How long it takes is not known: {error}")
        return
    compose_arm = composer(config, count_some_colours(data))
    tasks = {name: compose_arm(name) for name in trained_arms(config.arms)}
    kinds = kinds_to_measure(config)
    measured = measure_costs(tasks, kinds, part_to_measure(data, kinds), MEASURED_S, config.resources.cpu)
    at_once = slots_here(config)
    if config.minutes is not None:
        config = fit_to_seconds(config, measured, data, at_once, 60 * config.minutes - AROUND_S)
    for line in (*plan_lines(config), *cost_lines(config, measured, data, at_once)):
        say(line)


if __name__ == "__main__":
    sys.exit(main())
