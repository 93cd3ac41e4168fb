"""The survey's side of the database: enrolment, the next question, votes, withdrawal. Plain values in and out.

Every function runs in a short transaction of its own and has committed, durably, when it returns: what a participant
sees next may rely on it. The participant's token is known here by its hash only.
"""

import hashlib
import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal, TypeGuard, cast, get_args

from sqlalchemy import Engine, case, delete, func, select, update
from sqlalchemy.orm import Session

from db.pictures import served
from db.schedule import Plan, Slot, Tally, draw
from db.schema import (
    Image,
    InputKind,
    Participant,
    Phase,
    Protocol,
    Question,
    QuestionKind,
    Resampling,
    Sample,
    SentinelPicture,
    Study,
    StudyArm,
    Vote,
)
from db.store import read_session, write_session
from db.studies import StudyView, SurveyError, find_study, is_name, newest_open, plan_of, view_of

__all__ = [
    "OwnScore",
    "Phase",
    "Progress",
    "Protocol",
    "QuestionView",
    "Resampling",
    "Stage",
    "StudyView",
    "SurveyError",
    "VoteResult",
    "enrol",
    "finish_instructions",
    "mark_shown",
    "open_study",
    "own_score",
    "progress",
    "record_check",
    "record_comment",
    "record_vote",
    "redraw",
    "take_break",
    "withdraw",
]

Stage = Literal["instructions", "check", "practice", "questions", "break", "comment", "done"]
VoteStatus = Literal["stored", "duplicate", "refused"]

CODE_LETTERS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base 32: no I, L, O, U to be misread
LONGEST_COMMENT = 2000  # characters
LONGEST_CHECK = 4000  # bytes of JSON
LONGEST_MS = 24 * 3600 * 1000.0
LARGEST_SCALE = 64
SHORTEST_BREAK_STUDY = 10  # main questions: a shorter study has no break


@dataclass(frozen=True)
class QuestionView:
    """The question to show now. Nothing in it tells which picture is real.

    number: from 1 to `of`, within the phase. exposure_ms: None shows until answered. pictures: PNG bytes, [left,
    right] for a pair, [one] for a single; all of a question have the same size in pixels and the same length in bytes.
    """

    public_id: str
    phase: Phase
    number: int
    of: int
    exposure_ms: int | None
    pictures: list[bytes]
    resampling: Resampling


@dataclass(frozen=True)
class Progress:
    """Where a participant stands. answered and total count main questions; `next` is set at the stages practice and
    questions only, completion_code at done only."""

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


def enrol(
    engine: Engine,
    study: str,
    *,
    consent_version: str,
    prolific: Mapping[str, str] | None = None,
    simulated: bool = False,
    seed: int | None = None,
) -> str:
    """Enrol a participant who consented, draw and store their schedule, and return their token, which is not stored.

    prolific: PROLIFIC_PID, STUDY_ID and SESSION_ID of the link; other keys, and what cannot be such an id, are ignored.
    Who comes again with the same PROLIFIC_PID goes on where they were, with a new token; the old one is forgotten.
    seed: of the schedule (drawn if None). Raises SurveyError: no such study, it is closed, or consent_version is not
    the study's.
    """
    token = secrets.token_urlsafe(24)
    ids = _prolific_ids(prolific or {})
    with write_session(engine) as session:
        row = find_study(session, study)
        session.refresh(row, with_for_update=True)  # schedules are drawn one after the other, each from the last tally
        known = ids["prolific_pid"] and session.scalar(
            select(Participant).where(Participant.study_id == row.id, Participant.prolific_pid == ids["prolific_pid"])
        )
        if known:
            known.token_hash = _hash(token)
            return token
        if row.status != "open":
            raise SurveyError(f"The study {study!r} is closed: it takes no more participants.")
        if consent_version != row.consent_version:
            raise SurveyError(
                f"The study {study!r} asks for consent to its text in version {row.consent_version}, not "
                f"{consent_version}; load the page again."
            )
        plan, arms, images = plan_of(session, row)
        tally = _tally(session, row, plan, arms, images, simulated=simulated)
        participant = Participant(
            study_id=row.id,
            token_hash=_hash(token),
            completion_code=_code(12),
            pseudonym=_code(8),
            simulated=simulated,
            seed=secrets.randbits(63) if seed is None else seed,
            tally=asdict(tally),
            consent_version=consent_version,
            consented_at=datetime.now(UTC),
            **ids,
        )
        session.add(participant)
        session.flush()
        slots = draw(plan, tally, participant.seed)
        session.add_all(_questions(session, participant, plan, slots, arms, images))
    return token


def redraw(session: Session, participant: Participant) -> list[Slot]:
    """Draw a participant's schedule again from what is stored of it: the study's plan, the tally and the seed."""
    plan, _, _ = plan_of(session, session.get_one(Study, participant.study_id))
    return draw(plan, Tally(**participant.tally), participant.seed)


