"""Simulated participants answer as their model says, are marked, and tell how often a difference would be found."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sqlalchemy import Engine, func, select
from statsmodels.stats.power import NormalIndPower
from statsmodels.stats.proportion import proportion_effectsize

from db.answers import load_answers
from db.schema import Participant, Protocol, Question, Vote
from db.store import open_database, read_session
from db.studies import SurveyError, close_study, create_study, find_study, study_summary
from survey_app import simulate
from survey_app.simulate import Observer, Power, colourfulness, evidence, evidence_of, power
from tests.survey_data import ARMS, add_experiment, colourized, photographs, png


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("simulated") / "survey.sqlite"
    engine = open_database(path)
    add_experiment(engine, images=40)
    create_study(engine, "cats", question_count=30, practice_count=2, seed=0)
    create_study(engine, "cats", name="single", protocol="single", question_count=30, practice_count=2, seed=0)
    engine.dispose()
    return path


@pytest.fixture
def engine(database: Path) -> Iterator[Engine]:
    engine = open_database(database)
    yield engine
    engine.dispose()


# The observer


def test_colourfulness_is_that_of_hasler_and_suesstrunk() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, size=(5, 7, 3), dtype=np.uint8)
    reds, greens, blues = ([int(pixel[channel]) for row in rgb for pixel in row] for channel in range(3))
    first = [red - green for red, green in zip(reds, greens, strict=True)]
    second = [0.5 * (red + green) - blue for red, green, blue in zip(reds, greens, blues, strict=True)]

    def mean(values: list[float]) -> float:
        return sum(values) / len(values)

    def variance(values: list[float]) -> float:
        return mean([(value - mean(values)) ** 2 for value in values])

    deviation = math.sqrt(variance([*map(float, first)]) + variance(second))
    expected = deviation + 0.3 * math.sqrt(mean([*map(float, first)]) ** 2 + mean(second) ** 2)
    assert colourfulness(rgb) == pytest.approx(expected)
    assert colourfulness(np.full((2, 2, 3), 90, dtype=np.uint8)) == 0


def test_evidence_grows_as_colours_go() -> None:
    photograph = photographs(1)[0]
    against = [evidence(png(photograph), png(colourized(photograph, arm))) for arm in (-1, 0, 1, 2)]
    assert against == sorted(against, reverse=True)
    assert evidence(png(photograph), png(photograph)) == 0


@given(lapse=st.floats(0, 1), sensitivity=st.floats(0, 1), against=st.floats(-1000, 1000), real=st.booleans())
def test_the_observers_rates(lapse: float, sensitivity: float, against: float, real: bool) -> None:
    observer = Observer(lapse, sensitivity)
    protocols: tuple[Protocol, Protocol] = ("pair", "single")
    for protocol in protocols:
        share = observer.right(against, protocol, real=real)
        assert lapse / 2 - 1e-12 <= share <= 1 - lapse / 2 + 1e-12
        coin = Observer(1.0, sensitivity).right(against, protocol, real=real)
        assert coin == pytest.approx(0.5)
    assert observer.right(0, "pair") == pytest.approx(0.5)
    seeing = Observer(lapse, 1.0)
    assert seeing.right(1000, "pair") == pytest.approx(1 - lapse / 2)
    assert seeing.right(1000, "single") == pytest.approx(1 - lapse / 2)
    assert Observer(0, sensitivity).right(5, "pair") == pytest.approx(1 / (1 + math.exp(-5 * sensitivity)))


# Taking part


@pytest.mark.parametrize("study", ["cats", "single"])
def test_simulated_participants_finish_are_marked_and_count_nowhere(
    database: Path, engine: Engine, capsys: pytest.CaptureFixture[str], study: str
) -> None:
    arguments = ["--database", str(database), "--study", study, "--participants", "3", "--seed", "3"]
    assert simulate.main(arguments) == 0
    printed = capsys.readouterr().out
    assert f"3 simulated participants answered study '{study}'; no result counts them" in printed
    assert f"--simulated --database {database}" in printed
    summary = study_summary(engine, study)
    assert (summary.participants, summary.votes, summary.simulated) == (0, 0, 3)
    with read_session(engine) as session:
        row = find_study(session, study)
        assert load_answers(session, row).participants == 0
        answers = load_answers(session, row, simulated=True)
        participants = session.scalars(select(Participant).where(Participant.study_id == row.id)).all()
        votes = session.scalar(
            select(func.count(Vote.id)).join(Question).where(Question.study_id == row.id, Question.phase == "main")
        )
    assert answers.participants == 3
    assert votes == 90
    assert all(participant.simulated and participant.ended_at for participant in participants)
    shares = [count.count / count.total for count in answers.picked_as_real()]
    assert shares[0] < shares[2]  # nearly grey against nearly the photograph


def test_the_seed_decides_what_is_asked_and_answered() -> None:
    def answers(seed: int) -> list[tuple[int, str, float]]:
        engine = open_database(":memory:")
        add_experiment(engine, images=12, size=8)
        create_study(engine, "cats", question_count=9, practice_count=0, seed=0)
        simulate.simulate(engine, "cats", 2, Observer(), seed)
        with read_session(engine) as session:
            rows = session.execute(
                select(Question.image_id, Vote.answer, Vote.response_time_ms).join(Vote).order_by(Question.id)
            )
            found = [(image, str(answer), time) for image, answer, time in rows]
        engine.dispose()
        return found

    first = answers(1)
    assert len(first) == 18
    assert answers(1) == first
    assert answers(2) != first


# Power


def test_the_evidence_is_that_against_the_two_contenders_pictures(engine: Engine) -> None:
    against, protocol, questions = evidence_of(engine, "single", [ARMS[2], ARMS[0]])
    photograph = photographs(40)[0]
    of_first = [evidence(png(photograph), png(colourized(photograph, arm))) for arm in (2, 0)]
    assert against[:, 0].tolist() == of_first
    assert (against.shape, protocol, questions) == ((2, 40), "single", 4)  # 27 questions, half of photographs


def test_power_is_near_the_textbooks() -> None:
    """Of observers who are all alike, answers are independent, and the normal approximation tells the power."""
    observer = Observer(0.0, 0.08, spread=0.0)

    def of(first: float, second: float) -> Power:
        against = np.repeat([[first], [second]], 40, axis=1)
        return power(against, "pair", 9, participants=20, observer=observer, seed=0, studies=150)

    found = of(8.0, 0.0)
    assert found.first_share == pytest.approx(1 / (1 + math.exp(0.64)), abs=0.02)
    assert found.second_share == pytest.approx(0.5, abs=0.02)
    effect = proportion_effectsize(1 / (1 + math.exp(0.64)), 0.5)
    expected = NormalIndPower().power(effect, nobs1=20 * 9, alpha=0.05)
    assert 0.5 < expected < 0.95
    assert binomtest(found.found, found.studies, expected).pvalue > 0.001
    none = of(0.0, 0.0)
    assert binomtest(none.found, none.studies, 0.05).pvalue > 0.001


def test_the_command_tells_power_and_stores_nothing(
    database: Path, engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    before = study_summary(engine, "cats")
    arguments = ["--database", str(database), "--study", "cats", "--power", "regression", "rebalanced 0.25"]
    assert simulate.main([*arguments, "--participants", "8", "--studies", "20"]) == 0
    said = capsys.readouterr().out
    assert "With 8 participants, study 'cats' finds the difference between regression (" in said
    assert "of 20 simulated studies" in said
    assert study_summary(engine, "cats") == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--study", "nope"], "There is no study 'nope'"),
        (["--power", "regression", "nope", "--study", "cats"], "has no contender 'nope'; it has regression"),
        (["--power", "regression", "regression", "--study", "cats"], "two different contenders"),
        (["--power", *ARMS[:2], "--participants", "1", "--study", "cats"], "at least two participants"),
    ],
)
def test_what_cannot_be_simulated_is_said(
    database: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert simulate.main(["--database", str(database), *arguments]) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert said.err.count("\n") == 1


def test_a_closed_study_takes_no_simulated_participant_either(tmp_path: Path) -> None:
    engine = open_database(tmp_path / "closed.sqlite")
    add_experiment(engine, images=10, size=4)
    create_study(engine, "cats", question_count=6, practice_count=0)
    close_study(engine, "cats")
    with pytest.raises(SurveyError, match="is closed"):
        simulate.simulate(engine, "cats", 1, Observer(), 0)
    engine.dispose()


def test_participants_differ_in_sensitivity() -> None:
    logs = np.log(Observer().others(np.random.default_rng(0), (2000,)).colour_sensitivity / 0.08)
    assert logs.mean() == pytest.approx(0, abs=0.03)
    assert logs.std() == pytest.approx(Observer().spread, abs=0.02)
