"""Studies: which contenders of which experiment people compare, and how. Created and closed, never changed."""

import json
import re
import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, get_args
from urllib.parse import urlsplit

from sqlalchemy import Engine, Select, String, cast, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from db.errors import UserError
from db.schema import (
    Experiment,
    Image,
    Participant,
    Protocol,
    Question,
    Sample,
    SentinelPicture,
    Study,
    StudyArm,
    Trial,
    Vote,
)
from db.store import read_session, write_session
from db.surveys.answers import ExclusionRule
from db.surveys.schedule import Plan
from db.surveys.sentinels import sentinel_pngs
from db.sweeps.trials import best_trials, find_experiment, load_arms

CONSENT_VERSION = "1"
QUESTIONS, PRACTICE, SENTINEL_SHARE, EXPOSURE_MS = 40, 10, 0.1, 1000  # Zhang et al. 2016, section 3.1
PLANNED_PARTICIPANTS = 30
FEWEST_IMAGES = 5
ID_PARAMETER = "PROLIFIC_PID"


TOKEN_PARAMETER = "huejury"  # of a participant's link: their token; other systems' links say participant, id, ...
STUDY_PARAMETER = "study"


class SurveyError(UserError):
    """The survey cannot do as asked; the message is one sentence that a page or a command may show."""


@dataclass(frozen=True)
class StudyOptions:
    """How a study asks, as its maker says it; what is None is decided as it is created."""

    name: str | None = None  # by default the experiment's, with a number where that is taken
    arms: Sequence[str] | None = None  # names, each with its best trial, or "arm=number"; None: all but baselines
    protocol: Protocol = "pair"
    question_count: int | None = None  # by default QUESTIONS, or as many as the pictures allow
    practice_count: int | None = None  # by default PRACTICE, or a fifth of the pictures where they are few
    sentinel_share: float = SENTINEL_SHARE  # of the questions, from 0 to 1/3
    exposure_ms: int | None = EXPOSURE_MS  # None: until answered
    seed: int | None = None  # of the sentinels' colours; None: drawn
    planned_participants: int | None = None  # by default what the sweep's config says
    sentinels_wrong_at_most: int | None = None  # exclusion rule; None: 1 where there are four sentinels or more, else 0
    hidden_at_most: int | None = None  # exclusion rule: votes given while the page was hidden; None: any number
    completion_url: str | None = None
    blinded: bool = False  # outcomes stay hidden until the planned participants have finished, or it is closed
    id_parameter: str = ID_PARAMETER  # of the link, by which a recruiting system tells its participants apart

    def check(self) -> None:
        """Raise SurveyError for what no study can be."""
        counts = (self.question_count, self.planned_participants)
        for possible, sentence in (
            (self.name is None or is_name(self.name), "A study's name has 1 to 100 printable characters."),
            (self.protocol in get_args(Protocol), "The protocol is pair or single."),
            (
                all(count is None or count >= 1 for count in counts)
                and min(self.practice_count or 0, self.sentinel_share) >= 0,
                "A study needs at least one question and one planned participant, no negative numbers.",
            ),
            (
                min(self.sentinels_wrong_at_most or 0, self.hidden_at_most or 0) >= 0,
                "An exclusion rule's numbers begin at 0.",
            ),
            (self.seed is None or 0 <= self.seed < 2**63, "A seed is a whole number from 0 to 2^63 - 1."),
            (
                self.exposure_ms is None or 1 <= self.exposure_ms <= 60_000,
                "An exposure is a whole number of milliseconds from 1 to 60000, or none: until answered.",
            ),
            (
                self.completion_url is None or urlsplit(self.completion_url).scheme in ("http", "https"),
                f"The completion link {self.completion_url!r} should begin with https://.",
            ),
            (
                re.fullmatch(r"[A-Za-z0-9_.-]{1,50}", self.id_parameter),
                "A link's parameter has 1 to 50 letters, digits, dots, hyphens and underscores.",
            ),
            (
                self.id_parameter not in (TOKEN_PARAMETER, STUDY_PARAMETER),
                f"The link's parameter {self.id_parameter!r} is HueJury's own; name another one.",
            ),
        ):
            if not possible:
                raise SurveyError(sentence)


@dataclass(frozen=True)
class Turnout:
    """Who took part in a study so far, and the votes on main questions; people's, but for `simulated`."""

    participants: int
    finished: int
    without_id: int  # participants in whose link the study's id_parameter was missing, or no id
    votes: int
    flagged: dict[str, int]  # votes by flag, see `db.surveys.votes.Flag`
    simulated: int  # participants


