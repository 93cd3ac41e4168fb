"""Participants and their votes: stored once, at once, in order, whatever a browser sends and whoever is killed."""

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, event, func, select
from sqlalchemy.exc import IntegrityError

from db.png import pixels
from db.schema import Image, Participant, Question, Sample, SentinelPicture, Vote
from db.store import read_session, write_session
from db.surveys import votes
from db.surveys.answers import Count
from db.surveys.enrolment import enrol, withdraw
from db.surveys.study import close_study, create_study
from db.surveys.votes import (
    Participation,
    QuestionView,
    VoteResult,
    finish_instructions,
    open_study,
    own_score,
    progress,
    record_check,
    record_vote,
)
from tests.survey_data import WRONG, turnout

SENT = {
    "response_time_ms": 512.5,
    "exposure_measured_ms": 1003.2,
    "input": "key",
    "scale": 8,
    "device_pixel_ratio": 1.5,
}


@pytest.fixture
def engine(engine: Engine) -> Engine:
    """The experiment with two studies: "pairs" and "singles" of 12 questions after 4 for practice."""
    small: Any = {"question_count": 12, "practice_count": 4, "sentinel_share": 0.2, "seed": 0}
    create_study(engine, "cats", name="pairs", completion_url="https://example.org/done", **small)
    create_study(engine, "cats", name="singles", protocol="single", exposure_ms=500, **small)
    return engine


def enrol_to_practice(engine: Engine, study: str = "pairs", **options: Any) -> str:
    """A participant who stands before the first question."""
    token = enrol(engine, study, **options)
    finish_instructions(engine, token)
    record_check(engine, token, {"plate": "12"}, [])
    return token


def standing(engine: Engine, token: str) -> Participation:
    found = progress(engine, token)
    assert found is not None
    return found


def current(engine: Engine, token: str) -> QuestionView:
    question = standing(engine, token).next
    assert question is not None
    return question


def right_answer(engine: Engine, public_id: str) -> str:
    with read_session(engine) as session:
        return session.scalars(select(Question).where(Question.public_id == public_id)).one().right_answer


def answer(engine: Engine, token: str, *, right: bool = True) -> VoteResult:
    question = current(engine, token)
    truth = right_answer(engine, question.public_id)
    return record_vote(engine, token, question.public_id, truth if right else WRONG[truth], **SENT)


def answer_up_to(engine: Engine, token: str, stage: str, *, right: bool = True) -> Participation:
    while (now := standing(engine, token)).stage != stage:
        assert answer(engine, token, right=right).status == "stored"
    return now


def vote_count(engine: Engine) -> int:
    with read_session(engine) as session:
        return session.scalar(select(func.count(Vote.id))) or 0


# The way through


@pytest.mark.parametrize("study", ["pairs", "singles"])
def test_a_participant_goes_from_consent_to_completion_code(engine: Engine, study: str) -> None:
    token = enrol(engine, study)
    assert standing(engine, token).stage == "instructions"
    record_check(engine, token, {}, [])  # not its turn yet
    assert standing(engine, token).stage == "instructions"
    finish_instructions(engine, token)
    assert standing(engine, token).stage == "check"
    record_check(engine, token, {"plates": ["12", None], "night shift": False}, ["plates", "plates"])

    seen: list[str] = []
    for number in range(16):
        now, practice = standing(engine, token), number < 4
        assert now.next is not None
        assert (now.stage, now.next.phase) == (("practice", "practice") if practice else ("questions", "main"))
        assert (now.practice_answered, now.answered) == (min(number, 4), max(0, number - 4))
        assert (now.next.number, now.next.of) == ((number + 1, 4) if practice else (number - 3, 12))
        assert now.completion_code is None
        assert own_score(engine, token) is None
        wrong = number % 3 == 0
        result = answer(engine, token, right=not wrong)
        assert result == VoteResult("stored", correct=not wrong if practice else None)
        seen.append(now.next.public_id)
    assert len(set(seen)) == 16

    end = standing(engine, token)
    assert (end.stage, end.next) == ("done", None)
    assert end.completion_code is not None
    assert own_score(engine, token) == Count(8, 12)
    with read_session(engine) as session:
        participant = session.scalars(select(Participant)).one()
        assert participant.check == {"answers": {"plates": ["12", None], "night shift": False}, "flags": ["plates"]}
        assert participant.finished_at is not None
        questions = session.scalars(select(Question).order_by(Question.position)).all()
        assert [question.public_id for question in questions] == seen
        vote = session.scalars(select(Vote).order_by(Vote.id)).first()
        assert vote is not None
        assert (vote.response_time_ms, vote.exposure_measured_ms, vote.input, vote.scale) == (512.5, 1003.2, "key", 8)
        assert (vote.device_pixel_ratio, vote.flags) == (1.5, [])


