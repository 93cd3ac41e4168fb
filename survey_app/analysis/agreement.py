"""How well numbers of pictures predict votes on them: pure functions of arrays with a vote in each place.

picked bool (votes,): whether the picture that the vote is about was picked as real. participant and image int (votes,):
whose vote it is, on which photograph.
"""

import math

import numpy as np

from survey_app.analysis.inference import Interval

DRAWS = 400  # of a bootstrap


def area_under_curve(rank: np.ndarray, picked: np.ndarray, weight: np.ndarray) -> float:
    """The probability that a picture that was picked as real has the higher rank than one that was not; half of it
    where they have the same. NaN where all or none were picked. rank: int (votes,), from 0. weight: how often each vote
    counts."""
    yes, no = np.bincount(rank, weight * picked), np.bincount(rank, weight * ~picked)
    below = np.cumsum(no) - no
    pairs = yes.sum() * no.sum()
    return float((yes * (below + no / 2)).sum() / pairs) if pairs else math.nan


def predict_votes(
    score: np.ndarray, picked: np.ndarray, participant: np.ndarray, image: np.ndarray, *, draws: int = DRAWS
) -> Interval:
    """The area under the curve of a score, float (votes,), with its interval at 95 %.

    It resamples participants and photographs independently (the pigeonhole bootstrap, Owen 2007), which is rather too
    wide than too narrow.
    """
    rank = np.unique(score, return_inverse=True)[1]  # once: to sort 40,000 votes takes longer than all else of a draw
    estimate = area_under_curve(rank, picked, np.ones(len(rank)))
    if math.isnan(estimate):
        return Interval(None, None, None)
    (people, person), (images, picture) = (np.unique(of, return_inverse=True) for of in (participant, image))
    if min(len(people), len(images)) < 2:
        return Interval(estimate, None, None)
    generator = np.random.default_rng(0)
    areas = []
    for _ in range(draws):
        of_people, of_images = (
            generator.multinomial(count, [1 / count] * count) for count in (len(people), len(images))
        )
        areas.append(area_under_curve(rank, picked, (of_people[person] * of_images[picture]).astype(float)))
    low, high = np.nanpercentile(areas, [2.5, 97.5])
    return Interval(estimate, float(low), float(high))
