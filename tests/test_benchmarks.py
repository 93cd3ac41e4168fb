"""The benchmarks run, and their checks hold that fast and reference paths agree. Their figures mean nothing here."""

import importlib

import pytest

# Not the sweep, of which tests/running/test_sweep.py runs enough.
SECTIONS = {
    "loss": ["ours", "dense, channel order", "dense, pixel rows", "hard labels"],
    "colour": ["ours", "scikit-image and numpy", "scikit-image and our table", "floor"],
    "epoch": ["ours", "the usual script", "bare, float32"],
    "database": ["5", "10", "`load_arms`, ms"],
}


@pytest.mark.long
@pytest.mark.parametrize("name", SECTIONS)
def test_a_section_measures_every_contender(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HUEJURY_DATA", raising=False)
    page = "\n".join(importlib.import_module(f"benchmarks.{name}").section(tiny=True))
    cells = {cell.strip() for line in page.splitlines() if line.startswith("|") for cell in line.split("|")}
    assert set(SECTIONS[name]) <= cells
