"""The experiment that a command is about. Imports little, as commands begin with it."""

import argparse

from sqlalchemy import Engine

from db.store import DATABASE_HELP, default_database, open_existing, read_session
from db.sweeps.trials import find_experiment


def parser_of_results(program: str, description: str) -> argparse.ArgumentParser:
    """The arguments of every command that reads one experiment's results."""
    parser = argparse.ArgumentParser(prog=f"python -m platform.{program}", description=description)
    parser.add_argument("experiment", nargs="?", help="its name (default: the newest)")
    parser.add_argument("--database", default=default_database(), help=DATABASE_HELP)
    return parser


def open_experiment(database: str, experiment: str | None) -> tuple[Engine, str]:
    """Open an existing database and name the experiment, the newest one if None was asked for.

    Raises StoreError, and UnknownExperimentError if there is none.
    """
    engine = open_existing(database)
    with read_session(engine) as session:
        return engine, find_experiment(session, experiment).name
