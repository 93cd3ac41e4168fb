"""A study's votes as a DataFrame, for notebooks and exports; docs/analysis.md goes through an analysis."""

from typing import TYPE_CHECKING

from sqlalchemy.orm import Session

from db.surveys.answers import ExclusionRule, check_outcomes_may_be_seen, read_votes
from db.surveys.study import find_study
from db.sweeps.trials import contenders

if TYPE_CHECKING:  # it takes a second to import, for which a participant's server need not wait
    import pandas as pd

VOTE_COLUMNS = (
    *("study", "participant", "simulated", "attentive", "finished", "check_flags"),
    *("phase", "position", "kind", "sentinel", "arm", "trial", "image", "image_class", "real_side"),
    *("exposure_ms", "exposure_measured_ms", "response_time_ms", "answer", "correct", "picked_as_real"),
    *("input", "scale", "device_pixel_ratio", "flags", "answered_on"),
)


def votes_frame(session: Session, study: str, *, simulated: bool = False) -> "pd.DataFrame":
    """One row per vote of people, or else of simulated participants, practice included: VOTE_COLUMNS, which
    docs/data-dictionary.md explains. By participants' pseudonyms: neither the order nor a time of day tells when
    somebody came. Raises SurveyError if there is no such study and, of people's votes, StudyBlinded."""
    import pandas as pd

    found = find_study(session, study)
    if not simulated:
        check_outcomes_may_be_seen(session, found)
    people, votes = read_votes(session, found.id, ExclusionRule(**found.exclusion_rule), simulated=simulated)
    frame = votes.join(people.rename(columns={"finished": "all_answered"}), on="participant")
    asked = contenders(session, found)
    arms, trials = [trial.arm.name for trial in asked], [trial.number for trial in asked]
    frame["study"] = found.name
    frame["participant"] = frame["pseudonym"]
    frame["simulated"] = int(simulated)
    frame["finished"] = frame["all_answered"]
    frame["sentinel"] = frame["kind"] == "sentinel"
    frame["arm"] = frame["contender"].map(dict(enumerate(arms)))
    frame["trial"] = frame["contender"].map(dict(enumerate(trials))).astype("Int64")
    frame["image"] = frame["image_index"]
    frame["image_class"] = frame["class_index"].map(dict(enumerate(found.experiment.dataset.class_names)))
    frame["exposure_ms"] = pd.Series(found.exposure_ms, index=frame.index, dtype="Int64")
    frame["answered_on"] = [moment.date().isoformat() for moment in frame["answered_at"]]
    for column in ("check_flags", "flags"):
        frame[column] = frame[column].map(";".join)
    for column in ("attentive", "finished", "sentinel", "correct", "picked_as_real"):
        frame[column] = frame[column].astype(int)
    return frame.sort_values(["participant", "position"])[list(VOTE_COLUMNS)]
