"""The participant's page, from consent to completion code, and the page to withdraw on afterwards.

The database is the truth: every run of the page reads where the participant stands, and shows that. The session only
holds what may be lost with the connection: feedback, and a change that the database could not take yet.
"""

import math
from functools import partial
from pathlib import Path
from typing import Any

import streamlit as st
from sqlalchemy import Engine

from db.schema import Study
from db.surveys import enrolment, votes
from db.surveys.study import ID_PARAMETER, STUDY_PARAMETER, TOKEN_PARAMETER, SurveyError
from db.surveys.votes import Participation, QuestionView
from survey_app.database import database
from survey_app.participants import stimulus
from survey_app.participants.check import display_check
from survey_app.participants.screen import FAILURES, WRITING, apologise, attempt, button, frame, logger, title

TITLE = "Which one is the photograph?"
TEXTS = Path(__file__).parent / "texts"


def survey_page() -> None:
    """Draw whatever the participant's link, and the database, say comes now."""
    frame()
    if "pending" in st.session_state:
        apologise(st.session_state["pending"])
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
            _draw_stage(engine, token, progress)
    except FAILURES:
        logger.exception("The survey's page could not be drawn")
        apologise()


def withdrawal_page() -> None:
    """Withdrawal by completion code, for those who have finished."""
    frame()
    title("Withdraw and delete my answers")
    if st.session_state.get("withdrawn"):
        st.success("Your answers have been deleted.")
        return
    with st.form("withdraw"):
        code = st.text_input("The completion code that you were shown at the end")
        submit = st.form_submit_button("Delete all my answers", type="primary")
    if not submit:
        return
    try:
        engine = database()
        with WRITING:
            deleted = bool(code.strip()) and enrolment.withdraw(engine, code.strip())
    except FAILURES:
        logger.exception("A withdrawal failed")
        st.error("Something went wrong on our side, and nothing has been deleted yet. Please try again in a minute.")
        return
    if deleted:
        st.success("Your answers have been deleted.")
    else:
        st.error("There are no answers under this code. Please check it; perhaps they are deleted already.")


# --- The stages ---


def _draw_stage(engine: Engine, token: str, progress: Participation) -> None:
    if progress.stage == "instructions":
        _instructions(token, progress.study)
    elif progress.stage == "check":
        display_check(token)
    elif progress.stage in ("practice", "questions") and progress.next is not None:
        _question(token, progress, progress.next)
    elif progress.stage == "closed":
        _closed(progress)
    else:
        _thanks(engine, token, progress)
    _withdrawal(token)


def _welcome(engine: Engine) -> None:
    """Consent. Nothing is stored before its button is pressed."""
    if st.session_state.get("withdrawn"):
        title("Your answers have been deleted")
        st.write("Nothing about you is stored any more. You can close this page.")
        return
    study = votes.open_study(engine, st.query_params.get(STUDY_PARAMETER))
    if study is None and STUDY_PARAMETER in st.query_params:
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
    link = dict(st.query_params)
    st.markdown(
        _read_text(f"consent-{study.consent_version}").format(
            question_count=study.question_count, minutes=_minutes(study), ids=_say_ids(study, link)
        )
    )
    if "refused" in st.session_state:
        st.error(st.session_state.pop("refused"))
    st.button(
        "I agree and take part",
        type="primary",
        width="stretch",
        on_click=attempt,
        args=(partial(_enrol, study=study, link=link),),
    )
    st.write(
        "If you do not agree, just close this page. You took part and want your answers deleted? "
        "[Withdraw with your completion code](withdraw)."
    )


def _instructions(token: str, study: Study) -> None:
    title("How it works")
    st.markdown(_read_text(f"instructions-{study.protocol}").format(exposure=_exposure(study.exposure_ms)))
    button("Next: a short look at your screen", token, votes.finish_instructions)


def _question(token: str, progress: Participation, question: QuestionView) -> None:
    state = st.session_state
    on_show = state.get("question")
    if on_show is None or on_show[0] != question.public_id:
        on_show = state["question"] = (question.public_id, _introduce(progress, question, state.pop("feedback", None)))
    stimulus.stimulus(
        question,
        progress.study,
        before=on_show[1],
        asked_anew=state.get("refusals", 0),
        on_vote=partial(_on_vote, token),
    )


def _introduce(
    progress: Participation, question: QuestionView, feedback: dict[str, Any] | None
) -> dict[str, Any] | None:
    """What is said before the question: a start, practice's feedback, or nothing."""
    starts = question.number == 1
    rest = f"Now come {question.of} questions, without the answers." if starts and question.phase == "main" else ""
    button = "Start" if rest else "Next"
    if st.session_state.pop("asked_anew", False):
        return stimulus.before(
            "Once more, please", "Your answer could not be stored. Here is the question again.", "Go on"
        )
    if feedback is not None:
        right = feedback["correct"]
        photograph, explanation = stimulus.solution(progress.study.protocol, feedback["answer"], right)
        return stimulus.before("Right!" if right else "Not this time.", f"{explanation} {rest}", button, photograph)
    if starts and question.phase == "practice":
        return stimulus.before("Practice", f"First {question.of} questions to practise, with the answers.", "Start")
    if rest:
        return stimulus.before("Ready?", rest, button)
    if "question" not in st.session_state:
        return stimulus.before("Welcome back", "You go on where you left.", "Go on")
    return None


