"""Studies: which contenders of which experiment people compare, and how. Created and closed, never changed."""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, get_args
from urllib.parse import urlsplit

from sqlalchemy import Engine, Select, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from db.answers import ExclusionRule
from db.pictures import sentinel_pngs
from db.results import ArmResult, arm_results, experiment_and_dataset, experiment_progress
from db.schedule import Plan, ScheduleError
from db.schema import (
    Arm,
    Dataset,
    Experiment,
    Image,
    Participant,
    Protocol,
    Question,
    Resampling,
    Sample,
    SentinelPicture,
    Study,
    StudyArm,
    StudyStatus,
    Trial,
    Vote,
)
from db.store import read_session, write_session

CONSENT_VERSION = "1"
QUESTIONS, PRACTICE, SENTINEL_SHARE, EXPOSURE_MS = 40, 10, 0.1, 1000  # Zhang et al. 2016, section 3.1
PLANNED_PARTICIPANTS = 30
FEWEST_IMAGES = 5


class SurveyError(Exception):
    """The survey cannot do as asked; the message is one sentence that a page or a command may show."""


@dataclass(frozen=True)
class StudyView:
    """What a participant's page may know of a study. exposures_ms: None among them shows until answered."""

    name: str
    status: StudyStatus
    protocol: Protocol
    question_count: int
    practice_count: int
    exposures_ms: tuple[int | None, ...]
    resampling: Resampling
    consent_version: str
    completion_url: str | None


@dataclass(frozen=True)
class StudySummary:
    """A study as its makers see it. participants, under_way, finished and votes (main questions) are people's;
    simulated counts participants."""

    view: StudyView
    experiment: str
    dataset: str
    created_at: datetime
    closed_at: datetime | None
    sentinel_count: int
    seed: int
    planned_participants: int
    exclusion_rule: ExclusionRule
    arms: tuple[str, ...]
    images: int
    participants: int
    finished: int
    votes: int
    simulated: int
    blinded: bool

    @property
    def under_way(self) -> int:
        return self.participants - self.finished


