"""What a reader has chosen to see. Every widget that chooses is bound to the page's link, which can be shared."""

from collections.abc import Callable
from dataclasses import dataclass

import streamlit as st
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from db.schema import Experiment, Study
from db.store import read_session
from db.surveys.answers import Answers, Inclusion

SIMULATED_VOTES = "These votes are of simulated participants: an observer model answered, nobody else."


@dataclass(frozen=True)
class Choice:
    """An experiment, a study of it, if there is one, and whose answers are counted."""

    engine: Engine
    experiment: Experiment
    study: Study | None
    simulated: bool  # votes of simulated participants instead of people's
    inclusion: Inclusion = "all"  # whose of these are counted
    answers: Answers | None = None  # of all of them; None where there is no study, or it hides its outcomes
    hidden: str | None = None  # until when it does
    version: tuple[object, ...] = ()  # of the answers, see `db.surveys.answers.answers_version`

    @property
    def counted(self) -> Answers | None:
        """The answers of those who are counted."""
        return None if self.answers is None else self.answers.of(self.inclusion)


def describe_choice(choice: Choice) -> list[str]:
    """Which data, code, participants and exclusion rule stand behind the numbers: lines of Markdown."""
    experiment, study, answers = choice.experiment, choice.study, choice.answers
    so_far = f" The sweep is {experiment.status}: these are its results so far."
    lines = [
        f"**Dataset {experiment.dataset.name}.** {experiment.dataset.note} Code {', '.join(experiment.code_versions)}."
        f"{'' if experiment.status == 'finished' else so_far}"
    ]
    if study is None:
        lines.append("No study asks people about it yet.")
    elif answers is None:
        lines.append(choice.hidden or "")
    else:
        counted = "all of them are counted" if choice.inclusion == "all" else "only these are counted"
        exposure = "until answered" if answers.exposure_ms is None else f"for {answers.exposure_ms} ms"
        lines.append(
            f"**Study {answers.study}** ({answers.status}, protocol {answers.protocol}, pictures shown {exposure}). "
            f"Participants: {answers.participants} of {answers.planned_participants} planned; "
            f"{int(answers.people['attentive'].sum())} of them attentive ({answers.exclusion_rule}); {counted}."
        )
    return lines


def follow(choice: Choice, every_s: float, has_changed: Callable[[Session], bool]) -> None:
    """Ask every so many seconds whether the database has more than the page shows; if so, draw the page anew."""

    @st.fragment(run_every=every_s)
    def ask() -> None:
        try:
            with read_session(choice.engine) as session:
                changed = has_changed(session)
        except SQLAlchemyError:
            return  # what is drawn stays; it is asked for again
        if changed:
            st.rerun()

    ask()