def create_study(engine: Engine, experiment: str, **options: Any) -> Study:
    """Create an open study of an experiment; options: the fields of StudyOptions.

    Raises UserError for anything that cannot be, an unknown experiment among it.
    """
    wanted = StudyOptions(**options)
    wanted.check()
    with read_session(engine) as session:
        of = find_experiment(session, experiment)
        contenders = _choose_contenders(session, of.id, wanted.arms)
        truths = {image.id: image.truth_png for image in _common_images(session, contenders)}
        study = _decide(session, of, wanted, images=len(truths))
    plan_for(study, arms=len(contenders), images=len(truths)).check()
    sentinels = sentinel_pngs(truths, study.seed)  # takes seconds, in which participants go on voting
    name = study.name
    try:
        with write_session(engine) as session:
            session.add(study)
            session.flush()
            session.add_all(
                StudyArm(
                    study_id=study.id,
                    experiment_id=study.experiment_id,
                    arm_id=trial.arm_id,
                    trial_id=trial.id,
                    position=position,
                )
                for position, trial in enumerate(contenders)
            )
            session.add_all(
                SentinelPicture(study_id=study.id, image_id=image, png=png) for image, png in sentinels.items()
            )
    except IntegrityError as error:
        raise SurveyError(
            f"The study {name!r} could not be stored ({error.orig}); was it created meanwhile?"
        ) from error
    return load_study(engine, name)


def _decide(session: Session, of: Experiment, wanted: StudyOptions, *, images: int) -> Study:
    """The study that is wanted, with what its maker left open; images: how many all contenders have pictures of."""
    taken = set(session.scalars(select(Study.name)))
    if wanted.name in taken:
        raise SurveyError(f"There is a study {wanted.name!r} already, and a study never changes; choose another name.")
    free = (name for name in (of.name, *(f"{of.name} {n}" for n in range(2, 10_000))) if name not in taken)
    practice, questions = wanted.practice_count, wanted.question_count
    if practice is None:
        practice = PRACTICE if images >= (questions or QUESTIONS) + PRACTICE else images // 5
    if questions is None:
        questions = min(QUESTIONS, images - practice)
        if 0 < images < FEWEST_IMAGES:
            raise SurveyError(f"The finished trials share pictures of {images} images; {FEWEST_IMAGES} are needed.")
    sentinels = round(wanted.sentinel_share * questions)
    most_wrong = wanted.sentinels_wrong_at_most
    if most_wrong is None and sentinels:
        most_wrong = 1 if sentinels >= 4 else 0
    return Study(
        name=wanted.name or next(free),
        created_at=datetime.now(UTC),
        status="open",
        experiment_id=of.id,
        protocol=wanted.protocol,
        question_count=questions,
        practice_count=practice,
        sentinel_count=sentinels,
        exposure_ms=wanted.exposure_ms,
        seed=secrets.randbits(32) if wanted.seed is None else wanted.seed,
        planned_participants=wanted.planned_participants or of.config.get("participants", PLANNED_PARTICIPANTS),
        exclusion_rule=asdict(ExclusionRule(sentinels_wrong_at_most=most_wrong, hidden_at_most=wanted.hidden_at_most)),
        consent_version=CONSENT_VERSION,
        completion_url=wanted.completion_url,
        blinded=wanted.blinded,
        id_parameter=wanted.id_parameter,
    )


def open_first_study(engine: Engine, experiment: str, *, say: Callable[[str], None] = print) -> Study | None:
    """The newest study of the experiment; if it has none, one with the default protocol is created. None, with a word
    why, where there is nothing to ask about. Raises UserError if there is no such experiment."""
    with read_session(engine) as session:
        known = studies_of(session, find_experiment(session, experiment).id)
    if known:
        return known[0]
    try:
        return create_study(engine, experiment)
    except UserError as error:
        say(f"No survey was opened: {error}")
        return None


def close_study(engine: Engine, name: str) -> Study:
    """Close a study: it takes no more participants and no more votes; what was answered counts. Closing it again
    changes nothing. Raises SurveyError if there is none of that name."""
    with write_session(engine) as session:
        session.execute(
            update(Study)
            .where(Study.name == name, Study.status == "open")
            .values(status="closed", closed_at=datetime.now(UTC))
        )
    return load_study(engine, name)


def newest_open(session: Session) -> Study | None:
    return session.scalar(_newest().where(Study.status == "open").limit(1))


def find_study(session: Session, name: str | None) -> Study:
    """The study of that name, or the newest open one, or the newest. Raises SurveyError with the names there are."""
    if name is None:
        found = newest_open(session) or session.scalar(_newest().limit(1))
        if found is None:
            raise SurveyError(
                "There is no study yet; finish a sweep, or create one: python -m survey_app.studies create."
            )
        return found
    found = session.scalar(select(Study).where(Study.name == name)) if is_name(name) else None
    if found is None:
        names = ", ".join(session.scalars(select(Study.name).order_by(Study.created_at.desc()).limit(5)))
        raise SurveyError(f"There is no study {name!r}; there is {names or 'none yet'}.")
    return found


