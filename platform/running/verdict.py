"""The machine jury of an experiment: the pictures that it judges, and the record of its word."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import torch
from sqlalchemy import Engine, select
from torch import Tensor

from db.errors import UserError
from db.schema import Image, Trial
from db.store import read_session, write_session
from db.sweeps.recording import record_score, record_verdict
from db.sweeps.trials import find_experiment, load_arms
from platform.arms.cross_fit import find_jury
from platform.color.lab import lab_to_rgb, rgb_to_lab
from platform.color.scores import JURY, SCORES
from platform.model.evaluation import as_tensor, known_of, predict
from platform.model.stored import load_trial
from platform.running.preparation import load_recorded_data
from platform.running.progress import Say

FEWEST_PICTURES, MOST_PICTURES = 4, 4_000  # of validation, that are judged
AT_A_TIME = 250  # pictures


def judge(engine: Engine, experiment: str, say: Say) -> None:
    """Hold the jury of an experiment on the best trials of its arms, say and record what it found. Raises UserError
    where data or weights are not to be had, nothing has finished, or validation is too small."""
    torch.set_num_threads(1)  # of small pictures one thread is fastest, and beside other work by far
    with read_session(engine) as session:
        row = find_experiment(session, experiment)
        trials = [arm.best for arm in load_arms(session, row.id) if arm.best is not None]
        sampled = set(session.scalars(select(Image.index_in_split).where(Image.dataset_id == row.dataset_id)))
    judged = [place for place, trial in enumerate(trials) if not trial.arm.baseline]
    if not judged:
        raise UserError(f"No trial of {experiment!r} has finished yet: ask the jury when one has.")
    data = load_recorded_data(row, say)
    indices = _choose_pictures(len(data.validation_images), sampled)
    if len(indices) < FEWEST_PICTURES:
        raise UserError(f"A jury needs {FEWEST_PICTURES} pictures of validation; there are {len(indices)}.")
    say(f"A machine jury looks at {len(indices):,} pictures of each of {len(judged)} models.")
    pictures, labels = data.validation_images[indices], data.validation_labels[indices]
    lightness, truth = _round_to_8_bits(rgb_to_lab(as_tensor(pictures))).movedim(-1, 1).split((1, 2), dim=1)
    colourized = [_paint(engine, trial, pictures, labels) for trial in trials]
    jury = find_jury(lightness, truth, torch.stack(colourized), judged)
    verdict = {
        "judged_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "pictures": len(indices),
        "acuity": jury.acuity,
        "pair_accuracy": jury.pair_accuracy,
    }
    with write_session(engine) as session:
        record_verdict(session, row.id, verdict)
        for trial, mark, picked in zip(trials, jury.marks(), jury.picked.tolist(), strict=True):
            by_index = {index: {JURY: share} for index, share in zip(indices.tolist(), picked, strict=True)}
            record_score(session, trial.id, JURY, *mark, by_index)
            say(f"  {trial.arm.name}: picked as real {SCORES[JURY].write(*mark)} %")
    say(f"It is a machine's word, and recorded. It sees chroma averaged over {jury.acuity}×{jury.acuity} pixels.")


def _choose_pictures(count: int, sampled: set[int]) -> np.ndarray:
    """Places in validation, sorted: those of sample pictures, and others evenly spaced."""
    others = [index for index in range(count) if index not in sampled]
    wanted = max(0, min(MOST_PICTURES, count) - len(sampled))
    spaced = [others[place * len(others) // wanted] for place in range(wanted)]
    return np.array(sorted([*sampled, *spaced]))


@torch.no_grad()
def _paint(engine: Engine, trial: Trial, pictures: np.ndarray, labels: np.ndarray) -> Tensor:
    """ab float (n, 2, height, width) of a trial, as its 8-bit pictures show it. pictures: uint8 (n, height,
    width, 3); labels: their classes (n,)."""
    with read_session(engine) as session:
        task, model = load_trial(session, trial.id)
    arm = trial.arm.name
    task = replace(task, readings={arm: task.readings[arm]})
    parts = []
    for start in range(0, len(pictures), AT_A_TIME):
        part = slice(start, start + AT_A_TIME)
        lab = rgb_to_lab(as_tensor(pictures[part]))
        found = predict(task, model, known_of(task, model, lab, torch.tensor(labels[part])))[arm]
        painted = torch.cat((lab[..., :1], found.ab.view(*lab.shape[:3], 2)), dim=-1)
        parts.append(_round_to_8_bits(painted)[..., 1:].movedim(-1, 1))
    return torch.cat(parts)


def _round_to_8_bits(lab: Tensor) -> Tensor:
    """Lab (..., 3) of the 8-bit sRGB picture."""
    return rgb_to_lab(lab_to_rgb(lab))
