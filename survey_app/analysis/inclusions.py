"""Both analyses of a study side by side: of all who answered, and of the attentive alone."""

import pandas as pd

from db.surveys.answers import Answers, Inclusion
from platform.tables.intervals import range_text, title_votes, wilson
from platform.tables.table import Table
from survey_app.analysis.inference import bootstrap_shares


def inclusions_table(answers: Answers) -> Table:
    """The share picked as real of each contender with its interval by participants, and beside it that of the
    photographs themselves, in protocol single."""
    arms = [contender.arm for contender in answers.contenders]
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
