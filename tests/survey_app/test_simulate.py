"""Simulated participants answer as their model says, and are marked."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, func, select

from db.schema import Participant, Protocol, Question, Vote
from db.store import open_database, read_session
from db.surveys.answers import load_answers
from db.surveys.study import create_study, find_study
from survey_app import simulate
from survey_app.simulate import Observer, colourfulness, evidence
from tests.survey_data import add_experiment, colourized, photographs, png, turnout


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
    against = [evidence(png(photograph), png(colourized(photograph, share))) for share in (0, 0.25, 0.5, 0.75)]
    assert against == sorted(against, reverse=True)
    assert evidence(png(photograph), png(photograph)) == 0


@given(lapse=st.floats(0, 1), sensitivity=st.floats(0, 1), against=st.floats(-1000, 1000), real=st.booleans())
def test_the_observers_rates(lapse: float, sensitivity: float, against: float, real: bool) -> None:
    observer = Observer(lapse, sensitivity)
    protocols: tuple[Protocol, Protocol] = ("pair", "single")
    for protocol in protocols:
        share = observer.right_probability(against, protocol, real=real)
        assert lapse / 2 - 1e-12 <= share <= 1 - lapse / 2 + 1e-12
        coin = Observer(1.0, sensitivity).right_probability(against, protocol, real=real)
        assert coin == pytest.approx(0.5)
    assert observer.right_probability(0, "pair") == pytest.approx(0.5)
    seeing = Observer(lapse, 1.0)
    assert seeing.right_probability(1000, "pair") == pytest.approx(1 - lapse / 2)
    assert seeing.right_probability(1000, "single") == pytest.approx(1 - lapse / 2)
    assert Observer(0, sensitivity).right_probability(5, "pair") == pytest.approx(1 / (1 + math.exp(-5 * sensitivity)))


# Taking part


@pytest.mark.parametrize("study", ["cats", "single"])
def test_simulated_participants_finish_are_marked_and_count_nowhere(
    database: Path, engine: Engine, capsys: pytest.CaptureFixture[str], study: str
) -> None:
    arguments = ["--database", str(database), "--study", study, "--participants", "3"]
    assert simulate.main(arguments) == 0
    printed = capsys.readouterr().out
    assert f"3 simulated participants answered study '{study}'; no result counts them" in printed
    assert f"--simulated --database {database}" in printed
    who_came = turnout(engine, study)
    assert (who_came.participants, who_came.votes, who_came.simulated) == (0, 0, 3)
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
    assert all(participant.simulated and participant.finished_at for participant in participants)
    shares = [count.count / count.total for count in answers.picked_as_real()]
    assert shares[0] < shares[2]  # nearly grey against nearly the photograph


def test_seed_and_number_decide_what_is_asked_and_answered() -> None:
    """Simulating twice gave the first participants once more: they count as so many more, and are none."""

    def simulated(seed: int, *participants: int) -> list[tuple[int, str, float]]:
        engine = open_database(":memory:")
        add_experiment(engine, images=12, size=8)
        create_study(engine, "cats", question_count=9, practice_count=0, seed=0)
        for count in participants:
            simulate.simulate(engine, "cats", count, Observer(), seed)
        with read_session(engine) as session:
            rows = session.execute(
                select(Question.image_id, Vote.answer, Vote.response_time_ms).join(Vote).order_by(Question.id)
            )
            answers = [(image, str(answer), time) for image, answer, time in rows]
        engine.dispose()
        return answers

    first = simulated(1, 4)
    assert len({time for _, _, time in first}) == len(first) == 36
    assert simulated(1, 2, 2) == first
    assert simulated(2, 4) != first


def test_an_unknown_study_is_named(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate.main(["--database", str(database), "--study", "nope"]) == 2
    said = capsys.readouterr().err
    assert "There is no study 'nope'" in said
    assert said.count("\n") == 1


def test_participants_differ_in_sensitivity() -> None:
    chance = np.random.default_rng(0)
    logs = np.log([Observer().draw_another(chance).colour_sensitivity / 0.08 for _ in range(2000)])
    assert logs.mean() == pytest.approx(0, abs=0.03)
    assert logs.std() == pytest.approx(Observer().spread, abs=0.02)
