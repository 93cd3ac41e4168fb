"""The survey's pages without a browser: what a link leads to, and what the check makes of its answers."""

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import streamlit as st
from sqlalchemy import Engine
from streamlit.testing.v1 import AppTest

from db.store import open_database
from db.studies import close_study, create_study
from survey_app import colour_vision, stimulus, survey
from tests.survey_browser import CHECKOUT
from tests.survey_data import add_experiment
from tests.test_db_store import damaged, newer, not_a_database, someone_elses


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    database = tmp_path / "survey.sqlite"
    monkeypatch.setenv("HUEJURY_DATABASE", str(database))
    st.cache_resource.clear()
    engine = open_database(database)
    yield engine
    engine.dispose()
    st.cache_resource.clear()


def opened(**query: str) -> AppTest:
    app = AppTest.from_file(str(CHECKOUT / "survey_app" / "app.py"), default_timeout=30)
    for name, value in query.items():
        app.query_params[name] = value
    app.run()
    assert not app.exception
    return app


def words(app: AppTest) -> str:
    return " ".join(element.value for element in [*app.markdown, *app.code])


def test_no_run_moves_the_path_that_another_session_imports_by(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path that moved while other sessions walked it cost participants an "encountered an error" after a start."""
    folder = str(CHECKOUT / "survey_app")
    at_start = [folder, *(entry for entry in sys.path if entry != folder)]  # as `streamlit run` leaves it
    moves = []

    class Path(list[str]):
        def insert(self, *arguments: object) -> None:
            moves.append(("insert", *arguments))

        def remove(self, entry: str) -> None:
            moves.append(("remove", entry))

    monkeypatch.setattr(sys, "path", Path(at_start))
    first = sys.path
    opened()
    assert list(first) == at_start
    assert sys.path[0] == str(CHECKOUT)
    assert sys.path.index(folder) == len(sys.path) - 1
    second = sys.path = Path(sys.path)
    opened()
    assert sys.path is second
    assert not moves


def test_no_study_says_what_to_run(engine: Engine) -> None:
    assert "python -m platform.sweep" in words(opened())


def test_links_that_lead_nowhere_are_answered_kindly(engine: Engine) -> None:
    add_experiment(engine, images=12)
    create_study(engine, "cats", question_count=5, practice_count=1)
    assert "check the link" in words(opened(study="dogs"))
    assert "open the link that you were sent" in words(opened(participant="nobody"))
    assert "5 questions" in words(opened())
    assert "5 questions" in words(opened(study="cats"))
    assert "Prolific ID" in words(opened(study="cats", PROLIFIC_PID="5f1e"))
    assert "Prolific ID" not in words(opened(study="cats"))
    close_study(engine, "cats")
    assert "Thank you" in words(opened(study="cats"))


@pytest.mark.parametrize("make", [not_a_database, someone_elses, damaged, newer, None])
def test_a_database_that_cannot_be_opened_is_apologised_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None] | None
) -> None:
    database = tmp_path / "survey.sqlite"
    if make is not None:
        make(database)
    monkeypatch.setenv(
        "HUEJURY_DATABASE", "postgresql+psycopg://u:secret@127.0.0.1:1/x" if make is None else str(database)
    )
    st.cache_resource.clear()
    app = opened()
    assert "What you have answered so far is safe" in words(app)
    assert not re.search("Traceback|sqlite|schema|postgres|secret", words(app), re.IGNORECASE)
    assert [button.label for button in app.button] == ["Try again"]
    monkeypatch.setenv("HUEJURY_DATABASE", str(database))
    database.unlink(missing_ok=True)
    assert "python -m platform.sweep" in words(app.button[0].click().run())
    st.cache_resource.clear()


def test_the_check_flags_and_never_more() -> None:
    plates = colour_vision.plates(0)
    digits: list[str | None] = [str(plate.digit) for plate in plates]
    assert survey.check_flags("Yes", "No, or switched off now", plates, digits) == []
    wrong = [*digits[:2], "none", None]
    assert survey.check_flags("No", None, plates, wrong) == [
        "brightness",
        "night_filter",
        "plate_deutan",
        "plate_tritan",
    ]
    assert survey.check_flags("Yes", "I do not know", plates, digits) == ["night_filter"]


def test_solutions() -> None:
    assert stimulus.solution("pair", "left", True) == ([True, False], "The photograph was on the left.")
    assert stimulus.solution("pair", "left", False) == ([False, True], "The photograph was on the right.")
    assert stimulus.solution("single", "fake", True)[0] == [False]
    assert stimulus.solution("single", "fake", False)[0] == [True]


def test_every_text_is_there() -> None:
    assert {"consent-1", "instructions-pair", "instructions-single"} <= {
        path.stem for path in survey.TEXTS.glob("*.md")
    }
