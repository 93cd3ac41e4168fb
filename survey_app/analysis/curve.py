"""The curve of picked-as-real over λ: a Gaussian process through the log odds of a study's shares, of arms that differ
in λ alone.

Laplace's approximation with a binomial likelihood (Rasmussen & Williams 2006, 3.4), a Matérn 5/2 covariance and an
unknown mean. What is not known of the covariance, its length and its height, is averaged over a grid by its marginal
likelihood. Answers of one participant go together: counts are divided by the design effect (Rao & Scott 1992), and what
moves all shares alike is an error of the whole curve's level. Answers of earlier studies of the same experiment are of
the same curve, but for its level.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from db.schema import Trial
from db.surveys.answers import Answers
from platform.arms.options import ArmOptions
from platform.tables.intervals import Share, wilson
from survey_app.analysis.inference import clustering

LAMBDAS = np.linspace(0.0, 1.0, 51)  # that the curve is drawn at
LENGTHS = np.geomspace(0.25, 2.0, 4)  # of the covariance, in λ; all as likely beforehand, as are
HEIGHTS = np.geomspace(0.05, 1.6, 6)  # the curve's standard deviations about its mean, in log odds
LEVEL = 2.0  # standard deviation of the mean in log odds, about a share of one half: 2 to 98 % with 95 %
STUDY_LEVEL = 0.3  # standard deviation of an earlier study's level about the last one's, in log odds
DRAWS = 2000  # of curves
STEPS = 100  # of Newton's method, at most


def one_family(contenders: Sequence[Trial]) -> list[int]:
    """The places of the contenders that one curve may join, as they differ in λ alone, sorted by λ.

    They are tilts: one trained classification with λ = 1 and what renders it by the same decoding; or trainings, all
    whose other options are the same. Of those that have each λ once the most, tilts before trainings.
    """
    tilts: dict[tuple[str, str, float], list[int]] = {}  # by the training, and how it is read
    trainings: dict[ArmOptions, list[int]] = {}  # by what they have in common
    for place in sorted(range(len(contenders)), key=lambda place: contenders[place].arm.rebalancing or 0.0):
        arm = contenders[place].arm
        if arm.rebalancing is None:
            continue
        options = arm.choices
        if options.renders is not None or arm.rebalancing == 1:
            training = options.renders or arm.name
            tilts.setdefault((training, options.decoding, options.temperature), []).append(place)
        if options.renders is None:
            trainings.setdefault(replace(options, rebalancing=1.0), []).append(place)

    def values(family: list[int]) -> set[float]:
        return {contenders[place].arm.rebalancing or 0.0 for place in family}

    families = [family for family in (*tilts.values(), *trainings.values()) if len(values(family)) == len(family)]
    return max(families, key=len, default=[])


class Votes(NamedTuple):
    """Of one study."""

    values: np.ndarray  # float (arms,), the λ of each, rising
    picked: np.ndarray  # int (participants, arms)
    asked: np.ndarray  # as picked


@dataclass(frozen=True, eq=False)
class Curve:
    """What is known of the curve, as draws from its posterior distribution."""

    asked_at: np.ndarray  # float (values,), λ's that people were asked about, rising; of several studies, in the last
    at: np.ndarray  # float (points,): LAMBDAS and what was ever asked about, rising
    draws: np.ndarray  # float (DRAWS, points), shares from 0 to 1

    def interval(self, quantiles: Sequence[float] = (2.5, 50.0, 97.5)) -> np.ndarray:
        """Low end, middle and high end of the band, float (3, points)."""
        return np.asarray(np.percentile(self.draws, quantiles, axis=0))

    def places(self, values: Sequence[float] | np.ndarray) -> np.ndarray:
        """Where λ's lie in `at`."""
        return np.asarray(np.searchsorted(self.at, np.asarray(values) - 1e-9))

    def probability_best(self, values: Sequence[float] | np.ndarray) -> np.ndarray:
        """That each of these λ's is the best of them, float (values,)."""
        best = self.draws[:, self.places(values)].argmax(axis=1)
        return np.bincount(best, minlength=len(values)) / len(best)

    def best_of_all(self) -> np.ndarray:
        """The best λ of each draw, float (DRAWS,)."""
        return np.asarray(self.at[self.draws.argmax(axis=1)])


def fit_curve(values: np.ndarray, picked: np.ndarray, asked: np.ndarray, *, before: Sequence[Votes] = ()) -> Curve:
    """values: float (arms,), the λ of each, rising; picked, asked: int (participants, arms). before: see
    `earlier_votes`; their levels are others."""
    _, together = clustering(picked, asked)
    studies = [*before, Votes(values, picked, asked)]
    counts = [_effective(votes) for votes in studies]
    at = np.unique(np.concatenate([LAMBDAS, *(votes.values for votes in studies)]))
    prior = _covariances(at)
    places = np.concatenate([np.searchsorted(at, votes.values) for votes in studies])
    of_study = np.repeat(np.arange(len(studies)), [len(votes.values) for votes in studies])
    levels = STUDY_LEVEL**2 * ((of_study[:, None] == of_study) & (of_study < len(before)))
    evidence, middle, left = _laplace(prior, places, levels, *np.concatenate(counts, axis=1))
    weights = np.exp(evidence - evidence.max())
    chance = np.random.default_rng(0)
    shape = chance.choice(len(weights), DRAWS, p=weights / weights.sum())
    spread = np.linalg.cholesky(left + 1e-8 * np.eye(len(at)))
    noise = np.stack(
        [spread[of] @ normal for of, normal in zip(shape, chance.normal(size=(DRAWS, len(at))), strict=True)]
    )
    level = together * chance.normal(size=(DRAWS, 1))
    return Curve(values, at, 1.0 / (1.0 + np.exp(-(middle[shape] + noise + level))))


