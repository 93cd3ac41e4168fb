"""The participant's page, from consent to completion code, and the page to withdraw on afterwards.

The database is the truth: every run of the page reads where the participant stands, and shows that. The session only
holds what may be lost with the connection: feedback, and a change that the database could not take yet.
"""

import hashlib
import io
import logging
import math
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st
from PIL import Image
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from db import votes
from db.store import StoreError
from db.votes import Progress, QuestionView, StudyView, SurveyError
from survey_app import colour_vision, stimulus
from survey_app.database import database

TITLE = "Which one is the photograph?"
TEXTS = Path(__file__).parent / "texts"
PROLIFIC = ("PROLIFIC_PID", "STUDY_ID", "SESSION_ID")
PLATE_SETS = 16  # drawing one takes a while; neighbours need not see the same digits
GREY_SQUARES = 8

# One thread writes at a time. SQLite lets waiting connections poll, and in a rush some would wait until they gave up.
WRITING = threading.Lock()

logger = logging.getLogger("huejury.survey")

# Nothing of Streamlit's own is of use to a participant, and nothing may fade while the next question comes.
STYLE = """<style>
[data-testid="stHeader"], [data-testid="stToolbar"], [data-testid="stDecoration"], [data-testid="stStatusWidget"],
[data-testid="stSidebar"], [data-testid="stSidebarCollapsedControl"], footer { display: none !important; }
[data-testid="stMainBlockContainer"] { padding: 1.25rem 1rem 3rem; max-width: 46rem; }
[data-testid="stElementToolbar"] { display: none !important; }
[data-testid="stRadioOption"] > div > div:first-child { box-shadow: 0 0 0 1.5px #888; }
[data-stale="true"] { opacity: 1 !important; transition: none !important; }
</style>"""

_heading = st.components.v2.component(
    "huejury_heading",
    html='<h1 tabindex="-1"></h1>',
    css="""h1 { margin: 0; padding: 0.5rem 0; font: 700 clamp(1.6rem, 6vw, 2.25rem) / 1.2 var(--st-heading-font);
    color: var(--st-heading-color); outline: none; }""",
    js=(Path(__file__).parent / "heading.js").read_text(encoding="utf-8"),
)


def survey_page() -> None:
    """Draw whatever the participant's link, and the database, say comes now."""
    st.html(STYLE)
    if "pending" in st.session_state:
        _apologise(partial(_attempt, st.session_state["pending"]))
        return
    try:
        engine = database()
        token = _token()
        if token is None:
            _welcome(engine)
            return
        progress = votes.progress(engine, token)
        if progress is None:
            _unknown_token()
        else:
            _stage(engine, token, progress)
    except (SQLAlchemyError, StoreError):
        logger.exception("The survey's page could not be drawn")
        _apologise(None)


def withdrawal_page() -> None:
    """Withdrawal by completion code, for those who have finished."""
    st.html(STYLE)
    title("Withdraw and delete my answers")
    if st.session_state.get("withdrawn"):
        st.success("Your answers have been deleted.")
        return
    with st.form("withdraw"):
        code = st.text_input("The completion code that you were shown at the end")
        sent = st.form_submit_button("Delete all my answers", type="primary")
    if not sent:
        return
    try:
        engine = database()
        with WRITING:
            found = bool(code.strip()) and votes.withdraw(engine, code.strip())
    except (SQLAlchemyError, StoreError):
        logger.exception("A withdrawal failed")
        st.error("Something went wrong on our side, and nothing has been deleted yet. Please try again in a minute.")
        return
    if found:
        st.success("Your answers have been deleted.")
    else:
        st.error("There are no answers under this code. Please check it; perhaps they are deleted already.")


def title(text: str, *, report: bool = False, first: bool = False) -> dict[str, Any] | None:
    """The page's heading; with `report`, also what the page is shown on, once that is known."""
    result = _heading(
        key="heading", data={"text": text, "report": report, "first": first}, on_display_change=lambda: None
    )
    display = result.get("display")
    if not isinstance(display, dict):
        return None
    # It comes from a browser, and is stored.
    return {name: value for name, value in list(display.items())[:20] if isinstance(value, int | float)}


