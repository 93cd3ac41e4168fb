"""Trials and pictures as DataFrames, for notebooks and exports; docs/analysis.md goes through an analysis."""

from typing import TYPE_CHECKING, Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.schema import Arm, Image, Sample, Trial
from db.sweeps.trials import find_experiment, load_arms

if TYPE_CHECKING:  # it takes a second to import, for which a participant's server need not wait
    import pandas as pd


def trials_frame(session: Session, experiment: str) -> "pd.DataFrame":
    """One row per trial, arm by arm, baselines' and those that render another arm's among them.

    experiment, arm, baseline, options (of the arm, a dict), rebalancing (λ of loss or decoding; NaN where it means
    nothing), trial (its number, from 1), replicate (whether it repeats its arm's best trial with another seed),
    best (whether it stands for its arm), status,
    failure_reason, seed; each hyperparameter under its name; epochs_done, images_seen, seconds (of training), loss (on
    the tuning split); each score in validation under its name, as a share, ΔE2000, dB or nats, with its standard error
    over images as NAME_error, and on training images as train_NAME. What was not measured is NaN. Raises
    UnknownExperimentError.
    """
    import pandas as pd

    arms = load_arms(session, find_experiment(session, experiment).id)
    rows = [_trial_row(experiment, trial, is_best=trial is arm.best) for arm in arms for trial in arm.trials]
    return pd.DataFrame(rows)


def _trial_row(experiment: str, trial: Trial, *, is_best: bool) -> dict[str, Any]:
    arm, last = trial.arm, trial.last
    row: dict[str, Any] = {"experiment": experiment, "arm": arm.name, "baseline": arm.baseline, "options": arm.options}
    row |= {"rebalancing": arm.rebalancing, "trial": trial.number, "replicate": trial.replicate, "best": is_best}
    row |= {"status": trial.status, "failure_reason": trial.failure_reason}
    row |= {**trial.hyperparameters, "seed": trial.seed}
    row |= {"epochs_done": trial.epochs_done, "images_seen": trial.images_seen, "seconds": trial.seconds}
    row["loss"] = trial.loss
    for name, value in ({} if last is None else last.scores.get("validation", {})).items():
        row[name] = value
        if (error := trial.error(name)) is not None:
            row[f"{name}_error"] = error
    for name, value in ({} if last is None else last.scores.get("train", {})).items():
        row[f"train_{name}"] = value
    return row


def samples_frame(session: Session, experiment: str) -> "pd.DataFrame":
    """One row per stored picture, arm by arm.

    experiment, arm, trial (its number), best (whether it stands for its arm), image (its index in the validation split,
    as in `votes_frame`), image_class, decoding (None where the model gives colours directly), each score of the picture
    under its name; trial_id and image_id, by which `db.sweeps.pictures.sample_pngs` and `truth_pngs` give the
    pictures. Raises UnknownExperimentError.
    """
    import pandas as pd

    of = find_experiment(session, experiment)
    trials = {trial.id: trial for arm in load_arms(session, of.id) for trial in arm.trials}
    rows = session.execute(
        select(Sample.trial_id, Image.id, Image.index_in_split, Image.class_index, Sample.scores)
        .join(Image, Image.id == Sample.image_id)
        .join(Trial, Trial.id == Sample.trial_id)
        .join(Arm, Arm.id == Trial.arm_id)
        .where(Arm.experiment_id == of.id)
        .order_by(Arm.position, Arm.id, Trial.number, Image.index_in_split)
    )
    frame = []
    for trial_id, image_id, index, class_index, scores in rows:
        trial = trials[trial_id]
        arm = trial.arm
        frame.append(
            {"experiment": experiment, "arm": arm.name, "trial": trial.number, "best": trial is arm.best}
            | {"image": index, "image_class": of.dataset.class_names[class_index], "decoding": arm.decoding}
            | {**scores, "trial_id": trial_id, "image_id": image_id}
        )
    return pd.DataFrame(frame)
