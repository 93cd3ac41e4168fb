"""The finding; then the original study's table, live: scores on both splits, and how often pictures were taken for the
photograph, also over λ."""

import streamlit as st
from sqlalchemy.orm import Session

from db.store import read_session
from db.surveys.study import plan_for
from db.sweeps.trials import replicate_scores
from platform.tables.outcome import results_tables
from platform.tables.seeds import seed_tables
from survey_app.analysis.curve import earlier_votes
from survey_app.analysis.finding import state_finding, state_no_votes
from survey_app.dashboard import pictures_view, rebalancing_view
from survey_app.dashboard.chosen import Chosen
from survey_app.dashboard.exhibits import Exhibit, show_exhibits


def show(chosen: Chosen) -> None:
    """Draw the view."""
    with read_session(chosen.engine) as session:
        gallery = pictures_view.gallery_of(session, chosen)
        st.markdown(f"#### {headline(chosen, gallery)}")
        if gallery.photographs:
            order = pictures_view.TELLING
            pictures_view.show_rows(session, gallery, pictures_view.sort_rows(session, gallery, order)[:1], order)
        show_exhibits(exhibits(session, chosen))


def headline(chosen: Chosen, gallery: pictures_view.Gallery) -> str:
    """The finding as Markdown, or why there is none."""
    if chosen.answers is None or chosen.study is None:
        return chosen.hidden or state_no_votes(gallery.contenders)
    plan = plan_for(chosen.study, arms=len(chosen.answers.contenders))
    return state_finding(chosen.answers.of(chosen.inclusion), plan.questions_per_arm)


def exhibits(session: Session, chosen: Chosen) -> list[Exhibit]:
    """The table of accuracies and votes, votes over λ, the other scores, also by seed, and the trials behind them."""
    no_votes = chosen.hidden or "No study asks people about it yet."
    votes, scores, trials = results_tables(
        *(session, chosen.experiment.name, chosen.answers, chosen.inclusion), no_votes=no_votes
    )
    curve: list[Exhibit] = []
    if (answers := chosen.counted) is not None:
        curve = rebalancing_view.exhibits(answers, earlier_votes(session, answers, chosen.inclusion))
    by_seed = seed_tables(replicate_scores(session, chosen.experiment.id))
    return [votes, *curve, scores, *by_seed, trials]