# --- The stages ---


def _stage(engine: Engine, token: str, progress: Progress) -> None:
    if progress.stage == "instructions":
        _instructions(token, progress.study)
    elif progress.stage == "check":
        _check(token)
    elif progress.stage in ("practice", "questions") and progress.next is not None:
        _question(engine, token, progress, progress.next)
    elif progress.stage == "break":
        title("Half-time")
        st.write(
            f"You have answered {progress.answered} of {progress.total} questions. Rest your eyes for a moment, "
            "then go on."
        )
        _button("Go on", token, votes.take_break)
    elif progress.stage == "comment":
        _comment(token)
    else:
        _thanks(engine, token, progress)
    _withdrawal(token)


def _welcome(engine: Engine) -> None:
    """Consent. Nothing is stored before its button is pressed."""
    if st.session_state.get("withdrawn"):
        title("Your answers have been deleted")
        st.write("Nothing about you is stored any more. You can close this page.")
        return
    study = votes.open_study(engine, st.query_params.get("study"))
    if study is None and "study" in st.query_params:
        title("This survey does not exist")
        st.write("Please check the link, or ask whoever sent it to you.")
        return
    if study is None:
        title("There is no survey yet")
        st.write("A sweep opens one when it has finished. Run this from the checkout, then reload the page:")
        st.code("python -m platform.sweep tune_configs/quick.yaml", language="bash")
        return
    if study.status == "closed":
        title("This survey is closed")
        st.write("Thank you for your interest.")
        return
    title(TITLE, first=True)
    prolific = {name: st.query_params[name] for name in PROLIFIC if st.query_params.get(name)}
    st.markdown(
        _text(f"consent-{study.consent_version}").format(
            question_count=study.question_count,
            minutes=_minutes(study),
            prolific="As you come from Prolific, your Prolific ID is stored so that you can be paid."
            if prolific
            else "",
        )
    )
    if "refused" in st.session_state:
        st.error(st.session_state.pop("refused"))
    st.button(
        "I agree and take part",
        type="primary",
        width="stretch",
        on_click=_attempt,
        args=(partial(_enrol, study=study, prolific=prolific),),
    )
    st.write(
        "If you do not agree, just close this page. You took part and want your answers deleted? "
        "[Withdraw with your completion code](withdraw)."
    )


def _instructions(token: str, study: StudyView) -> None:
    title("How it works")
    st.markdown(_text(f"instructions-{study.protocol}").format(exposure=_exposure(study.exposures_ms)))
    _button("Next: a short look at your screen", token, votes.finish_instructions)


