"""What another seed changes: scores of an experiment's replicates, by arm, and their differences seed by seed."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from platform.color.scores import SCORES
from platform.tables.table import Table

ByArm = Mapping[str, Mapping[int, Mapping[str, float]]]
"""Scores in validation by arm, number of the replicate (the same seed in every arm) and name."""

SHOWN = [name for name in SCORES if name != "loss"]  # which differs in its unit between kinds of arm


def seed_tables(scores: ByArm) -> list[Table]:
    """Mean and standard deviation over seeds, and differences from the first arm; none with fewer than two seeds."""
    if all(len(of_seeds) < 2 for of_seeds in scores.values()):
        return []
    measured = [name for name in SHOWN if any(name in one for of_seeds in scores.values() for one in of_seeds.values())]
    return [_means_table(scores, measured), *_differences_table(scores, measured)]


def _means_table(scores: ByArm, measured: Sequence[str]) -> Table:
    rows, texts = [], []
    for arm, of_seeds in scores.items():
        row: dict[str, object] = {"model": arm, "seeds": len(of_seeds)}
        text = {"model": arm, "seeds": str(len(of_seeds))}
        for name in measured:
            score = SCORES[name]
            values = [one[name] for one in of_seeds.values() if name in one]
            mean = float(np.mean(values)) if values else None
            deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
            row[score.heading] = score.in_unit(mean)
            row[f"{score.heading}, standard deviation"] = score.in_unit(deviation)
            text[score.heading] = score.write(mean, deviation)
        rows.append(row)
        texts.append(text)
    return Table(
        name="seeds",
        title="Over seeds",
        frame=pd.DataFrame(rows),
        shown=pd.DataFrame(texts),
        note="Mean ± one standard deviation over replicates, in validation: each model's best hyperparameters, trained "
        "again with further seeds, the same for all models. What another seed changes is not in the errors over images "
        "above, nor they in this.",
    )


def _differences_table(scores: ByArm, measured: Sequence[str]) -> list[Table]:
    reference, *others = scores
    rows, texts = [], []
    for arm in others:
        row: dict[str, object] = {"model": arm}
        text = {"model": arm}
        for name in measured:
            score = SCORES[name]
            found = paired_difference(scores[arm], scores[reference], name)
            mean, low, high = (None,) * 3 if found is None else (score.factor * value for value in found)
            row |= {score.heading: mean, f"{score.heading}, 95 % from": low, f"{score.heading}, 95 % to": high}
            text[score.heading] = (
                "–" if found is None else f"{mean:+{score.form}} ({low:+{score.form}} to {high:+{score.form}})"
            )
        rows.append(row)
        texts.append(text)
    if all(cell == "–" for text in texts for heading, cell in text.items() if heading != "model"):
        return []
    table = Table(
        name="seed-differences",
        title=f"Differences from {reference}, seed by seed",
        frame=pd.DataFrame(rows),
        shown=pd.DataFrame(texts),
        note="Mean difference between trainings with the same seed, and its 95 % interval by Student's t over seeds, "
        "not corrected for the number of comparisons.",
    )
    return [table]


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