def test_studies_are_found_by_name_or_as_the_newest_open_one(engine: Engine) -> None:
    for name, expected in (("pairs", "pairs"), (None, "singles")):
        study = open_study(engine, name)
        assert study is not None
        assert study.name == expected
    assert open_study(engine, "unknown") is None
    close_study(engine, "singles")
    newest, closed = open_study(engine), open_study(engine, "singles")
    assert newest is not None
    assert closed is not None
    assert (newest.name, newest.completion_url) == ("pairs", "https://example.org/done")
    assert (closed.status, closed.exposure_ms) == ("closed", 500)


# What the page gets


@pytest.mark.parametrize("study", ["pairs", "singles"])
def test_pictures_are_those_of_the_question_and_their_bytes_tell_nothing_else(engine: Engine, study: str) -> None:
    files, kinds = [], set()
    for number in range(3):
        token = enrol_to_practice(engine, study, seed=number)
        while (now := standing(engine, token)).next is not None:
            with read_session(engine) as session:
                question = session.scalars(select(Question).where(Question.public_id == now.next.public_id)).one()
                kinds.add(question.kind)
                truth = session.get_one(Image, question.image_id).truth_png
                fake = (
                    session.get_one(Sample, question.sample_id).png
                    if question.sample_id
                    else session.get_one(SentinelPicture, question.sentinel_picture_id).png
                    if question.sentinel_picture_id
                    else truth
                )
            expected = (
                [fake] if study == "singles" else [truth, fake] if question.real_side == "left" else [fake, truth]
            )
            assert len(now.next.pictures) == len(expected)
            shape = (now.next.height, now.next.width, 3)
            for rgb, stored in zip(now.next.pictures, expected, strict=True):
                assert np.array_equal(np.frombuffer(rgb, np.uint8).reshape(shape), pixels(stored))
            files += now.next.pictures
            answer(engine, token)
    assert kinds == ({"arm", "sentinel"} if study == "pairs" else {"arm", "sentinel", "real"})
    assert len({len(file) for file in files}) == 1  # no classifier by length can beat chance


def test_what_the_page_gets_of_a_question_says_nothing_else() -> None:
    """A new field has to be judged: does it tell which picture is real?"""
    assert set(QuestionView.__dataclass_fields__) == {
        "public_id",
        "phase",
        "number",
        "of",
        "pictures",
        "width",
        "height",
    }


# Votes


def test_a_question_has_one_vote_and_the_first_stands(engine: Engine) -> None:
    token = enrol_to_practice(engine)
    for practice in (True, False):
        question = current(engine, token)
        truth = right_answer(engine, question.public_id)
        first = record_vote(engine, token, question.public_id, truth, **SENT)
        again = record_vote(engine, token, question.public_id, WRONG[truth], **SENT)
        assert (first.status, again.status) == ("stored", "duplicate")
        assert first.correct is again.correct is (True if practice else None)
        answer_up_to(engine, token, "questions")
    with read_session(engine) as session:
        assert all(session.scalars(select(Vote.correct)))
        question_id = session.scalars(select(Vote.question_id)).first()
        assert question_id is not None
    with pytest.raises(IntegrityError), write_session(engine) as session:  # whoever forgets to look first
        session.add(
            Vote(
                question_id=question_id,
                answered_at=func.now(),
                answer="left",
                correct=True,
                response_time_ms=1.0,
                exposure_measured_ms=None,
                input="key",
                scale=1,
                device_pixel_ratio=None,
                flags=[],
            )
        )


def test_only_the_current_question_of_ones_own_is_answered(engine: Engine) -> None:
    token, other = enrol_to_practice(engine), enrol_to_practice(engine)
    with read_session(engine) as session:
        mine, *later = session.scalars(
            select(Question.public_id)
            .join(Participant, Participant.id == Question.participant_id)
            .order_by(Participant.id, Question.position)
        ).all()
    assert mine == current(engine, token).public_id
    for public_id in later:  # one's own that come later, and all of the other's
        assert record_vote(engine, token, public_id, "left", **SENT).status == "refused"
    assert standing(engine, other).practice_answered == 0

    fresh = enrol(engine, "pairs")
    with read_session(engine) as session:
        first = session.scalars(select(Question).order_by(Question.participant_id.desc(), Question.position)).first()
        assert first is not None
    assert record_vote(engine, fresh, first.public_id, "left", **SENT).status == "refused"  # instructions come first


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
LIKELY = st.sampled_from(
    ["left", "right", "real", "fake", "key", "click", "tap", 0, 1, 8, 1000, 1001, 1e9, -1, 1.5, True]
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    study=st.sampled_from(["pairs", "singles"]),
    own_id=st.booleans(),
    message=st.fixed_dictionaries(
        dict.fromkeys(("public_id", "answer", "response_time_ms", "exposure_measured_ms", "input"), LIKELY | JSON)
        | dict.fromkeys(("device_pixel_ratio", "hidden", "edited", "token", "engine"), LIKELY | JSON)
        | {"scale": st.just(8) | LIKELY | JSON}
    ),
    valid=st.sets(st.sampled_from(["answer", "response_time_ms", "exposure_measured_ms", "input", "scale"])),
)
def test_forged_messages_are_refused_without_an_error(
    engine: Engine, study: str, own_id: bool, message: dict[str, Any], valid: set[str]
) -> None:
    token = enrol_to_practice(engine, study)
    good: dict[str, Any] = {**SENT, "answer": "left" if study == "pairs" else "real"}
    if own_id:
        message["public_id"] = current(engine, token).public_id
    message |= {name: good[name] for name in valid}

    def duration(value: object) -> bool:
        return type(value) in (int, float) and 0 <= value <= 1e15  # type: ignore[operator]

    fits = (
        own_id
        and message["answer"] in (("left", "right") if study == "pairs" else ("real", "fake"))
        and duration(message["response_time_ms"])
        and (message["exposure_measured_ms"] is None or duration(message["exposure_measured_ms"]))
        and message["input"] in ("key", "click", "tap")
        and type(message["scale"]) is int
        and 1 <= message["scale"] <= 1000
    )
    result = record_vote(engine, token, message["public_id"], message["answer"], **message)
    assert result.status == ("stored" if fits else "refused"), result
    assert (result.reason is None) == fits
    assert standing(engine, token).practice_answered == int(fits)
    withdraw(engine, token)