def create_study(
    engine: Engine,
    experiment: str,
    *,
    name: str | None = None,
    arms: Sequence[str] | None = None,
    protocol: Protocol = "pair",
    question_count: int = QUESTIONS,
    practice_count: int = PRACTICE,
    sentinel_share: float = SENTINEL_SHARE,
    exposures_ms: Sequence[int | None] = (EXPOSURE_MS,),
    resampling: Resampling = "nearest",
    seed: int | None = None,
    planned_participants: int = PLANNED_PARTICIPANTS,
    sentinels_wrong_at_most: int | None = None,
    consent_version: str = CONSENT_VERSION,
    completion_url: str | None = None,
    blinded: bool = False,
) -> StudySummary:
    """Create an open study of an experiment.

    name: by default the experiment's. arms: names of arms, each with its best finished trial, or "arm=trial" with the
    trial's id in Ray; by default every arm that has a finished trial, baselines excepted. sentinel_share: of the
    questions, in [0, 1/3]. seed: of the sentinels (drawn if None). sentinels_wrong_at_most: the exclusion rule; by
    default 1 where there are four sentinels or more, else 0. blinded: nobody sees outcomes before the planned number
    of participants has finished, or the study is closed.

    Raises SurveyError for anything that cannot be, UnknownExperimentError.
    """
    name = experiment if name is None else name
    sentinel_count = round(sentinel_share * question_count)
    if sentinels_wrong_at_most is None and sentinel_count:
        sentinels_wrong_at_most = 1 if sentinel_count >= 4 else 0
    _check_values(name, exposures_ms, completion_url, consent_version)
    if protocol not in get_args(Protocol) or resampling not in get_args(Resampling):
        raise SurveyError("The protocol is pair or single, and pictures are enlarged by nearest or lanczos.")
    if question_count < 1 or practice_count < 0 or sentinel_count < 0 or planned_participants < 1:
        raise SurveyError("A study needs at least one question and one planned participant, and no negative numbers.")
    if seed is not None and not 0 <= seed < 2**63:
        raise SurveyError("A seed is a whole number from 0 to 2^63 - 1.")
    try:
        with write_session(engine) as session:
            if session.scalar(select(Study.id).where(Study.name == name)) is not None:
                raise SurveyError(f"There is a study {name!r} already, and a study never changes; choose another name.")
            contenders = _contenders(session, experiment, arms)
            images = _common_images(session, contenders)
            plan = Plan(
                protocol=protocol,
                question_count=question_count,
                practice_count=practice_count,
                sentinel_count=sentinel_count,
                exposures_ms=tuple(exposures_ms),
                arms=len(contenders),
                images=len(images),
            )
            try:
                plan.check()
            except ScheduleError as error:
                raise SurveyError(str(error)) from None
            study = Study(
                name=name,
                created_at=datetime.now(UTC),
                closed_at=None,
                status="open",
                experiment_id=experiment_progress(session, experiment).id,
                protocol=protocol,
                question_count=question_count,
                practice_count=practice_count,
                sentinel_count=sentinel_count,
                exposures_ms=list(exposures_ms),
                resampling=resampling,
                seed=secrets.randbits(32) if seed is None else seed,
                planned_participants=planned_participants,
                exclusion_rule=asdict(ExclusionRule(sentinels_wrong_at_most)),
                consent_version=consent_version,
                completion_url=completion_url,
                blinded=blinded,
            )
            session.add(study)
            session.flush()
            session.add_all(
                StudyArm(
                    study_id=study.id,
                    experiment_id=study.experiment_id,
                    arm_id=contender.arm_id,
                    trial_id=trial_id,
                    position=position,
                )
                for position, (contender, trial_id) in enumerate(contenders)
            )
            truths = {image.id: image.truth_png for image in images}
            session.add_all(
                SentinelPicture(study_id=study.id, image_id=image, donor_image_id=donor, png=png)
                for image, (png, donor) in sentinel_pngs(truths, study.seed).items()
            )
    except IntegrityError as error:
        raise SurveyError(
            f"The study {name!r} could not be stored ({error.orig}); was it created meanwhile?"
        ) from error
    return study_summary(engine, name)


def open_study_of(engine: Engine, experiment: str, *, say: Callable[[str], None] = print) -> StudySummary | None:
    """The newest study of the experiment; if it has none, one with the default protocol is created, shorter where there
    are too few pictures for it. None, with a word why, where there is nothing to ask about. Raises
    UnknownExperimentError."""
    with read_session(engine) as session:
        experiment_id = experiment_progress(session, experiment).id
        known = session.scalar(_newest().where(Study.experiment_id == experiment_id).limit(1))
        taken = set(session.scalars(select(Study.name)))
        contenders = [result for result in arm_results(session, experiment) if _stands(result)]
        trials = [(result, result.best.trial_id) for result in contenders if result.best is not None]
        images = len(_common_images(session, trials)) if trials else 0
    if known is not None:
        return study_summary(engine, known.name)
    if images < FEWEST_IMAGES:
        say(f"No survey was opened: the finished trials share pictures of {images} images, {FEWEST_IMAGES} are needed.")
        return None
    practice = PRACTICE if images >= QUESTIONS + PRACTICE else images // 5
    questions = min(QUESTIONS, images - practice)
    name = next(name for name in (experiment, *(f"{experiment} {n}" for n in range(2, 10_000))) if name not in taken)
    try:
        return create_study(engine, experiment, name=name, question_count=questions, practice_count=practice)
    except SurveyError as error:
        say(f"No survey was opened: {error}")
        return None


def close_study(engine: Engine, name: str) -> StudySummary:
    """Close a study to new participants; those under way may finish. Closing it again changes nothing. Raises
    SurveyError if there is none of that name."""
    with write_session(engine) as session:
        session.execute(
            update(Study)
            .where(Study.name == name, Study.status == "open")
            .values(status="closed", closed_at=datetime.now(UTC))
        )
    return study_summary(engine, name)


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


