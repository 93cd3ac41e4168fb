"""The stimulus: shows one question in the browser for the set time and takes the answer there.

What the browser gets is the question's opaque id and the pictures' RGB bytes. The timing is stimulus.js's.
"""

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import streamlit as st

from db.schema import Protocol, Study
from db.surveys.votes import QuestionView

KEY = "stimulus"
FOLDER = Path(__file__).parent
# In the order of the arrow keys: the answer as it is stored, and its label.
ANSWERS = {
    "pair": [("left", "← Left"), ("right", "Right →")],
    "single": [("real", "← Photograph"), ("fake", "Coloured by computer →")],
}
ALWAYS = {
    "look": "Look at the middle.",
    "photograph": "photograph",
    "synthesized": "by computer",
    "unsent": "Your answer could not be sent. Please check your connection, then reload this page: you go on here.",
}
TEXTS = {
    "pair": {**ALWAYS, "ask": "Which one was the photograph?"},
    "single": {**ALWAYS, "ask": "Was it a photograph?"},
}

_component = st.components.v2.component(
    "huejury_stimulus",
    html=(FOLDER / "stimulus.html").read_text(encoding="utf-8"),
    css=(FOLDER / "stimulus.css").read_text(encoding="utf-8"),
    js=(FOLDER / "stimulus.js").read_text(encoding="utf-8"),
)


def before(title: str, text: str, button: str, photograph: list[bool] | None = None) -> dict[str, Any]:
    """What is said before a question, until the participant presses the button.

    photograph: for each picture of the question before, whether it was the photograph (practice's feedback).
    """
    return {"title": title, "text": text, "button": button, "photograph": photograph}


def stimulus(
    question: QuestionView,
    study: Study,
    *,
    before: dict[str, Any] | None,
    asked_anew: int,
    on_vote: Callable[[], None],
) -> None:
    """Draw the question. asked_anew: grows when an answer was refused, and the question starts again. on_vote is
    called once the participant answered: see `vote`."""
    count = f"Practice {question.number} of {question.of}"
    if question.phase == "main":
        count = f"Question {question.number} of {question.of}"
    _component(
        key=KEY,
        data={
            "question": question.public_id,
            "asked_anew": asked_anew,
            "number": question.number,
            "of": question.of,
            "count": count,
            "exposure_ms": study.exposure_ms,
            "width": question.width,
            "height": question.height,
            "pictures": [base64.b64encode(rgb).decode("ascii") for rgb in question.pictures],
            "answers": [{"value": value, "label": label} for value, label in ANSWERS[study.protocol]],
            "texts": TEXTS[study.protocol],
            "before": before,
        },
        on_vote_change=on_vote,
    )


def vote() -> dict[str, Any] | None:
    """What the browser sent, in on_vote only: question, answer, and the rest of what
    `db.surveys.votes.record_vote` takes. Nothing about it is certain."""
    message = st.session_state.get(KEY, {}).get("vote")
    return message if isinstance(message, dict) else None


def solution(protocol: Protocol, answer: str, correct: bool) -> tuple[list[bool], str]:
    """From an answer and whether it was right: which picture was the photograph, and a sentence that says so."""
    if protocol == "pair":
        left = (answer == "left") == correct
        return [left, not left], f"The photograph was on the {'left' if left else 'right'}."
    real = (answer == "real") == correct
    return [real], "It was a photograph." if real else "Its colours were made up by a computer."
