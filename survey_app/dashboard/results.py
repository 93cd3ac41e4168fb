"""The original study's table, live: scores on both splits, and how often pictures were taken for the photograph."""

import streamlit as st
from sqlalchemy.orm import Session

from db.store import read_session
from platform.results import results_tables
from platform.tables import Table
from survey_app.dashboard.chosen import Chosen
from survey_app.dashboard.exhibits import show_exhibits


def show(chosen: Chosen) -> None:
    """Draw the view."""
    published = st.toggle("Show the original study's figures too", key="published", bind="query-params")
    with read_session(chosen.engine) as session:
        show_exhibits(exhibits(session, chosen, published=published))


def exhibits(session: Session, chosen: Chosen, *, published: bool = False) -> list[Table]:
    """The tables of accuracies and votes, of the other scores, and of the trials behind them."""
    no_votes = chosen.hidden or "No study asks people about it yet."
    return results_tables(
        *(session, chosen.experiment.name, chosen.answers, chosen.inclusion), no_votes=no_votes, published=published
    )
