"""How well scores predict votes, against counting pairs, and in simulated votes whose truth is known."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta

from survey_app.analysis.agreement import area_under_curve, predict_votes

VOTES = st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.integers(0, 3)), min_size=1, max_size=30)


@given(VOTES)
def test_the_area_counts_pairs_and_a_weight_is_so_many_votes(votes: list[tuple[int, bool, int]]) -> None:
    rank, picked, weight = (np.array(column) for column in zip(*votes, strict=True))
    many_ranks, many_picked = np.repeat(rank, weight), np.repeat(picked, weight)
    yes, no = many_ranks[many_picked][:, None], many_ranks[~many_picked][None]
    area = area_under_curve(rank, picked, weight.astype(float))
    if yes.size and no.size:
        assert area == pytest.approx(((yes > no) + (yes == no) / 2).mean())
    else:
        assert math.isnan(area)


def simulated(generator: np.random.Generator, participants: int, images: int, arms: int) -> tuple[np.ndarray, ...]:
    """True shares of the pictures asked about, votes, and whose they are on what: each participant sees every image
    once, by one of the arms. People differ in how often they pick anything as real."""
    shares = beta(2, 5).rvs((images, arms), random_state=generator)
    participant, image = (part.ravel() for part in np.indices((participants, images)))
    share = shares[image, generator.integers(arms, size=participant.size)]
    leaning = generator.normal(0, 0.5, participants)[participant]
    odds = np.log(share / (1 - share)) + leaning
    return share, generator.random(share.size) < 1 / (1 + np.exp(-odds)), participant, image


def test_the_interval_holds_what_other_people_and_other_photographs_would_give() -> None:
    held = []
    for seed in range(40):
        generator = np.random.default_rng(seed)
        truth = predict_votes(*simulated(generator, 200, 200, 3), draws=1).estimate
        found = predict_votes(*simulated(generator, 20, 30, 3), draws=200)
        assert None not in (truth, found.low, found.high)
        held.append(found.low <= truth <= found.high)  # type: ignore[operator]
    assert np.mean(held) >= 0.9


def test_what_cannot_be_told_is_none() -> None:
    nothing = np.zeros(0)
    assert predict_votes(nothing, nothing.astype(bool), nothing, nothing).estimate is None
    score, picked = np.array([1.0, 2.0, 3.0]), np.array([False, True, True])
    one, three = np.zeros(3, int), np.arange(3)
    alone = predict_votes(score, picked, one, three)
    assert (alone.estimate, alone.low, alone.high) == (1.0, None, None)
    assert predict_votes(score, np.ones(3, bool), three, three).estimate is None
