"""How often tests inject a fault, or try a case, and the count of it that stands at the end of a test run.

`make test-all` runs each short, `make faults` HUEJURY_FAULTS times as long.
"""

import os

TIMES = int(os.environ.get("HUEJURY_FAULTS", "1"))

UNSHARE = ["unshare", "--user", "--map-root-user", "--mount"]  # before a command that mounts something for itself alone
counted: list[str] = []  # printed at the end, see tests/conftest.py


def count(fault: str, times: str, lost: str, again: str) -> None:
    """Have a row of docs/reliability.md's table printed at the end of the run: what was broken, how often, what was
    lost of it, and pytest's arguments that break it again."""
    counted.append(f"| {fault} | {times} | {lost} | `pytest {again}` |")
