"""The curve over λ agrees with numerical integration and with statsmodels; its band and its probabilities hold in
simulated studies."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.special import expit, gamma, kv, logit
from scipy.stats import binom, multivariate_normal
from sqlalchemy import Engine, select

from db.schema import Arm, Trial
from db.store import open_database, read_session, write_session
from db.surveys.answers import load_answers, load_earlier_answers
from db.surveys.study import create_study, find_study
from platform.tables.intervals import wilson
from survey_app.analysis import curve
from survey_app.analysis.curve import (
    Votes,
    confirmed_share,
    earlier_votes,
    fit_curve,
    incumbent,
    one_family,
    votes_of,
)
from survey_app.analysis.inference import clustering
from survey_app.analysis.tables import OPTIMISTIC, how_sure_of_best
from survey_app.dashboard.exhibits import Figure
from survey_app.dashboard.rebalancing_view import exhibits
from tests.survey_data import add_experiment, answer_all

VALUES = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
Truth = Callable[[np.ndarray], np.ndarray]  # from λ to log odds


def answers_once(picked: list[int], asked: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Counts as of participants who answered once each: nothing goes together."""
    rows: list[tuple[int, int]] = []
    for arm, (count, total) in enumerate(zip(picked, asked, strict=True)):
        rows += [(arm, int(number < count)) for number in range(total)]
    once = np.zeros((len(rows), len(asked)), dtype=int)
    yes = once.copy()
    for row, (arm, answer) in enumerate(rows):
        once[row, arm], yes[row, arm] = 1, answer
    return yes, once


def matern(at: np.ndarray, length: float) -> np.ndarray:
    """The correlation with ν = 5/2, by its general formula (Rasmussen & Williams 2006, 4.14)."""
    scaled = np.sqrt(5) * np.abs(at[:, None] - at) / length + 1e-9
    return np.asarray(2**-1.5 / gamma(2.5) * scaled**2.5 * kv(2.5, scaled))


def test_the_curve_agrees_with_numerical_integration() -> None:
    """Over the log odds at two λ's, each length and each height: shares there, and between them, where the mean of the
    log odds, given those two, is a regression on them."""
    values, picked, asked, between = np.array([0.3, 1.0]), [30, 12], [60, 50], np.array([0.6])
    axis = np.linspace(-5, 5, 401)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1)
    likelihood = np.prod(
        [binom.pmf(k, n, expit(grid[..., at])) for at, (k, n) in enumerate(zip(picked, asked, strict=True))], axis=0
    )
    total, shares, better = 0.0, np.zeros(3), 0.0
    for length in curve.LENGTHS:
        for height in curve.HEIGHTS:
            process = curve.LEVEL**2 + height**2 * matern(np.array([*values, *between]), length)
            weight = likelihood * multivariate_normal(cov=process[:2, :2]).pdf(grid)
            line = np.linalg.solve(process[:2, :2], process[:2, 2])
            total += weight.sum()
            shares += [(weight * expit(part)).sum() for part in (grid[..., 0], grid[..., 1], grid @ line)]
            better += weight[grid[..., 0] > grid[..., 1]].sum()
    found = fit_curve(values, *answers_once(picked, asked))
    means = found.draws.mean(axis=0)[found.places([*values, *between])]
    assert means == pytest.approx(shares / total, abs=0.01)
    assert found.probability_best(values)[0] == pytest.approx(better / total, abs=0.01)


def test_a_curve_that_cannot_bend_is_one_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curve, "HEIGHTS", np.array([1e-4]))
    found = fit_curve(VALUES, *answers_once([50, 60, 40, 55, 45], [200] * 5))
    fit = sm.GLM(np.repeat([0, 1], [750, 250]), np.ones(1000), family=sm.families.Binomial()).fit()
    log_odds = logit(found.draws[:, 25])
    assert log_odds.mean() == pytest.approx(fit.params[0], abs=0.01)
    assert log_odds.std() == pytest.approx(fit.bse[0], rel=0.05)
    assert np.ptp(found.interval()[1]) < 0.001


def test_a_curve_that_is_free_has_each_arms_own_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curve, "HEIGHTS", np.array([30.0]))
    monkeypatch.setattr(curve, "LENGTHS", np.array([0.02]))
    picked, asked = [50, 120, 40, 90, 60], [200, 210, 190, 200, 220]
    yes, once = answers_once(picked, asked)
    found = fit_curve(VALUES, yes, once)
    fit = sm.GLM(yes.sum(axis=1), once, family=sm.families.Binomial()).fit()
    log_odds = logit(found.draws[:, found.places(VALUES)])
    assert log_odds.mean(axis=0) == pytest.approx(fit.params, abs=0.02)
    assert log_odds.std(axis=0) == pytest.approx(fit.bse, rel=0.06)


