"""What the participants of a study answered, for analysis and for export: a table with one row per vote.

Whose answers count, and whether they may be seen at all, is decided here for everything that shows them. Statistics
makes intervals of the counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from db.errors import UserError
from db.schema import (
    Image,
    Participant,
    Protocol,
    Question,
    QuestionKind,
    Study,
    StudyArm,
    StudyStatus,
    Trial,
    Vote,
    values_for,
)
from db.sweeps.trials import contenders

if TYPE_CHECKING:  # it takes a second to import, for which a participant's server need not wait
    import pandas as pd

Inclusion = Literal["all", "attentive"]


class StudyBlinded(UserError):  # noqa: N818 - a state of the study, not a mistake
    """The study hides its outcomes for now; the message is one sentence that says until when."""


@dataclass(frozen=True)
class ExclusionRule:
    """Whom an analysis of the attentive counts, fixed before the first answer; None: any number."""

    sentinels_wrong_at_most: int | None  # of those answered
    finished: bool = True  # only who answered every question
    hidden_at_most: int | None = None  # answers to main questions whose pictures were shown out of sight

    def counts(self, *, sentinels_wrong: int, finished: bool, hidden: int = 0) -> bool:
        """Whether such a participant counts as attentive."""
        enough = self.sentinels_wrong_at_most is None or sentinels_wrong <= self.sentinels_wrong_at_most
        seen = self.hidden_at_most is None or hidden <= self.hidden_at_most
        return enough and seen and (finished or not self.finished)

    def __str__(self) -> str:
        parts = ["answered every question"] if self.finished else []
        for most, thing, what in (
            (self.sentinels_wrong_at_most, "sentinel", "wrong"),
            (self.hidden_at_most, "answer", "with the page hidden"),
        ):
            if most is not None:
                parts.append(f"no {thing} {what}" if most == 0 else f"at most {most} {thing}{'s' * (most > 1)} {what}")
        return ", ".join(parts) or "everybody"


@dataclass(frozen=True)
class Count:
    """So many of so many."""

    count: int
    total: int


@dataclass(frozen=True, eq=False)
class Answers:
    """The votes of one study, of people or of simulated participants, never of both.

    people: who answered a main question, in the order of their ids, which are the index: pseudonym, check_flags (texts,
    of the display check), finished, attentive (who counts by the exclusion rule).

    votes: their votes, in the order of participants and of their questions, with the columns participant (an id),
    phase, position (from 1), kind, contender (its place in `contenders`, -1 where the question is about none), image
    (an id), image_index (in its split), class_index, real_side (None in protocol single), answer, correct,
    picked_as_real (whether the picture that the question is about was taken for the photograph), response_time_ms,
    exposure_measured_ms, input, scale, device_pixel_ratio, flags (texts), hidden (one of the flags), answered_at.
    """

    study: str
    status: StudyStatus
    experiment: str
    dataset: str
    protocol: Protocol
    exposure_ms: int | None  # None: until answered
    exclusion_rule: ExclusionRule
    simulated: bool
    planned_participants: int
    arms: list[str]  # the experiment's, in its order, without baselines
    contenders: list[Trial]
    people: "pd.DataFrame"
    votes: "pd.DataFrame"
    left_out: int = 0  # how many others answered, once only some are kept

    @property
    def participants(self) -> int:
        return len(self.people)

    def of(self, inclusion: Inclusion) -> "Answers":
        """The answers of all, or of the attentive alone."""
        if inclusion == "all":
            return self
        attentive = self.people[self.people["attentive"]]
        votes = self.votes[self.votes["participant"].isin(attentive.index)]
        return replace(self, people=attentive, votes=votes, left_out=len(self.people) - len(attentive))

    def of_kind(self, kind: QuestionKind) -> "pd.DataFrame":
        """The votes on main questions of this kind."""
        return self.votes[(self.votes["phase"] == "main") & (self.votes["kind"] == kind)]

    def picked_and_asked(
        self, by: str = "participant", values: Sequence[int] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """How often a picture of each contender was picked as real, and asked about, for each of the values that the
        column `by` may have, by default for each participant: int (values, contenders) each, of main questions."""
        import pandas as pd

        votes = self.of_kind("arm")
        rows = self.people.index if values is None else pd.Index(values)
        shape = (len(rows), len(self.contenders))
        row = rows.get_indexer(pd.Index(votes[by]))
        cell = row * shape[1] + votes["contender"].to_numpy()
        asked = np.bincount(cell[row >= 0], minlength=shape[0] * shape[1])
        picked = np.bincount(cell[(row >= 0) & votes["picked_as_real"]], minlength=shape[0] * shape[1])
        return picked.reshape(shape), asked.reshape(shape)

    def picked_as_real(self) -> list[Count]:
        """Of each contender's pictures."""
        picked, asked = self.picked_and_asked()
        return [Count(*counts) for counts in zip(picked.sum(0).tolist(), asked.sum(0).tolist(), strict=True)]

    def right(self, kind: QuestionKind) -> Count:
        """How often main questions of this kind were answered right: sentinels seen through, photographs believed."""
        votes = self.of_kind(kind)
        return Count(int(votes["correct"].sum()), len(votes))

    @property
    def mark(self) -> float | None:
        """The share of a picture that nobody can tell from a photograph: one half where it stands beside one, the
        photographs' own where pictures come one by one; None before there is any."""
        if self.protocol == "pair":
            return 0.5
        photographs = self.right("real")
        return photographs.count / photographs.total if photographs.total else None


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
    people, votes = read_votes(session, study.id, rule, simulated=simulated)
    asked = set(votes.loc[votes["phase"] == "main", "participant"])
    people = people[people.index.isin(asked)]
    values = values_for(Answers, study)
    values |= {"study": study.name, "experiment": study.experiment.name, "exclusion_rule": rule}
    return Answers(
        dataset=study.experiment.dataset.name,
        simulated=simulated,
        arms=[arm.name for arm in study.experiment.arms if not arm.baseline],
        contenders=contenders(session, study),
        people=people,
        votes=votes[votes["participant"].isin(asked)],
        **values,
    )


