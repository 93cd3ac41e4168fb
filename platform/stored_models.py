"""The model of any trial, from the database alone."""

import io

import torch
from pydantic import TypeAdapter
from sqlalchemy import select
from sqlalchemy.orm import Session

from db.errors import UserError
from db.schema import Arm, Dataset, Experiment, Trial
from platform.arms import ArmOptions, Task, compose
from platform.colour_counts import ColourCounts
from platform.models import Colorizer
from platform.storage import CHECKPOINT_FILE, read_file
from platform.training import load_checkpoint, load_model


def load_trial(
    session: Session,
    trial_id: int,
    device: torch.device | str = "cpu",
) -> tuple[Task, Colorizer | None]:
    """Rebuild what a trial trained, from the database and the checkpoint that it names.

    Returns the task, whose readings are those of the trained arm and of all that render it, and the model in eval mode,
    None for a baseline. Raises UserError where the trial's weights are not to be had.
    """
    trial = session.get_one(Trial, trial_id)
    rows = session.scalars(select(Arm).where(Arm.experiment_id == trial.experiment_id).order_by(Arm.position)).all()
    arms = {row.name: TypeAdapter(ArmOptions).validate_python(row.options) for row in rows}
    arm = next(row for row in rows if row.id == trial.arm_id)
    counts = session.scalars(
        select(Dataset.colour_counts).join(Experiment).where(Experiment.id == trial.experiment_id)
    ).one()
    trained = arms[arm.name].renders or arm.name
    task = compose(arms, trained, ColourCounts.from_bytes(counts), centers=arm.centers, device=device)
    if task.outputs == 0:
        return task, None
    try:
        if trial.checkpoint is None:
            raise FileNotFoundError("no epoch of it has been recorded")
        weights = load_checkpoint(io.BytesIO(read_file(trial.checkpoint, CHECKPOINT_FILE)))
    except OSError as error:
        raise UserError(f"{arm.name} #{trial.number} has no weights to load ({error}): name another trial.") from None
    return task, load_model(weights, task)
