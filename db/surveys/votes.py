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

from db.schema import Image, InputKind, Participant, Phase, Question, Sample, SentinelPicture, Study, Vote
from db.store import read_session, write_session
from db.surveys.enrolment import group_code, hash_token
from db.surveys.sentinels import pixels
from db.surveys.study import StudyView, is_name, newest_open, view_of

Stage = Literal["instructions", "check", "practice", "questions", "break", "comment", "done", "closed"]
VoteStatus = Literal["stored", "duplicate", "refused"]

Flag = Literal["hidden", "edited", "late"]  # of a vote: see `record_vote`

LONGEST_COMMENT = 2000  # characters
LONGEST_CHECK = 4000  # bytes of JSON
LATE_MS = 3600 * 1000.0
LARGEST_SCALE = 1000
SHORTEST_BREAK_STUDY = 10  # main questions: a shorter study has no break


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
    exposure_ms: int | None  # None: until answered
    pictures: list[bytes]
    width: int  # of each picture, in its pixels
    height: int


@dataclass(frozen=True)
class Participation:
    """Where a participant stands. answered and total count main questions; `next` is set at the stages practice and
    questions only, completion_code at done, and at closed: the study was closed before they finished."""

    study: StudyView
    stage: Stage
    answered: int
    total: int
    practice_answered: int
    practice_total: int
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


@dataclass(frozen=True)
class OwnScore:
    """A finished participant's right answers to main questions, and the mean share of right answers of the others
    who finished the study (None if there are none, or the study is blinded)."""

    correct: int
    answered: int
    others_mean: float | None
    others_count: int


def open_study(engine: Engine, name: str | None = None) -> StudyView | None:
    """The study `name`, open or closed (see its status), or the newest open one; None if there is none."""
    if name is not None and not is_name(name):
        return None
    with read_session(engine) as session:
        study = newest_open(session) if name is None else session.scalar(select(Study).where(Study.name == name))
        return None if study is None else view_of(study)


def progress(engine: Engine, token: str) -> Participation | None:
    """Where the participant stands and what to show now; None if the token is unknown, or its owner withdrew."""
    with read_session(engine) as session:
        participant = _participant(session, token)
        if participant is None:
            return None
        study = session.get_one(Study, participant.study_id)
        standing = _standing(session, participant, study)
        return Participation(
            study=view_of(study),
            stage=standing.stage,
            answered=standing.answered,
            total=study.question_count,
            practice_answered=standing.practice_answered,
            practice_total=study.practice_count,
            next=None if standing.current is None else _question_view(session, study, standing.current, standing),
            completion_code=group_code(participant.completion_code) if standing.stage in ("done", "closed") else None,
        )


def finish_instructions(engine: Engine, token: str) -> None:
    """Move on from the instructions. This and the next three do nothing for an unknown token or at another stage."""
    _move_on(engine, token, "instructions", instructions_done_at=datetime.now(UTC))


def record_check(engine: Engine, token: str, answers: Mapping[str, object], flags: Sequence[str]) -> None:
    """Store the answers and flags of the display and colour-vision check, and move on. Raises ValueError if they are
    no JSON values or longer than LONGEST_CHECK."""
    check = {"answers": dict(answers), "flags": sorted(set(flags))}
    if len(json.dumps(check, allow_nan=False, ensure_ascii=False).encode()) > LONGEST_CHECK:
        raise ValueError(f"The answers to the check are longer than {LONGEST_CHECK} bytes of JSON.")
    _move_on(engine, token, "check", check=check)


def take_break(engine: Engine, token: str) -> None:
    """Move on from the break."""
    _move_on(engine, token, "break", break_taken_at=datetime.now(UTC))


