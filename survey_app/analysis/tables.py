"""Tables that pages and commands share: all participants beside the attentive, and which λ is best."""

from collections.abc import Sequence

import pandas as pd

from db.surveys.answers import Answers, Inclusion
from platform.tables.intervals import range_text, title_votes, wilson
from platform.tables.table import Table
from survey_app.analysis.curve import Curve, Votes, confirmed_share
from survey_app.analysis.inference import bootstrap_shares

OPTIMISTIC = (
    "The best of several looks better than it is: only another study, of it and of what it is to beat, tells by how "
    "much."
)


def inclusions_table(answers: Answers) -> Table:
    """The share picked as real of each contender with its interval by participants, and beside it that of the
    photographs themselves, in protocol single."""
    arms = [trial.arm.name for trial in answers.contenders]
    frame = pd.DataFrame({"model": [*arms, *(["the photographs"] if answers.protocol == "single" else [])]})
    shown = frame.copy()
    inclusions: tuple[Inclusion, ...] = ("all", "attentive")
    for inclusion in inclusions:
        subset = answers.of(inclusion)
        heading = f"{inclusion} ({subset.participants})"
        counts = [*subset.picked_as_real(), *([subset.right("real")] if subset.protocol == "single" else [])]
        shares = [wilson(count.count, count.total) for count in counts]
        people = [(interval.low, interval.high) for interval in bootstrap_shares(*subset.picked_and_asked())]
        people += [(None, None)] * (len(shares) - len(people))
        frame[f"{heading}: picked"] = [share.count for share in shares]
        frame[f"{heading}: asked"] = [share.total for share in shares]
        frame[f"{heading}: share"] = [share.share for share in shares]
        frame[f"{heading}: 95 % from"] = [low for low, _ in people]
        frame[f"{heading}: 95 % to"] = [high for _, high in people]
        shown[heading] = [str(share) for share in shares]
        shown[f"{inclusion}: 95 %"] = [range_text(low, high) for low, high in people]
    return Table(
        name="all-and-attentive",
        title=title_votes("All participants, and the attentive alone", simulated=answers.simulated),
        frame=frame,
        shown=shown,
        note=f"Attentive: {answers.exclusion_rule}. These intervals (bootstrap by participant) keep the answers of one "
        "person together and are the ones to trust, where Wilson's beside the scores take every answer for another "
        "person's; with fewer than 20 participants they too are somewhat narrow.",
    )


def best_table(answers: Answers, before: Sequence[Votes], places: list[int], curve: Curve) -> Table:
    """What the curve says of the arms that it joins."""
    values = curve.asked_at
    low, middle, high = 100 * curve.interval()[:, curve.places(values)]
    frame = pd.DataFrame(
        {
            "model": [answers.contenders[place].arm.name for place in places],
            "λ": values,
            "by the curve (%)": middle,
            "95 % from": low,
            "95 % to": high,
            "best of these (%)": 100 * curve.probability_best(values),
        }
    )
    pooled = "Answers of earlier studies are of the same curve, but for its level. " if before else ""
    return Table(
        name="best-of-rebalancings",
        title=title_votes("Which λ is best?", simulated=answers.simulated),
        frame=frame,
        formats={"λ": "g"}
        | dict.fromkeys(["by the curve (%)", "95 % from", "95 % to"], ".1f")
        | {"best of these (%)": ".0f"},
        note="The curve's share picked as real, to which neighbours in λ contribute, and the probability that each is "
        f"the best of these. {pooled}{how_sure_of_best(answers, before)}",
    )


def how_sure_of_best(answers: Answers, before: Sequence[Votes]) -> str:
    """The best of several is overestimated, until it was asked about again."""
    again = confirmed_share(answers, before)
    if again is None:
        return OPTIMISTIC
    return (
        f"The best was the best of earlier studies, too, and was asked about again: {again.percent} ({again.range}) by "
        f"study {answers.study!r} alone, which nobody chose for its luck."
    )
