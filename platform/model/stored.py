"""The models that there are, and that of any trial, from the database alone."""

import io
import re
from collections.abc import Sequence
from pickle import UnpicklingError

import torch
from sqlalchemy import select
from sqlalchemy.orm import Session

from db.errors import UserError, nearest
from db.schema import Arm, Experiment, StoredDataset, Trial
from db.sweeps.trials import best_trials, find_experiment
from platform.arms.compose import Task, compose
from platform.arms.options import read_options
from platform.color.counts import ColourCounts
from platform.model.network import Colorizer
from platform.model.storage import CHECKPOINT_FILE, join, read_file
from platform.model.training import load_checkpoint, load_model


def finished_models(session: Session, experiment: str, asked: Sequence[str] | None = None) -> dict[str, Trial]:
    """The trial that stands for each arm that has a finished one, or for each that is asked for; baselines are no
    models. Raises UserError."""
    finished = {trial.arm.name: trial for trial in best_trials(session, find_experiment(session, experiment).id)}
    if not finished:
        raise UserError(f"No trial of {experiment!r} has finished yet: wait for one, or name another experiment.")
    for arm in asked or ():
        if arm not in finished:
            near, there = nearest(arm, list(finished)), ", ".join(finished)
            raise UserError(f"{experiment!r} has no finished model {arm!r}, but {there}{near or '.'}")
    return {arm: finished[arm] for arm in asked or finished}


def name_file(arm: str) -> str:
    """An arm's name, of which a file's may hold some letters only, and not many."""
    return re.sub(r"[^\w.-]+", "-", arm).encode()[:60].decode(errors="ignore").strip("-.") or "coloured"


def load_trial(
    session: Session,
    trial_id: int,
    device: torch.device | str = "cpu",
) -> tuple[Task, Colorizer | None]:
    """Rebuild what a trial trained, from the database and the checkpoint that it names.

    Returns the task, whose readings are those of the trained arm and of all that render it, and the model in eval mode,
    None for a baseline. Raises UserError where the trial's weights are not to be had, or not whole.
    """
    trial = session.get_one(Trial, trial_id)
    rows = session.scalars(select(Arm).where(Arm.experiment_id == trial.experiment_id).order_by(Arm.position)).all()
    arms = {row.name: read_options(row.options) for row in rows}
    arm = next(row for row in rows if row.id == trial.arm_id)
    counts = session.scalars(
        select(StoredDataset.colour_counts).join(Experiment).where(Experiment.id == trial.experiment_id)
    ).one()
    trained = arms[arm.name].renders or arm.name
    task = compose(arms, trained, ColourCounts.from_bytes(counts), centers={trained: arm.centers}, device=device)
    if task.outputs == 0:
        return task, None
    try:
        if trial.checkpoint is None:
            raise FileNotFoundError("no epoch of it has been recorded")
        stored = read_file(trial.checkpoint, CHECKPOINT_FILE)
    except OSError as error:
        raise UserError(f"{arm.name} #{trial.number} has no weights to load ({error}): name another trial.") from None
    try:
        return task, load_model(load_checkpoint(io.BytesIO(stored)), task)
    except (EOFError, KeyError, RuntimeError, TypeError, UnpicklingError, ValueError):  # all of them PyTorch's
        file = join(trial.checkpoint, CHECKPOINT_FILE)
        raise UserError(f"{arm.name} #{trial.number}: {file} is damaged or cut off: name another trial.") from None
