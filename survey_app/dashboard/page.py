"""The dashboard's page: who may see it, which experiment and study it shows, and its views.

What is chosen stands in the link. Every view is a function of Chosen, in a module of its own.
"""

import hmac
import logging
import os
from collections.abc import Callable

import streamlit as st
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from db.schema import Study
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
from survey_app.dashboard.chosen import SIMULATED_VOTES, Chosen, choose, describe_choice
from survey_app.database import database
from survey_app.settings import TOKEN_PARAMETER, TOKEN_VARIABLE

PEOPLE = "people"
NO_STUDY = "none yet"
INCLUSIONS: dict[str, Inclusion] = {"all who answered": "all", "the attentive": "attentive"}
VIEWS: dict[str, Callable[[Chosen], None]] = {
    "Results": results_view.show,
    "Do scores predict people?": prediction_view.show,
    "How sure": certainty_view.show,
    "Sweep": sweep_view.show,
    "Pictures": pictures_view.show,
    "Your photograph": photograph_view.show,
}

FOLLOWING_VOTES = ("Results", "Do scores predict people?", "How sure")  # not Pictures: they would close under readers
REFRESH_S = 10

WHERE_IT_IS = (
    "This dashboard opens at its whole address, which ends in a token. The command that serves it, `make survey` or "
    "`python -m survey_app.serve`, printed that address when it started: copy it from there, or ask whoever started it."
)

logger = logging.getLogger("huejury.dashboard")


STYLE = """<style>
[data-testid="stHeader"] { display: none; }
[data-testid="stMainBlockContainer"] { padding-top: 1.5rem; }
[data-testid="stFileUploader"] button, [data-testid="stFileUploader"] button * { color: inherit; }
[data-testid="stSliderThumbValue"] { color: inherit; }
[data-testid="stButtonGroup"] [role="radio"][aria-checked="true"] { color: inherit !important; font-weight: 600; }
</style>"""


def dashboard_page() -> None:
    """Draw the dashboard, for whoever may see it."""
    st.html(STYLE)
    if not reader_may_see():
        return
    try:
        chosen = _choose(database())
        if chosen is not None:
            if chosen.simulated:
                st.warning(SIMULATED_VOTES, icon="🤖")
            st.markdown("  \n".join(describe_choice(chosen)))
            view = choose("View", list(VIEWS), key="view", kind="buttons", hide_label=True)
            VIEWS[view](chosen)
            if view in FOLLOWING_VOTES and chosen.study and chosen.study.status == "open":
                _follow_votes(chosen, chosen.study)
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


def _choose(engine: Engine) -> Chosen | None:
    """Experiment, study and whose votes, at the top of the page; None, with a word what to do, if there is no sweep."""
    with read_session(engine) as session:
        experiments = {summary.name: summary for summary in list_experiments(session)}
    if not experiments:
        st.title("HueJury")
        st.write("There is no sweep yet. Run one from the checkout, then reload this page:")
        st.code("python -m platform.sweep tune_configs/quick.yaml", language="bash")
        return None
    columns = st.columns(4)
    with columns[0]:
        experiment = experiments[choose("Experiment", list(experiments), key="experiment")]
    with read_session(engine) as session:
        studies = [study.name for study in studies_of(session, experiment.id)]
    with columns[1]:
        name = choose("Study", studies or [NO_STUDY], key="study")
    if not studies:
        return Chosen(engine, experiment, None, simulated=False)
    with read_session(engine) as session:
        study = find_study(session, name)
        turnout = count_turnout(session, study)
    with columns[2]:
        # Where nobody answered but simulated participants did, that is what there is to see; it is said below.
        default = SIMULATED if turnout.simulated and not turnout.participants else PEOPLE
        whose = choose("Votes of", [PEOPLE, SIMULATED] if turnout.simulated else [PEOPLE], key="votes", default=default)
    with columns[3]:
        inclusion = INCLUSIONS[choose("Counted", list(INCLUSIONS), key="counted")]
    try:
        with read_session(engine) as session:
            version = answers_version(session, study, simulated=whose == SIMULATED)
            answers, hidden = _load_answers(session, study.name, whose == SIMULATED, version), None
    except StudyBlinded as blinded:
        answers, hidden = None, str(blinded)
    return Chosen(engine, experiment, study, whose == SIMULATED, inclusion, answers, hidden, version)


@st.cache_resource(show_spinner=False, max_entries=8)
def _load_answers(_session: Session, study: str, simulated: bool, version: tuple[object, ...]) -> Answers:
    """Every vote, read once for all readers as long as there is no new one."""
    return load_answers(_session, find_study(_session, study), simulated=simulated)


def _follow_votes(chosen: Chosen, study: Study) -> None:
    """While people answer, draw the page anew when there are more votes. Asking costs the database milliseconds."""

    @st.fragment(run_every=REFRESH_S)
    def live() -> None:
        try:
            with read_session(chosen.engine) as session:
                now = answers_version(session, find_study(session, study.name), simulated=chosen.simulated)
        except SQLAlchemyError:
            return  # what is drawn stays; it is asked for again
        if now != chosen.version:
            st.rerun()

    live()
