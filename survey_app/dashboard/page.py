"""The dashboard's page: who may see it, which experiment and study it shows, and its views.

Every view is a function of a Choice, in a module of its own.
"""

import hmac
import logging
import os
from collections.abc import Callable

import streamlit as st
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session
from streamlit.delta_generator import DeltaGenerator

from db.store import StoreError, read_session
from db.surveys.answers import Answers, Inclusion, StudyBlinded, answers_version, load_answers
from db.surveys.study import count_turnout, find_study, studies_of
from db.sweeps.trials import list_experiments
from platform.tables.intervals import SIMULATED
from survey_app.dashboard import (
    certainty_view,
    photograph_view,
    pictures_view,
    prediction_view,
    results_view,
    sweep_view,
)
from survey_app.dashboard.choice import SIMULATED_VOTES, Choice, describe_choice, follow
from survey_app.database import database
from survey_app.settings import TOKEN_PARAMETER, TOKEN_VARIABLE

PEOPLE = "people"
INCLUSIONS: dict[str, Inclusion] = {"all who answered": "all", "the attentive": "attentive"}
VIEWS: dict[str, Callable[[Choice], None]] = {
    "Results": results_view.show,
    "Do scores predict people?": prediction_view.show,
    "How sure": certainty_view.show,
    "Sweep": sweep_view.show,
    "Pictures": pictures_view.show,
    "Your photograph": photograph_view.show,
}
WITH_NEW_VOTES = ("Results", "Do scores predict people?", "How sure")  # drawn anew when there are more
REFRESH_S = 10
WHERE_IT_IS = (
    "This dashboard opens at its whole address, which ends in a token. The command that serves it, `make survey` or "
    "`python -m survey_app.serve`, printed that address when it started: copy it from there, or ask whoever started it."
)
# Streamlit's own header, empty here, and its own colours where they have too little contrast.
STYLE = """<style>
[data-testid="stHeader"] { display: none; }
[data-testid="stMainBlockContainer"] { padding-top: 1.5rem; }
[data-testid="stFileUploader"] button, [data-testid="stFileUploader"] button * { color: inherit; }
[data-testid="stSliderThumbValue"] { color: inherit; }
[data-testid="stButtonGroup"] [role="radio"][aria-checked="true"] { color: inherit !important; font-weight: 600; }
</style>"""

logger = logging.getLogger("huejury.dashboard")


def dashboard_page() -> None:
    """Draw the dashboard, for whoever may see it."""
    st.html(STYLE)
    if not reader_may_see():
        return
    try:
        choice = _choose(database())
        if choice is not None:
            if choice.simulated:
                st.warning(SIMULATED_VOTES, icon="🤖")
            st.markdown("  \n".join(describe_choice(choice)))
            view = st.segmented_control(
                *("View", list(VIEWS)), default="Results", required=True, key="view", bind="query-params",
                label_visibility="collapsed",
            )  # fmt: skip
            VIEWS[view](choice)
            if view in WITH_NEW_VOTES:
                _follow_votes(choice)
    except StoreError as error:
        st.error(str(error))
    except SQLAlchemyError:
        logger.exception("The dashboard could not be drawn")
        st.error("The database could not be read just now; the server's log says why. Reload the page to try again.")


def reader_may_see() -> bool:
    """Whether this reader may see the dashboard; if not, where to find the token has been drawn.

    A reader who came with the token stays, whatever becomes of the address later. A server without the variable, which
    `survey_app.serve` did not start, lets nobody in.
    """
    token = os.environ.get(TOKEN_VARIABLE)
    if token == "" or st.session_state.get("came with the token"):
        return True
    given = st.query_params.get(TOKEN_PARAMETER, "")
    if token is not None and hmac.compare_digest(given.encode(), token.encode()):
        st.session_state["came with the token"] = True
        return True
    st.title("HueJury")
    st.write(WHERE_IT_IS)
    return False


def _choose(engine: Engine) -> Choice | None:
    """Experiment, study and whose votes, at the top of the page; None, with a word what to do, if there is no sweep."""
    with read_session(engine) as session:
        experiments = {row.name: row for row in list_experiments(session)}
    if not experiments:
        st.title("HueJury")
        st.write("There is no sweep yet. Run one from the checkout, then reload this page:")
        st.code("python -m platform.sweep tune_configs/quick.yaml", language="bash")
        return None
    of_experiment, of_study, of_votes, of_inclusion = st.columns(4)
    experiment = experiments[_choose_name(of_experiment, "Experiment", list(experiments), key="experiment")]
    with read_session(engine) as session:
        studies = [study.name for study in studies_of(session, experiment.id)]
    if not studies:
        return Choice(engine, experiment, None, simulated=False)
    name = _choose_name(of_study, "Study", studies, key="study")
    with read_session(engine) as session:
        study = find_study(session, name)
        turnout = count_turnout(session, study)
    # Where nobody answered but simulated participants did, that is what there is to see; it is said below.
    only_simulated = bool(turnout.simulated and not turnout.participants)
    voters = [PEOPLE, SIMULATED] if turnout.simulated else [PEOPLE]
    whose = of_votes.selectbox("Votes of", voters, int(only_simulated), key="votes", bind="query-params")
    counted = of_inclusion.selectbox("Counted", list(INCLUSIONS), key="counted", bind="query-params")
    simulated = whose == SIMULATED
    answers = hidden = None
    with read_session(engine) as session:
        version = _version(session, name, simulated=simulated)
        try:
            answers = _load_answers(session, name, simulated, version)
        except StudyBlinded as blinded:
            hidden = str(blinded)
    return Choice(engine, experiment, study, simulated, INCLUSIONS[counted], answers, hidden, version)


def _choose_name(place: DeltaGenerator, label: str, names: list[str], *, key: str) -> str:
    """Draw a choice among names, the newest first. The link has it also where it is the first, which tomorrow another
    may be; Streamlit's own binding leaves that out."""
    asked = st.query_params.get(key)
    chosen = place.selectbox(label, names, names.index(asked) if asked in names else 0, key=key)
    if chosen != asked:
        st.query_params[key] = chosen
    return chosen


def _version(session: Session, study: str, *, simulated: bool) -> tuple[object, ...]:
    return answers_version(session, find_study(session, study), simulated=simulated)


@st.cache_resource(show_spinner=False, max_entries=8)
def _load_answers(_session: Session, study: str, simulated: bool, version: tuple[object, ...]) -> Answers:
    """Every vote, read once for all readers as long as there is no new one."""
    return load_answers(_session, find_study(_session, study), simulated=simulated)


def _follow_votes(choice: Choice) -> None:
    """While people answer. Asking costs the database milliseconds."""
    study = choice.study
    if study is not None and study.status == "open":
        name, simulated = study.name, choice.simulated
        follow(choice, REFRESH_S, lambda session: _version(session, name, simulated=simulated) != choice.version)