def _thanks(engine: Engine, token: str, progress: Participation) -> None:
    title("Thank you!")
    score = votes.own_score(engine, token)
    if score is not None:
        st.write(f"You were right in **{score.count} of {score.total}** questions. Guessing gives 50 %.")
    _completion(progress)


def _closed(progress: Participation) -> None:
    title("This survey has been closed")
    answered = "answer" if progress.answered == 1 else "answers"
    st.write(
        f"It ended while you were taking part. Thank you very much: your {progress.answered} {answered} will count."
        if progress.answered
        else "It ended before your first question. Thank you very much for coming."
    )
    _completion(progress)


def _completion(progress: Participation) -> None:
    st.write("Your completion code, with which you can have your answers deleted later. Please keep it:")
    # Translators change even codes.
    code = f'<pre class="notranslate" translate="no" id="completion-code">{progress.completion_code}</pre>'
    st.html("<style>#completion-code { font-size: 1.4rem; user-select: all; }</style>" + code)
    if progress.study.completion_url:
        st.link_button("Complete, and go back", progress.study.completion_url, type="primary", width="stretch")


def _withdrawal(token: str) -> None:
    st.space("medium")
    with st.expander("Withdraw and delete my answers"):
        st.write("Everything that is stored about you is deleted at once. This cannot be undone.")
        st.button("Delete all my answers", on_click=attempt, args=(partial(_withdraw, token=token),))


def _unknown_token() -> None:
    st.session_state.pop("token", None)
    title("There are no answers under this link")
    st.write("Perhaps they have been withdrawn and deleted. To take part, open the link that you were sent.")


# --- What changes something ---


def _enrol(engine: Engine, *, study: Study, link: dict[str, str]) -> None:
    if "token" in st.session_state:  # a double click
        return
    try:
        token = enrolment.enrol(engine, study.name, link=link)
    except SurveyError as error:
        st.session_state["refused"] = str(error)
        return
    st.session_state["token"] = token
    st.query_params.from_dict({TOKEN_PARAMETER: token})


def _on_vote(token: str) -> None:
    message = stimulus.vote()
    if message is not None:
        attempt(partial(_record_vote, token=token, message=message))


def _record_vote(engine: Engine, *, token: str, message: dict[str, Any]) -> None:
    """The vote is committed when this returns, before the next question is drawn; the database refuses a second."""
    result = votes.record_vote(engine, token, message.get("question"), message.get("answer"), **message)
    if result.status == "refused":
        logger.warning("A vote was refused: %s", result.reason)
        # Whatever the reason, the page waits no longer: it shows what the database says comes now, this question even.
        st.session_state["refusals"] = st.session_state.get("refusals", 0) + 1
        st.session_state["asked_anew"] = True
        st.session_state.pop("question", None)
    elif result.correct is not None:
        st.session_state["feedback"] = {"answer": message["answer"], "correct": result.correct}


def _withdraw(engine: Engine, *, token: str) -> None:
    enrolment.withdraw(engine, token)
    for name in ("token", "question", "feedback"):
        st.session_state.pop(name, None)
    st.session_state["withdrawn"] = True
    st.query_params.clear()


def _token() -> str | None:
    """The participant's token: the link's, or this session's where the browser went back to a link without."""
    token = st.query_params.get(TOKEN_PARAMETER) or st.session_state.get("token")
    if token is not None:
        st.session_state["token"] = token
        if set(st.query_params) != {TOKEN_PARAMETER}:
            st.query_params.from_dict({TOKEN_PARAMETER: token})
    return token


# --- Texts ---


def _read_text(name: str) -> str:
    return (TEXTS / f"{name}.md").read_text(encoding="utf-8")


def _minutes(study: Study) -> int:
    return 2 + math.ceil((study.question_count + study.practice_count) * 4 / 60)


def _say_ids(study: Study, link: dict[str, str]) -> str:
    """What the consent text says of ids in the link: those that are stored, and no others."""
    ids = enrolment.read_ids(link, study.id_parameter)
    if not any(ids.values()):
        return ""
    if study.id_parameter == ID_PARAMETER:
        return "As you come from Prolific, its ids in your link are stored so that you can be paid."
    return "The id that your link has from whoever recruited you is stored so that they can credit you."


def _exposure(exposure_ms: int | None) -> str:
    if exposure_ms is None:
        return " and stay until you answer"
    seconds = exposure_ms / 1000
    return f" for {seconds:g} second{'' if seconds == 1 else 's'}"
