"""What the participants of a study answered, for analysis: every vote as a row of arrays, and its summary by contender.

Whose answers count, and whether they may be seen at all, is decided here for everything that shows them.
"""

from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Literal

import numpy as np
from sqlalchemy import Select, case, func, select
from sqlalchemy.orm import Session

from db.results import BestTrial, Share, experiment_and_dataset, measured_trials, wilson
from db.schema import (
    Arm,
    ArmKind,
    Image,
    Participant,
    Protocol,
    Question,
    QuestionKind,
    Study,
    StudyArm,
    StudyStatus,
    Vote,
)

Inclusion = Literal["all", "attentive"]

KINDS: tuple[QuestionKind, ...] = ("arm", "sentinel", "real")


class StudyBlinded(Exception):  # noqa: N818 - a state of the study, not a mistake
    """The study hides its outcomes for now; the message is one sentence that says until when."""


@dataclass(frozen=True)
class ExclusionRule:
    """Whom an analysis of the attentive counts, fixed before the first answer.

    sentinels_wrong_at_most: of the sentinels answered (None: any number). finished: only who answered every question.
    hidden_at_most: main questions answered while the page was hidden (None: any number).
    """

    sentinels_wrong_at_most: int | None
    finished: bool = True
    hidden_at_most: int | None = None

    def counts(self, *, sentinels_wrong: int, finished: bool, hidden: int = 0) -> bool:
        """Whether such a participant counts as attentive."""
        enough = self.sentinels_wrong_at_most is None or sentinels_wrong <= self.sentinels_wrong_at_most
        seen = self.hidden_at_most is None or hidden <= self.hidden_at_most
        return enough and seen and (finished or not self.finished)

    def __str__(self) -> str:
        wrong = self.sentinels_wrong_at_most
        parts = ["answered every question"] if self.finished else []
        if wrong is not None:
            parts.append("no sentinel wrong" if wrong == 0 else f"at most {wrong} sentinel{'s' * (wrong > 1)} wrong")
        if self.hidden_at_most is not None:
            parts.append(f"the page hidden in at most {self.hidden_at_most} of the main questions")
        return ", ".join(parts) or "everybody"


@dataclass(frozen=True)
class Contender:
    """What a study asks about: an arm, and the trial that stands for it, as measured."""

    arm_id: int
    arm: str
    kind: ArmKind
    rebalancing: float | None
    trial: BestTrial


@dataclass(frozen=True, eq=False)
class Votes:
    """Votes as columns of equal length, in the order of participants and of their questions.

    participant: int, the row in Answers.attentive. contender: int, the place in Answers.contenders, -1 where the
    question is about none. kind: int, the place in KINDS. main: bool, no practice. position: int, from 1, in the
    participant's schedule. image: int, the image's id. class_index: int, its class. photograph_left: bool, where the
    photograph stood in a pair. correct: bool. picked_as_real: bool, whether the picture that the question is about was
    taken for the photograph. response_time_ms: float.
    """

    participant: np.ndarray
    contender: np.ndarray
    kind: np.ndarray
    main: np.ndarray
    position: np.ndarray
    image: np.ndarray
    class_index: np.ndarray
    photograph_left: np.ndarray
    correct: np.ndarray
    response_time_ms: np.ndarray

    @property
    def picked_as_real(self) -> np.ndarray:
        return np.where(self.kind == KINDS.index("real"), self.correct, ~self.correct)

    def where(self, chosen: np.ndarray) -> "Votes":
        """The votes for which the bool array holds."""
        return Votes(*(getattr(self, column.name)[chosen] for column in fields(self)))

    def of_kind(self, kind: QuestionKind) -> "Votes":
        """The votes on main questions of this kind."""
        return self.where(self.main & (self.kind == KINDS.index(kind)))