def progress(engine: Engine, token: str) -> Progress | None:
    """Where the participant stands and what to show now; None if the token is unknown, or its owner withdrew."""
    with read_session(engine) as session:
        participant = _participant(session, token)
        if participant is None:
            return None
        study = session.get_one(Study, participant.study_id)
        standing = _standing(session, participant, study)
        return Progress(
            study=view_of(study),
            stage=standing.stage,
            answered=standing.answered,
            total=study.question_count,
            practice_answered=standing.practice_answered,
            practice_total=study.practice_count,
            next=None if standing.current is None else _question_view(session, study, standing.current, standing),
            completion_code=_shown_code(participant.completion_code) if standing.stage == "done" else None,
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


def mark_shown(engine: Engine, token: str, public_id: str) -> None:
    """Store when the participant's question was first shown; later calls, and other questions, change nothing."""
    if not _is_id(public_id):
        return
    with write_session(engine) as session:
        participant = _participant(session, token)
        if participant is not None:
            session.execute(
                update(Question)
                .where(
                    Question.participant_id == participant.id,
                    Question.public_id == public_id,
                    Question.first_shown_at.is_(None),
                )
                .values(first_shown_at=datetime.now(UTC))
            )


def record_vote(
    engine: Engine,
    token: str,
    public_id: object,
    answer: object,
    *,
    response_time_ms: object,
    exposure_measured_ms: object,
    input: object,
    scale: object,
) -> VoteResult:
    """Store the answer to the participant's current question: "left" or "right" is the real one of a pair, or a
    single is "real" or "fake".

    response_time_ms: from onset, a number from 0 to a day. exposure_measured_ms: the same, or None where the pictures
    stayed. input: "key", "click" or "tap". scale: screen pixels a picture's pixel, a whole number from 1 to 64. All of
    it comes from a browser: whatever it is, this does not raise.
    """
    if not _is_id(public_id):
        return VoteResult("refused", "There is no such question.")
    if not _is_duration(response_time_ms):
        return VoteResult("refused", "The response time is no sensible number of milliseconds.")
    if exposure_measured_ms is not None and not _is_duration(exposure_measured_ms):
        return VoteResult("refused", "The measured exposure is no sensible number of milliseconds.")
    if input not in get_args(InputKind):
        return VoteResult("refused", f"An answer comes by {', '.join(get_args(InputKind))}.")
    if not isinstance(scale, int) or isinstance(scale, bool) or not 1 <= scale <= LARGEST_SCALE:
        return VoteResult("refused", f"The scale is no whole number from 1 to {LARGEST_SCALE}.")
    with write_session(engine) as session:
        participant = _participant(session, token, lock=True)
        if participant is None:
            return VoteResult("refused", "This participation is unknown, or was withdrawn.")
        question = session.scalar(
            select(Question).where(Question.participant_id == participant.id, Question.public_id == public_id)
        )
        if question is None:
            return VoteResult("refused", "There is no such question.")
        practice = question.phase == "practice"
        known = session.scalar(select(Vote.correct).where(Vote.question_id == question.id))
        if known is not None:
            return VoteResult("duplicate", "This question was answered before.", known if practice else None)
        study = session.get_one(Study, participant.study_id)
        if answer not in (("left", "right") if study.protocol == "pair" else ("real", "fake")):
            return VoteResult("refused", "This is no answer to the question.")
        standing = _standing(session, participant, study)
        if standing.current is None or standing.current.id != question.id:
            return VoteResult("refused", "Another question comes first.")
        correct = answer == (question.real_side or ("real" if question.kind == "real" else "fake"))
        now = datetime.now(UTC)
        session.add(
            Vote(
                question_id=question.id,
                answered_at=now,
                answer=answer,
                correct=correct,
                response_time_ms=response_time_ms,
                exposure_measured_ms=exposure_measured_ms,
                input=cast(InputKind, input),
                scale=scale,
            )
        )
        if not practice and standing.answered + 1 == study.question_count:
            participant.finished_at = now
    return VoteResult("stored", correct=correct if practice else None)


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


def withdraw(engine: Engine, token_or_completion_code: str) -> bool:
    """Delete the participant and all their answers; False if there is nobody of that token or completion code."""
    code = _typed_code(token_or_completion_code)
    with write_session(engine) as session:
        deleted = session.execute(
            delete(Participant)
            .where(
                (Participant.token_hash == _hash(token_or_completion_code.strip()))
                | (Participant.completion_code == code)
            )
            .returning(Participant.id)
        )
        return deleted.first() is not None


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
    def png(column: Any, row_id: int) -> bytes:
        return served(session.scalars(select(column).where(column.class_.id == row_id)).one())

    if question.sample_id is not None:
        fake = png(Sample.png, question.sample_id)
    elif question.sentinel_picture_id is not None:
        fake = png(SentinelPicture.png, question.sentinel_picture_id)
    else:
        fake = None
    if study.protocol == "pair" and fake is not None:
        real = png(Image.truth_png, question.image_id)
        pictures = [real, fake] if question.real_side == "left" else [fake, real]
    else:
        pictures = [png(Image.truth_png, question.image_id) if fake is None else fake]
    return QuestionView(
        public_id=question.public_id,
        phase=question.phase,
        number=standing.number,
        of=study.practice_count if question.phase == "practice" else study.question_count,
        exposure_ms=question.exposure_ms,
        pictures=pictures,
        resampling=study.resampling,
    )


# Enrolment


def _tally(
    session: Session, study: Study, plan: Plan, arms: Sequence[StudyArm], images: Sequence[int], *, simulated: bool
) -> Tally:
    """What the main questions asked so far, of people or of simulated participants."""
    tally = Tally.empty(plan)
    thing, image = {arm.id: place for place, arm in enumerate(arms)}, {row: place for place, row in enumerate(images)}
    columns = (Question.kind, Question.study_arm_id, Question.image_id, Question.real_side, Question.exposure_ms)
    rows = session.execute(
        select(*columns, func.count())
        .join(Participant, Participant.id == Question.participant_id)
        .where(Question.study_id == study.id, Question.phase == "main", Participant.simulated.is_(simulated))
        .group_by(*columns)
    )
    for kind, arm, image_id, side, exposure, count in rows:
        asked = {"sentinel": plan.sentinel, "real": plan.real}[kind] if arm is None else thing[arm]
        tally.add(plan, Slot("main", asked, image[image_id], side, exposure), count)
    return tally


def _questions(
    session: Session,
    participant: Participant,
    plan: Plan,
    slots: Sequence[Slot],
    arms: Sequence[StudyArm],
    images: Sequence[int],
) -> list[Question]:
    samples = {
        (trial, image): row
        for row, trial, image in session.execute(
            select(Sample.id, Sample.trial_id, Sample.image_id).where(
                Sample.trial_id.in_([arm.trial_id for arm in arms]), Sample.image_id.in_(images)
            )
        )
    }
    sentinels = {
        image: row
        for row, image in session.execute(
            select(SentinelPicture.id, SentinelPicture.image_id).where(SentinelPicture.study_id == participant.study_id)
        )
    }
    questions = []
    for position, slot in enumerate(slots):
        arm = arms[slot.thing] if slot.thing < plan.arms else None
        kind: QuestionKind = "arm" if arm is not None else "sentinel" if slot.thing == plan.sentinel else "real"
        image = images[slot.image]
        questions.append(
            Question(
                study_id=participant.study_id,
                participant_id=participant.id,
                public_id=secrets.token_urlsafe(12),
                position=position,
                phase=slot.phase,
                kind=kind,
                study_arm_id=None if arm is None else arm.id,
                image_id=image,
                sample_id=None if arm is None else samples[arm.trial_id, image],
                sentinel_picture_id=sentinels[image] if kind == "sentinel" else None,
                real_side=slot.real_side,
                exposure_ms=slot.exposure_ms,
            )
        )
    return questions


def _prolific_ids(given: Mapping[str, str]) -> dict[str, str | None]:
    def kept(key: str) -> str | None:
        value = given.get(key)
        return value if isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_-]{1,100}", value) else None

    return {
        "prolific_pid": kept("PROLIFIC_PID"),
        "prolific_study_id": kept("STUDY_ID"),
        "prolific_session_id": kept("SESSION_ID"),
    }


# Tokens, codes and what a browser may send


def _participant(session: Session, token: str, *, lock: bool = False) -> Participant | None:
    query = select(Participant).where(Participant.token_hash == _hash(token))
    return session.scalar(query.with_for_update() if lock else query)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode(errors="surrogatepass")).hexdigest()


def _code(length: int) -> str:
    return "".join(secrets.choice(CODE_LETTERS) for _ in range(length))


def _shown_code(code: str) -> str:
    """In groups of four, as people type it."""
    return "-".join(code[start : start + 4] for start in range(0, len(code), 4))


def _typed_code(text: str) -> str:
    """A code as stored, from what somebody typed: case, blanks and hyphens aside, O for 0, I and L for 1; "" for what
    is no code."""
    code = re.sub(r"[\s-]", "", text).upper().translate(str.maketrans("OIL", "011"))
    return code if re.fullmatch(f"[{CODE_LETTERS}]{{12}}", code) else ""


def _is_id(public_id: object) -> TypeGuard[str]:
    return isinstance(public_id, str) and re.fullmatch(r"[A-Za-z0-9_-]{1,64}", public_id) is not None


def _is_duration(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= LONGEST_MS
