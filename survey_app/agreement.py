"""How well numbers of pictures predict votes on them: pure functions of arrays with a vote in each place.

score float (votes,): of the picture that the vote is about, higher where it should be picked as real. picked bool
(votes,): whether it was. participant and image int (votes,): whose vote it is, on which photograph. Intervals are at
95 %, by resampling participants and photographs independently (the pigeonhole bootstrap, Owen 2007): rather too wide
than too narrow.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np

from platform.intervals import Share, wilson
from survey_app.statistics import Interval

DRAWS = 400  # of a bootstrap
FOLDS = 5  # of participants
NODES, WEIGHTS = np.polynomial.legendre.leggauss(64)  # of an integral from −1 to 1


def area_under_curve(score: np.ndarray, picked: np.ndarray, weight: np.ndarray | None = None) -> float:
    """The probability that a picture that was picked as real has the higher score than one that was not; half of it
    where they have the same. NaN where all or none were picked. weight: how often each vote counts."""
    return _area(np.unique(score, return_inverse=True)[1], picked, np.ones(len(score)) if weight is None else weight)


def _area(rank: np.ndarray, picked: np.ndarray, weight: np.ndarray) -> float:
    """rank int (votes,): of the score, equal ones alike."""
    yes, no = np.bincount(rank, weight * picked), np.bincount(rank, weight * ~picked)
    below = np.cumsum(no) - no
    pairs = yes.sum() * no.sum()
    return float((yes * (below + no / 2)).sum() / pairs) if pairs else math.nan


def prediction_of_votes(
    score: np.ndarray, picked: np.ndarray, participant: np.ndarray, image: np.ndarray, *, draws: int = DRAWS
) -> Interval:
    """The area under the curve with its interval."""
    rank = np.unique(score, return_inverse=True)[1]  # once: to sort 40,000 votes takes longer than all else of a draw
    return _resampled(lambda weight: _area(rank, picked, weight), participant, image, draws)


def ceiling_of_prediction(
    picked: np.ndarray, cell: np.ndarray, participant: np.ndarray, image: np.ndarray, *, draws: int = DRAWS
) -> Interval:
    """The area under the curve that whoever knew each picture's true share could reach, as votes are noisy.

    cell int (votes,): the picture; each participant sees one once at most. How far true shares vary is what votes of
    different people on one picture have in common (their covariance); the shares are taken as beta distributed.
    """
    _, place = np.unique(cell, return_inverse=True)

    def ceiling(weight: np.ndarray) -> float:
        mean = float(np.average(picked, weights=weight))
        off = weight * (picked - mean)
        pairs = np.bincount(place, weight) ** 2 - np.bincount(place, weight**2)
        products = np.bincount(place, off) ** 2 - np.bincount(place, off**2)
        return _beta_area(mean, float(products.sum() / pairs.sum()) if pairs.sum() else math.nan)

    return _resampled(ceiling, participant, image, draws)


def _beta_area(mean: float, variance: float) -> float:
    """The area under the curve of shares of this mean and variance: of beta(a + 1, b), what was picked, against
    beta(a, b + 1), what was not."""
    from scipy.stats import beta

    most = mean * (1 - mean)
    if math.isnan(variance) or most == 0:
        return math.nan
    if variance <= 1e-9:
        return 0.5
    if variance >= most - 1e-9:
        return 1.0
    both = most / variance - 1
    a, b = mean * both, (1 - mean) * both
    return float(beta.cdf(beta.ppf((NODES + 1) / 2, a + 1, b), a, b + 1) @ WEIGHTS / 2)


def chosen_by_votes(scores: np.ndarray, picked: np.ndarray, participant: np.ndarray) -> tuple[int, float] | None:
    """Of several scores, float (scores, votes), the one that predicts all votes best, and how well a choice made so
    predicts those of people who had no part in it: each fifth of the participants is predicted by what was best for the
    others, and the areas are weighted by their votes. None where that cannot be told."""
    people = np.unique(participant)
    fold = np.random.default_rng(0).permutation(len(people))[np.searchsorted(people, participant)] % FOLDS
    areas, votes = [], []
    for held_out in range(FOLDS):
        out = fold == held_out
        best = _best(scores[:, ~out], picked[~out])
        if best is not None and not math.isnan(area := area_under_curve(scores[best, out], picked[out])):
            areas.append(area)
            votes.append(int(out.sum()))
    best = _best(scores, picked)
    return None if best is None or not areas else (best, float(np.average(areas, weights=votes)))


def _best(scores: np.ndarray, picked: np.ndarray) -> int | None:
    areas = [area_under_curve(score, picked) for score in scores]
    return None if np.isnan(areas).any() else int(np.argmax(areas))


def calibration(probability: np.ndarray, picked: np.ndarray, groups: int = 10) -> Iterator[tuple[float, Share]]:
    """Votes in groups of equal size by what was predicted: the mean prediction and the share picked, with Wilson's
    interval. Fewer groups where there are fewer votes."""
    order = np.argsort(probability, kind="stable")
    for group in np.array_split(order, min(groups, len(order))):
        yield float(probability[group].mean()), wilson(int(picked[group].sum()), len(group))


def _resampled(
    measure: Callable[[np.ndarray], float], participant: np.ndarray, image: np.ndarray, draws: int
) -> Interval:
    """measure: of the weights of votes."""
    estimate = measure(np.ones(len(participant))) if len(participant) else math.nan
    if math.isnan(estimate):
        return Interval(None, None, None)
    (people, person), (images, picture) = (np.unique(of, return_inverse=True) for of in (participant, image))
    if min(len(people), len(images)) < 2:
        return Interval(estimate, None, None)
    generator = np.random.default_rng(0)
    drawn = [
        measure((_times(generator, len(people))[person] * _times(generator, len(images))[picture]).astype(float))
        for _ in range(draws)
    ]
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return Interval(estimate, float(low), float(high))


def _times(generator: np.random.Generator, count: int) -> np.ndarray:
    """How often each of so many is drawn."""
    return generator.multinomial(count, np.full(count, 1 / count))