def study_summary(engine: Engine, name: str) -> StudySummary:
    """One study. Raises SurveyError if there is none of that name."""
    with read_session(engine) as session:
        return _summary(session, find_study(session, name))


def list_studies(engine: Engine) -> list[StudySummary]:
    """All studies, newest first."""
    with read_session(engine) as session:
        return [_summary(session, study) for study in session.scalars(_newest())]


def study_names(session: Session, experiment_id: int) -> list[str]:
    """The names of an experiment's studies, newest first."""
    return [study.name for study in session.scalars(_newest().where(Study.experiment_id == experiment_id))]


def study_definition(session: Session, study: Study) -> dict[str, Any]:
    """All that the study is, as JSON values: protocol, experiment, data, contenders with their configs, images."""
    experiment = session.get_one(Experiment, study.experiment_id)
    dataset = session.get_one(Dataset, experiment.dataset_id)
    contenders = session.execute(
        select(StudyArm, Arm, Trial)
        .join(Arm, Arm.id == StudyArm.arm_id)
        .join(Trial, Trial.id == StudyArm.trial_id)
        .where(StudyArm.study_id == study.id)
        .order_by(StudyArm.position)
    ).all()
    images = session.scalars(
        select(Image)
        .join(SentinelPicture, SentinelPicture.image_id == Image.id)
        .where(SentinelPicture.study_id == study.id)
        .order_by(Image.index_in_split)
    )
    return {
        "study": study.name,
        "created_at": study.created_at.isoformat(),
        "status": study.status,
        "closed_at": study.closed_at.isoformat() if study.closed_at else None,
        "protocol": study.protocol,
        "question_count": study.question_count,
        "practice_count": study.practice_count,
        "sentinel_count": study.sentinel_count,
        "exposures_ms": study.exposures_ms,
        "resampling": study.resampling,
        "seed": study.seed,
        "planned_participants": study.planned_participants,
        "exclusion_rule": study.exclusion_rule,
        "consent_version": study.consent_version,
        "completion_url": study.completion_url,
        "blinded": study.blinded,
        "experiment": {
            "name": experiment.name,
            "created_at": experiment.created_at.isoformat(),
            "code_version": experiment.code_version,
            "environment": experiment.environment,
            "decoding": experiment.decoding,
            "config": experiment.config,
        },
        "dataset": {
            "name": dataset.name,
            "fingerprint": dataset.fingerprint,
            "note": dataset.note,
            "class_names": dataset.class_names,
        },
        "arms": [
            {
                "arm": arm.name,
                "kind": arm.kind,
                "rebalancing": arm.rebalancing,
                "trial": trial.ray_id,
                "seed": trial.seed,
                "epochs_done": trial.epochs_done,
                "config": trial.config,
            }
            for _, arm, trial in contenders
        ],
        "images": [
            {"split": image.split, "index": image.index_in_split, "class": image.class_index} for image in images
        ],
    }


def is_name(text: str) -> bool:
    """Whether a study could be called that; no database could even be asked for every string."""
    return bool(text.strip()) and len(text) <= 100 and text.isprintable()


def view_of(study: Study) -> StudyView:
    return StudyView(
        name=study.name,
        status=study.status,
        protocol=study.protocol,
        question_count=study.question_count,
        practice_count=study.practice_count,
        exposures_ms=tuple(study.exposures_ms),
        resampling=study.resampling,
        consent_version=study.consent_version,
        completion_url=study.completion_url,
    )


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
    plan = Plan(
        protocol=study.protocol,
        question_count=study.question_count,
        practice_count=study.practice_count,
        sentinel_count=study.sentinel_count,
        exposures_ms=tuple(study.exposures_ms),
        arms=len(arms),
        images=len(images),
    )
    return plan, arms, images


def _newest() -> Select[Study]:
    return select(Study).order_by(Study.created_at.desc(), Study.id.desc())


def _stands(result: ArmResult) -> bool:
    return result.kind != "baseline" and result.best is not None


