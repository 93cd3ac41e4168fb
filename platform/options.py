"""What the sweep's command is told, and what it tells people to type."""

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import Engine

from db.store import DATABASE_HELP, default_database, naming_database

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
    parser.add_argument("--storage", metavar="PATH", help="folder or URL for checkpoints (default: results/ here)")
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


def command_to_resume(experiment: str, engine: Engine, cluster: str | None) -> str:
    """cluster: Ray's address, where one was given."""
    command = command_for("sweep --resume", experiment, engine)
    return f"{command} --address {shlex.quote(cluster)}" if cluster else command


def command_for(module: str, experiment: str, engine: Engine) -> str:
    """The command of a module of `platform` on an experiment of this database."""
    return f"python -m platform.{module} {shlex.quote(experiment)}{naming_database(engine, '--database ')}"


def command_to_ask(engine: Engine) -> str:
    """The command that serves the survey on this database."""
    return f"{naming_database(engine, 'HUEJURY_DATABASE=')} make survey".lstrip()
