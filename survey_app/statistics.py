"""Statistics of survey results: pure functions of arrays. Participants are the unit: the answers of one go together.

Most take `picked` and `asked`, int (participants, arms): how often each participant took the arm's picture for real,
and how often they were asked about it, which may be never. The same functions serve other shares: of answers "left"
(side bias), of sentinels seen through. Intervals are at 95 %. For a share of independent answers: db.results.wilson.

scipy and statsmodels take a second or more to import, for which a participant's server need not wait: each function
imports what it needs.
"""

import math
import warnings
from bisect import bisect_left
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

import numpy as np

from platform.intervals import wilson

BINS_A_DECADE = 10  # of response times
MOST_PARTICIPANTS = 1_000_000  # who are ever planned
FEWEST_TO_ESTIMATE_SPREAD = 5  # participants
NO_SPREAD = 1e-7  # a standard error or deviation that is zero but for rounding


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval; None where it is not defined."""

    estimate: float | None
    low: float | None
    high: float | None


def bootstrap_shares(picked: np.ndarray, asked: np.ndarray, *, draws: int = 2000, seed: int = 0) -> list[Interval]:
    """The share picked of each arm, with a percentile cluster bootstrap by participant (Davison & Hinkley 1997, 3.8).

    In simulated surveys the limits held the true share in 74 to 84 % with 3 to 5 participants, 88 to 90 % with 10, 92
    to 95 % with 20 or more. There are none with fewer than two participants asked about the arm. Resampling says
    nothing of a share of 0 or 1: its limits are Wilson's with every participant as one answer, as if the answers of one
    were always alike.
    """
    shares = _resampled_shares(picked, asked, draws, seed)
    intervals = []
    for arm in range(asked.shape[1]):
        count, total, participants = int(picked[:, arm].sum()), int(asked[:, arm].sum()), int((asked[:, arm] > 0).sum())
        if participants < 2:
            intervals.append(Interval(count / total if total else None, None, None))
        elif count in (0, total):
            share = wilson(participants if count else 0, participants)
            intervals.append(Interval(share.share, share.low, share.high))
        else:
            low, high = np.nanpercentile(shares[:, arm], [2.5, 97.5])
            intervals.append(Interval(count / total, float(low), float(high)))
    return intervals


def _resampled_shares(picked: np.ndarray, asked: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """Shares float (draws, arms) of as many participants drawn with replacement; NaN where none of them was asked."""
    took_part = asked.sum(axis=1) > 0
    participants = int(took_part.sum())
    if participants == 0:
        return np.full((draws, asked.shape[1]), np.nan)
    counts = np.concatenate([picked, asked], axis=1)[took_part].astype(float)  # products of floats are the fast ones
    chance = np.random.default_rng(seed)
    sums = np.stack(
        [
            np.bincount(chance.integers(participants, size=participants), minlength=participants) @ counts
            for _ in range(draws)
        ]
    )
    drawn, total = np.split(sums, 2, axis=1)
    shares: np.ndarray = np.divide(drawn, total, out=np.full_like(total, np.nan), where=total > 0)
    return shares


@dataclass(frozen=True)
class Difference:
    """A difference between two shares, its 95 % confidence interval, and the p-value that there is none (two-sided).

    None is what cannot be told: see share_difference().
    """

    difference: float
    low: float | None
    high: float | None
    p_value: float | None


def share_difference(picked: np.ndarray, second: np.ndarray, participant: np.ndarray) -> Difference:
    """By how much the share of `picked` is higher in the second arm than in the first.

    picked, second: bool (answers,), some in either arm; participant: int (answers,), at least two different ones. A
    linear probability model with standard errors robust to clusters of answers by one participant (Liang & Zeger 1986),
    and t with the number of participants less one. Unlike a logit it is defined where an arm was always or never
    picked.

    Where the standard error is zero, as for "never" against "always", there is no interval, and the p-value is that of
    a sign test on the participants' own differences; None where no participant has one.
    """
    import statsmodels.api as sm

    difference = float(picked[second].mean() - picked[~second].mean())
    if len(picked) > 2:  # an answer in either arm has no spread, and statsmodels divides by zero
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # 0 / 0 where nothing varies
            fit = sm.OLS(picked.astype(float), sm.add_constant(second.astype(float))).fit(
                cov_type="cluster", cov_kwds={"groups": participant}, use_t=True
            )
            low, high = (float(limit) for limit in fit.conf_int()[1])
            if fit.bse[1] > NO_SPREAD:
                return Difference(difference, max(low, -1.0), min(high, 1.0), float(fit.pvalues[1]))
    return Difference(difference, None, None, _sign_test(picked, second, participant))


def _sign_test(picked: np.ndarray, second: np.ndarray, participant: np.ndarray) -> float | None:
    from scipy.stats import binomtest

    cell = 2 * np.unique(participant, return_inverse=True)[1] + second
    cells = 2 * (int(cell.max()) // 2 + 1)
    asked = np.bincount(cell, minlength=cells).reshape(-1, 2)
    counts = np.bincount(cell[picked], minlength=cells).reshape(-1, 2)
    own = counts[:, 1] * asked[:, 0] - counts[:, 0] * asked[:, 1]  # 0 for who saw one arm only
    if not own.any():
        return 1.0 if np.ptp(counts.sum(axis=0) / asked.sum(axis=0)) == 0 else None
    return float(binomtest(int((own > 0).sum()), int((own != 0).sum())).pvalue)


@dataclass(frozen=True)
class Contrast:
    """Two arms compared: columns `first` < `second`. None is what is not defined or cannot be told.

    difference: of the share of the second less that of the first, with limits robust to clusters. odds_ratio: of the
    second to the first; neither share may be 0 or 1. p_value: two-sided, by `method`: the logit, else the shares, see
    share_difference(), else ("signs") the sign test there. p_holm: adjusted for all contrasts that have a p-value.
    """

    first: int
    second: int
    difference: float | None
    low: float | None
    high: float | None
    odds_ratio: float | None
    odds_low: float | None
    odds_high: float | None
    p_value: float | None
    p_holm: float | None
    method: Literal["logit", "shares", "signs"]


def contrasts(picked: np.ndarray, asked: np.ndarray) -> list[Contrast]:
    """All pairs of arms, each with standard errors robust to clusters of answers by one participant, Holm-corrected.

    A logit of the answers on the arm, with t and degrees of freedom the number of participants less one. Its variance
    is G/(G - 1) × (N - 1)/(N - 2) times the sandwich (Liang & Zeger 1986), for G participants and N answers.
    """
    found = [_contrast(picked, asked, *pair) for pair in combinations(range(asked.shape[1]), 2)]
    # statsmodels' multipletests collects all garbage first, which takes seconds in a Streamlit server.
    p_values = np.array([contrast.p_value for contrast in found if contrast.p_value is not None])
    order = np.argsort(p_values)
    adjusted = np.minimum(np.maximum.accumulate(p_values[order] * np.arange(len(order), 0, -1)), 1.0)
    by_place = iter(adjusted[np.argsort(order)])
    return [
        contrast if contrast.p_value is None else replace(contrast, p_holm=float(next(by_place))) for contrast in found
    ]


def _contrast(picked: np.ndarray, asked: np.ndarray, first: int, second: int) -> Contrast:
    import statsmodels.api as sm

    counts, totals = picked[:, [first, second]], asked[:, [first, second]]
    untold = Contrast(first, second, None, None, None, None, None, None, None, None, "shares")
    if not totals.any(axis=0).all():
        return untold
    share = counts.sum(axis=0) / totals.sum(axis=0)
    between = bool((share > 0).all() and (share < 1).all())
    odds_ratio = float(share[1] / (1 - share[1]) / (share[0] / (1 - share[0]))) if between else None
    untold = replace(untold, difference=float(share[1] - share[0]), odds_ratio=odds_ratio)
    if totals.any(axis=1).sum() < 2:
        return untold

    # The answers one by one: statsmodels then corrects for small samples by their number, not by that of the cells.
    answers = np.repeat(np.tile([True, False], counts.size), np.stack([counts, totals - counts], axis=-1).ravel())
    cell = np.repeat(np.arange(counts.size), totals.ravel())
    participant, in_second = cell // 2, cell % 2 == 1
    shares = share_difference(answers, in_second, participant)
    told = replace(
        untold,
        low=shares.low,
        high=shares.high,
        p_value=shares.p_value,
        method="signs" if shares.low is None else "shares",
    )
    if not between:
        return told
    logit = sm.Logit(answers.astype(float), sm.add_constant(in_second.astype(float))).fit(
        disp=False, cov_type="cluster", cov_kwds={"groups": participant}, use_t=True
    )
    if not logit.bse[1] > NO_SPREAD:
        return told
    odds_low, odds_high = (math.exp(limit) for limit in logit.conf_int()[1])
    return replace(told, odds_low=odds_low, odds_high=odds_high, p_value=float(logit.pvalues[1]), method="logit")


def rank_correlation(
    score: np.ndarray, picked: np.ndarray, asked: np.ndarray, *, draws: int = 2000, seed: int = 0
) -> Interval:
    """Spearman's ρ between a score (arms,) and the share picked, with a percentile cluster bootstrap by participant.

    Arms without a score (NaN) or never asked about are left out; fewer than three, or all alike, have no ρ. Arms and
    scores are taken as fixed: the interval tells how sure their order among people is, not what other arms would give.
    Draws without a ρ are left out; there are no limits with fewer than two participants.
    """
    from scipy.stats import rankdata

    used = np.isfinite(score) & (asked.sum(axis=0) > 0)
    score, picked, asked = score[used], picked[:, used], asked[:, used]
    if len(score) < 3 or np.ptp(score) == 0:
        return Interval(None, None, None)
    shares = np.concatenate([[picked.sum(axis=0) / asked.sum(axis=0)], _resampled_shares(picked, asked, draws, seed)])
    ranks = rankdata(shares, axis=1, nan_policy="propagate")
    ranks -= ranks.mean(axis=1, keepdims=True)
    score_ranks = rankdata(score) - (len(score) + 1) / 2
    spread = np.sqrt((ranks**2).sum(axis=1) * (score_ranks**2).sum())
    rho = np.divide(ranks @ score_ranks, spread, out=np.full_like(spread, np.nan), where=spread > 0)
    if np.isnan(rho[0]):
        return Interval(None, None, None)
    if (asked.sum(axis=1) > 0).sum() < 2 or np.isnan(rho[1:]).all():
        return Interval(float(rho[0]), None, None)
    low, high = np.nanpercentile(rho[1:], [2.5, 97.5])
    return Interval(float(rho[0]), float(low), float(high))


@dataclass(frozen=True)
class Planning:
    """How far a study is from finding a difference between two shares: see planning().

    participants: who were asked anything. participants_needed: to find the difference with the power asked for, None
    if even MOST_PARTICIPANTS are too few. power_reached: with the participants so far; None with fewer than two.
    detectable_difference: the smallest that they find with the power asked for; None if there is none up to 1.
    standard_deviation: of one participant's difference between two arms. assumed: rather than estimated from the data.
    """

    participants: int
    participants_needed: int | None
    power_reached: float | None
    detectable_difference: float | None
    standard_deviation: float
    assumed: bool


def planning(
    picked: np.ndarray,
    asked: np.ndarray,
    *,
    difference: float,
    questions_per_arm: float,
    power: float = 0.8,
    alpha: float = 0.05,
    contrasts: int = 1,
) -> Planning:
    """Plan by a paired t-test, two-sided, on each participant's difference between their shares of two arms.

    difference: above 0, up to 1. alpha is divided by the number of `contrasts` (Bonferroni, which Holm never falls
    short of). The standard deviation is pooled over the pairs of arms, from those who were asked about both. Of a pair
    with fewer than FEWEST_TO_ESTIMATE_SPREAD, or where nobody differs from anybody, it is assumed to be binomial: a
    share of 1/2 in questions_per_arm questions on either arm. Raises ValueError where an argument is out of range.
    """
    from scipy.optimize import brentq
    from scipy.stats import f, ncf

    if not (0 < difference <= 1 and questions_per_arm > 0 and contrasts >= 1 and 0 < alpha < power < 1):
        raise ValueError(
            "Planning takes a difference from above 0 to 1, questions, contrasts, and 0 < alpha < power < 1."
        )
    deviation = _deviation(picked, asked)
    assumed = deviation is None
    spread = math.sqrt(0.5 / questions_per_arm) if deviation is None else deviation

    def power_with(participants: int, difference: float) -> float:
        # The square of a noncentral t is a noncentral F. statsmodels' TTestPower is NaN for many large effects.
        critical = f.isf(alpha / contrasts, 1, participants - 1)
        return float(ncf.sf(critical, 1, participants - 1, participants * (difference / spread) ** 2))

    participants = int((asked.sum(axis=1) > 0).sum())
    candidates = range(2, MOST_PARTICIPANTS + 1)
    needed = bisect_left(candidates, power, key=lambda number: power_with(number, difference))
    reached = detectable = None
    if participants >= 2:
        reached = power_with(participants, difference)
        if power_with(participants, 1.0) >= power:
            detectable = float(brentq(lambda size: power_with(participants, size) - power, 1e-9, 1.0))
    return Planning(
        participants, candidates[needed] if needed < len(candidates) else None, reached, detectable, spread, assumed
    )


def _deviation(picked: np.ndarray, asked: np.ndarray) -> float | None:
    """Of a participant's difference between two arms, pooled over pairs of arms; None where that cannot be told."""
    squares, freedom = 0.0, 0
    for first, second in combinations(range(asked.shape[1]), 2):
        both = (asked[:, first] > 0) & (asked[:, second] > 0)
        if both.sum() >= FEWEST_TO_ESTIMATE_SPREAD:
            own = picked[both] / np.maximum(asked[both], 1)
            between = own[:, second] - own[:, first]
            squares += float(((between - between.mean()) ** 2).sum())
            freedom += len(between) - 1
    deviation = math.sqrt(squares / freedom) if freedom else 0.0
    return deviation if deviation > NO_SPREAD else None


