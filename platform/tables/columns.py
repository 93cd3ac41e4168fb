"""Columns of tables: as they are read, and the numbers behind them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from platform.color.scores import SCORES

Numbers = Sequence[float | None]


@dataclass(frozen=True)
class Column:
    heading: str
    texts: Sequence[str]
    numbers: Mapping[str, Numbers] = field(default_factory=dict)  # by their own headings


def make_score_column(
    name: str, values: Numbers, spreads: Numbers | None = None, *, spread: str = "standard error", split: str = ""
) -> Column:
    """A score of each row. values and spreads, what they vary by: as they are stored, None where nothing was measured.
    spread: what kind that is. split: for the heading, where several stand beside each other."""
    score = SCORES[name]
    heading = f"{score.words}, {split} ({score.unit})" if split else score.heading
    numbers = {heading: [score.in_unit(value) for value in values]}
    if spreads is None:
        return Column(heading, [score.write(value) for value in values], numbers)
    numbers[f"{heading}, {spread}"] = [score.in_unit(value) for value in spreads]
    return Column(heading, [score.write(*both) for both in zip(values, spreads, strict=True)], numbers)


def tabulate(models: Sequence[str], columns: Sequence[Column]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The numbers of columns, and their texts, a row for each model."""
    frame = pd.DataFrame({"model": models})
    for column in columns:
        for heading, numbers in column.numbers.items():
            frame[heading] = pd.to_numeric(pd.Series([*numbers], dtype="object"))
    return frame, pd.DataFrame({"model": models} | {column.heading: column.texts for column in columns})
