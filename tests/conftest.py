"""What tests in several files share."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.processes import Process, StartPython

ROOT = Path(__file__).parent.parent


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
