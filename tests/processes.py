"""Real Python processes for tests, see the fixture start_python, and what is checked when they were killed."""

import subprocess
from collections.abc import Callable

from sqlalchemy import Engine

Process = subprocess.Popen[str]
StartPython = Callable[..., Process]


def say_to(process: Process, line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()


def hear_from(process: Process) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def finish(process: Process) -> str:
    """The rest of the process's output, once it has ended well."""
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    return output


def check_integrity(engine: Engine) -> None:
    """By SQLite's own checks; PostgreSQL has none that a client could ask for."""
    if engine.dialect.name == "sqlite":
        with engine.connect() as connection:
            assert connection.exec_driver_sql("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall() == []
