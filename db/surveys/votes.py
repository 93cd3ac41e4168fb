"""The participant's side of a study: where they stand, the next question, votes. Plain values in and out.

Every function runs in a short transaction of its own and has committed, durably, when it returns: what a participant
sees next may rely on it. The participant's token is known here by its hash only.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Literal, TypeGuard, cast, get_args

from sqlalchemy import Engine, case, func, select
from sqlalchemy.orm import Session

from db.png import pixels
from db.schema import Image, InputKind, Participant, Phase, Question, Sample, SentinelPicture, Study, Vote
from db.store import read_session, write_session
from db.surveys.answers import Count
from db.surveys.enrolment import group_code, hash_token
from db.surveys.study import is_name, newest_open

Stage = Literal["instructions", "check", "practice", "questions", "done", "closed"]
VoteStatus = Literal["stored", "duplicate", "refused"]
Flag = Literal["hidden", "edited", "late"]  # of a vote: see `record_vote`

LONGEST_CHECK = 4000  # bytes of JSON
LATE_MS = 3600 * 1000.0
LARGEST_SCALE = 1000


@dataclass(frozen=True)
class QuestionView:
    """The question to show now. Nothing in it tells which picture is real.

    pictures: RGB bytes row by row, [left, right] for a pair, [one] for a single, all of the same size: without a file
    format neither length, header nor metadata tells one from another.
    """

    public_id: str
    phase: Phase
    number: int  # from 1 to `of`, within the phase
    of: int
    pictures: list[bytes]
    width: int  # of each picture, in its pixels
    height: int


@dataclass(frozen=True)
class Participation:
    """Where a participant stands: how many practice and main questions they have answered; `next` at the stages
    practice and questions; completion_code at done, and at closed: the study was closed before they finished."""

    study: Study
    stage: Stage
    practice_answered: int
    answered: int
    next: QuestionView | None
    completion_code: str | None


@dataclass(frozen=True)
class VoteResult:
    """stored: committed now. duplicate: that question had its vote already, which stands. refused: nothing changed.

    correct: whether the vote that stands was right, in practice only, else None.
    """

    status: VoteStatus
    reason: str | None = None
    correct: bool | None = None


def open_study(engine: Engine, name: str | None = None) -> Study | None:
    """The study `name`, open or closed (see its status), or the newest open one; None if there is none."""
    if name is not None and not is_name(name):
        return None
    with read_session(engine) as session:
        return newest_open(session) if name is None else session.scalar(select(Study).where(Study.name == name))


def progress(engine: Engine, token: str) -> Participation | None:
    """Where the participant stands and what to show now; None if the token is unknown, or its owner withdrew."""
    with read_session(engine) as session:
        participant = _find_participant(session, token)
        if participant is None:
            return None
        study = session.get_one(Study, participant.study_id)
        answered = _count_answered(session, participant)
        stage = _stage(participant, study, answered)
        question = _next_question(session, participant, stage)
        return Participation(
            study=study,
            stage=stage,
            practice_answered=answered["practice"],
            answered=answered["main"],
            next=None if question is None else _view_question(session, study, question, answered),
            completion_code=group_code(participant.completion_code) if stage in ("done", "closed") else None,
        )


def finish_instructions(engine: Engine, token: str) -> None:
    """Move on from the instructions. This and the next do nothing for an unknown token or at another stage."""
    _move_on(engine, token, "instructions", instructions_done_at=datetime.now(UTC))


def record_check(engine: Engine, token: str, answers: Mapping[str, object], flags: Sequence[str]) -> None:
    """Store the answers and flags of the display and colour-vision check, and move on. Raises ValueError if they are
    no JSON values or longer than LONGEST_CHECK."""
    check = {"answers": dict(answers), "flags": sorted(set(flags))}
    if len(json.dumps(check, allow_nan=False, ensure_ascii=False).encode()) > LONGEST_CHECK:
        raise ValueError(f"The answers to the check are longer than {LONGEST_CHECK} bytes of JSON.")
    _move_on(engine, token, "check", check=check)


def record_vote(engine: Engine, token: str, public_id: object, answer: object, /, **message: object) -> VoteResult:
    """Store the answer to the participant's current question: "left" or "right" is the real one of a pair, or a
    single is "real" or "fake".

    message: what the browser says of it. response_time_ms: from onset, 0 or more. exposure_measured_ms: the same, or
    None where the pictures stayed. input: "key", "click" or "tap". scale: screen pixels per pixel of the picture, a
    whole number from 1. device_pixel_ratio: a number, or None. hidden: the page was out of sight while the pictures
    were on show. edited: something, such as a translator, had changed the page. The last two are stored as flags, as is
    "late": shown or answered for more than LATE_MS, by a page that was left open. Whatever it is, this does not raise.

    Nothing is stored once the study is closed.
    """
    measurements = _read_measurements(message)
    if measurements is None:
        return VoteResult("refused", "What was measured cannot be.")
    with write_session(engine) as session:
        # Shared with others who vote, but not with whoever closes the study: that waits, or is seen here.
        study = session.scalar(
            select(Study)
            .join(Participant, Participant.study_id == Study.id)
            .where(Participant.token_hash == hash_token(token))
            .with_for_update(read=True, of=Study)
        )
        participant = _find_participant(session, token, lock=True)
        if participant is None or study is None:
            return VoteResult("refused", "This participation is unknown, or was withdrawn.")
        question = _find_question(session, participant, public_id)
        if question is None:
            return VoteResult("refused", "There is no such question.")
        practice = question.phase == "practice"
        earlier = session.scalar(select(Vote.correct).where(Vote.question_id == question.id))
        if earlier is not None:
            return VoteResult("duplicate", "This question was answered before.", earlier if practice else None)
        if study.status != "open":
            return VoteResult("refused", "The study was closed.")
        if answer not in (("left", "right") if study.protocol == "pair" else ("real", "fake")):
            return VoteResult("refused", "This is no answer to the question.")
        answered = _count_answered(session, participant)
        if question is not _next_question(session, participant, _stage(participant, study, answered)):
            return VoteResult("refused", "Another question comes first.")
        correct = answer == question.right_answer
        now = datetime.now(UTC)
        session.add(Vote(question_id=question.id, answered_at=now, answer=answer, correct=correct, **measurements))
        if not practice and answered["main"] + 1 == study.question_count:
            participant.finished_at = now
    return VoteResult("stored", correct=correct if practice else None)


def _read_measurements(message: Mapping[str, object]) -> dict[str, Any] | None:
    """The columns of a vote that the browser measured; None where something cannot be."""
    response_time_ms, exposure_ms = message.get("response_time_ms"), message.get("exposure_measured_ms")
    kind, scale, ratio = message.get("input"), message.get("scale"), message.get("device_pixel_ratio")
    if not _is_number(response_time_ms) or response_time_ms < 0:
        return None
    if exposure_ms is not None and (not _is_number(exposure_ms) or exposure_ms < 0):
        return None
    if kind not in get_args(InputKind):
        return None
    if not isinstance(scale, int) or isinstance(scale, bool) or not 1 <= scale <= LARGEST_SCALE:
        return None
    flags: dict[Flag, bool] = {
        "hidden": message.get("hidden") is True,
        "edited": message.get("edited") is True,
        "late": max(response_time_ms, exposure_ms or 0.0) > LATE_MS,
    }
    return {
        "response_time_ms": response_time_ms,
        "exposure_measured_ms": exposure_ms,
        "input": cast(InputKind, kind),
        "scale": scale,
        "device_pixel_ratio": ratio if _is_number(ratio) and ratio > 0 else None,
        "flags": [flag for flag, raised in flags.items() if raised],
    }


def own_score(engine: Engine, token: str) -> Count | None:
    """The participant's right answers to main questions; None before they finished, or for an unknown token."""
    with read_session(engine) as session:
        participant = _find_participant(session, token)
        if participant is None or participant.finished_at is None:
            return None
        right, asked = session.execute(
            select(func.sum(case((Vote.correct, 1), else_=0)), func.count())
            .join(Question, Question.id == Vote.question_id)
            .where(Question.participant_id == participant.id, Question.phase == "main")
        ).one()
        return Count(right, asked)