def load_earlier_answers(session: Session, answers: Answers, inclusion: Inclusion = "all") -> list[Answers]:
    """Of the studies of the same experiment before this one that asked in the same way, the first first, as far as
    there are any that may be seen. answers: of those who are counted."""
    study = session.scalars(select(Study).where(Study.name == answers.study)).one()
    earlier = select(Study).where(
        Study.experiment_id == study.experiment_id,
        Study.id < study.id,
        Study.protocol == study.protocol,
        Study.exposure_ms.is_not_distinct_from(study.exposure_ms),
    )
    found = []
    for one in session.scalars(earlier.order_by(Study.id)):
        try:
            found.append(load_answers(session, one, simulated=answers.simulated).of(inclusion))
        except StudyBlinded:
            continue
    return [answers for answers in found if answers.participants]


def read_votes(
    session: Session, study_id: int, rule: ExclusionRule, *, simulated: bool
) -> "tuple[pd.DataFrame, pd.DataFrame]":
    """Everybody who takes or took part, and all their votes, as in Answers; practice alone counts here, too."""
    import pandas as pd

    found = session.execute(votes_of(study_id, simulated=simulated))
    votes = pd.DataFrame(found.all(), columns=list(found.keys()))
    votes["position"] += 1
    votes["contender"] = votes["contender"].fillna(-1).astype(int)
    votes["correct"] = votes["correct"].astype(bool)
    # Of the picture that the question is about: in a pair, whether it was preferred to the photograph.
    votes["picked_as_real"] = votes["correct"] == (votes["kind"] == "real")
    votes["hidden"] = pd.Series(["hidden" in flags for flags in votes["flags"]], index=votes.index, dtype=bool)

    main = votes[votes["phase"] == "main"]
    wrong = main[(main["kind"] == "sentinel") & ~main["correct"]].groupby("participant").size()
    hidden = main[main["hidden"]].groupby("participant").size()
    persons = session.execute(
        select(Participant.id, Participant.pseudonym, Participant.check, Participant.finished_at)
        .where(Participant.study_id == study_id, Participant.simulated.is_(simulated))
        .order_by(Participant.id)
    )
    people = pd.DataFrame(
        [
            (
                *(person, pseudonym, (check or {}).get("flags", []), finished_at is not None),
                rule.counts(
                    sentinels_wrong=int(wrong.get(person, 0)),
                    finished=finished_at is not None,
                    hidden=int(hidden.get(person, 0)),
                ),
            )
            for person, pseudonym, check, finished_at in persons
        ],
        columns=["participant", "pseudonym", "check_flags", "finished", "attentive"],
    )
    return people.astype({"finished": bool, "attentive": bool}).set_index("participant"), votes


def votes_of(study_id: int, *, simulated: bool) -> Select[*tuple[Any, ...]]:
    """The query of all votes of a study."""
    return (
        select(
            Participant.id.label("participant"),
            Question.phase,
            Question.position,
            Question.kind,
            StudyArm.position.label("contender"),
            Question.image_id.label("image"),
            Image.index_in_split.label("image_index"),
            Image.class_index,
            Question.real_side,
            Vote.answer,
            Vote.correct,
            Vote.response_time_ms,
            Vote.exposure_measured_ms,
            Vote.input,
            Vote.scale,
            Vote.device_pixel_ratio,
            Vote.flags,
            Vote.answered_at,
        )
        .join(Question, Question.participant_id == Participant.id)
        .join(Vote, Vote.question_id == Question.id)
        .join(Image, Image.id == Question.image_id)
        .outerjoin(StudyArm, StudyArm.id == Question.study_arm_id)
        .where(Participant.study_id == study_id, Participant.simulated.is_(simulated))
        .order_by(Participant.id, Question.position)
    )


def answers_version(session: Session, study: Study, *, simulated: bool) -> tuple[object, ...]:
    """Changes whenever load_answers would give something else.

    Whoever has finished votes no more, so only the votes of those under way are counted: milliseconds, however many
    have finished, in whatever study. Moments tell newcomers from those who withdrew meanwhile.
    """
    people = (Participant.study_id == study.id, Participant.simulated.is_(simulated))
    moment = func.max(Participant.finished_at)
    counts = session.execute(select(func.count(), func.count(Participant.finished_at), moment).where(*people)).one()
    under_way = session.execute(
        select(func.count(), func.max(Vote.answered_at))
        .select_from(Participant)
        .join(Question, Question.participant_id == Participant.id)
        .join(Vote, Vote.question_id == Question.id)
        .where(*people, Participant.finished_at.is_(None))
    ).one()
    return (*counts, *under_way, study.status)