@dataclass(frozen=True, eq=False)
class Answers:
    """The votes of one study, of people or of simulated participants, never of both.

    arms: the experiment's, in its order, without baselines; contenders: those that the study asks about. attentive:
    bool (participants,), who counts by the study's exclusion rule; participants are those who answered a main question.
    left_out: how many others there are, once only some are kept.
    """

    study: str
    status: StudyStatus
    experiment: str
    dataset: str
    protocol: Protocol
    exclusion_rule: ExclusionRule
    simulated: bool
    planned_participants: int
    arms: list[str]
    contenders: list[Contender]
    attentive: np.ndarray
    votes: Votes
    left_out: int = 0

    @property
    def participants(self) -> int:
        return len(self.attentive)

    def of(self, inclusion: Inclusion) -> "Answers":
        """The answers of all, or of the attentive alone."""
        if inclusion == "all":
            return self
        row = np.cumsum(self.attentive) - 1
        kept = self.votes.where(self.attentive[self.votes.participant])
        return replace(
            self,
            attentive=self.attentive[self.attentive],
            votes=replace(kept, participant=row[kept.participant]),
            left_out=int((~self.attentive).sum()),
        )

    def picked_and_asked(self) -> tuple[np.ndarray, np.ndarray]:
        """How often each participant picked each contender's picture as real, and was asked about one: int
        (participants, contenders) each, of main questions."""
        votes = self.votes.of_kind("arm")
        shape = (self.participants, len(self.contenders))
        cell = votes.participant * shape[1] + votes.contender
        asked = np.bincount(cell, minlength=shape[0] * shape[1])
        picked = np.bincount(cell[votes.picked_as_real], minlength=shape[0] * shape[1])
        return picked.reshape(shape), asked.reshape(shape)


@dataclass(frozen=True)
class ArmVotes(Contender):
    """A contender, and how often its pictures were picked as real."""

    picked_as_real: Share


@dataclass(frozen=True)
class SurveyResults:
    """What the counted participants of one study answered to its main questions, one row a contender.

    inclusion: all who answered, or the attentive by the study's exclusion_rule. simulated: of simulated participants,
    never of both. participants: how many were counted; left_out: how many others answered. photographs: how often the
    photographs themselves were picked as real, in protocol single. sentinels: how often they were found out.
    """

    study: str
    status: StudyStatus
    experiment: str
    dataset: str
    protocol: Protocol
    inclusion: Inclusion
    exclusion_rule: ExclusionRule
    simulated: bool
    participants: int
    left_out: int
    planned_participants: int
    rows: list[ArmVotes]
    photographs: Share | None
    sentinels: Share


def check_outcomes_may_be_seen(session: Session, study: Study) -> None:
    """Raise StudyBlinded if the study is blinded, open, and fewer people than planned have finished it."""
    if not study.blinded or study.status == "closed":
        return
    finished = session.scalar(
        select(func.count()).where(
            Participant.study_id == study.id, Participant.simulated.is_(False), Participant.finished_at.is_not(None)
        )
    )
    if (finished or 0) < study.planned_participants:
        raise StudyBlinded(
            f"The study {study.name!r} is blinded: its outcomes stay hidden until all {study.planned_participants} "
            f"planned participants have finished ({finished} have so far), or it is closed."
        )


def load_answers(session: Session, study: Study, *, simulated: bool = False) -> Answers:
    """All votes of a study, of people or else of simulated participants. Raises StudyBlinded, for people's."""
    if not simulated:
        check_outcomes_may_be_seen(session, study)
    rule = ExclusionRule(**study.exclusion_rule)
    study_arms = session.execute(
        select(StudyArm, Arm)
        .join(Arm, Arm.id == StudyArm.arm_id)
        .where(StudyArm.study_id == study.id)
        .order_by(StudyArm.position)
    ).all()
    trials = measured_trials(session, [study_arm.trial_id for study_arm, _ in study_arms])
    experiment, dataset = experiment_and_dataset(session, study)

    arms = session.scalars(
        select(Arm.name)
        .where(Arm.experiment_id == study.experiment_id, Arm.kind != "baseline")
        .order_by(Arm.position, Arm.id)
    )
    rows = session.execute(votes_of(study.id, simulated=simulated)).all()
    columns = [np.array(column) for column in zip(*rows, strict=True)] or [np.zeros(0, dtype=int)] * 11
    person, finished, arm, kind, main, position, image, class_index, left, correct, response_time_ms = columns
    asked = np.unique(person[main.astype(bool)])  # who never came to a main question is no participant of an analysis
    place = {study_arm.id: column for column, (study_arm, _) in enumerate(study_arms)}
    votes = Votes(
        participant=np.searchsorted(asked, person),
        contender=np.array([place.get(study_arm, -1) for study_arm in arm.tolist()], dtype=int),
        kind=kind.astype(int),
        main=main.astype(bool),
        position=position.astype(int),
        image=image.astype(int),
        class_index=class_index.astype(int),
        photograph_left=left.astype(bool),
        correct=correct.astype(bool),
        response_time_ms=response_time_ms.astype(float),
    ).where(np.isin(person, asked))

    sentinels = votes.of_kind("sentinel")
    wrong = np.bincount(sentinels.participant[~sentinels.correct], minlength=len(asked))
    has_finished = dict(zip(person.tolist(), finished.tolist(), strict=True))
    attentive = [
        rule.counts(sentinels_wrong=int(wrong[row]), finished=bool(has_finished[participant]))
        for row, participant in enumerate(asked.tolist())
    ]
    return Answers(
        study=study.name,
        status=study.status,
        experiment=experiment,
        dataset=dataset,
        protocol=study.protocol,
        exclusion_rule=rule,
        simulated=simulated,
        planned_participants=study.planned_participants,
        arms=list(arms),
        contenders=[
            Contender(arm.id, arm.name, arm.kind, arm.rebalancing, trials[study_arm.trial_id])
            for study_arm, arm in study_arms
        ],
        attentive=np.array(attentive, dtype=bool),
        votes=votes,
    )


