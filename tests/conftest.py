"""What tests in several files share."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy import Engine, delete

from db.schema import Base
from db.store import open_database, write_session
from tests.processes import Process, StartPython
from tests.survey_data import add_experiment

ROOT = Path(__file__).parent.parent

# Tests train on small pictures: one thread is fastest, and beside other work on the same cores by far. Torch reads it
# when it is first imported, here and in every process that a test starts.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture
def start_python() -> Iterator[StartPython]:
    """Starts Python on some code in the checkout, its input and output piped; what still runs at the end is killed."""
    with ExitStack() as stack:

        def start(code: str, *arguments: str | Path) -> Process:
            process = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", code, *map(str, arguments)],
                    cwd=ROOT,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
            stack.callback(process.kill)
            return process

        yield start


@pytest.fixture(scope="module")
def shared_engine() -> Iterator[Engine]:
    """An experiment; in memory, or in the empty database whose URL is in HUEJURY_TEST_DATABASE, left empty."""
    engine = open_database(os.environ.get("HUEJURY_TEST_DATABASE", ":memory:"))
    add_experiment(engine, images=24)
    yield engine
    with write_session(engine) as session:
        for table in reversed(Base.metadata.sorted_tables):
            session.execute(delete(table))
    engine.dispose()