def load_study(engine: Engine, name: str) -> Study:
    """As find_study, in a session of its own."""
    with read_session(engine) as session:
        return find_study(session, name)


def list_studies(session: Session) -> list[Study]:
    """All studies, newest first."""
    return list(session.scalars(_newest()))


def studies_of(session: Session, experiment_id: int) -> list[Study]:
    """An experiment's studies, newest first."""
    return list(session.scalars(_newest().where(Study.experiment_id == experiment_id)))


def is_name(text: str) -> bool:
    """Whether a study could be called that; no database could even be asked for every string."""
    return bool(text.strip()) and len(text) <= 100 and text.isprintable()


def plan_for(study: Study, *, arms: int, images: int = 0) -> Plan:
    """The plan of a study with so many contenders; images matter where a schedule is drawn."""
    return Plan(study.protocol, study.question_count, study.practice_count, study.sentinel_count, arms, images)


def plan_of(session: Session, study: Study) -> tuple[Plan, list[StudyArm], list[int]]:
    """The study's plan, its contenders in the plan's order, and its images' ids in the plan's order."""
    arms = list(session.scalars(select(StudyArm).where(StudyArm.study_id == study.id).order_by(StudyArm.position)))
    images = list(
        session.scalars(
            select(SentinelPicture.image_id)
            .where(SentinelPicture.study_id == study.id)
            .order_by(SentinelPicture.image_id)
        )
    )
    return plan_for(study, arms=len(arms), images=len(images)), arms, images


def _newest() -> Select[Study]:
    return select(Study).order_by(Study.created_at.desc(), Study.id.desc())


def _choose_contenders(session: Session, experiment_id: int, wanted: Sequence[str] | None) -> list[Trial]:
    """The trials that stand for the wanted arms, in the arms' order."""
    if wanted is None:
        return best_trials(session, experiment_id)
    by_name = {arm.name: arm for arm in load_arms(session, experiment_id)}
    chosen: dict[str, Trial] = {}
    for text in wanted:
        name, equals, number = (text, "", "") if text in by_name else text.rpartition("=")
        arm = by_name.get(name)
        if arm is None:
            raise SurveyError(f"The experiment has no arm {text!r}; it has {', '.join(by_name)}.")
        if name in chosen:
            raise SurveyError(f"The arm {name!r} is named twice; a study has one trial of an arm.")
        if equals:
            finished = {str(trial.number): trial for trial in arm.trials if trial.status == "finished"}
            if number not in finished:
                listed = ", ".join(finished) or "none"
                raise SurveyError(f"The arm {name!r} has no finished trial {number!r}; finished: {listed}.")
            chosen[name] = finished[number]
        elif arm.best is None:
            raise SurveyError(f"The arm {name!r} has no finished trial yet.")
        else:
            chosen[name] = arm.best
    return [chosen[name] for name in by_name if name in chosen]


def _common_images(session: Session, contenders: Sequence[Trial]) -> list[Image]:
    """The images of which every contender has a picture."""
    trials = [trial.id for trial in contenders]
    in_all = (
        select(Sample.image_id)
        .where(Sample.trial_id.in_(trials))
        .group_by(Sample.image_id)
        .having(func.count() == len(trials))
    )
    return list(session.scalars(select(Image).where(Image.id.in_(in_all)).order_by(Image.id)))


def count_turnout(session: Session, study: Study) -> Turnout:
    """Who took part in the study so far."""
    people = (Participant.study_id == study.id, Participant.simulated.is_(False))
    participants, finished, with_id = session.execute(
        select(func.count(), func.count(Participant.finished_at), func.count(Participant.external_id)).where(*people)
    ).one()
    flags = cast(Vote.flags, String)
    votes_by_flags = session.execute(
        select(flags, func.count())
        .join(Question, Question.id == Vote.question_id)
        .join(Participant, Participant.id == Question.participant_id)
        .where(*people, Question.phase == "main")
        .group_by(flags)
    ).all()
    flagged: Counter[str] = Counter()
    for listed, count in votes_by_flags:
        flagged.update(dict.fromkeys(json.loads(listed), count))
    simulated = select(func.count()).where(Participant.study_id == study.id, Participant.simulated.is_(True))
    return Turnout(
        participants=participants,
        finished=finished,
        without_id=participants - with_id,
        votes=sum(count for _, count in votes_by_flags),
        flagged=dict(flagged),
        simulated=session.scalar(simulated) or 0,
    )