@pytest.mark.parametrize(
    ("sent", "flags"),
    [
        ({"hidden": True}, ["hidden"]),
        ({"edited": True, "hidden": True}, ["hidden", "edited"]),
        ({"response_time_ms": 14 * 3_600_000}, ["late"]),  # a tab that was left open over night
        ({"response_time_ms": 40 * 24 * 3_600_000}, ["late"]),
        ({"exposure_measured_ms": 9 * 3_600_000.0}, ["late"]),  # a lid that was shut over the pictures
        ({"response_time_ms": 20_000, "hidden": "yes", "edited": 1, "device_pixel_ratio": "2"}, []),
    ],
)
def test_what_an_analysis_may_leave_out_is_stored_and_flagged(
    engine: Engine, sent: dict[str, object], flags: list[str]
) -> None:
    token = enrol_to_practice(engine)
    answer_up_to(engine, token, "questions")
    public_id = current(engine, token).public_id
    assert record_vote(engine, token, public_id, "left", **{**SENT, **sent}).status == "stored"
    answer(engine, token)
    with read_session(engine) as session:
        vote = session.scalars(select(Vote).join(Question).where(Question.public_id == public_id)).one()
    assert vote.flags == flags
    assert vote.device_pixel_ratio == (None if "device_pixel_ratio" in sent else 1.5)
    assert turnout(engine, "pairs").flagged == dict.fromkeys(flags, 1)


# A study that closes


def test_a_closed_study_takes_no_more_answers_and_says_so_with_a_code(engine: Engine) -> None:
    new, under_way, finished = (enrol_to_practice(engine) for _ in range(3))
    answer_up_to(engine, under_way, "questions")
    answer(engine, under_way)
    answer_up_to(engine, finished, "done")
    public_id = current(engine, under_way).public_id
    stored = vote_count(engine)
    close_study(engine, "pairs")
    assert record_vote(engine, under_way, public_id, "left", **SENT) == VoteResult("refused", "The study was closed.")
    for token in (new, under_way):
        now = standing(engine, token)
        assert (now.stage, now.next) == ("closed", None)
        assert now.completion_code is not None
    assert standing(engine, under_way).answered == 1
    assert vote_count(engine) == stored
    assert standing(engine, finished).stage == "done"
    assert withdraw(engine, standing(engine, under_way).completion_code or "")


@given(token=st.text(max_size=50))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_unknown_tokens_come_to_nothing(engine: Engine, token: str) -> None:
    assert progress(engine, token) is None
    assert own_score(engine, token) is None
    assert not withdraw(engine, token)
    finish_instructions(engine, token)
    record_check(engine, token, {}, [])
    assert record_vote(engine, token, "x", "left", **SENT).status == "refused"


@pytest.mark.parametrize("answers", [{"x": "y" * 5000}, {"x": float("nan")}, {"x": object()}, {"x": "\ud800"}])
def test_a_check_that_cannot_be_stored_is_refused(engine: Engine, answers: dict[str, object]) -> None:
    token = enrol(engine, "pairs")
    finish_instructions(engine, token)
    with pytest.raises((ValueError, TypeError)):
        record_check(engine, token, answers, [])
    assert standing(engine, token).stage == "check"


def test_a_question_costs_no_write_before_its_answer_and_a_picture_is_decoded_once(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        sent.append(statement)

    tokens = [enrol_to_practice(engine), enrol_to_practice(engine, "singles")]
    seen = [current(engine, token) for token in tokens]
    monkeypatch.setattr(votes, "pixels", None)  # it cannot be called
    event.listen(engine, "before_cursor_execute", note)
    assert [current(engine, token) for token in tokens] == seen
    event.remove(engine, "before_cursor_execute", note)
    assert {statement.split()[0] for statement in sent} - {"BEGIN"} == {"SELECT"}