# Where a participant stands


def _count_answered(session: Session, participant: Participant) -> dict[Phase, int]:
    counts = session.execute(
        select(Question.phase, func.count())
        .join(Vote, Vote.question_id == Question.id)
        .where(Question.participant_id == participant.id)
        .group_by(Question.phase)
    )
    answered: dict[Phase, int] = {"practice": 0, "main": 0}
    return answered | dict(counts.all())


def _stage(participant: Participant, study: Study, answered: Mapping[Phase, int]) -> Stage:
    if participant.finished_at is not None:
        return "done"
    if study.status == "closed":
        return "closed"
    if participant.instructions_done_at is None:
        return "instructions"
    if participant.check is None:
        return "check"
    return "practice" if answered["practice"] < study.practice_count else "questions"


def _next_question(session: Session, participant: Participant, stage: Stage) -> Question | None:
    """The first without a vote, where it is its turn."""
    if stage not in ("practice", "questions"):
        return None
    return session.scalar(
        select(Question)
        .outerjoin(Vote, Vote.question_id == Question.id)
        .where(Question.participant_id == participant.id, Vote.id.is_(None))
        .order_by(Question.position)
        .limit(1)
    )


def _move_on(engine: Engine, token: str, stage: Stage, **values: Any) -> None:
    """Give the participant these values if they stand at that stage."""
    with write_session(engine) as session:
        participant = _find_participant(session, token, lock=True)
        if participant is None:
            return
        study = session.get_one(Study, participant.study_id)
        if _stage(participant, study, _count_answered(session, participant)) == stage:
            for name, value in values.items():
                setattr(participant, name, value)


