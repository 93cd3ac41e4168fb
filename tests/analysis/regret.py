"""How far from the best λ the proposals end: `python -m tests.analysis.regret`, a minute; docs/log.md has what came
out.

Truths are drawn as in tests/analysis/test_curve.py (one peak, a cliff, rising), votes as there. The same number of
votes is spent in four ways: all on five λ's, of which the one with the best raw share is taken, or the best on the
curve between them; or half of them so and half on what `survey_app.propose` proposes then, of which the best of the
second round alone is taken, or the best on a curve of both rounds' votes.
"""

import numpy as np
from scipy.special import expit

from survey_app.analysis.curve import Votes, fit_curve, incumbent
from survey_app.propose import proposed_values
from tests.analysis.test_curve import VALUES, Truth, simulated, truths

RUNS = 100  # of each kind of truth
ANSWERS = 40  # of a participant


def regrets(chance: np.random.Generator, truth: Truth, votes: int) -> list[float]:
    """In shares: of what each of the four ways takes."""
    highest = expit(truth(np.linspace(0, 1, 201))).max()
    picked, asked = simulated(chance, truth, VALUES, votes // ANSWERS)
    raw = VALUES[(picked.sum(axis=0) / asked.sum(axis=0)).argmax()]
    curve = fit_curve(VALUES, picked, asked)
    on_curve = curve.at[curve.draws.mean(axis=0).argmax()]
    half = votes // ANSWERS // 2
    before = simulated(chance, truth, VALUES, half)
    first = fit_curve(VALUES, *before)
    values = np.unique([incumbent(first), 1.0, *proposed_values(first)])
    after = simulated(chance, truth, values, half)
    pooled = fit_curve(values, *after, before=[Votes(VALUES, *before)])
    taken = (raw, on_curve, incumbent(fit_curve(values, *after)), pooled.at[pooled.draws.mean(axis=0).argmax()])
    return [float(highest - expit(truth(np.array([value])))[0]) for value in taken]


def main() -> None:
    for votes in (600, 1200):
        chance = np.random.default_rng(0)
        found: dict[str, list[list[float]]] = {}
        for _ in range(RUNS):
            for name, truth in truths(chance).items():
                if name != "flat":
                    found.setdefault(name, []).append(regrets(chance, truth, votes))
        print(f"{votes} votes, points lost against the best λ: raw best of five, curve, second round, both rounds")
        for name, of_runs in [*found.items(), ("all", [one for each in found.values() for one in each])]:
            means, errors = np.mean(of_runs, axis=0), np.std(of_runs, axis=0) / np.sqrt(len(of_runs))
            print(
                f"  {name}: " + ", ".join(f"{100 * m:.2f} ± {100 * e:.2f}" for m, e in zip(means, errors, strict=True))
            )


if __name__ == "__main__":
    main()
