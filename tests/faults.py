"""How often tests inject a fault, or try a case, and the count of it that stands at the end of a test run.

`make test` runs each short, `make faults` HUEJURY_FAULTS times as long.
"""

import os

TIMES = int(os.environ.get("HUEJURY_FAULTS", "1"))

counted: list[str] = []  # printed at the end, see tests/conftest.py


def count(what: str) -> None:
    """Have a line printed at the end of the run, with how often something was tried and what came of it."""
    counted.append(what)