def _check_values(
    name: str, exposures_ms: Sequence[int | None], completion_url: str | None, consent_version: str
) -> None:
    if not is_name(name):
        raise SurveyError("A study's name has 1 to 100 printable characters.")
    if any(exposure is not None and not 1 <= exposure <= 60_000 for exposure in exposures_ms):
        raise SurveyError("An exposure is a whole number of milliseconds from 1 to 60000, or none (until answered).")
    if completion_url is not None and urlsplit(completion_url).scheme not in ("http", "https"):
        raise SurveyError(f"The completion link {completion_url!r} should begin with https://.")
    if not consent_version.strip() or len(consent_version) > 50:
        raise SurveyError("A consent version has 1 to 50 characters.")


def _contenders(session: Session, experiment: str, wanted: Sequence[str] | None) -> list[tuple[ArmResult, int]]:
    """The arms and the trial that stands for each, in the arms' order."""
    results = arm_results(session, experiment)
    if wanted is None:
        return [(result, result.best.trial_id) for result in results if _stands(result) and result.best]
    by_name = {result.arm: result for result in results}
    chosen: dict[str, int] = {}
    for text in wanted:
        name, equals, ray_id = (text, "", "") if text in by_name else text.rpartition("=")
        result = by_name.get(name)
        if result is None:
            raise SurveyError(f"Experiment {experiment!r} has no arm {text!r}; it has {', '.join(by_name)}.")
        if name in chosen:
            raise SurveyError(f"The arm {name!r} is named twice; a study has one trial of an arm.")
        if equals:
            trial_id = session.scalar(
                select(Trial.id).where(
                    Trial.arm_id == result.arm_id, Trial.ray_id == ray_id, Trial.status == "finished"
                )
            )
            if trial_id is None:
                raise SurveyError(f"The arm {name!r} has no finished trial {ray_id!r}.")
            chosen[name] = trial_id
        elif result.best is None:
            raise SurveyError(f"The arm {name!r} has no finished trial yet.")
        else:
            chosen[name] = result.best.trial_id
    return [(by_name[name], chosen[name]) for name in by_name if name in chosen]


def _common_images(session: Session, contenders: Sequence[tuple[ArmResult, int]]) -> list[Image]:
    """The images of which every contender has a picture."""
    trials = [trial_id for _, trial_id in contenders]
    in_all = (
        select(Sample.image_id)
        .where(Sample.trial_id.in_(trials))
        .group_by(Sample.image_id)
        .having(func.count() == len(trials))
    )
    return list(session.scalars(select(Image).where(Image.id.in_(in_all)).order_by(Image.id)))


def _summary(session: Session, study: Study) -> StudySummary:
    experiment, dataset = experiment_and_dataset(session, study)
    arms = session.scalars(
        select(Arm.name)
        .join(StudyArm, StudyArm.arm_id == Arm.id)
        .where(StudyArm.study_id == study.id)
        .order_by(StudyArm.position)
    )
    people = (Participant.study_id == study.id, Participant.simulated.is_(False))
    return StudySummary(
        view=view_of(study),
        experiment=experiment,
        dataset=dataset,
        created_at=study.created_at,
        closed_at=study.closed_at,
        sentinel_count=study.sentinel_count,
        seed=study.seed,
        planned_participants=study.planned_participants,
        exclusion_rule=ExclusionRule(**study.exclusion_rule),
        arms=tuple(arms),
        images=session.scalar(select(func.count()).where(SentinelPicture.study_id == study.id)) or 0,
        participants=session.scalar(select(func.count()).where(*people)) or 0,
        finished=session.scalar(select(func.count()).where(*people, Participant.finished_at.is_not(None))) or 0,
        votes=session.scalar(
            select(func.count(Vote.id))
            .join(Question, Question.id == Vote.question_id)
            .join(Participant, Participant.id == Question.participant_id)
            .where(*people, Question.phase == "main")
        )
        or 0,
        simulated=session.scalar(
            select(func.count()).where(Participant.study_id == study.id, Participant.simulated.is_(True))
        )
        or 0,
        blinded=study.blinded,
    )
