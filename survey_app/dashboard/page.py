"""The dashboard's page: who may see it, which experiment and study it shows, and its views.

What is chosen stands in the link. Every view is a function of Chosen, in a module of its own.
"""

import logging
from collections.abc import Callable

import streamlit as st
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from db.results import list_experiments
from db.store import StoreError, read_session
from db.studies import list_studies
from survey_app.dashboard import access, pictures, results, sweep
from survey_app.dashboard.chosen import Chosen, choose
from survey_app.database import database

PEOPLE, SIMULATED = "people", "simulated participants"
NO_STUDY = "none"

logger = logging.getLogger("huejury.dashboard")


VIEWS: dict[str, Callable[[Chosen], None]] = {
    "Results": results.show,
    "Sweep": sweep.show,
    "Pictures": pictures.show,
}


def dashboard_page() -> None:
    """Draw the dashboard, for whoever may see it."""
    if not access.admitted():
        return
    try:
        engine = database()
        chosen = _choose(engine)
        if chosen is not None:
            view = choose("View", list(VIEWS), key="view", kind="buttons", hide_label=True)
            VIEWS[view](chosen)
    except StoreError as error:
        st.error(str(error))
    except SQLAlchemyError:
        logger.exception("The dashboard could not be drawn")
        st.error("The database could not be read just now; the server's log says why. Reload the page to try again.")


def _choose(engine: Engine) -> Chosen | None:
    """Experiment, study and whose votes, at the top of the page."""
    with read_session(engine) as session:
        experiments = {summary.name: summary for summary in list_experiments(session)}
    if not experiments:
        st.title("HueJury")
        st.write("There is no sweep yet. Run one from the checkout, then reload this page:")
        st.code("python -m platform.sweep tune_configs/quick.yaml", language="bash")
        return None
    studies = {summary.view.name: summary for summary in list_studies(engine)}
    first, second, third = st.columns(3)
    with first:
        experiment = experiments[choose("Experiment", list(experiments), key="experiment")]
    own = {name: study for name, study in studies.items() if study.experiment == experiment.name}
    with second:
        study = own.get(choose("Study", [*own, NO_STUDY] if not own else list(own), key="study"))
    with third:
        whose = choose("Votes of", [PEOPLE, SIMULATED], key="votes") if study and study.simulated else PEOPLE
    return Chosen(engine, experiment, study, whose == SIMULATED)
