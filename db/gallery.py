"""Pictures of an experiment's contenders, beside the photographs that they are of, as queries."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.answers import Contender
from db.results import arm_results, measured_trials
from db.schema import Arm, Dataset, Experiment, Image, Sample, Study, StudyArm


@dataclass(frozen=True)
class Classes:
    """The dataset's classes. validation_counts: images of each in the validation split; None where an older HueJury
    recorded the dataset."""

    names: tuple[str, ...]
    validation_counts: tuple[int, ...] | None


@dataclass(frozen=True)
class Photograph:
    """An image that some contender has a picture of. number: in its split of the dataset."""

    image_id: int
    number: int
    class_index: int


def contenders(session: Session, experiment: str, study: str | None) -> tuple[list[Contender], list[str]]:
    """Whose pictures are shown, in the arms' order: the trials of a study, else each arm's best finished trial, without
    baselines. Also the names of the experiment's arms, without baselines. Raises UnknownExperimentError."""
    models = [result for result in arm_results(session, experiment) if result.kind != "baseline"]
    arms = [result.arm for result in models]
    if study is None:
        best = [
            Contender(result.arm_id, result.arm, result.kind, result.rebalancing, result.best)
            for result in models
            if result.best is not None
        ]
        return best, arms
    rows = session.execute(
        select(Arm.id, Arm.name, Arm.kind, Arm.rebalancing, StudyArm.trial_id)
        .join(StudyArm, StudyArm.arm_id == Arm.id)
        .join(Study, Study.id == StudyArm.study_id)
        .where(Study.name == study)
        .order_by(StudyArm.position)
    ).all()
    trials = measured_trials(session, [trial_id for *_, trial_id in rows])
    return [Contender(arm_id, name, kind, weight, trials[trial]) for arm_id, name, kind, weight, trial in rows], arms


def classes(session: Session, experiment: str) -> Classes:
    """The classes of the experiment's dataset."""
    names, counts = session.execute(
        select(Dataset.class_names, Dataset.validation_class_counts)
        .join(Experiment, Experiment.dataset_id == Dataset.id)
        .where(Experiment.name == experiment)
    ).one()
    return Classes(tuple(names), None if counts is None else tuple(counts))


def photographs(session: Session, trial_ids: Sequence[int]) -> list[Photograph]:
    """The images that any of the trials has a picture of, in the dataset's order."""
    pictured = select(Sample.image_id).where(Sample.trial_id.in_(trial_ids))
    rows = session.execute(
        select(Image.id, Image.index_in_split, Image.class_index)
        .where(Image.id.in_(pictured))
        .order_by(Image.split, Image.index_in_split)
    )
    return [Photograph(*row) for row in rows]


def truth_pngs(session: Session, image_ids: Sequence[int]) -> dict[int, bytes]:
    """The photographs as PNG, by image id."""
    rows = session.execute(select(Image.id, Image.truth_png).where(Image.id.in_(image_ids)))
    return {row.id: row.truth_png for row in rows}


def sample_pngs(session: Session, trial_ids: Sequence[int], image_ids: Sequence[int]) -> dict[tuple[int, int], bytes]:
    """The trials' pictures of the images as PNG, by trial id and image id, as far as there are any."""
    rows = session.execute(
        select(Sample.trial_id, Sample.image_id, Sample.png).where(
            Sample.trial_id.in_(trial_ids), Sample.image_id.in_(image_ids)
        )
    )
    return {(trial, image): png for trial, image, png in rows}
