"""Rounds: studies proposed from one another, side by side, and which of them one curve over λ may be drawn through."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from sqlalchemy import select
from sqlalchemy.orm import Session

from db.answers import Answers, Inclusion, StudyBlinded, load_answers
from db.results import Contender
from db.schema import Experiment, Study
from platform.intervals import Share, wilson
from platform.results import titled
from platform.tables import Table
from survey_app.curve import Votes, fit_curve, incumbent, one_family, votes_of


@dataclass(frozen=True, eq=False)
class Round:
    """A study before the one that is looked at."""

    answers: Answers  # of those who are counted
    apart: str | None  # why its answers are not pooled; None where they are


def earlier_rounds(session: Session, kept: Answers, inclusion: Inclusion = "all") -> list[Round]:
    """The studies that the sweep of this one was proposed from, the first first, as far as they are in the database,
    may be seen, and have answers. kept: of those who are counted."""
    found: list[Round] = []
    newest = session.scalars(select(Study).where(Study.name == kept.study)).one()
    study, seen = newest, {newest.name}
    while (name := session.get_one(Experiment, study.experiment_id).config.get("proposed_from")) not in (None, *seen):
        before = session.scalar(select(Study).where(Study.name == name))
        if before is None:
            break
        study = before
        seen.add(study.name)
        try:
            answers = load_answers(session, study, simulated=kept.simulated).of(inclusion)
        except StudyBlinded:
            continue
        if answers.participants and one_family(answers.contenders):
            found.append(Round(answers, _why_apart(session, kept, answers)))
    return found[::-1]


def _why_apart(session: Session, kept: Answers, before: Answers) -> str | None:
    def dataset_of(answers: Answers) -> int | None:
        return session.scalar(select(Experiment.dataset_id).where(Experiment.name == answers.experiment))

    if dataset_of(kept) != dataset_of(before):
        return "its pictures are of other data"
    if (kept.protocol, kept.exposure_ms) != (before.protocol, before.exposure_ms):
        return "it asked in another way"
    if _kind_of_family(kept.contenders) != _kind_of_family(before.contenders):
        return "its models differ in more than λ"
    return None


def _kind_of_family(contenders: Sequence[Contender]) -> dict[str, Any]:
    """What the arms of a study's curve have in common."""
    places = one_family(contenders)
    options = contenders[places[0]].options if places else {}
    return {name: value for name, value in options.items() if name not in ("tilt", "rebalancing")}


def votes_before(rounds: Sequence[Round]) -> list[Votes]:
    """What the curve takes of them."""
    return [votes_of(one.answers) for one in rounds if one.apart is None]


def confirmed(kept: Answers, rounds: Sequence[Round]) -> tuple[float, Share] | None:
    """The λ that was the best of the rounds before and was asked about again, and what this study alone says of it,
    where nobody chose it for its luck. None where there is none."""
    before = votes_before(rounds)
    if not before:
        return None
    best = incumbent(fit_curve(*before[-1], before=before[:-1]))
    own = votes_of(kept)
    [places] = (own.values == best).nonzero()
    if not len(places):
        return None
    place = int(places[0])
    return best, wilson(int(own.picked[:, place].sum()), int(own.asked[:, place].sum()))


def rounds_table(kept: Answers, rounds: Sequence[Round]) -> Table:
    """Each round's own shares, side by side."""
    studies = [*(one.answers for one in rounds), kept]
    votes = [votes_of(answers) for answers in studies]
    rows, texts = [], []
    for value in sorted({float(value) for of_round in votes for value in of_round.values}):
        row: dict[str, object] = {"λ": value}
        text = {"λ": f"{value:g}"}
        for answers, of_round in zip(studies, votes, strict=True):
            share = wilson(*(int(counts[:, of_round.values == value].sum()) for counts in of_round[1:]))
            row |= {f"{answers.study}: picked as real (%)": None if share.share is None else 100 * share.share}
            row |= {f"{answers.study}: times picked": share.count, f"{answers.study}: times asked": share.total}
            asked = share.total > 0
            text[answers.study] = f"{share.percent} ({share.range}), {share.count}/{share.total}" if asked else "–"
        rows.append(row)
        texts.append(text)
    pooled = [one.answers.study for one in rounds if one.apart is None]
    notes = [f"One row per λ, one column per study ({', '.join(str(answers.participants) for answers in studies)} "
             "participants), with Wilson's intervals at 95 %."]  # fmt: skip
    if pooled:
        notes.append(
            f"The curve is drawn through {', '.join(map(repr, [*pooled, kept.study]))} together; each earlier one may "
            "lie higher or lower as a whole."
        )
    notes += [f"Study {one.answers.study!r} is not in the curve: {one.apart}." for one in rounds if one.apart]
    again = confirmed(kept, rounds)
    if again is not None:
        value, share = again
        notes.append(
            f"λ = {value:g}, the best before, was asked about again: {share.percent} ({share.range}) by this study "
            "alone, an estimate that nobody chose for its luck."
        )
    return Table(
        name="rounds",
        title=titled("Rounds", simulated=kept.simulated),
        frame=pd.DataFrame(rows),
        shown=pd.DataFrame(texts),
        note=" ".join(notes),
    )
