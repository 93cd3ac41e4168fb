"""Statistics agree with published values, with formulas and libraries used another way, and with brute force."""

import math
import subprocess
import sys
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import binomtest, bootstrap, spearmanr, t, ttest_rel
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from survey_app.analysis.inference import (
    Interval,
    bootstrap_shares,
    contrasts,
    planning,
    rank_correlation,
    share_difference,
)

NOTHING = Interval(None, None, None)


def survey(
    seed: int, participants: int, shares: list[float], questions: int = 9, spread: float = 0.1
) -> tuple[np.ndarray, np.ndarray]:
    """picked and asked of participants whose own liking moves all their shares."""
    chance = np.random.default_rng(seed)
    own = np.clip(np.array(shares) + chance.normal(0, spread, (participants, 1)), 0.01, 0.99)
    asked = np.full(own.shape, questions)
    return chance.binomial(asked, own), asked


def counts(participants: int, arms: int) -> st.SearchStrategy[tuple[np.ndarray, np.ndarray]]:
    """picked and asked, small and uneven, with participants who were asked about some arms only."""
    return arrays(np.int64, (2, participants, arms), elements=st.integers(0, 4)).map(
        lambda both: (both.min(axis=0), both.max(axis=0))
    )


def test_the_libraries_that_take_seconds_are_not_imported_with_the_module() -> None:
    program = (
        "import sys, survey_app.analysis.inference; print({'scipy', 'statsmodels', 'pandas'} & sys.modules.keys())"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"


# Shares


def test_the_bootstrap_agrees_with_scipys() -> None:
    picked, asked = survey(0, 30, [0.2, 0.5])
    asked[:10, 1] = 4
    picked = np.minimum(picked, asked)
    found = bootstrap_shares(picked, asked, draws=4000)
    for arm in range(2):
        expected = bootstrap(
            (picked[:, arm], asked[:, arm]),
            lambda picked, asked, axis: picked.sum(axis=axis) / asked.sum(axis=axis),
            paired=True,
            method="percentile",
            n_resamples=4000,
            rng=1,
        ).confidence_interval
        assert found[arm].estimate == picked[:, arm].sum() / asked[:, arm].sum()
        assert (found[arm].low, found[arm].high) == pytest.approx((expected.low, expected.high), abs=0.008)


def test_the_bootstrap_of_few_participants_agrees_with_all_resamples_enumerated() -> None:
    """One was never asked about the second arm, so that a resample may have no share of it."""
    picked, asked = np.array([[1, 0], [3, 2], [5, 3]]), np.array([[9, 0], [9, 3], [8, 9]])
    for arm, found in enumerate(bootstrap_shares(picked, asked, draws=20_000)):
        sums = [
            (sum(picked[who, arm] for who in drawn), sum(asked[who, arm] for who in drawn))
            for drawn in product(range(3), repeat=3)
        ]
        shares = sorted(k / n for k, n in sums if n)
        assert found.low == pytest.approx(shares[math.floor(0.025 * len(shares))])
        assert found.high == pytest.approx(shares[math.ceil(0.975 * len(shares)) - 1])


def test_answers_that_go_together_make_the_interval_wider() -> None:
    """Wilson's interval takes answers for independent. Here each participant answers everything alike."""
    alike = np.repeat([[9], [0]], 20, axis=0)
    (found,) = bootstrap_shares(alike, np.full((40, 1), 9))
    once = binomtest(20, 40).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((once.low, once.high), abs=0.03)


def test_the_bootstrap_of_small_and_degenerate_counts() -> None:
    picked = np.array([[0, 9, 0, 2, 0], [0, 9, 0, 0, 0]])
    asked = np.array([[9, 9, 0, 9, 3], [9, 9, 0, 0, 0]])
    never, always, unasked, one, one_never = bootstrap_shares(picked, asked)
    assert (never.estimate, never.low, never.high) == pytest.approx((0.0, 0.0, 0.6576), abs=1e-4)  # Wilson's for 0 of 2
    assert (always.estimate, always.low, always.high) == pytest.approx((1.0, 0.3424, 1.0), abs=1e-4)
    assert unasked == NOTHING
    assert one == Interval(2 / 9, None, None)
    assert one_never == Interval(0.0, None, None)
    assert bootstrap_shares(picked[:0], asked[:0]) == [NOTHING] * 5
    assert bootstrap_shares(picked[:1], asked[:1])[3] == Interval(2 / 9, None, None)


@given(counts(4, 3))
@settings(deadline=None, max_examples=50)
def test_there_are_limits_from_two_participants_on(both: tuple[np.ndarray, np.ndarray]) -> None:
    picked, asked = both
    for arm, found in enumerate(bootstrap_shares(picked, asked, draws=100)):
        assert (found.estimate is None) == (not asked[:, arm].any())
        assert (found.low is None) == (found.high is None) == ((asked[:, arm] > 0).sum() < 2)
        if found.low is not None and found.high is not None:
            assert 0 <= found.low <= found.high <= 1


# Differences and contrasts


def sandwich(picked: np.ndarray, asked: np.ndarray) -> tuple[float, int]:
    """Standard error and participants of the difference of two arms, from the sums of scores. The model has a parameter
    for each arm, so that a participant's influence on it has a closed form."""
    who = asked.sum(axis=1) > 0
    picked, asked, participants, answers = picked[who], asked[who], int(who.sum()), int(asked.sum())
    if participants < 2 or answers < 3:
        return 0.0, participants
    influence = (picked - asked * picked.sum(axis=0) / asked.sum(axis=0)) / asked.sum(axis=0)
    variance = ((influence[:, 1] - influence[:, 0]) ** 2).sum() * participants / (participants - 1)
    return math.sqrt(variance * (answers - 1) / (answers - 2)), participants


@given(counts(6, 2))
@settings(deadline=None, max_examples=100)
def test_contrasts_agree_with_the_sandwich_written_out(both: tuple[np.ndarray, np.ndarray]) -> None:
    picked, asked = both
    found = contrasts(picked, asked).iloc[0]
    untold = found[["low", "high", "p_value", "p_holm"]].isna()
    if not asked.any(axis=0).all():
        assert np.isnan(found["difference"])
        assert untold.all()
        return
    share = picked.sum(axis=0) / asked.sum(axis=0)
    difference = share[1] - share[0]
    assert found["difference"] == pytest.approx(difference)
    error, participants = sandwich(picked, asked)
    if error > 1e-6:
        margin = t.isf(0.025, participants - 1) * error
        assert found["low"] == pytest.approx(max(difference - margin, -1))
        assert found["high"] == pytest.approx(min(difference + margin, 1))
        assert found["p_value"] == pytest.approx(2 * t.sf(abs(difference) / error, participants - 1), abs=1e-6)
        assert found["p_holm"] == found["p_value"]  # there is only one
    else:
        assert untold.all()


def test_a_contrast_of_independent_answers_is_that_of_the_aspirin_trial() -> None:
    """Heart attacks on placebo, 189 of 11,034, and on aspirin, 104 of 11,037: difference 0.0077 (0.0047 to 0.0107)
    (Agresti 2002, Categorical Data Analysis, 3.1). Everybody is in one arm."""
    aspirin, placebo = np.repeat([[1, 0]], 11_037, axis=0), np.repeat([[0, 1]], 11_034, axis=0)
    asked = np.concatenate([aspirin, placebo])
    picked = np.concatenate(
        [aspirin * (np.arange(11_037) < 104)[:, None], placebo * (np.arange(11_034) < 189)[:, None]]
    )
    (found,) = contrasts(picked, asked)[["difference", "low", "high"]].to_numpy()
    assert found == pytest.approx([0.0077, 0.0047, 0.0107], abs=6e-5)


def test_holms_correction_agrees_with_statsmodels() -> None:
    picked, asked = survey(2, 25, [0.3, 0.35, 0.4, 0.5, 0.0])
    picked[:, 4], asked[:, 4] = 0, 0  # nobody was asked about the last
    found = contrasts(picked, asked)
    assert list(zip(found["first"], found["second"], strict=True)) == [
        (first, second) for first in range(5) for second in range(first + 1, 5)
    ]
    tested = found[found["second"] < 4]
    expected = multipletests(tested["p_value"], method="holm")[1]
    assert tested["p_holm"].tolist() == pytest.approx(list(expected))
    assert tested["p_holm"].nunique() > 2
    assert found.loc[found["second"] == 4, ["p_value", "p_holm"]].isna().all(axis=None)


def test_contrasts_of_small_and_degenerate_counts() -> None:
    def only(picked: list[list[int]], asked: list[list[int]]) -> list[float]:
        found = contrasts(*(np.array(counts, dtype=int).reshape(-1, 2) for counts in (picked, asked)))
        return [*found.loc[0, ["difference", "low", "high", "p_value"]]]

    untold = [math.nan] * 3
    for nothing in (only([], []), only([[3, 0], [2, 0]], [[9, 0], [9, 0]])):
        assert np.isnan(nothing).all()
    assert only([[3, 6]], [[9, 9]]) == pytest.approx([1 / 3, *untold], nan_ok=True)  # one participant
    assert only([[0, 9]] * 6, [[9, 9]] * 6) == pytest.approx([1, *untold], nan_ok=True)  # never against always
    assert only([[9, 9]] * 6, [[9, 9]] * 6) == pytest.approx([0, *untold], nan_ok=True)
    # The same difference for everybody, but not the same shares.
    steady = only([[1, 2], [3, 4], [5, 6], [7, 8]], [[9, 9]] * 4)
    assert steady == pytest.approx([1 / 9, *untold], nan_ok=True)
    # One share is 0, the other is not.
    *_, p_value = only([[0, 2], [0, 3], [0, 1], [0, 4]], [[9, 9]] * 4)
    assert p_value == pytest.approx(ttest_rel([2, 3, 1, 4], [0, 0, 0, 0]).pvalue, rel=0.05)


@pytest.mark.parametrize("shift", [0.0, 0.15])
def test_share_difference_agrees_with_a_paired_t_test_in_a_balanced_design(shift: float) -> None:
    """With as many answers in both arms from everybody both look at the same mean of differences."""
    chance = np.random.default_rng(0)
    participant = np.repeat(np.arange(25), 24)
    second = np.tile(np.arange(24) % 2 == 1, 25)
    liking = np.repeat(chance.normal(0, 0.1, 25), 24)
    picked = chance.random(600) < 0.4 + liking + shift * second
    found = share_difference(picked, second, participant)
    by_participant = picked.reshape(25, 12, 2).mean(axis=1)
    assert found.difference == pytest.approx((by_participant[:, 1] - by_participant[:, 0]).mean())
    expected = ttest_rel(by_participant[:, 1], by_participant[:, 0])
    assert found.p_value == pytest.approx(float(expected.pvalue), rel=0.02)
    assert found.low < found.difference < found.high


def test_differences_that_are_none_are_found_in_five_per_cent() -> None:
    """By shares; and by contrasts any of three, in at most so many."""
    chance = np.random.default_rng(1)
    participant, second = np.repeat(np.arange(30), 24), np.tile(np.arange(24) % 2 == 1, 30)
    found = 0
    for _ in range(300):
        liking = np.repeat(chance.normal(0, 0.15, 30), 24)  # answers of one participant go together
        found += share_difference(chance.random(720) < 0.5 + liking, second, participant).p_value < 0.05
    assert binomtest(found, 300, 0.05).pvalue > 0.001
    families = [contrasts(*survey(seed, 20, [0.3] * 3, spread=0.15)) for seed in range(200)]
    wrong = sum(bool((family["p_holm"] < 0.05).any()) for family in families)
    assert wrong > 0
    assert binomtest(wrong, 200, 0.05, alternative="greater").pvalue > 0.001


# Rank correlation


def test_rank_correlation_agrees_with_scipys() -> None:
    picked, asked = survey(3, 12, [0.2, 0.35, 0.3, 0.5, 0.5])
    score = np.array([0.1, 0.3, 0.3, 0.2, 0.9])
    found = rank_correlation(score, picked, asked, draws=300)
    assert found.estimate == pytest.approx(spearmanr(score, picked.sum(axis=0)).statistic)
    chance = np.random.default_rng(9)
    drawn = [spearmanr(score, picked[chance.integers(12, size=12)].sum(axis=0)).statistic for _ in range(300)]
    assert (found.low, found.high) == pytest.approx(tuple(np.percentile(drawn, [2.5, 97.5])), abs=0.15)
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.high


def test_rank_correlation_of_few_participants_agrees_with_all_resamples_enumerated() -> None:
    """Some resamples have no ρ: the second participant took everything for real, and saw one arm less."""
    picked, asked = np.array([[1, 2, 3, 3], [2, 2, 2, 0], [2, 0, 1, 3]]), np.array([[4] * 4, [2, 2, 2, 0], [4] * 4])
    score = np.array([1.0, 3.0, 2.0, 4.0])
    rhos = []
    for drawn in product(range(3), repeat=3):
        total = asked[list(drawn)].sum(axis=0)
        if total.all():
            rhos.append(spearmanr(score, picked[list(drawn)].sum(axis=0) / total).statistic)
    assert len(rhos) == 26
    found = rank_correlation(score, picked, asked, draws=20_000)
    assert found.low == pytest.approx(sorted(rhos)[0])
    assert found.high == pytest.approx(sorted(rhos)[-1])


def test_rank_correlation_where_it_is_not_defined() -> None:
    picked, asked = survey(4, 10, [0.1, 0.3, 0.5, 0.7])
    score = np.array([1.0, 2.0, 3.0, 4.0])
    assert rank_correlation(score[:2], picked[:, :2], asked[:, :2]) == NOTHING
    assert rank_correlation(np.ones(4), picked, asked) == NOTHING
    assert rank_correlation(score, asked, asked) == NOTHING  # all alike
    assert rank_correlation(score, picked[:0], asked[:0]) == NOTHING
    assert rank_correlation(np.array([1.0, np.nan, np.nan, 4.0]), picked, asked) == NOTHING
    assert rank_correlation(score, picked[:1], asked[:1]).low is None
    three = rank_correlation(np.array([1.0, np.nan, 3.0, 4.0]), picked, asked)
    assert three == rank_correlation(score[[0, 2, 3]], picked[:, [0, 2, 3]], asked[:, [0, 2, 3]])
    assert three.estimate == pytest.approx(1.0)


# Planning

NOBODY = np.zeros((0, 2), dtype=int)


def test_planning_agrees_with_published_examples() -> None:
    # Dalgaard 2008, Introductory Statistics with R, 9.3: R's power.t.test(delta=10, sd=10*sqrt(2), power=0.85,
    # type="paired") gives n = 19.96892. One question an arm: a standard deviation of √½.
    assert planning(NOBODY, NOBODY, difference=0.5, questions_per_arm=1, power=0.85).participants_needed == 20
    # Cohen 1988, p. 48, as in the user's guide of G*Power 3: d_z = 0.421637, 50 pairs, power 0.832114.
    fifty = np.zeros((50, 2), dtype=int)
    found = planning(fifty, fifty + 1, difference=0.421637 * math.sqrt(0.5), questions_per_arm=1)
    assert found.power_reached == pytest.approx(0.832114, abs=2e-6)
    assert (found.participants, found.assumed) == (50, True)  # nobody differs, so the data tell no deviation


@pytest.mark.parametrize("difference", [0.02, 0.1, 0.3, 1.0])
@pytest.mark.parametrize("several", [1, 10])
def test_planning_agrees_with_statsmodels_where_that_is_defined(difference: float, several: int) -> None:
    picked, asked = survey(5, 40, [0.2, 0.3, 0.5])
    found = planning(picked, asked, difference=difference, questions_per_arm=9, alpha=0.05 / several)
    assert not found.assumed
    own = picked / asked
    variances = [np.var(own[:, b] - own[:, a], ddof=1) for a, b in [(0, 1), (0, 2), (1, 2)]]
    assert found.standard_deviation == pytest.approx(math.sqrt(np.mean(variances)))

    def power(size: float, participants: int) -> float:
        return float(TTestPower().power(size / found.standard_deviation, participants, 0.05 / several))

    expected = power(difference, 40)
    assert found.power_reached == pytest.approx(1.0 if math.isnan(expected) else expected)
    assert found.participants_needed is not None
    assert found.participants_needed == 2 or power(difference, found.participants_needed - 1) < 0.8
    assert not power(difference, found.participants_needed) < 0.8  # NaN for a large effect


def test_as_many_participants_as_planned_find_the_difference_with_the_planned_power() -> None:
    """Simulated studies, tested by the contrasts that the dashboard shows."""
    plan = planning(*survey(6, 4000, [0.35, 0.5]), difference=0.15, questions_per_arm=9)
    assert plan.participants_needed is not None
    assert 10 < plan.participants_needed < 40
    found = 0
    for seed in range(600):
        (p_value,) = contrasts(*survey(1000 + seed, plan.participants_needed, [0.35, 0.5]))["p_value"]
        found += p_value < 0.05
    assert binomtest(found, 600, 0.8).pvalue > 0.001


def test_planning_with_small_and_degenerate_counts() -> None:
    binomial = math.sqrt(0.25 / 9 + 0.25 / 9)
    nobody = planning(NOBODY, NOBODY, difference=0.1, questions_per_arm=9)
    assert (nobody.participants, nobody.power_reached) == (0, None)
    assert nobody.participants_needed == math.ceil(TTestPower().solve_power(0.1 / binomial, alpha=0.05, power=0.8))
    assert nobody.standard_deviation == pytest.approx(binomial)
    picked, asked = survey(7, 4, [0.3, 0.6])
    assert planning(picked[:1], asked[:1], difference=0.1, questions_per_arm=9).power_reached is None
    four = planning(picked, asked, difference=0.1, questions_per_arm=9)
    assert four.assumed
    assert four.standard_deviation == pytest.approx(binomial)
    assert not planning(*survey(7, 5, [0.3, 0.6]), difference=0.1, questions_per_arm=9).assumed
    # Who saw one arm only counts, but tells nothing of the deviation.
    picked, asked = survey(7, 12, [0.3, 0.6])
    asked[6:, 1] = picked[6:, 1] = 0
    some = planning(picked, asked, difference=0.1, questions_per_arm=9)
    assert some.participants == 12
    assert (
        some.standard_deviation
        == planning(picked[:6], asked[:6], difference=0.1, questions_per_arm=9).standard_deviation
    )
    assert planning(NOBODY, NOBODY, difference=1e-4, questions_per_arm=1).participants_needed is None
