"""How well scores predict votes, against counting pairs, and in simulated votes whose truth is known."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta

from survey_app.agreement import (
    area_under_curve,
    calibration,
    ceiling_of_prediction,
    chosen_by_votes,
    prediction_of_votes,
)

VOTES = st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.integers(0, 3)), min_size=1, max_size=30)


@given(VOTES)
def test_the_area_counts_pairs_and_a_weight_is_so_many_votes(votes: list[tuple[int, bool, int]]) -> None:
    score, picked, weight = (np.array(column) for column in zip(*votes, strict=True))
    many_scores, many_picked = np.repeat(score, weight), np.repeat(picked, weight)
    yes, no = many_scores[many_picked][:, None], many_scores[~many_picked][None]
    area = area_under_curve(score.astype(float), picked, weight.astype(float))
    if yes.size and no.size:
        assert area == pytest.approx(((yes > no) + (yes == no) / 2).mean())
    else:
        assert math.isnan(area)


def simulated(
    generator: np.random.Generator, participants: int, images: int, arms: int, a: float, b: float
) -> tuple[np.ndarray, ...]:
    """True shares of the pictures asked about, votes, and whose they are on what: each participant sees every image
    once, by one of the arms. People differ in how often they pick anything as real."""
    shares = beta(a, b).rvs((images, arms), random_state=generator)
    participant, image = (part.ravel() for part in np.indices((participants, images)))
    arm = generator.integers(arms, size=participant.size)
    share = shares[image, arm]
    leaning = generator.normal(0, 0.5, participants)[participant]
    odds = np.log(share / (1 - share)) + leaning
    return share, generator.random(share.size) < 1 / (1 + np.exp(-odds)), participant, image, image * arms + arm


def test_the_interval_holds_what_other_people_and_other_photographs_would_give() -> None:
    held = []
    for seed in range(40):
        generator = np.random.default_rng(seed)
        truth = area_under_curve(*simulated(generator, 200, 200, 3, 2, 5)[:2])
        score, picked, participant, image, _ = simulated(generator, 20, 30, 3, 2, 5)
        found = prediction_of_votes(score, picked, participant, image, draws=200)
        assert found.low is not None
        assert found.high is not None
        held.append(found.low <= truth <= found.high)
    assert np.mean(held) >= 0.9


@pytest.mark.parametrize(("a", "b"), [(2.0, 5.0), (8.0, 20.0), (0.5, 1.0)])
def test_the_ceiling_is_what_the_true_shares_reach(a: float, b: float) -> None:
    reached, estimated = [], []
    for seed in range(12):
        share, picked, participant, image, cell = simulated(np.random.default_rng(seed), 40, 60, 3, a, b)
        reached.append(area_under_curve(share, picked))
        estimated.append(ceiling_of_prediction(picked, cell, participant, image, draws=2).estimate or 0.0)
    assert np.mean(estimated) == pytest.approx(np.mean(reached), abs=0.015)


def test_votes_that_have_nothing_in_common_have_a_ceiling_of_a_coin() -> None:
    generator = np.random.default_rng(0)
    participant, image = (part.ravel() for part in np.indices((40, 60)))
    picked = generator.random(participant.size) < 0.3
    ceiling = ceiling_of_prediction(picked, image, participant, image, draws=50)
    assert ceiling.estimate is not None
    assert ceiling.low == 0.5
    assert ceiling.estimate < 0.58


def test_what_cannot_be_told_is_none() -> None:
    nothing = np.zeros(0)
    assert prediction_of_votes(nothing, nothing.astype(bool), nothing, nothing).estimate is None
    score, picked = np.array([1.0, 2.0, 3.0]), np.array([False, True, True])
    one, three = np.zeros(3, int), np.arange(3)
    alone = prediction_of_votes(score, picked, one, three)
    assert (alone.estimate, alone.low, alone.high) == (1.0, None, None)
    assert prediction_of_votes(score, np.ones(3, bool), three, three).estimate is None
    assert ceiling_of_prediction(picked, three, three, three).estimate is None  # one vote per picture
    assert chosen_by_votes(score[None], np.ones(3, bool), three) is None


def test_the_score_that_predicts_is_chosen_and_a_choice_among_noise_is_worth_nothing() -> None:
    generator = np.random.default_rng(0)
    share, picked, participant, _, _ = simulated(generator, 40, 60, 3, 2, 5)
    noise = generator.random((4, share.size))
    best, area = chosen_by_votes(np.vstack([noise[:2], share, noise[2:]]), picked, participant) or (None, 0.0)
    assert best == 2
    assert area == pytest.approx(area_under_curve(share, picked), abs=0.01)
    _, by_chance = chosen_by_votes(noise, picked, participant) or (None, 0.0)
    assert by_chance == pytest.approx(0.5, abs=0.03)


def test_calibration_parts_votes_by_what_was_said() -> None:
    probability = np.linspace(0.01, 0.6, 97)
    picked = np.random.default_rng(0).random(97) < probability
    groups = list(calibration(probability, picked))
    assert len(groups) == 10
    assert sum(share.total for _, share in groups) == 97
    assert sum(share.count for _, share in groups) == picked.sum()
    means = [mean for mean, _ in groups]
    assert means == sorted(means)
    assert len(list(calibration(probability[:3], picked[:3]))) == 3
