"""Pictures of an experiment's contenders, beside the photographs that they are of, as queries."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.schema import Image, Sample


@dataclass(frozen=True)
class Photograph:
    """An image that some contender has a picture of."""

    image_id: int
    number: int  # in its split of the dataset
    class_index: int


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


def segment_pngs(session: Session, trial_ids: Sequence[int], image_ids: Sequence[int]) -> dict[tuple[int, int], bytes]:
    """Pictures of what the trials' models divide the images into, as PNG, by trial id and image id, where they do."""
    rows = session.execute(
        select(Sample.trial_id, Sample.image_id, Sample.segments_png).where(
            Sample.trial_id.in_(trial_ids), Sample.image_id.in_(image_ids), Sample.segments_png.is_not(None)
        )
    )
    return {(trial, image): png for trial, image, png in rows if png is not None}


def scores_of_samples(session: Session, trial_ids: Sequence[int]) -> dict[tuple[int, int], dict[str, float]]:
    """All scores of the trials' pictures by name, by trial id and image id."""
    rows = session.execute(
        select(Sample.trial_id, Sample.image_id, Sample.scores).where(Sample.trial_id.in_(trial_ids))
    )
    return {(trial, image): scores for trial, image, scores in rows}