def record_comment(engine: Engine, token: str, text: str | None) -> None:
    """Store the comment, if any (cut to LONGEST_COMMENT characters), and move on to the end."""
    storable = (text or "").encode(errors="replace").decode().replace("\0", "")  # no database stores every string
    comment = storable.strip()[:LONGEST_COMMENT] or None
    _move_on(engine, token, "comment", comment=comment, ended_at=datetime.now(UTC))


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
    if isinstance(measurements, str):
        return VoteResult("refused", measurements)
    if not _is_id(public_id):
        return VoteResult("refused", "There is no such question.")
    with write_session(engine) as session:
        # Shared with others who vote, but not with whoever closes the study: that waits, or is seen here.
        study = session.scalar(
            select(Study)
            .join(Participant, Participant.study_id == Study.id)
            .where(Participant.token_hash == hash_token(token))
            .with_for_update(read=True, of=Study)
        )
        participant = _participant(session, token, lock=True)
        if participant is None or study is None:
            return VoteResult("refused", "This participation is unknown, or was withdrawn.")
        question = session.scalar(
            select(Question).where(Question.participant_id == participant.id, Question.public_id == public_id)
        )
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
        standing = _standing(session, participant, study)
        if standing.current is None or standing.current.id != question.id:
            return VoteResult("refused", "Another question comes first.")
        correct = answer == question.right_answer
        now = datetime.now(UTC)
        session.add(Vote(question_id=question.id, answered_at=now, answer=answer, correct=correct, **measurements))
        if not practice and standing.answered + 1 == study.question_count:
            participant.finished_at = now
    return VoteResult("stored", correct=correct if practice else None)


def _read_measurements(message: Mapping[str, object]) -> dict[str, Any] | str:
    """The columns of a vote that the browser measured; or, in a sentence, what cannot be among it."""
    response_time_ms, exposure_ms = message.get("response_time_ms"), message.get("exposure_measured_ms")
    scale, ratio = message.get("scale"), message.get("device_pixel_ratio")
    if not _is_number(response_time_ms) or response_time_ms < 0:
        return "The response time is no sensible number of milliseconds."
    if exposure_ms is not None and (not _is_number(exposure_ms) or exposure_ms < 0):
        return "The measured exposure is no sensible number of milliseconds."
    if message.get("input") not in get_args(InputKind):
        return f"An answer comes by {', '.join(get_args(InputKind))}."
    if not isinstance(scale, int) or isinstance(scale, bool) or not 1 <= scale <= LARGEST_SCALE:
        return f"The scale is no whole number from 1 to {LARGEST_SCALE}."
    late = max(response_time_ms, exposure_ms or 0.0) > LATE_MS
    flags: dict[Flag, bool] = {
        "hidden": message.get("hidden") is True,
        "edited": message.get("edited") is True,
        "late": late,
    }
    return {
        "response_time_ms": response_time_ms,
        "exposure_measured_ms": exposure_ms,
        "input": cast(InputKind, message["input"]),
        "scale": scale,
        "device_pixel_ratio": ratio if _is_number(ratio) and ratio > 0 else None,
        "flags": [flag for flag, raised in flags.items() if raised],
    }


def own_score(engine: Engine, token: str) -> OwnScore | None:
    """The participant's score; None before they finished, or for an unknown token. Simulated participants are compared
    with simulated ones, people with people."""
    with read_session(engine) as session:
        participant = _participant(session, token)
        if participant is None or participant.finished_at is None:
            return None
        study = session.get_one(Study, participant.study_id)
        right, answered = func.sum(case((Vote.correct, 1), else_=0)), func.count()
        rows = session.execute(
            select(Participant.id, right, answered)
            .join(Question, Question.participant_id == Participant.id)
            .join(Vote, Vote.question_id == Question.id)
            .where(
                Participant.study_id == participant.study_id,
                Participant.simulated == participant.simulated,
                Participant.finished_at.is_not(None),
                Question.phase == "main",
            )
            .group_by(Participant.id)
        ).all()
    scores = {row_id: (int(correct), int(count)) for row_id, correct, count in rows}
    correct, count = scores.pop(participant.id)
    others = [other / total for other, total in scores.values()]
    return OwnScore(correct, count, sum(others) / len(others) if others and not study.blinded else None, len(others))


