"""What another seed changes: scores of an experiment's replicates, by arm, and their differences seed by seed."""

from collections.abc import Mapping, Sequence

import numpy as np

from platform.color.scores import SCORES, Score
from platform.tables.columns import Column, make_score_column, tabulate
from platform.tables.table import Table

ByArm = Mapping[str, Mapping[int, Mapping[str, float]]]
"""Scores in validation by arm, number of the replicate (the same seed in every arm) and name."""

SHOWN = [name for name in SCORES if name != "loss"]  # which differs in its unit between kinds of arm


def seed_tables(scores: ByArm) -> list[Table]:
    """Mean and standard deviation over seeds, and differences from the first arm; none with fewer than two seeds."""
    if all(len(of_seeds) < 2 for of_seeds in scores.values()):
        return []
    measured = [name for name in SHOWN if any(name in one for of_seeds in scores.values() for one in of_seeds.values())]
    return [_make_means_table(scores, measured), *_make_differences_table(scores, measured)]


def _make_means_table(scores: ByArm, measured: Sequence[str]) -> Table:
    counts = [len(of_seeds) for of_seeds in scores.values()]
    columns = [Column("seeds", list(map(str, counts)), {"seeds": counts})]
    for name in measured:
        values = [[one[name] for one in of_seeds.values() if name in one] for of_seeds in scores.values()]
        means = [float(np.mean(each)) if each else None for each in values]
        deviations = [float(np.std(each, ddof=1)) if len(each) > 1 else None for each in values]
        columns.append(make_score_column(name, means, deviations, spread="standard deviation"))
    frame, texts = tabulate(list(scores), columns)
    return Table(
        name="seeds",
        title="Over seeds",
        frame=frame,
        shown=texts,
        note="Mean ± one standard deviation over replicates, in validation: each model's best hyperparameters, trained "
        "again with further seeds, the same for all models. What another seed changes is not in the errors over images "
        "above, nor they in this.",
    )


def _make_differences_table(scores: ByArm, measured: Sequence[str]) -> list[Table]:
    """In a list, which is empty where no two models share seeds."""
    reference, *others = scores
    columns = []
    for name in measured:
        found = [paired_difference(scores[arm], scores[reference], name) for arm in others]
        if any(found):
            columns.append(_make_difference_column(SCORES[name], found))
    if not columns:
        return []
    frame, texts = tabulate(others, columns)
    table = Table(
        name="seed-differences",
        title=f"Differences from {reference}, seed by seed",
        frame=frame,
        shown=texts,
        note="Mean difference between trainings with the same seed, and its 95 % interval by Student's t over seeds, "
        "not corrected for the number of comparisons.",
    )
    return [table]


def _make_difference_column(score: Score, found: Sequence[tuple[float, float, float] | None]) -> Column:
    rows = [(None, None, None) if each is None else tuple(score.factor * value for value in each) for each in found]
    texts = [
        "–" if mean is None else f"{mean:+{score.form}} ({low:+{score.form}} to {high:+{score.form}})"
        for mean, low, high in rows
    ]
    headings = score.heading, f"{score.heading}, 95 % from", f"{score.heading}, 95 % to"
    return Column(score.heading, texts, dict(zip(headings, map(list, zip(*rows, strict=True)), strict=True)))


def paired_difference(
    of: Mapping[int, Mapping[str, float]], reference: Mapping[int, Mapping[str, float]], score: str
) -> tuple[float, float, float] | None:
    """Mean difference from the reference and its 95 % interval by Student's t, over the seeds that both have; None with
    fewer than two."""
    from scipy.stats import ttest_rel  # half a second to import

    both = [number for number in of if score in of[number] and score in reference.get(number, {})]
    if len(both) < 2:
        return None
    differences = np.array([of[number][score] - reference[number][score] for number in both])
    mean = float(differences.mean())
    if np.ptp(differences) == 0:
        return mean, mean, mean
    interval = ttest_rel([of[number][score] for number in both], [reference[number][score] for number in both])
    low, high = interval.confidence_interval(0.95)
    return mean, float(low), float(high)