@dataclass(frozen=True)
class ResponseTimes:
    """quartiles_ms: the first, the median, the third; None without answers. The histogram's edges are powers of
    10^(1/BINS_A_DECADE), the same whatever the data, so that groups can be laid over each other; a time is counted in
    the bin whose lower edge it reaches, and one below 1 ms in the first."""

    answers: int
    quartiles_ms: tuple[float, float, float] | None
    edges_ms: np.ndarray
    counts: np.ndarray


def response_time_summary(times_ms: np.ndarray) -> ResponseTimes:
    """Quartiles and histogram of response times, float (answers,), 0 or more."""
    if len(times_ms) == 0:
        return ResponseTimes(0, None, np.ones(1), np.zeros(0, dtype=int))
    # Rounded, lest the logarithm of an edge fall below it.
    places = np.floor(np.round(np.log10(np.maximum(times_ms, 1.0)) * BINS_A_DECADE, 9)).astype(int)
    first, last = int(places.min()), int(places.max())
    first_quartile, median, third_quartile = (float(value) for value in np.quantile(times_ms, [0.25, 0.5, 0.75]))
    return ResponseTimes(
        answers=len(times_ms),
        quartiles_ms=(first_quartile, median, third_quartile),
        edges_ms=10.0 ** (np.arange(first, last + 2) / BINS_A_DECADE),
        counts=np.bincount(places - first),
    )