def truths(chance: np.random.Generator) -> dict[str, Truth]:
    peak, height, width = chance.uniform(0, 1), chance.uniform(0.2, 1.2), chance.uniform(0.2, 0.6)
    base = chance.uniform(-1.8, -0.6)
    return {
        "one peak": lambda at: base + height * np.exp(-(((at - peak) / width) ** 2)),
        "flat": lambda at: np.full_like(at, base),
        "cliff": lambda at: base + height * expit((peak - at) / 0.05),
        "rising": lambda at: base + height * at,
    }


def simulated(
    chance: np.random.Generator, truth: Truth, values: np.ndarray, participants: int
) -> tuple[np.ndarray, np.ndarray]:
    """40 answers in all; what moves all those of a participant has a standard deviation of 0.4 in log odds."""
    own = chance.normal(0, 0.4, (participants, 1))
    asked = np.full((participants, len(values)), 40 // len(values))
    return chance.binomial(asked, expit(truth(values) + own)), asked


@pytest.mark.parametrize("participants", [15, 30])
def test_bands_and_probabilities_hold_in_simulated_studies(participants: int) -> None:
    """The band holds the true share in about 95 %. Were all probabilities of being best right, that of the true best
    would be, in the mean, the sum of their squares; if it is less, they claim too much."""
    chance, spread = np.random.default_rng(5), np.random.default_rng(1).normal(0, 0.4, (1000, 1))
    covered: dict[str, list[float]] = {}
    surplus = []
    for _ in range(40):
        for name, truth in truths(chance).items():
            found = fit_curve(VALUES, *simulated(chance, truth, VALUES, participants))
            share = expit(truth(found.at) + spread).mean(axis=0)
            low, _, high = found.interval()
            covered.setdefault(name, []).append(float(((low <= share) & (share <= high)).mean()))
            if name != "flat":
                probability = found.probability_best(VALUES)
                surplus.append(probability[truth(VALUES).argmax()] - (probability**2).sum())
    for name, shares in covered.items():
        assert 0.88 < np.mean(shares) < 0.985, name
    error = np.std(surplus) / np.sqrt(len(surplus))
    assert -3 * error < np.mean(surplus) < 0.1


def shifted(truth: Truth, level: float) -> Truth:
    return lambda at: truth(at) + level


def test_an_earlier_study_speaks_of_the_same_curve_but_for_its_level() -> None:
    """Of 40 studies, each with one before it whose level is another: the band holds the truth, of the later one's
    level, and is narrower in differences between λ's than without the earlier one."""
    chance, spread = np.random.default_rng(7), np.random.default_rng(1).normal(0, 0.4, (1000, 1))
    covered, narrower = [], []
    for _ in range(40):
        truth, level = truths(chance)["one peak"], chance.normal(0, 0.3)
        earlier = Votes(VALUES, *simulated(chance, shifted(truth, level), VALUES, 20))
        values = np.array([0.4, 0.6, 1.0])
        later = simulated(chance, truth, values, 20)
        alone, both = fit_curve(values, *later), fit_curve(values, *later, before=[earlier])
        assert (both.asked_at == values).all()
        assert np.isin(VALUES, both.at).all()
        share = expit(truth(both.at) + spread).mean(axis=0)
        low, _, high = both.interval()
        covered.append(float(((low <= share) & (share <= high)).mean()))
        errors = [np.std(np.diff(logit(found.draws[:, found.places([0.0, 1.0])]))) for found in (alone, both)]
        narrower.append(errors[1] < errors[0])
    assert 0.88 < np.mean(covered) < 0.985
    assert np.mean(narrower) > 0.9
    first = fit_curve(VALUES, *earlier[1:])
    assert np.array_equal(first.draws, fit_curve(*earlier, before=[]).draws)


def test_clustering_of_independent_answers_and_of_those_that_are_alike() -> None:
    chance = np.random.default_rng(0)
    asked = np.full((4000, 4), 9)
    effect, together = clustering(chance.binomial(9, 0.3, asked.shape), asked)
    assert effect == pytest.approx(1, abs=0.05)
    assert together < 0.02
    effect, together = clustering(9 * (chance.random(asked.shape) < 0.3), asked)  # alike within an arm only
    assert effect == pytest.approx(9, rel=0.05)
    # What moves all arms: the mean of 4,000 with a standard deviation of 0.1 in shares.
    own = 0.3 + 0.1 * chance.choice([-1, 1], (4000, 1))
    effect, together = clustering(chance.binomial(9, own * np.ones(4)), asked)
    assert effect == pytest.approx(1, abs=0.05)
    assert together == pytest.approx(0.1 / np.sqrt(4000) / 0.21, rel=0.1)


@pytest.mark.parametrize("picked", [0, 9])
@pytest.mark.parametrize("participants", [1, 3])
def test_degenerate_counts_have_a_curve(picked: int, participants: int) -> None:
    asked = np.full((participants, 3), 9)
    asked[:, 1] = 0
    found = fit_curve(np.array([0.1, 0.4, 1.0]), np.minimum(picked, asked), asked)
    low, middle, high = found.interval()
    assert ((low >= 0) & (low < middle) & (middle < high) & (high <= 1)).all()
    assert found.probability_best(found.asked_at).sum() == pytest.approx(1)
    assert incumbent(found) in found.asked_at


def contender(arm: str, rebalancing: float | None, **options: Any) -> Trial:
    return Trial(arm=Arm(name=arm, rebalancing=rebalancing, options=options))


def test_a_curve_joins_what_differs_in_lambda_alone() -> None:
    plain = contender("classification", 1.0, kind="classification", decoding="mean")
    tilted = [
        contender(f"tilted {tilt}", tilt, renders="classification", decoding="mean", tilt=tilt) for tilt in (0.5, 0.25)
    ]
    sharper = contender("sharper", 0.5, renders="classification", decoding="mode", tilt=0.5)
    trained = [contender(f"trained {share}", share, kind="classification", decoding="mean") for share in (0.25, 0.5)]
    wider = contender("wider", 1.0, kind="classification", decoding="mean", soft_label_sigma=8.0)
    regression = contender("regression", None, kind="regression")

    def joined(*contenders: Trial) -> list[str]:
        return [contenders[place].arm.name for place in one_family(contenders)]

    everything = (regression, sharper, plain, wider, *tilted, *trained)
    assert joined(*everything) == ["tilted 0.25", "tilted 0.5", "classification"]
    assert joined(regression, plain, wider, *trained) == ["trained 0.25", "trained 0.5", "classification"]
    assert len(joined(regression, wider)) == 1
    assert joined(regression) == []


@pytest.fixture
def tilted() -> Iterator[Engine]:
    """An experiment whose rebalanced arm is a tilt of its classification."""
    engine = open_database(":memory:")
    add_experiment(engine, images=24)
    with write_session(engine) as session:
        for arm in session.scalars(select(Arm)):
            if arm.name == "rebalanced 0.25":
                arm.options = {"renders": "classification", "tilt": 0.25}
            arm.rebalancing = {"classification": 1.0, "rebalanced 0.25": 0.25}.get(arm.name)
    yield engine
    engine.dispose()


def ask(engine: Engine, name: str, wrong: str, *, people: int = 5, **study: Any) -> None:
    """A study that so many people answered, who took one arm for real whenever they saw it."""
    options = {"question_count": 10, "practice_count": 1, "seed": 0, **study}
    create_study(engine, "cats", name=name, **options)
    for _ in range(people):
        answer_all(engine, name, wrong={wrong})


@pytest.mark.parametrize(
    ("first", "pooled"),
    [
        ({}, True),
        ({"exposure_ms": 500}, False),
        ({"protocol": "single"}, False),
        ({"blinded": True}, False),
        ({"people": 0}, False),
        ({"arms": ["regression", "classification"]}, False),  # no curve of its own to be joined
    ],
)
def test_studies_of_one_experiment_that_asked_in_the_same_way_share_a_curve(
    tilted: Engine, first: dict[str, Any], pooled: bool
) -> None:
    ask(tilted, "one", "rebalanced 0.25", **first)
    ask(tilted, "two", "rebalanced 0.25")
    with read_session(tilted) as session:
        one, two = (find_study(session, name) for name in ("one", "two"))
        kept = load_answers(session, two)
        before = earlier_votes(kept, load_earlier_answers(session, kept))
        expected = [votes_of(load_answers(session, one))] if pooled else []
    assert [[part.tolist() for part in votes] for votes in before] == [
        [part.tolist() for part in votes] for votes in expected
    ]
    share = confirmed_share(kept, before)
    if pooled:
        picked, asked = (int(counts[:, 0].sum()) for counts in votes_of(kept)[1:])
        assert share == wilson(picked, asked)
        assert picked == asked > 0
        assert "was the best of earlier studies, too, and was asked about again" in how_sure_of_best(kept, before)
    else:
        assert share is None
        assert how_sure_of_best(kept, before) == OPTIMISTIC


def test_what_has_two_lambdas_stands_beside_the_curve(tilted: Engine) -> None:
    with write_session(tilted) as session:
        arm = session.scalars(select(Arm).where(Arm.name == "regression")).one()
        arm.options = {"renders": "rebalanced 0.25", "tilt": 0.5}
    ask(tilted, "one", "classification")
    with read_session(tilted) as session:
        kept = load_answers(session, find_study(session, "one"))
    [figures, *_] = exhibits(kept)
    assert isinstance(figures, Figure)
    assert "through rebalanced 0.25, classification, which differ in λ alone" in figures.note
    assert "Long dashes, without one λ: regression." in figures.note


def test_who_wins_only_now_is_not_yet_confirmed(tilted: Engine) -> None:
    ask(tilted, "one", "classification")
    ask(tilted, "two", "rebalanced 0.25", people=20)
    with read_session(tilted) as session:
        kept = load_answers(session, find_study(session, "two"))
        before = earlier_votes(kept, load_earlier_answers(session, kept))
    assert len(before) == 1
    assert confirmed_share(kept, before) is None