# Where a participant stands


@dataclass(frozen=True)
class _Standing:
    stage: Stage
    practice_answered: int
    answered: int
    current: Question | None
    number: int  # of the current question within its phase, from 1


def _standing(session: Session, participant: Participant, study: Study) -> _Standing:
    votes = dict(
        session.execute(
            select(Question.phase, func.count())
            .join(Vote, Vote.question_id == Question.id)
            .where(Question.participant_id == participant.id)
            .group_by(Question.phase)
        ).all()
    )
    practice, answered = votes.get("practice", 0), votes.get("main", 0)
    stage = _stage(participant, study, practice, answered)
    current = None
    if stage in ("practice", "questions"):
        current = session.scalar(
            select(Question)
            .outerjoin(Vote, Vote.question_id == Question.id)
            .where(Question.participant_id == participant.id, Vote.id.is_(None))
            .order_by(Question.position)
            .limit(1)
        )
    return _Standing(stage, practice, answered, current, (practice if stage == "practice" else answered) + 1)


def _stage(participant: Participant, study: Study, practice: int, answered: int) -> Stage:
    if study.status == "closed" and participant.finished_at is None:
        return "closed"
    if participant.instructions_done_at is None:
        return "instructions"
    if participant.check is None:
        return "check"
    if practice < study.practice_count:
        return "practice"
    if answered < study.question_count:
        at_break = answered == study.question_count // 2 and study.question_count >= SHORTEST_BREAK_STUDY
        return "break" if at_break and participant.break_taken_at is None else "questions"
    return "comment" if participant.ended_at is None else "done"


def _move_on(engine: Engine, token: str, stage: Stage, **values: Any) -> None:
    """Give the participant these values if they stand at that stage."""
    with write_session(engine) as session:
        participant = _participant(session, token, lock=True)
        if participant is None:
            return
        study = session.get_one(Study, participant.study_id)
        if _standing(session, participant, study).stage == stage:
            for name, value in values.items():
                setattr(participant, name, value)


def _question_view(session: Session, study: Study, question: Question, standing: _Standing) -> QuestionView:
    columns = [Sample.png, SentinelPicture.png]
    ids = [question.sample_id, question.sentinel_picture_id]
    shown = [(column, row) for column, row in zip(columns, ids, strict=True) if row is not None]  # one at most
    real = (Image.truth_png, question.image_id)
    if not shown or study.protocol == "pair":
        shown = [real, *shown] if question.real_side != "right" else [*shown, real]
    pictures = [_decoded(session.scalars(select(column).where(column.class_.id == row)).one()) for column, row in shown]
    return QuestionView(
        public_id=question.public_id,
        phase=question.phase,
        number=standing.number,
        of=study.practice_count if question.phase == "practice" else study.question_count,
        exposure_ms=study.exposure_ms,
        pictures=[rgb for rgb, _, _ in pictures],
        width=pictures[0][2],
        height=pictures[0][1],
    )


@lru_cache(maxsize=2048)  # some 12 MB of 32 x 32 pixels; all participants of a study see the same few hundred
def _decoded(png: bytes) -> tuple[bytes, int, int]:
    """RGB bytes row by row, height, width."""
    rgb = pixels(png)
    height, width, _ = rgb.shape
    return rgb.tobytes(), height, width


def _participant(session: Session, token: str, *, lock: bool = False) -> Participant | None:
    query = select(Participant).where(Participant.token_hash == hash_token(token))
    return session.scalar(query.with_for_update() if lock else query)


def _is_id(public_id: object) -> TypeGuard[str]:
    return isinstance(public_id, str) and re.fullmatch(r"[A-Za-z0-9_-]{1,64}", public_id) is not None


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= 1e15  # nor NaN, infinity
