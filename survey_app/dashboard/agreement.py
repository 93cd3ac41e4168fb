"""Do scores of single pictures predict votes on them? The machine jury beside colour error, PSNR and colourfulness."""

from typing import Any

import altair as alt
import numpy as np
import pandas as pd
from sqlalchemy.orm import Session

from db.answers import Answers
from db.gallery import scores_of_samples
from platform.results import jury_note, titled
from platform.scores import JURY, SCORES, jury_at
from platform.tables import Table
from survey_app.agreement import calibration, ceiling_of_prediction, chosen_by_votes, prediction_of_votes
from survey_app.dashboard.exhibits import NEUTRAL, Exhibit, Figure, interval_marks

MOST_ACUITY = 1024  # pixels


def exhibits(session: Session, kept: Answers) -> list[Exhibit]:
    """The table, and the jury's probabilities against votes where there is a jury; nothing without votes."""
    votes = kept.of_kind("arm")
    if votes.empty:
        return []
    picked = votes["picked_as_real"].to_numpy(bool)
    participant, image = (votes[column].to_numpy(int) for column in ("participant", "image"))
    scores = _scores_of_votes(session, kept, votes)
    rows: list[dict[str, Any]] = []
    for name, values in scores.items():
        there = np.isfinite(values)
        lower = name in SCORES and SCORES[name].higher_is_better is False
        found = prediction_of_votes(
            (-1 if lower else 1) * values[there], picked[there], participant[there], image[there]
        )
        rows.append({"score of the picture": _words(name), "real looks": "lower" if lower else "higher"})
        rows[-1] |= _percent(found.estimate, found.low, found.high) | {"votes": int(there.sum())}
    cell = image * len(kept.contenders) + votes["contender"].to_numpy(int)
    ceiling = ceiling_of_prediction(picked, cell, participant, image)
    rows.append({"score of the picture": "the most that any could reach", "real looks": None})
    rows[-1] |= _percent(ceiling.estimate, ceiling.low, ceiling.high) | {"votes": len(votes)}
    table = Table(
        name="votes-predicted",
        title=titled("Do scores predict votes, picture by picture?", simulated=kept.simulated),
        frame=pd.DataFrame(rows),
        formats=dict.fromkeys(("rightly ordered (%)", "95 % from", "95 % to"), ".1f") | {"votes": ",.0f"},
        note="Of a picture that was picked as real and one that was not, how often the score orders them rightly (the "
        "area under the curve); 50 %: no better than a coin. The interval resamples participants and photographs. "
        "Votes are noisy: the last row is what somebody would reach who knew how often each picture is picked, by how "
        f"far votes of different people on one picture agree.{_chosen_note(scores, picked, participant)} "
        f"{jury_note(session, kept.experiment, kept.study)}".strip(),
    )
    return [table, *([_calibration_figure(kept, scores[JURY], picked)] if JURY in scores else [])]


def _scores_of_votes(session: Session, kept: Answers, votes: pd.DataFrame) -> dict[str, np.ndarray]:
    """Each score that pictures have, the jury's first, float (votes,), of the picture that each vote is about."""
    trials = [contender.trial.trial_id for contender in kept.contenders]
    found = scores_of_samples(session, trials)
    names = {name for of_picture in found.values() for name in of_picture}
    shown = [name for name in (*_jury_names(), *SCORES) if name in names]
    pictures = [
        found.get((trials[contender], image), {})
        for contender, image in zip(votes["contender"], votes["image"], strict=True)
    ]
    return {name: np.array([picture.get(name, np.nan) for picture in pictures]) for name in dict.fromkeys(shown)}


def _jury_names() -> dict[str, int]:
    """Of the jury, and of juries of every acuity."""
    acuities = [MOST_ACUITY >> halved for halved in range(MOST_ACUITY.bit_length())]
    return {JURY: 0, **{jury_at(acuity): acuity for acuity in acuities}}


def _words(name: str) -> str:
    if name in SCORES:
        return SCORES[name].words
    acuity = _jury_names()[name]
    return f"jury, chroma over {acuity}×{acuity} pixels"


def _percent(*values: float | None) -> dict[str, float | None]:
    headings = ("rightly ordered (%)", "95 % from", "95 % to")
    return {heading: None if value is None else 100 * value for heading, value in zip(headings, values, strict=True)}


def _chosen_note(scores: dict[str, np.ndarray], picked: np.ndarray, participant: np.ndarray) -> str:
    """Which acuity's jury predicts these votes best."""
    names = [name for name in _jury_names() if name in scores and name != JURY]
    stacked = np.array([scores[name] for name in names])
    if len(names) < 2:
        return ""
    there = np.isfinite(stacked).all(axis=0)
    found = chosen_by_votes(stacked[:, there], picked[there], participant[there])
    if found is None:
        return ""
    best, area = found
    return (
        f" Of the juries the one with {_words(names[best]).removeprefix('jury, ')} predicts these votes best; a jury "
        f"chosen so by four fifths of the participants orders {100 * area:.1f} % of the others' rightly."
    )


def _calibration_figure(kept: Answers, probability: np.ndarray, picked: np.ndarray) -> Figure:
    there = np.isfinite(probability)
    data = pd.DataFrame(
        [
            {"by the jury": mean, "share": share.share, "low": share.low, "high": share.high}
            | {"count": share.count, "total": share.total}
            for mean, share in calibration(probability[there], picked[there])
        ]
    )
    highest = min(1.0, max(data["high"].max(), data["by the jury"].max()) + 0.05)
    x = alt.X("by the jury:Q", scale=alt.Scale(domain=[0, highest]), axis=alt.Axis(format="%"))
    tooltip = [alt.Tooltip("by the jury:Q", format=".1%"), alt.Tooltip("share:Q", format=".1%"), "count:Q", "total:Q"]
    right = alt.Chart(pd.DataFrame({"by the jury": [0.0, highest], "share": [0.0, highest]}))
    said = "; ".join(
        f"{100 * row['by the jury']:.0f} %: {row['count']:.0f} of {row['total']:.0f}" for _, row in data.iterrows()
    )
    return Figure(
        name="jury-calibration",
        title=titled("The jury's probabilities against votes", simulated=kept.simulated),
        alternative=f"Share picked as real against the jury's probability, in groups of equal size. {said}.",
        chart=alt.layer(
            right.mark_line(color=NEUTRAL, strokeDash=[2, 2]).encode(x, alt.Y("share:Q")),
            *interval_marks(alt.Chart(data).encode(x), "y", "picked as real", highest, tooltip=tooltip),
        ).properties(height=380),
        data=data,
        note="Votes in ten groups by what the jury, a machine, says of their pictures. Bars: 95 % Wilson. Dashed: as "
        "often as it says.",
    )
