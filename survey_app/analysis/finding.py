"""The finding of a study in a sentence or two, with its certainty: the first thing that dashboard and report say.

Its numbers are those of their tables: shares with Wilson's intervals, contrasts() with Holm's correction, planning().
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from db.schema import Trial
from db.surveys.answers import Answers
from platform.color.scores import JURY
from platform.tables.intervals import SIMULATED, Share, wilson
from survey_app.analysis.inference import contrasts, planning

SIGNIFICANCE = 0.05


def state_finding(answers: Answers, questions_per_arm: float) -> str:
    """answers: of those who are counted. questions_per_arm: that a participant is asked, in the mean."""
    shares = {
        place: wilson(count.count, count.total) for place, count in enumerate(answers.picked_as_real()) if count.total
    }
    if not shares:
        return state_no_votes(answers.contenders)
    names = [trial.arm.name for trial in answers.contenders]
    # Of equal ones the first comes first.
    first, *others = sorted(shares, key=lambda place: -shares[place].count / shares[place].total)
    opening = f"Of {sum(share.total for share in shares.values()):,} answers by {_name_people(answers)}"
    alike = [place for place in shares if shares[place].share == shares[first].share]
    if not others:
        return f"{opening}, **{names[first]}** was picked as real in {_write(shares[first])}. It alone was asked about."
    if len(alike) > 1:
        more = "" if len(alike) == len(shares) else ", more than the others"
        equals = _list_names([f"**{names[place]}**" for place in alike])
        return (
            f"{opening}, {equals} were each picked as real in {shares[first].percent}{more}. Nothing is settled "
            "between them."
        )
    ahead = _compare(answers, first)
    settled = [place for place in others if ahead[place].p_holm < SIGNIFICANCE]
    unsettled = [place for place in others if place not in settled]
    second = (settled or others)[0]
    sentences = [
        f"{opening}, **{names[first]}** was picked as real in {_write(shares[first])}, {names[second]} in "
        f"{_write(shares[second])}.",
        f"That is {ahead[second]}.",
    ]
    if settled[1:]:
        rest = _list_names([names[place] for place in settled[1:]])
        sentences.append(f"It is also ahead of {rest}, at p < {SIGNIFICANCE}.")
    if not settled:
        sentences.append("Nothing is settled yet.")
    if unsettled:
        sentences.append(_plan(answers, ahead[unsettled[0]], names[unsettled[0]], questions_per_arm))
    return " ".join(sentences)


def state_no_votes(contenders: Sequence[Trial]) -> str:
    """What can be said before there are votes."""
    of_jury = {trial.arm.name: trial.score(JURY) for trial in contenders}
    marks = {arm: mark for arm, mark in of_jury.items() if mark is not None}
    if not marks:
        return "Nobody has been asked yet."
    best = max(marks, key=lambda arm: marks[arm])
    return (
        f"Nobody has been asked yet; the jury, a machine, would pick **{best}** most often ({100 * marks[best]:.1f} %)."
    )


def _name_people(answers: Answers) -> str:
    one, many = ("simulated participant", SIMULATED) if answers.simulated else ("person", "people")
    attentive = "attentive " if answers.left_out else ""
    return f"one {attentive}{one}" if answers.participants == 1 else f"{answers.participants} {attentive}{many}"


def _write(share: Share) -> str:
    return f"{share.percent} ({share.range})"


def _list_names(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


@dataclass(frozen=True)
class Lead:
    """By how much a share is ahead of another, with its 95 % interval and the p-value after Holm; NaN where that cannot
    be told."""

    difference: float
    low: float
    high: float
    p_holm: float

    def __str__(self) -> str:
        points = f"{100 * self.difference:.1f} points more"
        if math.isnan(self.p_holm):
            return f"{points}, how surely cannot be told"
        p = "< 0.001" if self.p_holm < 0.001 else f"= {self.p_holm:.2g}"
        return f"{points} ({100 * self.low:.1f} to {100 * self.high:.1f}, p {p} after Holm)"


def _compare(answers: Answers, first: int) -> dict[int, Lead]:
    """The lead of the arm `first` over each other one, by the table of contrasts."""
    leads = {}
    for row in contrasts(*answers.picked_and_asked()).to_dict("records"):
        if row["second"] == first:
            leads[row["first"]] = Lead(row["difference"], row["low"], row["high"], row["p_holm"])
        elif row["first"] == first:
            leads[row["second"]] = Lead(-row["difference"], -row["high"], -row["low"], row["p_holm"])
    return leads


def _plan(answers: Answers, lead: Lead, name: str, questions_per_arm: float) -> str:
    """How many more participants would find the lead seen, at p < 0.05 over the number of all contrasts."""
    arms = len(answers.contenders)
    plan = planning(
        *answers.picked_and_asked(),
        difference=lead.difference,
        questions_per_arm=questions_per_arm,
        alpha=SIGNIFICANCE / (arms * (arms - 1) / 2),
    )
    people = SIMULATED if answers.simulated else "people"
    if plan.participants_needed is None:
        return f"It cannot be told apart from {name}, by however many {people}."
    more = plan.participants_needed - plan.participants
    if more <= 0:
        return f"Against {name} it is not settled, though so many {people} would probably find a difference as large."
    about = round(more, 2 - len(str(more))) if more > 99 else more  # two digits say enough
    return f"About {about:,} more {people} would settle it against {name}, if the difference is as it looks."
