"""Run the comparisons and write docs/benchmarks-avx2.md, or -avx512.md, as the processor is, or print only the sections
that are named.

python -m benchmarks                    everything, about 15 minutes on two idle cores
python -m benchmarks loss colour        these sections, printed and not written
python -m benchmarks --tiny             whether everything works: sizes too small for the figures to mean anything
"""

import argparse
import importlib
import sys
from datetime import date
from pathlib import Path

import torch

from benchmarks.harness import GOAL_MET, GOAL_MISSED, machine

SECTIONS = (
    "loss",
    "colour",
    "epoch",
    "database",
    "dashboard",
    "sweep",
)  # modules, each with `section(tiny)`
PAGES = Path(__file__).parent.parent / "docs"

INTRODUCTION = """\
# Benchmarks

Written by `make bench`, a page for each kind of processor; every figure comes from its last run. Contenders do the
same work in one process and take turns, round after round, after a first round that is not timed; that their results
agree is checked before. Times are medians over the rounds with the quartiles in brackets. "× ours" is a contender's
time over ours of the same round, again the median and the quartiles: above 1 ours is faster. Unless a section says
otherwise everything runs on one thread, as a sweep's trials do, one per core.

No GPU was used: nothing here says how fast anything is on one.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)} (default: all)")
    parser.add_argument("--tiny", action="store_true", help="sizes for a test of the benchmarks themselves")
    options = parser.parse_args()
    if unknown := set(options.sections) - set(SECTIONS):
        parser.error(f"there is no section {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    parts = [f"{INTRODUCTION}\n{date.today():%Y-%m-%d}: {machine()}."]
    for name in options.sections or SECTIONS:
        print(f"{name} ...", file=sys.stderr, flush=True)
        torch.set_num_threads(1)
        parts.append("\n".join(importlib.import_module(f"benchmarks.{name}").section(options.tiny)))
    if not options.sections:
        parts.insert(1, _goals(parts))
    page = "\n\n".join(parts) + "\n"
    if options.sections or options.tiny:
        print(page)
    else:
        file = PAGES / f"benchmarks-{torch.backends.cpu.get_cpu_capability().lower()}.md"
        file.write_text(page, encoding="utf-8")
        print(f"Written: {file}", file=sys.stderr)


def _goals(parts: list[str]) -> str:
    """Bring the sections' own lines about goals to the head of the page, those that were missed first."""
    lines = [line for part in parts for line in part.splitlines() if line.startswith((GOAL_MET, GOAL_MISSED))]
    return "\n".join(["## Goals", "", *sorted(lines, key=lambda line: line.startswith(GOAL_MET))])


if __name__ == "__main__":
    main()
