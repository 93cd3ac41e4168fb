"""The survey's pages without a browser: what a link leads to, and what the check makes of its answers."""

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import streamlit as st
from sqlalchemy import Engine, select
from streamlit import config
from streamlit.testing.v1 import AppTest

from db.schema import Participant
from db.store import open_database, read_session
from db.surveys import votes
from db.surveys.study import close_study, create_study
from survey_app.participants import color_vision, stimulus
from survey_app.participants.check import check_flags
from survey_app.settings import settings
from tests.db.test_db_store import damaged, newer, not_a_database, someone_elses
from tests.survey_browser import CHECKOUT
from tests.survey_data import add_experiment, answer_all


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
    for name, value in settings(
        CHECKOUT / "survey_app" / "participants"
    ).items():  # AppTest has no server that would read them
        config.set_option(name, value)
    app = AppTest.from_file(str(CHECKOUT / "survey_app" / "participants" / "app.py"), default_timeout=30)
    for name, value in query.items():
        app.query_params[name] = value
    app.run()
    assert not app.exception
    return app


def words(app: AppTest) -> str:
    return " ".join(element.value for element in [*app.markdown, *app.code])


def test_no_run_moves_the_path_that_another_session_imports_by(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path that moved while other sessions walked it cost participants an "encountered an error" after a start."""
    folder = str(CHECKOUT / "survey_app" / "participants")
    elsewhere = [entry for entry in sys.path if entry not in (folder, str(CHECKOUT), "")]
    at_start = [folder, *elsewhere]  # as `streamlit run` leaves it, started in another folder
    moves = []

    class Path(list[str]):
        def insert(self, *arguments: object) -> None:
            moves.append(("insert", *arguments))

        def remove(self, entry: str) -> None:
            moves.append(("remove", entry))

    path = Path(at_start)
    monkeypatch.setattr(sys, "path", path)
    opened()
    opened()
    assert sys.path is path
    assert path == [*at_start, str(CHECKOUT)]
    assert not moves


def test_no_study_says_what_to_run(engine: Engine) -> None:
    assert "python -m platform.sweep" in words(opened())


def test_links_that_lead_nowhere_are_answered_kindly(engine: Engine) -> None:
    add_experiment(engine, images=12)
    create_study(engine, "cats", question_count=5, practice_count=1)
    assert "check the link" in words(opened(study="dogs"))
    assert "open the link that you were sent" in words(opened(huejury="nobody"))
    assert "5 questions" in words(opened())
    assert "5 questions" in words(opened(study="cats"))
    assert "come from Prolific" in words(opened(study="cats", PROLIFIC_PID="5f1e" * 6))
    for no_id in ({}, {"PROLIFIC_PID": "undefined"}):
        assert "Prolific" not in words(opened(study="cats", **no_id))
    close_study(engine, "cats")
    assert "Thank you" in words(opened(study="cats"))


def test_other_systems_parameters_are_no_token_of_ours(engine: Engine) -> None:
    """ "There are no answers under this link", said the page to everybody whose link had `participant=`."""
    add_experiment(engine, images=12)
    create_study(engine, "cats", question_count=5, practice_count=1, id_parameter="participant")
    app = opened(study="cats", participant="A1B2C3")
    assert "whoever recruited you" in words(app)
    app.button[0].click().run()
    with read_session(engine) as session:
        assert session.scalars(select(Participant.external_id)).all() == ["A1B2C3"]


def test_nobody_takes_a_participation_over_by_an_id(engine: Engine) -> None:
    """The same PROLIFIC_PID from elsewhere: no token, no code, no progress of the one who has it."""
    add_experiment(engine, images=12)
    create_study(engine, "cats", question_count=5, practice_count=1)
    theirs = {"PROLIFIC_PID": "5f1e" * 6, "SESSION_ID": "61bb" * 6}
    token = answer_all(engine, "cats", link=theirs)
    for link in (theirs, {"PROLIFIC_PID": theirs["PROLIFIC_PID"]}, {**theirs, "SESSION_ID": "62cc" * 6}):
        app = opened(study="cats", **link)
        app.button[0].click().run()
        assert "Somebody takes part with the id of your link already" in app.error[0].value
        assert "completion" not in words(app).replace("your completion code](withdraw)", "")
    progress = votes.progress(engine, token)
    assert progress is not None
    assert progress.stage == "done"


@pytest.mark.parametrize(
    ("answered", "thanks"), [(0, "before your first question. Thank you"), (1, "your 1 answer will count")]
)
def test_who_is_under_way_when_a_study_closes_is_thanked_with_a_code(
    engine: Engine, answered: int, thanks: str
) -> None:
    add_experiment(engine, images=12)
    create_study(engine, "cats", question_count=5, practice_count=0)
    token = answer_all(engine, "cats", wrong=set(), questions=answered)
    close_study(engine, "cats")
    app = opened(huejury=token)
    assert thanks in words(app)
    progress = votes.progress(engine, token)
    assert progress is not None
    assert progress.completion_code
    code = f'<pre class="notranslate" translate="no" id="completion-code">{progress.completion_code}</pre>'
    assert any(code in element.proto.body for element in app.get("html"))


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
    open_database(database).dispose()
    assert "python -m platform.sweep" in words(app.button[0].click().run())
    st.cache_resource.clear()


def test_the_check_flags_and_never_more() -> None:
    plates = color_vision.plates(0)
    digits: list[str | None] = [str(plate.digit) for plate in plates]
    assert check_flags("Yes", "No, or switched off now", plates, digits) == []
    wrong = [*digits[:2], "none", None]
    assert check_flags("No", None, plates, wrong) == [
        "brightness",
        "night_filter",
        "plate_deutan",
        "plate_tritan",
    ]
    assert check_flags("Yes", "I do not know", plates, digits) == ["night_filter"]


def test_solutions() -> None:
    assert stimulus.solution("pair", "left", True) == ([True, False], "The photograph was on the left.")
    assert stimulus.solution("pair", "left", False) == ([False, True], "The photograph was on the right.")
    assert stimulus.solution("single", "fake", True)[0] == [False]
    assert stimulus.solution("single", "fake", False)[0] == [True]
