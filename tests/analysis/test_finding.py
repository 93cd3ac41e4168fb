"""The finding never says more than the tables: on degenerate counts, on any counts, and on a database's votes."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings

from db.schema import Arm, Report, Trial
from db.surveys.answers import Answers, ExclusionRule
from platform.color.scores import JURY
from platform.tables.intervals import wilson
from survey_app.analysis.finding import state_finding, state_no_votes
from survey_app.analysis.inference import contrasts
from tests.analysis.test_inference import counts, survey

NAMES = ("regression", "classification", "tilted 0.5", "tilted 0.25")


def contender(arm: str, by_jury: float | None = None) -> Trial:
    scores = {"validation": {} if by_jury is None else {JURY: by_jury}}
    return Trial(arm=Arm(name=arm), last=Report(scores=scores))


def answers(picked: Any, asked: Any, *, simulated: bool = False, left_out: int = 0) -> Answers:
    """Answers with these counts, int (participants, arms)."""
    picked, asked = np.array(picked, dtype=int), np.array(asked, dtype=int)
    rows = [
        {
            "participant": who,
            "phase": "main",
            "kind": "arm",
            "contender": arm,
            "picked_as_real": number < picked[who, arm],
        }
        for (who, arm), total in np.ndenumerate(asked)
        for number in range(total)
    ]
    columns = ["participant", "phase", "kind", "contender", "picked_as_real"]
    votes = pd.DataFrame(rows, columns=columns).astype({"picked_as_real": bool, "contender": int})
    people = pd.DataFrame(index=pd.Index(np.flatnonzero(asked.any(axis=1)) if asked.size else [], dtype=int))
    arms = list(NAMES[: asked.shape[1]])
    return Answers(
        *("study", "open", "cats", "cats", "pair", 1000, ExclusionRule(1), simulated, 30, arms),
        [contender(arm) for arm in arms],
        people,
        votes,
        left_out,
    )


def said(picked: Any, asked: Any, **more: Any) -> str:
    return state_finding(answers(picked, asked, **more), 9.0).replace("\N{NO-BREAK SPACE}", " ")


def test_before_votes_the_jury_may_speak() -> None:
    assert said(np.zeros((0, 2)), np.zeros((0, 2))) == "Nobody has been asked yet."
    contenders = [contender("regression", 0.2), contender("tilted 0.5", 0.31), contender("unjudged")]
    assert state_no_votes(contenders).startswith(
        "Nobody has been asked yet; the jury, a machine, would pick **tilted 0.5** most often (31.0"
    )


def test_what_is_settled_and_what_is_not() -> None:
    picked, asked = survey(1, 30, [0.15, 0.2, 0.54, 0.46])
    found = said(picked, asked)
    assert re.fullmatch(
        r"Of 1,080 answers by 30 people, \*\*tilted 0.5\*\* was picked as real in [\d.]+ % \(\d+–\d+ %\), "
        r"classification in [\d.]+ % \(\d+–\d+ %\)\. "
        r"That is [\d.]+ points more \([\d.]+ to [\d.]+, p < 0\.001 after Holm\)\. "
        r"It is also ahead of regression, at p < 0\.05\. "
        r"About [\d,]+ more people would settle it against tilted 0\.25, if the difference is as it looks\.",
        found,
    )
    by_machine = said(picked, asked, simulated=True)
    assert by_machine == found.replace("30 people", "30 simulated participants").replace(
        "more people", "more simulated participants"
    )
    assert said(picked, asked, left_out=2) == found.replace("by 30 people", "by 30 attentive people")
    assert said(*survey(1, 40, [0.1, 0.5])).endswith("after Holm).")
    assert " Nothing is settled yet. About " in said(*survey(3, 6, [0.3, 0.35]))


@pytest.mark.parametrize(
    ("picked", "asked", "expected"),
    [
        # One participant has no spread.
        ([[3, 6]], [[9, 9]], "Of 18 answers by one person, **classification** was picked as real in 66.7 % (35–88 %), "
         "regression in 33.3 % (12–65 %). That is 33.3 points more, how surely cannot be told. Nothing is settled"),
        # Never and always: it is as large as can be, yet without a spread there is no p-value.
        ([[0, 9]] * 6, [[9, 9]] * 6, "100.0 points more, how surely cannot be told. Nothing is settled yet."),
        ([[0, 0]] * 6, [[9, 9]] * 6, "**regression** and **classification** were each picked as real in 0.0 %. Nothing "
         "is settled between them."),
        ([[9, 9]] * 6, [[9, 9]] * 6, "each picked as real in 100.0 %. Nothing is settled between them."),
        ([[1, 4, 4]] * 6, [[9, 9, 9]] * 6, "Of 162 answers by 6 people, **classification** and **tilted 0.5** were "
         "each picked as real in 44.4 %, more than the others. Nothing is settled between them."),
        ([[4], [2]], [[9], [9]], "**regression** was picked as real in 33.3 % (16–56 %). It alone was asked "
         "about."),
        # Of two arms only one was asked about.
        ([[4, 0], [2, 0]], [[9, 0], [9, 0]], "(16–56 %). It alone was asked about."),
    ],
)  # fmt: skip
def test_degenerate_counts(picked: Sequence[Sequence[int]], asked: Sequence[Sequence[int]], expected: str) -> None:
    assert expected in said(picked, asked)


@given(counts(5, 3))
@settings(deadline=None, max_examples=100)
def test_it_never_contradicts_the_tables(both: tuple[np.ndarray, np.ndarray]) -> None:
    picked, asked = both
    text = said(picked, asked)
    if not asked.any():
        assert text == "Nobody has been asked yet."
        return
    shares = {
        name: wilson(int(k), int(n))
        for name, k, n in zip(NAMES, picked.sum(axis=0), asked.sum(axis=0), strict=False)
        if n
    }
    highest = max(share.share or 0.0 for share in shares.values())
    leaders = re.findall(r"\*\*(.+?)\*\*", text)
    assert sorted(leaders) == sorted(name for name, share in shares.items() if share.share == highest)
    written = {
        f"{share.percent} ({share.range})".replace("\N{NO-BREAK SPACE}", " "): name for name, share in shares.items()
    }
    for name, told in re.findall(
        r"(?:\*\*(?=\S)|, )([a-z][a-z0-9. ]+?)(?:\*\* was picked as real)? in ([\d.]+ % \(.+?\))", text
    ):
        assert told in written, name
    table = contrasts(picked, asked).dropna(subset="p_holm")
    settled = {
        NAMES[int(row["first"] if NAMES[int(row["second"])] == leaders[0] else row["second"])]
        for row in table.to_dict("records")
        if row["p_holm"] < 0.05 and leaders[0] in (NAMES[int(row["first"])], NAMES[int(row["second"])])
    }
    if len(leaders) == 1 and len(shares) > 1:
        assert ("Nothing is settled yet" in text) == (not settled)
        claimed = set(re.findall(r"%\), (.+?) in [\d.]+ %", text)) if settled else set()
        for also in re.findall(r"also ahead of (.+?), at p <", text):
            claimed |= set(re.split(", | and ", also))
        assert claimed == settled
