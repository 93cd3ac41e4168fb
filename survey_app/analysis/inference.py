"""Statistics of survey results: pure functions of arrays. Participants are the unit: the answers of one go together.

Most take `picked` and `asked`, int (participants, arms): how often each participant took the arm's picture for real,
and how often they were asked about it, which may be never. Intervals are at 95 %. For a share of independent answers:
platform.tables.intervals.wilson.

scipy and statsmodels take a second or more to import, for which a participant's server need not wait: each function
imports what it needs.
"""

import math
import warnings
from bisect import bisect_left
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from platform.tables.intervals import wilson

if TYPE_CHECKING:
    import pandas as pd

DRAWS = 2000  # of a bootstrap
MOST_PARTICIPANTS = 1_000_000  # who are ever planned
FEWEST_TO_ESTIMATE_SPREAD = 5  # participants
NO_SPREAD = 1e-7  # a standard error or deviation that is zero but for rounding


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval; None where it is not defined."""

    estimate: float | None
    low: float | None
    high: float | None


def bootstrap_shares(picked: np.ndarray, asked: np.ndarray, *, draws: int = DRAWS) -> list[Interval]:
    """The share picked of each arm, with a percentile cluster bootstrap by participant (Davison & Hinkley 1997, 3.8).

    In simulated surveys the limits held the true share in 74 to 84 % with 3 to 5 participants, 88 to 90 % with 10, 92
    to 95 % with 20 or more. There are none with fewer than two participants asked about the arm. Resampling says
    nothing of a share of 0 or 1: its limits are Wilson's with every participant as one answer, as if the answers of one
    were always alike.
    """
    shares = _resampled_shares(picked, asked, draws)
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


def _resampled_shares(picked: np.ndarray, asked: np.ndarray, draws: int) -> np.ndarray:
    """Shares float (draws, arms) of as many participants drawn with replacement; NaN where none of them was asked."""
    took_part = asked.any(axis=1)
    participants = int(took_part.sum())
    if participants == 0:
        return np.full((draws, asked.shape[1]), np.nan)
    times = _times_drawn(participants, draws)
    with np.errstate(invalid="ignore"):
        shares: np.ndarray = (times @ picked[took_part]) / (times @ asked[took_part])
    return shares


@lru_cache(maxsize=2)
def _times_drawn(participants: int, draws: int) -> np.ndarray:
    """How often each participant is in each draw, float (draws, participants): the same for all that is resampled."""
    drawn = np.random.default_rng(0).multinomial(participants, [1 / participants] * participants, size=draws)
    return drawn.astype(float)  # products of floats are the fast ones


def clustering(picked: np.ndarray, asked: np.ndarray) -> tuple[float, float]:
    """How answers of one participant go together, pooled over arms: linearised (Cochran 1977, 6.4), by participant.

    The design effect, at least 1: how many times larger the variance of an arm's share is than if all answers were
    independent, apart from what moves all arms' shares alike. And the standard error that this adds to all of them, in
    log odds. With fewer than two participants they cannot be told, and are 1 and 0.
    """
    total, participants = asked.sum(axis=0), len(asked)
    if participants < 2 or not total.any():
        return 1.0, 0.0
    picked, asked, total = picked[:, total > 0], asked[:, total > 0], total[total > 0]
    share = picked.sum(axis=0) / total
    influence = (picked - share * asked) / total
    covariance = influence.T @ influence * participants / (participants - 1)
    arms, own = len(total), np.trace(covariance)
    together = max(0.0, (covariance.sum() - own) / (arms * (arms - 1))) if arms > 1 else 0.0
    variance = share * (1.0 - share)
    if not variance.any():
        return 1.0, 0.0
    effect = (own / arms - together) / (variance / total).mean()
    return max(1.0, float(effect)), math.sqrt(together) / float(variance.mean())


class Difference(NamedTuple):
    """By how much a share is higher than another, with its 95 % interval, and the two-sided p-value that it is not; NaN
    where that cannot be told, see share_difference()."""

    difference: float
    low: float = math.nan
    high: float = math.nan
    p_value: float = math.nan


def share_difference(picked: np.ndarray, second: np.ndarray, participant: np.ndarray) -> Difference:
    """By how much the share of `picked` is higher in the second arm than in the first.

    picked, second: bool (answers,); participant: int (answers,). A linear probability model with standard errors robust
    to clusters of answers by one participant (Liang & Zeger 1986), and t with the number of participants less one.
    Unlike a logit it is defined where an arm was always or never picked, and speaks of shares, as people do. Without
    answers in both arms there is no difference. Without two participants, or where nothing varies (never against
    always, or everybody's difference is the same), there is neither interval nor p-value.
    """
    import statsmodels.api as sm

    if second.all() or not second.any():
        return Difference(math.nan)
    difference = float(picked[second].mean() - picked[~second].mean())
    if len(picked) < 3 or np.ptp(participant) == 0:  # an answer in either arm has no spread
        return Difference(difference)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # 0 / 0 where nothing varies
        fit = sm.OLS(picked.astype(float), sm.add_constant(second.astype(float))).fit(
            cov_type="cluster", cov_kwds={"groups": participant}, use_t=True
        )
        low, high = fit.conf_int()[1]
    if not fit.bse[1] > NO_SPREAD:
        return Difference(difference)
    return Difference(difference, max(float(low), -1.0), min(float(high), 1.0), float(fit.pvalues[1]))


def contrasts(picked: np.ndarray, asked: np.ndarray) -> "pd.DataFrame":
    """share_difference() of all pairs of arms: the columns first and second, two arms' places; difference, low, high
    and p_value; p_holm, corrected for all pairs that have a p-value (Holm 1979)."""
    import pandas as pd

    rows = []
    for first, second in combinations(range(asked.shape[1]), 2):
        counts, totals = picked[:, [first, second]], asked[:, [first, second]]
        # The answers one by one: statsmodels corrects for small samples by the number of its rows.
        cell = np.repeat(np.arange(totals.size), totals.ravel())
        answers = np.repeat(np.tile([True, False], totals.size), np.stack([counts, totals - counts], axis=-1).ravel())
        rows.append((first, second, *share_difference(answers, cell % 2 == 1, cell // 2)))
    found = pd.DataFrame(rows, columns=["first", "second", *Difference._fields])
    # statsmodels' multipletests collects all garbage first, which takes seconds in a Streamlit server.
    ranked = found["p_value"].dropna().sort_values()
    found["p_holm"] = (ranked * np.arange(len(ranked), 0, -1)).cummax().clip(upper=1.0)
    return found


def rank_correlation(score: np.ndarray, picked: np.ndarray, asked: np.ndarray, *, draws: int = DRAWS) -> Interval:
    """Spearman's ρ between a score (arms,) and the share picked, with a percentile cluster bootstrap by participant.

    Arms without a score (NaN) or never asked about are left out; fewer than three, or all alike, have no ρ. Arms and
    scores are taken as fixed: the interval tells how sure their order among people is, not what other arms would give.
    Draws without a ρ are left out; there are no limits with fewer than two participants.
    """
    from scipy.stats import ConstantInputWarning, pearsonr, rankdata

    used = np.isfinite(score) & asked.any(axis=0)
    score, picked, asked = score[used], picked[:, used], asked[:, used]
    if len(score) < 3:
        return Interval(None, None, None)
    shares = np.concatenate([[picked.sum(axis=0) / asked.sum(axis=0)], _resampled_shares(picked, asked, draws)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConstantInputWarning)
        estimate, *drawn = pearsonr(rankdata(shares, axis=1), rankdata(score)[None], axis=1).statistic
    if np.isnan(estimate):
        return Interval(None, None, None)
    if asked.any(axis=1).sum() < 2 or np.isnan(drawn).all():
        return Interval(float(estimate), None, None)
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return Interval(float(estimate), float(low), float(high))


@dataclass(frozen=True)
class Planning:
    """How far a study is from finding a difference between two shares: see planning().

    participants: who were asked anything. participants_needed: to find the difference with the power asked for, None
    if even MOST_PARTICIPANTS are too few. power_reached: with the participants so far; None with fewer than two.
    standard_deviation: of one participant's difference between two arms. assumed: rather than estimated from the data.
    """

    participants: int
    participants_needed: int | None
    power_reached: float | None
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
) -> Planning:
    """Plan by a paired t-test, two-sided at `alpha`, on each participant's difference between their shares of two arms.

    difference: above 0, up to 1. The standard deviation is pooled over the pairs of arms, from those who were asked
    about both. Of a pair with fewer than FEWEST_TO_ESTIMATE_SPREAD, or where nobody differs from anybody, it is assumed
    to be binomial: a share of 1/2 in questions_per_arm questions on either arm.
    """
    from scipy.stats import f, ncf

    deviation = _deviation(picked, asked)
    spread = math.sqrt(0.5 / questions_per_arm) if deviation is None else deviation

    def power_with(participants: int) -> float:
        # The square of a noncentral t is a noncentral F. statsmodels' TTestPower is NaN for many large effects.
        critical = f.isf(alpha, 1, participants - 1)
        return float(ncf.sf(critical, 1, participants - 1, participants * (difference / spread) ** 2))

    participants = int(asked.any(axis=1).sum())
    candidates = range(2, MOST_PARTICIPANTS + 1)
    needed = bisect_left(candidates, power, key=power_with)
    return Planning(
        participants,
        candidates[needed] if needed < len(candidates) else None,
        power_with(participants) if participants >= 2 else None,
        spread,
        assumed=deviation is None,
    )


def _deviation(picked: np.ndarray, asked: np.ndarray) -> float | None:
    """Of a participant's difference between two arms, pooled over pairs of arms; None where that cannot be told."""
    squares, freedom = 0.0, 0
    for first, second in combinations(range(asked.shape[1]), 2):
        both = (asked[:, first] > 0) & (asked[:, second] > 0)
        if both.sum() >= FEWEST_TO_ESTIMATE_SPREAD:
            own = picked[both][:, [first, second]] / asked[both][:, [first, second]]
            squares += float(np.var(own[:, 1] - own[:, 0])) * int(both.sum())
            freedom += int(both.sum()) - 1
    deviation = math.sqrt(squares / freedom) if freedom else 0.0
    return deviation if deviation > NO_SPREAD else None
