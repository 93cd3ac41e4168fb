"""Both analyses of a study side by side: of all who answered, and of the attentive alone."""

import pandas as pd

from db.answers import Answers, Inclusion
from platform.intervals import range_text, wilson
from platform.results import titled
from platform.tables import Table
from survey_app.statistics import bootstrap_shares


def inclusions_table(answers: Answers) -> Table:
    """The share picked as real of each contender, with intervals by answers and by participants, and beside it that of
    the photographs themselves, in protocol single."""
    arms = [contender.arm for contender in answers.contenders]
    frame = pd.DataFrame({"model": [*arms, *(["the photographs"] if answers.protocol == "single" else [])]})
    shown = frame.copy()
    inclusions: tuple[Inclusion, ...] = ("all", "attentive")
    for inclusion in inclusions:
        kept = answers.of(inclusion)
        heading = f"{inclusion} ({kept.participants})"
        counts = [*kept.picked_as_real(), *([kept.right("real")] if kept.protocol == "single" else [])]
        shares = [wilson(count.count, count.total) for count in counts]
        people = [(interval.low, interval.high) for interval in bootstrap_shares(*kept.picked_and_asked())]
        people += [(None, None)] * (len(shares) - len(people))
        frame[f"{heading}: picked"] = [share.count for share in shares]
        frame[f"{heading}: asked"] = [share.total for share in shares]
        frame[f"{heading}: share"] = [share.share for share in shares]
        frame[f"{heading}: Wilson from"] = [share.low for share in shares]
        frame[f"{heading}: Wilson to"] = [share.high for share in shares]
        frame[f"{heading}: participants from"] = [low for low, _ in people]
        frame[f"{heading}: participants to"] = [high for _, high in people]
        shown[heading] = [str(share) for share in shares]
        shown[f"{inclusion}: Wilson"] = [share.range for share in shares]
        shown[f"{inclusion}: by participant"] = [range_text(low, high) for low, high in people]
    return Table(
        name="all-and-attentive",
        title=titled("All participants, and the attentive alone", simulated=answers.simulated),
        frame=frame,
        shown=shown,
        note=f"Attentive: {answers.exclusion_rule}. Wilson's interval takes every answer for another person's; the one "
        "by participant (bootstrap) keeps the answers of one person together and is the one to trust, though with "
        "fewer than 20 participants it too is somewhat narrow.",
    )
