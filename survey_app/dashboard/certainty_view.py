"""How sure is it? Differences between arms, what more participants would show, whether the answers can be trusted."""

from dataclasses import asdict

import altair as alt
import numpy as np
import pandas as pd
import streamlit as st

from db.schema import Study
from db.surveys.answers import Answers
from db.surveys.study import plan_for
from platform.tables.intervals import Share, title_votes, wilson
from platform.tables.table import Table
from survey_app.analysis.inclusions import inclusions_table
from survey_app.analysis.inference import bootstrap_shares, contrasts, planning
from survey_app.dashboard.chosen import Chosen, choose
from survey_app.dashboard.exhibits import COLOURS, Exhibit, Figure, interval_marks, mark_line, show_exhibits

POWER = 0.8
DIFFERENCES = {f"{points} points": points / 100 for points in (5, 10, 15, 20, 30)}
DEFAULT_DIFFERENCE = "10 points"
BLOCK = 5  # questions, in the curve of practice and fatigue


def show(chosen: Chosen) -> None:
    """Draw the view."""
    if chosen.answers is None or chosen.study is None:
        st.info(chosen.hidden or "Nobody has been asked yet: this view tells how sure the votes are.")
        return
    wanted = choose(
        "Difference to be found", list(DIFFERENCES), key="difference", default=DEFAULT_DIFFERENCE, kind="buttons"
    )
    show_exhibits(exhibits(chosen.answers, chosen, chosen.study, difference=DIFFERENCES[wanted]))


def exhibits(
    answers: Answers, chosen: Chosen, study: Study, *, difference: float = DIFFERENCES[DEFAULT_DIFFERENCE]
) -> list[Exhibit]:
    """Contrasts, planning, all beside the attentive, and checks of the answers. difference: of shares, to be found."""
    counted = answers.of(chosen.inclusion)
    if not counted.participants:
        return ["No votes yet: the figures appear with the first answers."]
    return [
        *([_contrasts_table(counted)] if len(counted.contenders) > 1 else []),
        _planning_table(counted, study, difference),
        inclusions_table(answers),
        "### Can the answers be trusted?",
        _checks_table(answers),
        _state_response_times(counted),
        _positions_figure(counted, study),
    ]


def _contrasts_table(counted: Answers) -> Table:
    arms = np.array([contender.arm for contender in counted.contenders])
    found = contrasts(*counted.picked_and_asked())
    points = 100 * found[["difference", "low", "high"]]
    frame = pd.DataFrame(
        {
            "model": arms[found["second"]],
            "compared with": arms[found["first"]],
            "difference (points)": points["difference"],
            "95 % from": points["low"],
            "95 % to": points["high"],
            "p": found["p_value"],
            "p (Holm)": found["p_holm"],
        }
    )
    return Table(
        name="contrasts",
        title=title_votes("Differences between models", simulated=counted.simulated),
        frame=frame,
        formats=dict.fromkeys(["difference (points)", "95 % from", "95 % to"], "+.1f")
        | dict.fromkeys(["p", "p (Holm)"], ".2g"),
        note="Of shares picked as real, by a linear model with errors robust to clusters of answers by one person, "
        "two-sided. Holm's correction is over all rows; the intervals are not corrected. Where answers do not vary, as "
        "between a model that everybody always picked and one that nobody ever did, there is neither interval nor p.",
    )


def _planning_table(counted: Answers, study: Study, difference: float) -> Table:
    """How far the study is from finding a difference: participants, power, and how many it takes."""
    pairs = len(counted.contenders) * (len(counted.contenders) - 1) // 2
    comparisons = {"one contrast, chosen beforehand": 1} | ({"each of all contrasts": pairs} if pairs > 1 else {})
    rows = []
    for name, count in comparisons.items():
        plan = planning(
            *counted.picked_and_asked(),
            difference=difference,
            questions_per_arm=plan_for(study, arms=len(counted.contenders)).questions_per_arm,
            power=POWER,
            alpha=0.05 / count,  # Bonferroni's, which Holm never falls short of
        )
        rows.append(
            {
                "to find": name,
                "participants": plan.participants,
                "planned": counted.planned_participants,
                "needed": plan.participants_needed,
                "power reached (%)": None if plan.power_reached is None else 100 * plan.power_reached,
                "from": "assumed spread" if plan.assumed else "the answers' own spread",
            }
        )
    return Table(
        name="planning",
        title=title_votes(f"Can it find a difference of {100 * difference:.0f} points?", simulated=counted.simulated),
        frame=pd.DataFrame(rows).astype({"needed": float, "power reached (%)": float}),
        formats={"needed": ".0f", "power reached (%)": ".1f"},
        note=f"Needed: participants that a difference of {100 * difference:.0f} percentage points takes, to be found "
        f"with {100 * POWER:.0f} % power at p < 0.05 (paired t-test over participants; for all contrasts p < 0.05 over "
        "their number). Power reached: for that difference, were it real, with the participants so far.",
    )


