"""Trials, pictures and votes as DataFrames, for notebooks and exports; docs/analysis.md goes through an analysis."""

from typing import TYPE_CHECKING, Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.schema import Arm, Experiment, Image, Report, Sample, StoredDataset, Trial
from db.surveys.answers import ExclusionRule, check_outcomes_may_be_seen, read_votes
from db.surveys.study import find_study
from db.sweeps.trials import best_trials, contenders, experiment_progress

if TYPE_CHECKING:  # it takes a second to import, for which a participant's server need not wait
    import pandas as pd

VOTE_COLUMNS = (
    *("study", "participant", "simulated", "attentive", "finished", "check_flags"),
    *("phase", "position", "kind", "sentinel", "arm", "trial", "image", "image_class", "real_side"),
    *("exposure_ms", "exposure_measured_ms", "response_time_ms", "answer", "correct", "picked_as_real"),
    *("input", "scale", "device_pixel_ratio", "flags", "answered_on"),
)


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

    of = experiment_progress(session, experiment)
    best = set(best_trials(session, of.id).values())
    rows = session.execute(
        select(Arm, Trial, Report)
        .join(Trial, Trial.arm_id == Arm.id)
        .outerjoin(Report, (Report.trial_id == Trial.id) & (Report.epoch == Trial.epochs_done))
        .where(Arm.experiment_id == of.id)
        .order_by(Arm.position, Arm.id, Trial.number)
    )
    return pd.DataFrame([_trial_row(experiment, best, *row) for row in rows])


def _trial_row(experiment: str, best: set[int], arm: Arm, trial: Trial, report: Report | None) -> dict[str, Any]:
    scores = {} if report is None else report.scores
    errors = {} if report is None else report.standard_errors.get("validation", {})
    validation = scores.get("validation", {})
    return (
        {"experiment": experiment, "arm": arm.name, "baseline": arm.baseline, "options": arm.options}
        | {"rebalancing": arm.rebalancing, "trial": trial.number, "replicate": trial.replicate}
        | {"best": trial.id in best, "status": trial.status, "failure_reason": trial.failure_reason}
        | {**trial.hyperparameters, "seed": trial.seed}
        | {"epochs_done": trial.epochs_done, "images_seen": trial.images_seen, "seconds": trial.seconds}
        | {"loss": None if report is None else report.loss}
        | {name: value for score in validation for name, value in _with_error(score, validation, errors)}
        | {f"train_{score}": value for score, value in scores.get("train", {}).items()}
    )


def _with_error(score: str, values: dict[str, float], errors: dict[str, float]) -> list[tuple[str, float | None]]:
    return [(score, values[score]), *([(f"{score}_error", errors[score])] if score in errors else [])]


def samples_frame(session: Session, experiment: str) -> "pd.DataFrame":
    """One row per stored picture, arm by arm.

    experiment, arm, trial (its number), best (whether it stands for its arm), image (its index in the validation split,
    as in `votes_frame`), image_class, decoding (None where the model gives colours directly), each score of the picture
    under its name; trial_id and image_id, by which `db.sweeps.pictures.sample_pngs` and `truth_pngs` give the
    pictures. Raises UnknownExperimentError.
    """
    import pandas as pd

    of = experiment_progress(session, experiment)
    best = set(best_trials(session, of.id).values())
    rows = session.execute(
        select(
            *(Arm.name, Trial.number, Trial.id, Image.id, Image.index_in_split, Image.class_index),
            *(Sample.decoding, Sample.scores),
        )
        .join(Trial, Trial.arm_id == Arm.id)
        .join(Sample, Sample.trial_id == Trial.id)
        .join(Image, Image.id == Sample.image_id)
        .where(Arm.experiment_id == of.id)
        .order_by(Arm.position, Arm.id, Trial.number, Image.index_in_split)
    )
    return pd.DataFrame(
        [
            {"experiment": experiment, "arm": arm, "trial": number, "best": trial_id in best, "image": index}
            | {"image_class": of.class_names[class_index], "decoding": decoding}
            | {**scores, "trial_id": trial_id, "image_id": image_id}
            for arm, number, trial_id, image_id, index, class_index, decoding, scores in rows
        ]
    )


def votes_frame(session: Session, study: str, *, simulated: bool = False) -> "pd.DataFrame":
    """One row per vote of people, or else of simulated participants, practice included: VOTE_COLUMNS, which
    docs/data-dictionary.md explains. By participants' pseudonyms: neither the order nor a time of day tells when
    somebody came. Raises SurveyError if there is no such study and, of people's votes, StudyBlinded."""
    import pandas as pd

    found = find_study(session, study)
    if not simulated:
        check_outcomes_may_be_seen(session, found)
    class_names = session.scalars(
        select(StoredDataset.class_names).join(Experiment).where(Experiment.id == found.experiment_id)
    ).one()
    people, votes = read_votes(session, found.id, ExclusionRule(**found.exclusion_rule), simulated=simulated)
    frame = votes.join(people.rename(columns={"finished": "all_answered"}), on="participant")
    asked = contenders(session, found)
    arms, trials = [each.arm for each in asked], [each.trial.number for each in asked]
    frame["study"] = found.name
    frame["participant"] = frame["pseudonym"]
    frame["simulated"] = int(simulated)
    frame["finished"] = frame["all_answered"]
    frame["sentinel"] = frame["kind"] == "sentinel"
    frame["arm"] = frame["contender"].map(dict(enumerate(arms)))
    frame["trial"] = frame["contender"].map(dict(enumerate(trials))).astype("Int64")
    frame["image"] = frame["image_index"]
    frame["image_class"] = frame["class_index"].map(dict(enumerate(class_names)))
    frame["exposure_ms"] = pd.Series(found.exposure_ms, index=frame.index, dtype="Int64")
    frame["answered_on"] = [moment.date().isoformat() for moment in frame["answered_at"]]
    for column in ("check_flags", "flags"):
        frame[column] = frame[column].map(";".join)
    for column in ("attentive", "finished", "sentinel", "correct", "picked_as_real"):
        frame[column] = frame[column].astype(int)
    return frame.sort_values(["participant", "position"])[list(VOTE_COLUMNS)]
