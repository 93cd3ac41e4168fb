"""The finding; then the original study's table, live: scores on both splits, and how often pictures were taken for the
photograph, also over λ."""

import streamlit as st
from sqlalchemy.orm import Session

from db.store import read_session
from db.surveys.answers import load_earlier_answers
from db.surveys.study import plan_for
from db.sweeps.trials import replicate_scores
from platform.tables.outcome import results_tables
from platform.tables.seeds import seed_tables
from survey_app.analysis.curve import earlier_votes
from survey_app.analysis.finding import state_finding, state_no_votes
from survey_app.dashboard import pictures_view, rebalancing_view
from survey_app.dashboard.choice import Choice
from survey_app.dashboard.exhibits import Exhibit, show_exhibits


def show(choice: Choice) -> None:
    """Draw the view."""
    with read_session(choice.engine) as session:
        gallery = pictures_view.gallery_of(session, choice)
        st.markdown(f"#### {headline(choice, gallery)}")
        st.html(pictures_view.gallery_html(session, gallery, pictures_view.sort_rows(gallery)[:1]))
        show_exhibits(exhibits(session, choice))


def headline(choice: Choice, gallery: pictures_view.Gallery) -> str:
    """The finding as Markdown, or why there is none."""
    if choice.counted is None or choice.study is None:
        return choice.hidden or state_no_votes(gallery.contenders)
    plan = plan_for(choice.study, arms=len(choice.counted.contenders))
    return state_finding(choice.counted, plan.questions_per_arm)


def exhibits(session: Session, choice: Choice) -> list[Exhibit]:
    """The table of accuracies and votes, votes over λ, the other scores, also by seed, and the trials behind them."""
    no_votes = choice.hidden or "No study asks people about it yet."
    votes, scores, trials = results_tables(
        *(session, choice.experiment.name, choice.answers, choice.inclusion), no_votes=no_votes
    )
    curve: list[Exhibit] = []
    if (answers := choice.counted) is not None:
        earlier = load_earlier_answers(session, answers, choice.inclusion)
        curve = rebalancing_view.exhibits(answers, earlier_votes(answers, earlier))
    by_seed = seed_tables(replicate_scores(session, choice.experiment.id))
    return [votes, *curve, scores, *by_seed, trials]
