"""The finding of a study in a sentence or two, with its certainty: the first thing that dashboard and report say.

Its numbers are those of their tables: shares with Wilson's intervals, contrasts() with Holm's correction, planning().
"""

from collections.abc import Sequence

from db.answers import Answers
from db.results import Contender
from platform.intervals import Share, wilson
from platform.results import SIMULATED
from platform.scores import JURY
from survey_app.inference import Difference, contrasts, planning

SIGNIFICANCE = 0.05


def finding(kept: Answers, questions_per_arm: float) -> str:
    """kept: of those who are counted. questions_per_arm: that a participant is asked, in the mean."""
    shares = [wilson(count.count, count.total) for count in kept.picked_as_real()]
    arms = [place for place, share in enumerate(shares) if share.total]
    if not arms:
        return nobody_asked(kept.contenders)
    # Of equal ones the first comes first.
    arms.sort(key=lambda place: -shares[place].count / shares[place].total)
    names = {place: kept.contenders[place].arm for place in arms}
    first, *others = arms
    alike = [place for place in arms if shares[place].share == shares[first].share]
    of_whom = f"Of {_whose(kept)} {sum(shares[place].total for place in arms):,} answers"
    if not others:
        return (
            f"{of_whom}, **{names[first]}** was picked as real in {_told(shares[first])}; nothing else was asked about."
        )
    if len(alike) > 1:
        rest = "" if alike == arms else ", more than the others"
        return (
            f"{of_whom}, {_listed([f'**{names[place]}**' for place in alike])} were each picked as real in "
            f"{shares[first].percent}{rest}: nothing is settled between them."
        )
    found = _against(kept, first)
    settled = [place for place in others if found[place][1] < SIGNIFICANCE]
    unsettled = [place for place in others if place not in settled]
    beaten = settled[0] if settled else others[0]
    difference, p_holm = found[beaten]
    said = (
        f"{of_whom}, **{names[first]}** was picked as real in {_told(shares[first])}, {names[beaten]} in "
        f"{_told(shares[beaten])}: {_points(difference, p_holm)}"
    )
    if len(settled) > 1:
        said += f", and more often than {_listed([names[place] for place in settled[1:]])} at p < {SIGNIFICANCE}"
    if not unsettled:
        return f"{said}."
    if not settled:
        said += ", so nothing is settled yet"
    nearest = unsettled[0]
    return f"{said}. {_to_settle(kept, found[nearest], names[nearest], questions_per_arm)}"


def nobody_asked(contenders: Sequence[Contender]) -> str:
    """What can be said before there are votes."""
    marks = {
        contender.arm: contender.trial.scores["validation"][JURY]
        for contender in contenders
        if JURY in contender.trial.scores.get("validation", {})
    }
    if not marks:
        return "Nobody has been asked yet."
    best = max(marks, key=lambda arm: marks[arm])
    return (
        f"Nobody has been asked yet; the jury, a machine, would pick **{best}** most often ({100 * marks[best]:.1f} %)."
    )


def _whose(kept: Answers) -> str:
    attentive = "attentive " if kept.left_out else ""
    if kept.participants == 1:
        return f"one {attentive}{SIMULATED[:-1] if kept.simulated else 'person'}'s"
    return f"{kept.participants} {attentive}{f'{SIMULATED}’' if kept.simulated else 'people’s'}".replace("’", "'")


def _told(share: Share) -> str:
    return f"{share.percent} ({share.range})"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _against(kept: Answers, first: int) -> dict[int, tuple[Difference, float]]:
    """By how much the arm `first` is ahead of each other one, and the p-value after Holm, of the table of contrasts."""
    found = {}
    for row in contrasts(*kept.picked_and_asked()).to_dict("records"):
        difference = Difference(row["difference"], row["low"], row["high"], row["p_value"])
        if row["second"] == first:
            found[row["first"]] = difference, row["p_holm"]
        elif row["first"] == first:
            turned = Difference(-difference.difference, -difference.high, -difference.low, difference.p_value)
            found[row["second"]] = turned, row["p_holm"]
    return found


def _points(difference: Difference, p_holm: float) -> str:
    more = f"{100 * difference.difference:.1f} points more"
    if p_holm != p_holm:  # NaN
        return f"{more}, how surely cannot be told"
    p = "< 0.001" if p_holm < 0.001 else f"= {p_holm:.2g}"
    return f"{more} ({100 * difference.low:.1f} to {100 * difference.high:.1f}, p {p} after Holm)"


def _to_settle(kept: Answers, found: tuple[Difference, float], name: str, questions_per_arm: float) -> str:
    """How many more participants would find the difference seen, at p < 0.05 over the number of all contrasts."""
    arms = len(kept.contenders)
    plan = planning(
        *kept.picked_and_asked(),
        difference=found[0].difference,
        questions_per_arm=questions_per_arm,
        alpha=SIGNIFICANCE / (arms * (arms - 1) / 2),
    )
    who = SIMULATED if kept.simulated else "people"
    if plan.participants_needed is None:
        return f"It cannot be told apart from {name}, by however many {who}."
    more = plan.participants_needed - plan.participants
    if more <= 0:
        return f"Against {name} it is not settled, though so many {who} would probably find a difference as large."
    about = f"{float(f'{more:.2g}'):,.0f}"
    return f"About {about} more {who} would settle it against {name}, if the difference is as it looks."
