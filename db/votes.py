"""The survey's side of the database: enrolment, the next question, votes, withdrawal. Plain values in and out.

Every function runs in a short transaction of its own and has committed, durably, when it returns: what a participant
sees next may rely on it. The participant's token is known here by its hash only.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Engine

Protocol = Literal["pair", "single"]
Resampling = Literal["nearest", "lanczos"]
Phase = Literal["practice", "main"]
Stage = Literal["instructions", "check", "practice", "questions", "break", "comment", "done"]
VoteStatus = Literal["stored", "duplicate", "refused"]


class SurveyError(Exception):
    """The survey cannot go on as asked; the message is one sentence that a page or a command may show."""


@dataclass(frozen=True)
class StudyView:
    """What a participant's page may know of a study. exposures_ms: None among them shows until answered."""

    name: str
    status: Literal["open", "closed"]
    protocol: Protocol
    question_count: int
    practice_count: int
    exposures_ms: tuple[int | None, ...]
    resampling: Resampling
    consent_version: str
    completion_url: str | None


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
    who finished the study (None if there are none)."""

    correct: int
    answered: int
    others_mean: float | None
    others_count: int


def open_study(engine: Engine, name: str | None = None) -> StudyView | None:
    """The study `name`, open or closed (see its status), or the newest open one; None if there is none."""
    raise NotImplementedError


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

    prolific: PROLIFIC_PID, STUDY_ID and SESSION_ID of the link; other keys are ignored. Who comes again with the same
    PROLIFIC_PID goes on where they were, with a new token; the old one is forgotten. seed: of the schedule (drawn if
    None). Raises SurveyError: no such study, it is closed, or consent_version is not the study's.
    """
    raise NotImplementedError


def progress(engine: Engine, token: str) -> Progress | None:
    """Where the participant stands and what to show now; None if the token is unknown, or its owner withdrew."""
    raise NotImplementedError


def finish_instructions(engine: Engine, token: str) -> None:
    """Move on from the instructions. This and the next three do nothing for an unknown token or at another stage."""
    raise NotImplementedError


def record_check(engine: Engine, token: str, answers: Mapping[str, object], flags: Sequence[str]) -> None:
    """Store the answers and flags of the display and colour-vision check (JSON values, small), and move on."""
    raise NotImplementedError


def take_break(engine: Engine, token: str) -> None:
    """Move on from the break."""
    raise NotImplementedError


def record_comment(engine: Engine, token: str, text: str | None) -> None:
    """Store the comment, if any (cut to 2000 characters), and move on to the end."""
    raise NotImplementedError


def mark_shown(engine: Engine, token: str, public_id: str) -> None:
    """Store when the participant's question was first shown; later calls, and other questions, change nothing."""
    raise NotImplementedError


def record_vote(
    engine: Engine,
    token: str,
    public_id: str,
    answer: str,
    *,
    response_time_ms: float,
    exposure_measured_ms: float | None,
    input: str,
    scale: int,
) -> VoteResult:
    """Store the answer to the participant's current question: "left" or "right" is the real one of a pair, or a
    single is "real" or "fake".

    response_time_ms: from onset. exposure_measured_ms: None where the pictures stayed. input: "key", "click" or
    "tap". scale: screen pixels a picture's pixel. Never raises for what a browser may send, of whatever type.
    """
    raise NotImplementedError


def own_score(engine: Engine, token: str) -> OwnScore | None:
    """The participant's score; None before they finished, or for an unknown token."""
    raise NotImplementedError


def withdraw(engine: Engine, token_or_completion_code: str) -> bool:
    """Delete the participant and all their answers; False if there is nobody of that token or completion code."""
    raise NotImplementedError
