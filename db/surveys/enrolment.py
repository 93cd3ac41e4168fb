"""Participants come and go: consent, the link's ids, the schedule, withdrawal. Plain values in and out.

Every function runs in a short transaction of its own and has committed, durably, when it returns. The participant's
token is known here by its hash only.
"""

import hashlib
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine, delete, func, select
from sqlalchemy.orm import Session

from db.schema import Participant, Question, QuestionKind, Sample, SentinelPicture, Study, StudyArm, Vote
from db.store import write_session
from db.surveys.schedule import Plan, Slot, Tally, draw_schedule
from db.surveys.study import ID_PARAMETER, SurveyError, find_study, plan_of

# Whoever has done nothing for so long is not expected to answer what is still open. Who comes back all the same is
# counted again, answer by answer.
LEFT_AFTER = timedelta(hours=1)
# What people and programs try.
NO_ID = r"(?i)test|demo|example|preview|dummy|sample|undefined|null|-?0+$|-1$|(.)\1{5,}$"
CODE_LETTERS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base 32: no I, L, O, U to be misread


def enrol(
    engine: Engine,
    study: str,
    *,
    link: Mapping[str, str] | None = None,
    simulated: bool = False,
    seed: int | None = None,
) -> str:
    """Enrol a participant who consented, draw and store their schedule, and return their token, which is not stored.

    link: the parameters of their link, see `read_ids`. Who comes again with the same id and the same SESSION_ID
    goes on where they were, with a new token; the old one is forgotten. seed: of the schedule (drawn if None).

    Raises SurveyError: no such study, it is closed, or the id is a participant's with another SESSION_ID or none, or
    one's who has finished.
    """
    token = secrets.token_urlsafe(24)
    with write_session(engine) as session:
        row = find_study(session, study)
        session.refresh(row, with_for_update=True)  # schedules are drawn one after the other, each from the last tally
        if row.status != "open":
            raise SurveyError(f"The study {study!r} is closed: it takes no more participants.")
        ids = read_ids(link or {}, row.id_parameter)
        earlier = ids["external_id"] and session.scalar(
            select(Participant).where(Participant.study_id == row.id, Participant.external_id == ids["external_id"])
        )
        if earlier:
            # The id alone proves nothing: recruiting systems show it in links, files and messages.
            same_session = ids["external_session_id"] and ids["external_session_id"] == earlier.external_session_id
            if not same_session or earlier.finished_at is not None:
                raise SurveyError(
                    "Somebody takes part with the id of your link already. If it was you, please go on in the window "
                    "where you began, or by the address that it showed."
                )
            earlier.token_hash = hash_token(token)
            return token
        plan, arms, images = plan_of(session, row)
        tally = _count_asked(session, row, plan, arms, images, simulated=simulated)
        participant = Participant(
            study_id=row.id,
            token_hash=hash_token(token),
            completion_code=_draw_code(12),
            pseudonym=_draw_code(8),
            simulated=simulated,
            seed=secrets.randbits(63) if seed is None else seed,
            tally=asdict(tally),
            consent_version=row.consent_version,
            consented_at=datetime.now(UTC),
            **ids,
        )
        session.add(participant)
        session.flush()
        slots = draw_schedule(plan, tally, participant.seed)
        session.add_all(_make_questions(session, participant, plan, slots, arms, images))
    return token


def read_ids(link: Mapping[str, str], id_parameter: str) -> dict[str, str | None]:
    """What a link says of whom a recruiting system sent: their id (in id_parameter), SESSION_ID and STUDY_ID.

    What is no such id is None, as two people would be taken for one: a placeholder that was not replaced, "undefined",
    "test". Prolific's ids are 24 hexadecimal digits; others are taken if they have a digit, as such ids do.
    """

    def read(parameter: str, pattern: str) -> str | None:
        value = link.get(parameter, "")
        if not re.fullmatch(pattern, value) or value == parameter or re.match(NO_ID, value):
            return None
        return value

    # At least one digit, and nothing but what ids are made of.
    some_id = r"(?=[^0-9]*[0-9])[A-Za-z0-9_.-]{1,100}"
    return {
        "external_id": read(id_parameter, r"[0-9a-fA-F]{24}" if id_parameter == ID_PARAMETER else some_id),
        "external_session_id": read("SESSION_ID", some_id),
        "external_study_id": read("STUDY_ID", some_id),
    }


def withdraw(engine: Engine, token_or_completion_code: str) -> bool:
    """Delete the participant and all their answers; False if there is nobody of that token or completion code."""
    code = _normalise_code(token_or_completion_code)
    with write_session(engine) as session:
        deleted = session.execute(
            delete(Participant)
            .where(
                (Participant.token_hash == hash_token(token_or_completion_code.strip()))
                | (Participant.completion_code == code)
            )
            .returning(Participant.id)
        )
        return deleted.first() is not None


def hash_token(token: str) -> str:
    return hashlib.sha256(token.encode(errors="surrogatepass")).hexdigest()


def group_code(code: str) -> str:
    """A completion code in groups of four, as people type it."""
    return "-".join(code[start : start + 4] for start in range(0, len(code), 4))


def _draw_code(length: int) -> str:
    return "".join(secrets.choice(CODE_LETTERS) for _ in range(length))


def _normalise_code(text: str) -> str:
    """A code as stored, from what somebody typed: case, blanks and hyphens aside, O for 0, I and L for 1; "" for what
    is no code."""
    code = re.sub(r"[\s-]", "", text).upper().translate(str.maketrans("OIL", "011"))
    return code if re.fullmatch(f"[{CODE_LETTERS}]{{12}}", code) else ""


def _count_asked(
    session: Session, study: Study, plan: Plan, arms: Sequence[StudyArm], images: Sequence[int], *, simulated: bool
) -> Tally:
    """What people, or simulated participants, are asked in main questions: those answered, whoever left since, and
    those still open of whoever consented or answered within LEFT_AFTER and so may go on. Practice answers count as a
    sign of life alone."""
    since = datetime.now(UTC) - LEFT_AFTER
    here = select(Question.participant_id).join(Vote).where(Question.study_id == study.id, Vote.answered_at > since)
    columns = (Question.kind, Question.study_arm_id, Question.image_id, Question.real_side)
    rows = session.execute(
        select(*columns, func.count())
        .join(Participant, Participant.id == Question.participant_id)
        .outerjoin(Vote, Vote.question_id == Question.id)
        .where(Question.study_id == study.id, Question.phase == "main", Participant.simulated.is_(simulated))
        .where(Vote.id.is_not(None) | (Participant.consented_at > since) | Participant.id.in_(here))
        .group_by(*columns)
    )
    tally = Tally.empty(plan)
    places, image = {arm.id: place for place, arm in enumerate(arms)}, {row: place for place, row in enumerate(images)}
    for kind, arm, image_id, side, count in rows:
        thing = {"sentinel": plan.sentinel, "real": plan.real}[kind] if arm is None else places[arm]
        tally.add(Slot("main", thing, image[image_id], side), count)
    return tally


def _make_questions(
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
            )
        )
    return questions
