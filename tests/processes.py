"""Real Python processes for tests, see the fixture start_python, and what is checked when they were killed."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from sqlalchemy import Engine

CHECKOUT = Path(__file__).resolve().parent.parent
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


def run_sweep(
    arguments: list[str],
    environment: Mapping[str, str],
    stop_at: str | None = None,
    stop_by: signal.Signals = signal.SIGKILL,
) -> tuple[int, str]:
    """Run the sweep command to its end, or send it a signal when it has printed a line that matches `stop_at`."""
    with subprocess.Popen(
        [sys.executable, "-m", "platform.sweep", *arguments],
        cwd=CHECKOUT,
        env={**os.environ, "COLUMNS": "240", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding=environment.get("PYTHONIOENCODING"),
    ) as process:
        assert process.stdout is not None
        output = ""
        try:
            for line in process.stdout:
                output += line
                if stop_at is not None and re.match(stop_at, line):
                    process.send_signal(stop_by)
                    stop_at = None
            return process.wait(), output
        finally:
            process.kill()