def answers_version(session: Session, study: Study, *, simulated: bool) -> tuple[object, ...]:
    """Changes whenever load_answers would give something else.

    Whoever has finished votes no more, so only the votes of those under way are counted: milliseconds, however many
    have finished, in whatever study. Moments tell newcomers from those who withdrew meanwhile.
    """
    people = (Participant.study_id == study.id, Participant.simulated.is_(simulated))
    moment = func.max(Participant.finished_at)
    counts = session.execute(select(func.count(), func.count(Participant.finished_at), moment).where(*people)).one()
    under_way = session.execute(votes_under_way(study.id, simulated=simulated)).one()
    return (*counts, *under_way, study.status)


def votes_under_way(study_id: int, *, simulated: bool) -> Select[int, datetime]:
    """The query of how many votes there are of those who have not finished, and when the last was given."""
    return (
        select(func.count(), func.max(Vote.answered_at))
        .select_from(Participant)
        .join(Question, Question.participant_id == Participant.id)
        .join(Vote, Vote.question_id == Question.id)
        .where(
            Participant.study_id == study_id,
            Participant.simulated.is_(simulated),
            Participant.finished_at.is_(None),
        )
    )


def votes_of(study_id: int, *, simulated: bool) -> Select[tuple[int, ...]]:
    """The query of all votes of a study: numbers only, as there may be very many."""
    kind = case({name: place for place, name in enumerate(KINDS)}, value=Question.kind)
    return (
        select(
            Participant.id,
            case((Participant.finished_at.is_not(None), 1), else_=0),
            func.coalesce(Question.study_arm_id, -1),
            kind,
            case((Question.phase == "main", 1), else_=0),
            Question.position + 1,
            Question.image_id,
            Image.class_index,
            case((Question.real_side == "left", 1), else_=0),
            case((Vote.correct, 1), else_=0),
            Vote.response_time_ms,
        )
        .join(Question, Question.participant_id == Participant.id)
        .join(Vote, Vote.question_id == Question.id)
        .join(Image, Image.id == Question.image_id)
        .where(Participant.study_id == study_id, Participant.simulated.is_(simulated))
        .order_by(Participant.id, Question.position)
    )


def summarise(answers: Answers, inclusion: Inclusion) -> SurveyResults:
    """Answers to main questions, counted."""
    kept = answers.of(inclusion)
    picked, asked = (counts.sum(0).tolist() for counts in kept.picked_and_asked())
    sentinels, photographs = kept.votes.of_kind("sentinel"), kept.votes.of_kind("real")
    return SurveyResults(
        study=kept.study,
        status=kept.status,
        experiment=kept.experiment,
        dataset=kept.dataset,
        protocol=kept.protocol,
        inclusion=inclusion,
        exclusion_rule=kept.exclusion_rule,
        simulated=kept.simulated,
        participants=kept.participants,
        left_out=kept.left_out,
        planned_participants=kept.planned_participants,
        rows=[
            ArmVotes(**vars(contender), picked_as_real=wilson(picked[column], asked[column]))
            for column, contender in enumerate(kept.contenders)
        ],
        photographs=wilson(int(photographs.correct.sum()), len(photographs.correct))
        if kept.protocol == "single"
        else None,
        sentinels=wilson(int(sentinels.correct.sum()), len(sentinels.correct)),
    )