def _view_question(session: Session, study: Study, question: Question, answered: Mapping[Phase, int]) -> QuestionView:
    columns = [Sample.png, SentinelPicture.png]
    ids = [question.sample_id, question.sentinel_picture_id]
    shown = [(column, row) for column, row in zip(columns, ids, strict=True) if row is not None]  # one at most
    real = (Image.truth_png, question.image_id)
    if not shown or study.protocol == "pair":
        shown = [real, *shown] if question.real_side != "right" else [*shown, real]
    pictures = [_decode(session.scalars(select(column).where(column.class_.id == row)).one()) for column, row in shown]
    return QuestionView(
        public_id=question.public_id,
        phase=question.phase,
        number=answered[question.phase] + 1,
        of=study.practice_count if question.phase == "practice" else study.question_count,
        pictures=[rgb for rgb, _, _ in pictures],
        width=pictures[0][2],
        height=pictures[0][1],
    )


@lru_cache(maxsize=2048)  # some 12 MB of 32 x 32 pixels; all participants of a study see the same few hundred
def _decode(png: bytes) -> tuple[bytes, int, int]:
    """RGB bytes row by row, height, width."""
    rgb = pixels(png)
    height, width, _ = rgb.shape
    return rgb.tobytes(), height, width


def _find_participant(session: Session, token: str, *, lock: bool = False) -> Participant | None:
    query = select(Participant).where(Participant.token_hash == hash_token(token))
    return session.scalar(query.with_for_update() if lock else query)


def _find_question(session: Session, participant: Participant, public_id: object) -> Question | None:
    if not isinstance(public_id, str) or not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", public_id):
        return None  # no database takes every value
    return session.scalar(
        select(Question).where(Question.participant_id == participant.id, Question.public_id == public_id)
    )


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= 1e15  # nor NaN, infinity
