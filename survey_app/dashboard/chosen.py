"""What a reader has chosen, kept in the page's link, so that a view can be shared and survives a reload."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import streamlit as st
from sqlalchemy import Engine

from db.schema import Study
from db.surveys.answers import Answers, Inclusion
from db.sweeps.trials import ExperimentSummary

SIMULATED_VOTES = "These votes are of simulated participants: an observer model answered, nobody else."


@dataclass(frozen=True)
class Chosen:
    """What the dashboard shows: an experiment, and a study of it, if there is one."""

    engine: Engine
    experiment: ExperimentSummary
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


def choose(
    label: str,
    options: Sequence[str],
    *,
    key: str,
    default: str | None = None,
    kind: Literal["list", "buttons"] = "list",
    hide_label: bool = False,
) -> str:
    """Draw a choice of one of the options (at least one) and return it; the link's parameter `key` holds it.

    The link's value is taken if it is among the options, else `default`, else the first.
    """
    asked = st.query_params.get(key)
    start = next(option for option in (asked, default, options[0]) if option is not None and option in options)
    if st.session_state.get(key) not in options:  # also where what was chosen before is gone
        st.session_state[key] = start
    visibility: Literal["visible", "collapsed"] = "collapsed" if hide_label else "visible"
    chosen: str | None
    if kind == "list":
        chosen = st.selectbox(label, options, key=key, label_visibility=visibility)
    else:
        chosen = st.segmented_control(label, options, key=key, label_visibility=visibility, required=True)
    chosen = chosen or start
    if asked != chosen:
        st.query_params[key] = chosen
    return chosen


def describe_choice(chosen: Chosen) -> list[str]:
    """Which data, code, participants and exclusion rule stand behind the numbers: lines of Markdown."""
    experiment, study, answers = chosen.experiment, chosen.study, chosen.answers
    so_far = f" The sweep is {experiment.status}: these are its results so far."
    lines = [
        f"**Dataset {experiment.dataset}.** {experiment.dataset_note} Code {', '.join(experiment.code_versions)}."
        f"{'' if experiment.status == 'finished' else so_far}"
    ]
    if study is None:
        lines.append("No study asks people about it yet.")
    elif answers is None:
        lines.append(chosen.hidden or "")
    else:
        counted = "all of them are counted" if chosen.inclusion == "all" else "only these are counted"
        exposure = "until answered" if answers.exposure_ms is None else f"for {answers.exposure_ms} ms"
        lines.append(
            f"**Study {answers.study}** ({answers.status}, protocol {answers.protocol}, pictures shown {exposure}). "
            f"Participants: {answers.participants} of {answers.planned_participants} planned; "
            f"{int(answers.people['attentive'].sum())} of them attentive ({answers.exclusion_rule}); {counted}."
        )
    return lines