def _effective(votes: Votes) -> np.ndarray:
    """Picked and asked as of independent answers, float (2, arms)."""
    effect, _ = clustering(votes.picked, votes.asked)
    return np.stack([votes.picked.sum(axis=0), votes.asked.sum(axis=0)]) / effect


def _covariances(at: np.ndarray) -> np.ndarray:
    """Of log odds, for each length and height, float (shapes, points, points): of the mean, and Matérn 5/2 about it."""
    distance = math.sqrt(5.0) * np.abs(at[:, None] - at) / LENGTHS[:, None, None, None]
    matern = (1.0 + distance + distance**2 / 3.0) * np.exp(-distance)
    covariances = LEVEL**2 + HEIGHTS[:, None, None] ** 2 * matern
    return np.asarray(covariances.reshape(-1, len(at), len(at)))


def _laplace(
    prior: np.ndarray, arms: np.ndarray, levels: np.ndarray, picked: np.ndarray, asked: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each shape: the log marginal likelihood but for a constant, (shapes,); mean (shapes, points) and covariance
    (shapes, points, points) of the log odds, given the answers. arms: the arms' places among the points. levels: the
    covariance (arms, arms) of what is added to the curve where it was asked about."""
    among, across = prior[:, arms[:, None], arms] + levels, prior[:, arms]
    odds = np.zeros(across.shape[:2])
    for _ in range(STEPS):  # Newton's
        share = 1.0 / (1.0 + np.exp(-odds))
        root = np.sqrt(asked * share * (1.0 - share))
        inner = np.eye(len(arms)) + root[:, :, None] * among * root[:, None, :]
        pull = root**2 * odds + picked - asked * share
        weight = pull - root * np.linalg.solve(inner, root[:, :, None] * (among @ pull[:, :, None]))[:, :, 0]
        before, odds = odds, (among @ weight[:, :, None])[:, :, 0]
        if np.abs(odds - before).max() < 1e-6:
            break
    likelihood = odds @ picked - np.logaddexp(0.0, odds) @ asked
    evidence = likelihood - 0.5 * (weight * odds).sum(axis=1) - 0.5 * np.linalg.slogdet(inner)[1]
    scaled = root[:, :, None] * across
    left = prior - scaled.transpose(0, 2, 1) @ np.linalg.solve(inner, scaled)
    return evidence, (weight[:, None] @ across)[:, 0], left


def curve_of(answers: Answers, before: Sequence[Votes] = ()) -> tuple[list[int], Curve] | None:
    """The places among its contenders that a study's curve joins, and the curve; None where it asked about fewer than
    two λ's that one curve may join. before: see `earlier_votes`."""
    places, votes = one_family(answers.contenders), votes_of(answers)
    if len(places) < 2 or (votes.asked.sum(axis=0) > 0).sum() < 2:
        return None
    return places, fit_curve(*votes, before=before)


def votes_of(answers: Answers) -> Votes:
    """On the contenders that one curve may join."""
    places = one_family(answers.contenders)
    picked, asked = (counts[:, places] for counts in answers.picked_and_asked())
    return Votes(np.array([answers.contenders[place].arm.rebalancing for place in places], dtype=float), picked, asked)


def earlier_votes(answers: Answers, earlier: Sequence[Answers]) -> list[Votes]:
    """Of those earlier studies whose curve is of the same model, in their order. earlier: `load_earlier_answers`."""
    return [votes_of(one) for one in earlier if _common_options(one) == _common_options(answers)]


def _common_options(answers: Answers) -> ArmOptions | None:
    """What the arms of a study's curve have in common."""
    places = one_family(answers.contenders)
    return replace(answers.contenders[places[0]].arm.choices, tilt=1.0, rebalancing=1.0) if places else None


def confirmed_share(answers: Answers, before: Sequence[Votes]) -> Share | None:
    """What this study alone says of the λ that is the best of it and of those before, where these had chosen the same
    and it was asked about again: nobody chose this share for its luck. None where there is none."""
    found = curve_of(answers, before)
    if found is None or not before:
        return None
    best, votes = incumbent(found[1]), votes_of(answers)
    if incumbent(fit_curve(*before[-1], before=before[:-1])) != best:
        return None
    return wilson(*(int(counts[:, votes.values == best].sum()) for counts in votes[1:]))


def incumbent(curve: Curve) -> float:
    """The λ that is highest on the curve among those asked about."""
    return float(curve.asked_at[curve.draws.mean(axis=0)[curve.places(curve.asked_at)].argmax()])