def _checks_table(answers: Answers) -> Table:
    """Sentinels, sides, and whether people looked, of all who answered."""
    main = answers.votes[answers.votes["phase"] == "main"]
    sentinels, photographs = answers.right("sentinel"), answers.right("real")
    rows = [("sentinels seen through", wilson(sentinels.count, sentinels.total), "near 100 %")]
    if answers.protocol == "pair":
        left = main["answer"] == "left"
        counts = left.groupby(main["participant"]).agg(["sum", "count"]).to_numpy()
        sides = bootstrap_shares(counts[:, :1], counts[:, 1:])[0]
        share = Share(int(left.sum()), len(left), sides.estimate, sides.low, sides.high)
        rows.append(("answers that took the left picture", share, "50 %: photographs stand left as often as right"))
    else:
        share = wilson(photographs.count, photographs.total)
        expected = "what the models' shares are to be compared with"
        rows.append(("photographs taken for photographs", share, expected))
    hidden = wilson(int(main["hidden"].sum()), len(main))
    rows.append(("answers to pictures shown out of sight", hidden, "0 %: the page was hidden meanwhile"))
    attentive = wilson(int(answers.people["attentive"].sum()), answers.participants)
    rows.append(("attentive participants", attentive, "the exclusion rule leaves the others out"))
    return Table(
        name="checks",
        title=title_votes("Attention and sides", simulated=answers.simulated),
        frame=pd.DataFrame([{"check": name, **asdict(share), "expected": expected} for name, share, expected in rows]),
        shown=pd.DataFrame(
            [
                {"check": name, "share": str(share), "95 %": share.range, "expected": expected}
                for name, share, expected in rows
            ]
        ),
        note="Of all who answered, whoever is counted above. Sides: by participant (bootstrap); else Wilson.",
    )


def _state_response_times(counted: Answers) -> str:
    """How long right and wrong answers took."""
    main = counted.votes[counted.votes["phase"] == "main"]
    parts = []
    for words, right in (("right", True), ("wrong", False)):
        seconds = main.loc[main["correct"] == right, "response_time_ms"] / 1000
        if len(seconds):
            low, median, high = seconds.quantile([0.25, 0.5, 0.75])
            parts.append(
                f"median of {len(seconds):,} {words} answers {median:.2g} s (quartiles {low:.2g}–{high:.2g} s)"
            )
    return f"**Response times**: {'; '.join(parts) or 'no main answers yet'}."


def _positions_figure(counted: Answers, study: Study) -> Figure:
    """Share of right answers along the survey: practice one by one, then in blocks; without sentinels."""
    votes = counted.votes[counted.votes["kind"] != "sentinel"]
    practice = study.practice_count
    block = (votes["position"] - 1).where(votes["phase"] == "practice", (votes["position"] - 1 - practice) // BLOCK)
    rows = [
        {
            "question": positions.mean(),
            "questions": f"{positions.min()} to {positions.max()}",
            "phase": phase,
            **asdict(wilson(int(group["correct"].sum()), len(group))),
        }
        for (phase, _), group in votes.groupby(["phase", block])
        for positions in [group["position"]]
    ]
    columns = ["question", "questions", "phase", "count", "total", "share", "low", "high"]
    data = pd.DataFrame(rows, columns=columns).sort_values("question")
    base = alt.Chart(data).encode(
        x=alt.X("question:Q", title="question, in order"),
        color=alt.Color("phase:N", scale=alt.Scale(domain=["main", "practice"], range=list(COLOURS[:2]))),
    )
    tooltip = ["questions:N", "phase:N", "count:Q", "total:Q", alt.Tooltip("share:Q", format=".1%")]
    main = 100 * data.loc[data["phase"] == "main", "share"]
    ends = f"{main.iloc[0]:.0f} % right in the first main block, {main.iloc[-1]:.0f} % in the last" if len(main) else ""
    return Figure(
        name="right-answers-by-position",
        title=title_votes("Practice and fatigue", simulated=counted.simulated),
        alternative=f"Share of right answers along the survey: {ends or 'no main answers'}.",
        chart=alt.layer(
            *mark_line(0.5, "y"),
            base.mark_line().encode(y="share:Q"),
            *interval_marks(base, "y", "right answers", tooltip=tooltip),
        ).properties(height=360),
        data=data,
        note=f"95 % Wilson; main questions in blocks of {BLOCK}, without sentinels. Dashed: 50 %, guessing.",
    )