def _check(token: str) -> None:
    """Display and colour vision: whatever is answered is stored, flagged, and never turns anybody away."""
    display = title("Your screen", report=True)
    st.write("This helps us to read your answers. Whatever you choose, you can go on.")
    plates = _plates(int.from_bytes(hashlib.sha256(token.encode()).digest()[:4], "big") % PLATE_SETS)
    with st.form("check", border=False):
        st.subheader("Brightness", anchor=False)
        st.image(_grey_squares(), width="stretch")
        brightness = st.radio(
            f"Turn up your screen's brightness until you can tell all {GREY_SQUARES} squares apart. Could you?",
            ["Yes", "No"],
            index=None,
            horizontal=True,
        )
        night_filter = st.radio(
            "Is a night-light, blue-light or colour filter on? If so, please switch it off now.",
            ["No, or switched off now", "Yes, it stays on", "I do not know"],
            index=None,
        )
        st.subheader("Which digit do you see?", anchor=False)
        answers = []
        for number, (plate, column) in enumerate(zip(plates, [*st.columns(2), *st.columns(2)], strict=True), 1):
            with column:
                st.image(plate.png, width=colour_vision.SIDE * 4 // 5)
                answers.append(
                    st.radio(
                        f"Digit in disc {number}",
                        [*(str(choice) for choice in plate.choices), "none"],
                        index=None,
                        horizontal=True,
                    )
                )
        sent = st.form_submit_button("Next: practice", type="primary", width="stretch")
    if sent:
        flags = check_flags(brightness, night_filter, plates, answers)
        given = {
            "brightness": brightness,
            "night_filter": night_filter,
            "plates": [
                {"kind": plate.kind, "digit": plate.digit, "answer": answer}
                for plate, answer in zip(plates, answers, strict=True)
            ],
            "display": display,
        }
        _attempt(lambda engine: votes.record_check(engine, token, given, flags))
        st.rerun()


def check_flags(
    brightness: str | None, night_filter: str | None, plates: list[colour_vision.Plate], answers: list[str | None]
) -> list[str]:
    """What an analysis may want to leave out. A missed demonstration plate speaks of carelessness."""
    flags = []
    if brightness != "Yes":
        flags.append("brightness")
    if night_filter is None or not night_filter.startswith("No"):
        flags.append("night_filter")
    for plate, answer in zip(plates, answers, strict=True):
        if answer != str(plate.digit):
            flags.append(f"plate_{plate.kind}")
    return flags


def _question(engine: Engine, token: str, progress: Progress, question: QuestionView) -> None:
    state = st.session_state
    shown = state.get("shown")
    if shown is None or shown[0] != question.public_id:
        shown = state["shown"] = (question.public_id, _before(progress, question, state.pop("feedback", None)))
    stimulus.stimulus(question, progress.study.protocol, before=shown[1], on_vote=partial(_on_vote, token))
    with WRITING:
        votes.mark_shown(engine, token, question.public_id)


def _before(progress: Progress, question: QuestionView, feedback: dict[str, Any] | None) -> dict[str, Any] | None:
    """What the participant is told before the question: a start, practice's feedback, or nothing."""
    protocol = progress.study.protocol
    rest = ""
    button = "Next"
    if question.phase == "main" and question.number == 1:
        rest = f"Now come {question.of} questions, without the answers."
        button = "Start"
    if feedback is not None:
        right, given = feedback["correct"], feedback["answer"]
        photograph, explanation = stimulus.solution(protocol, given, right)
        return stimulus.before("Right!" if right else "Not this time.", f"{explanation} {rest}", button, photograph)
    if question.phase == "practice" and question.number == 1:
        return stimulus.before("Practice", f"First {question.of} questions to practise, with the answers.", "Start")
    if rest:
        return stimulus.before("Ready?", rest, button)
    if "shown" not in st.session_state:
        return stimulus.before("Welcome back", "You go on where you left.", "Go on")
    return None


def _comment(token: str) -> None:
    title("Anything to tell us?")
    with st.form("comment", border=False):
        text = st.text_area(
            "A comment, if you like: what you went by, or what went wrong. Please no names.", max_chars=2000
        )
        sent = st.form_submit_button("Finish", type="primary", width="stretch")
    if sent:
        _attempt(lambda engine: votes.record_comment(engine, token, text.strip() or None))
        st.rerun()


def _thanks(engine: Engine, token: str, progress: Progress) -> None:
    title("Thank you!")
    score = votes.own_score(engine, token)
    if score is not None and score.answered:
        st.write(f"You were right in **{score.correct} of {score.answered}** questions.")
        if score.others_mean is not None:
            who = "The other participant was" if score.others_count == 1 else f"The {score.others_count} others were"
            st.write(f"{who} right in {score.others_mean:.0%} of theirs. Guessing gives 50 %.")
        else:
            first = "You are the first to finish. " if score.others_count == 0 else ""
            st.write(f"{first}Guessing gives 50 %.")
    st.write("Your completion code, with which you can have your answers deleted later. Please keep it:")
    st.code(progress.completion_code, language=None)
    if progress.study.completion_url:
        st.link_button("Back to Prolific: complete", progress.study.completion_url, type="primary", width="stretch")


def _withdrawal(token: str) -> None:
    st.space("medium")
    with st.expander("Withdraw and delete my answers"):
        st.write("Everything that is stored about you is deleted at once. This cannot be undone.")
        st.button("Delete all my answers", on_click=_attempt, args=(partial(_withdraw, token=token),))


def _unknown_token() -> None:
    st.session_state.pop("token", None)
    title("There are no answers under this link")
    st.write("Perhaps they have been withdrawn and deleted. To take part, open the link that you were sent.")


def _apologise(on_click: Callable[[], None] | None) -> None:
    title("Sorry, something went wrong on our side")
    st.write("What you have answered so far is safe. Please try again in a moment.")
    st.button("Try again", type="primary", on_click=on_click)


# --- What changes something ---


def _attempt(change: Callable[[Engine], object]) -> None:
    """Make a change; if the database cannot take it, keep it for the button of _apologise."""
    st.session_state["pending"] = change
    try:
        engine = database()
        with WRITING:
            change(engine)
    except (SQLAlchemyError, StoreError):
        logger.exception("A change could not be stored")
        st.session_state.pop("shown", None)  # the question starts anew, by its button
    else:
        del st.session_state["pending"]


def _enrol(engine: Engine, *, study: StudyView, prolific: dict[str, str]) -> None:
    if "token" in st.session_state:  # a double click
        return
    try:
        token = votes.enrol(engine, study.name, consent_version=study.consent_version, prolific=prolific or None)
    except SurveyError as error:
        st.session_state["refused"] = str(error)
        return
    st.session_state["token"] = token
    st.query_params.from_dict({"participant": token})


def _on_vote(token: str) -> None:
    sent = stimulus.vote()
    if sent is not None:
        _attempt(partial(_record_vote, token=token, sent=sent))


def _record_vote(engine: Engine, *, token: str, sent: dict[str, Any]) -> None:
    """The vote is committed when this returns, before the next question is drawn; the database refuses a second."""
    result = votes.record_vote(
        engine,
        token,
        sent.get("question", ""),
        sent.get("answer", ""),
        response_time_ms=sent.get("response_time_ms", -1.0),
        exposure_measured_ms=sent.get("exposure_measured_ms"),
        input=sent.get("input", ""),
        scale=sent.get("scale", 0),
    )
    if result.status == "refused":
        logger.warning("A vote was refused: %s", result.reason)
    elif result.correct is not None:
        st.session_state["feedback"] = {"answer": sent["answer"], "correct": result.correct}


def _withdraw(engine: Engine, *, token: str) -> None:
    votes.withdraw(engine, token)
    for name in ("token", "shown", "feedback"):
        st.session_state.pop(name, None)
    st.session_state["withdrawn"] = True
    st.query_params.clear()


def _button(label: str, token: str, change: Callable[[Engine, str], None]) -> None:
    st.button(label, type="primary", width="stretch", on_click=_attempt, args=(lambda engine: change(engine, token),))


def _token() -> str | None:
    """The participant's token: the link's, or this session's where the browser went back to a link without."""
    token = st.query_params.get("participant") or st.session_state.get("token")
    if token is not None:
        st.session_state["token"] = token
        if set(st.query_params) != {"participant"}:
            st.query_params.from_dict({"participant": token})
    return token


# --- Texts and pictures ---


def _text(name: str) -> str:
    return (TEXTS / f"{name}.md").read_text(encoding="utf-8")


def _minutes(study: StudyView) -> int:
    return 2 + math.ceil((study.question_count + study.practice_count) * 4 / 60)


def _exposure(exposures_ms: tuple[int | None, ...]) -> str:
    if exposures_ms == (None,):
        return " and stay until you answer"
    if len(exposures_ms) == 1 and exposures_ms[0] is not None:
        seconds = exposures_ms[0] / 1000
        return f" for {seconds:g} second{'' if seconds == 1 else 's'}"
    return ", sometimes longer, sometimes shorter"


@st.cache_data(show_spinner=False)
def _plates(seed: int) -> list[colour_vision.Plate]:
    return colour_vision.plates(seed)


@st.cache_data(show_spinner=False)
def _grey_squares() -> bytes:
    """Squares of grey, evenly spaced in sRGB from black to white, with a margin of mid grey."""
    squares = np.rint(np.linspace(0, 255, GREY_SQUARES)).astype(np.uint8)
    row = np.repeat(np.repeat(squares[None, :], 80, axis=0), 80, axis=1)
    file = io.BytesIO()
    Image.fromarray(np.pad(row, 16, constant_values=colour_vision.SURROUND[0])).save(file, "PNG")
    return file.getvalue()
