"""How sure is it? Differences between arms, what more participants would show, whether the answers can be trusted."""

import math
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
import streamlit as st

from db.answers import Answers
from db.studies import StudySummary
from platform.intervals import Share, wilson
from platform.results import titled
from platform.tables import Table
from survey_app.dashboard.chosen import Chosen, choose
from survey_app.dashboard.exhibits import COLOURS, NEUTRAL, Exhibit, Figure, show_exhibits
from survey_app.inclusions import inclusions_table
from survey_app.statistics import Contrast, bootstrap_shares, contrasts, planning, response_time_summary

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
    answers: Answers, chosen: Chosen, study: StudySummary, *, difference: float = DIFFERENCES[DEFAULT_DIFFERENCE]
) -> list[Exhibit]:
    """Contrasts, planning, all beside the attentive, and checks of the answers. difference: of shares, to be found."""
    kept = answers.of(chosen.inclusion)
    if not kept.participants:
        return ["No votes yet: the figures appear with the first answers."]
    arms = [contender.arm for contender in answers.contenders]
    pairs = contrasts(*kept.picked_and_asked())
    names = [f"{arms[pair.second]} − {arms[pair.first]}" for pair in pairs]
    compared: list[Exhibit] = [_contrast_figure(pairs, names, kept), _contrast_table(pairs, names, kept)]
    return [
        *(compared if pairs else []),
        _planning(kept, study, difference),
        inclusions_table(answers),
        "### Can the answers be trusted?",
        _checks(answers),
        (_response_times(kept), _by_position(kept, study)),
    ]


def _contrast_figure(pairs: list[Contrast], names: list[str], kept: Answers) -> Figure:
    rows = pd.DataFrame(
        {
            "contrast": names,
            "difference": [pair.difference for pair in pairs],
            "low": [pair.low for pair in pairs],
            "high": [pair.high for pair in pairs],
            "found": ["yes" if pair.p_holm is not None and pair.p_holm < 0.05 else "no" for pair in pairs],
        }
    ).astype({"difference": float, "low": float, "high": float})
    shown = rows.dropna(subset=["difference"])
    base = alt.Chart(shown).encode(
        y=alt.Y("contrast:N", sort=shown["contrast"].tolist(), title=None, axis=alt.Axis(labelLimit=400)),
        color=alt.Color(
            "found:N",
            scale=alt.Scale(domain=["yes", "no"], range=[COLOURS[1], COLOURS[0]]),
            title="p < 0.05 after Holm",
        ),
        tooltip=["contrast:N", *(alt.Tooltip(f"{name}:Q", format="+.1%") for name in ("difference", "low", "high"))],
    )
    x = alt.X("low:Q", title="difference (points)", axis=alt.Axis(format="+.0%"))
    chart = alt.layer(
        alt.Chart(pd.DataFrame({"none": [0.0]})).mark_rule(color=NEUTRAL, strokeDash=[2, 2]).encode(x="none:Q"),
        base.mark_rule(strokeWidth=3).encode(x=x, x2="high:Q"),
        base.mark_point(filled=True, size=90, opacity=1).encode(x="difference:Q"),
    )
    summary = "; ".join(
        f"{row['contrast']} {100 * row['difference']:+.0f} points ({100 * row['low']:+.0f} to {100 * row['high']:+.0f})"
        for _, row in shown.dropna(subset=["low"]).iterrows()
    )
    return Figure(
        name="contrasts",
        title=titled("Differences between models", simulated=kept.simulated),
        alternative=f"Differences of shares picked as real with 95 % intervals: {summary or 'none can be told yet'}.",
        chart=chart.properties(height=130 + 26 * len(shown)),
        data=rows,
        note="95 % intervals, robust to clusters of answers by one participant; not corrected for the number of "
        "contrasts (the colours are).",
    )


def _contrast_table(pairs: list[Contrast], names: list[str], kept: Answers) -> Table:
    numbers = pd.DataFrame(
        [
            {
                "difference": pair.difference,
                "95 % from": pair.low,
                "95 % to": pair.high,
                "odds ratio": pair.odds_ratio,
                "odds ratio, from": pair.odds_low,
                "odds ratio, to": pair.odds_high,
                "p": pair.p_value,
                "p (Holm)": pair.p_holm,
            }
            for pair in pairs
        ]
    ).astype(float)
    frame = pd.concat([pd.DataFrame({"contrast": names}), numbers], axis=1)
    frame["test"] = [pair.method for pair in pairs]
    shown = frame[["contrast"]].copy()
    points = (100 * numbers[["difference", "95 % from", "95 % to"]]).to_numpy()
    ratios = numbers[["odds ratio", "odds ratio, from", "odds ratio, to"]].to_numpy()
    shown["difference, points"] = [_with_limits(row, "+.1f", " to ") for row in points]
    shown["odds ratio"] = [_with_limits(row, ".2f", "–") for row in ratios]
    for heading in ("p", "p (Holm)"):
        shown[heading] = ["< 0.001" if value < 0.001 else _number(value, ".3f") for value in frame[heading]]
    shown["test"] = frame["test"]
    return Table(
        name="contrasts-table",
        title=titled("Every contrast, tested", simulated=kept.simulated),
        frame=frame,
        shown=shown,
        note="Two-sided. logit: of the answers on the model, clustered by participant. shares: a linear model, where a "
        "model was always or never picked. signs: a sign test over participants, where answers do not vary at all. "
        "Holm's correction is over all contrasts of this table.",
    )


def _planning(kept: Answers, study: StudySummary, difference: float) -> Table:
    """How far the study is from finding a difference: participants, power, and how many more it takes."""
    picked, asked = kept.picked_and_asked()
    count = len(kept.contenders)
    comparisons = {"one contrast, chosen beforehand": 1, "each of all contrasts": count * (count - 1) // 2}
    rows: list[dict[str, Any]] = []
    for name, contrast_count in comparisons.items():
        if rows and contrast_count < 2:
            continue
        plan = planning(
            picked,
            asked,
            difference=difference,
            questions_per_arm=study.plan.questions_per_arm,
            power=POWER,
            contrasts=contrast_count,
        )
        needed = math.nan if plan.participants_needed is None else plan.participants_needed
        rows.append(
            {
                "to find": name,
                "participants": plan.participants,
                "planned": kept.planned_participants,
                "power reached": plan.power_reached,
                "needed": needed,
                "more needed": needed if math.isnan(needed) else max(0, needed - plan.participants),
                "smallest difference found": plan.detectable_difference,
                "from": "assumed spread" if plan.assumed else "the answers' own spread",
            }
        )
    frame = pd.DataFrame(rows).astype({"power reached": float, "smallest difference found": float})
    shown = frame[["to find"]].copy()
    shown["participants / planned"] = [f"{row['participants']} / {row['planned']}" for row in rows]
    shown["power reached"] = [_number(100 * value, ".1f", " %") for value in frame["power reached"]]
    shown["participants needed"] = [_number(value, ".0f") for value in frame["needed"]]
    shown["more needed"] = [_number(value, ".0f") for value in frame["more needed"]]
    smallest = frame["smallest difference found"]
    shown[f"found with power {100 * POWER:.0f} %"] = [_number(100 * value, ".0f", " points") for value in smallest]
    shown["from"] = frame["from"]
    return Table(
        name="planning",
        title=titled(f"Can it find a difference of {100 * difference:.0f} points?", simulated=kept.simulated),
        frame=frame,
        shown=shown,
        note=f"Participants that a difference of {100 * difference:.0f} percentage points takes, to be found with "
        f"{100 * POWER:.0f} % power at p < 0.05 (paired t-test over participants; for all contrasts p < 0.05 over "
        "their number). Power reached is for that difference, were it real, with the participants so far.",
    )


def _checks(answers: Answers) -> Table:
    """Sentinels, sides, and whether people looked, of all who answered."""
    main = answers.votes[answers.votes["phase"] == "main"]
    sentinels, photographs = answers.right("sentinel"), answers.right("real")
    rows = [("sentinels seen through", wilson(sentinels.count, sentinels.total), "near 100 %")]
    if answers.protocol == "pair":
        left = main[main["answer"] == "left"]
        counts = [
            votes.groupby("participant").size().reindex(answers.people.index, fill_value=0) for votes in (left, main)
        ]
        sides = bootstrap_shares(*(count.to_numpy()[:, None] for count in counts))[0]
        share = Share(len(left), len(main), sides.estimate, sides.low, sides.high)
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
        title=titled("Attention and sides", simulated=answers.simulated),
        frame=pd.DataFrame(
            [
                {"check": name, "count": share.count, "of": share.total, "share": share.share, "95 % from": share.low}
                | {"95 % to": share.high, "expected": expected}
                for name, share, expected in rows
            ]
        ),
        shown=pd.DataFrame(
            [
                {"check": name, "share": str(share), "95 %": share.range, "expected": expected}
                for name, share, expected in rows
            ]
        ),
        note="Of all who answered, whoever is counted above. Sides: by participant (bootstrap); else Wilson.",
    )


def _response_times(kept: Answers) -> Figure:
    main = kept.votes[kept.votes["phase"] == "main"]
    frames, alternatives = [], []
    for name, right in (("right", True), ("wrong", False)):
        summary = response_time_summary(main.loc[main["correct"] == right, "response_time_ms"].to_numpy())
        if summary.quartiles_ms is None:
            continue
        frames.append(
            pd.DataFrame(
                {
                    "answers": name,
                    "from, s": summary.edges_ms[:-1] / 1000,
                    "to, s": summary.edges_ms[1:] / 1000,
                    "share": summary.counts / summary.answers,
                    "count": summary.counts,
                }
            )
        )
        low, median, high = (f"{quartile / 1000:.2f} s" for quartile in summary.quartiles_ms)
        alternatives.append(f"{name} answers: median {median}, quartiles {low} and {high}, n = {summary.answers}")
    data = pd.concat(frames)
    chart = (
        alt.Chart(data)
        .mark_bar(opacity=0.55)
        .encode(
            x=alt.X("from, s:Q", scale=alt.Scale(type="log"), title="response time (s, logarithmic)"),
            x2="to, s:Q",
            y=alt.Y("share:Q", stack=None, title="share of the answers", axis=alt.Axis(format="%")),
            y2=alt.datum(0),
            color=alt.Color(
                "answers:N", scale=alt.Scale(domain=["right", "wrong"], range=[*COLOURS[:2]]), title="answers"
            ),
            tooltip=["answers:N", "from, s:Q", "to, s:Q", "count:Q"],
        )
    )
    summary_text = "; ".join(alternatives)
    return Figure(
        name="response-times",
        title=titled("Response times", simulated=kept.simulated),
        alternative=f"Histogram of response times. {summary_text}.",
        chart=chart.properties(height=360),
        data=data,
        note=summary_text.capitalize() + ".",
    )


def _by_position(kept: Answers, study: StudySummary) -> Figure:
    """Share of right answers along the survey: practice one by one, then in blocks; without sentinels."""
    votes = kept.votes[kept.votes["kind"] != "sentinel"]
    practice = study.view.practice_count
    last = practice + study.view.question_count
    rows = []
    for start in [*range(1, practice + 1), *range(practice + 1, last + 1, BLOCK)]:
        end = start if start <= practice else min(start + BLOCK - 1, last)
        correct = votes.loc[votes["position"].between(start, end), "correct"]
        share = wilson(int(correct.sum()), len(correct))
        rows.append(
            {
                "question": (start + end) / 2,
                "questions": f"{start}" if start == end else f"{start} to {end}",
                "phase": "practice" if start <= practice else "main",
                "right": share.count,
                "of": share.total,
                "share": share.share,
                "low": share.low,
                "high": share.high,
            }
        )
    data = pd.DataFrame(rows).astype({"share": float, "low": float, "high": float})
    base = alt.Chart(data.dropna(subset=["share"])).encode(
        x=alt.X("question:Q", title="question, in order"),
        y=alt.Y("share:Q", title="right answers", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format="%")),
        color=alt.Color(
            "phase:N", scale=alt.Scale(domain=["practice", "main"], range=[COLOURS[1], COLOURS[0]]), title="phase"
        ),
    )
    tooltip = ["questions:N", "phase:N", "right:Q", "of:Q", alt.Tooltip("share:Q", format=".1%")]
    chart = alt.layer(
        alt.Chart(pd.DataFrame({"half": [0.5]})).mark_rule(color=NEUTRAL, strokeDash=[2, 2]).encode(y="half:Q"),
        base.mark_line(),
        base.mark_rule().encode(y="low:Q", y2="high:Q"),
        base.mark_point(filled=True, size=60, opacity=1).encode(tooltip=tooltip),
    )
    main = data[data["phase"] == "main"].dropna(subset=["share"])
    first_last = "no main answers"
    if len(main):
        first, final = 100 * main["share"].iloc[0], 100 * main["share"].iloc[-1]
        first_last = f"{first:.0f} % right in the first main block, {final:.0f} % in the last"
    return Figure(
        name="right-answers-by-position",
        title=titled("Practice and fatigue", simulated=kept.simulated),
        alternative=f"Share of right answers along the survey: {first_last}.",
        chart=chart.properties(height=360),
        data=data,
        note=f"95 % Wilson; main questions in blocks of {BLOCK}, without sentinels. Dashed: 50 %, guessing.",
    )


def _with_limits(row: np.ndarray, form: str, between: str) -> str:
    estimate, low, high = row.tolist()
    limits = "" if math.isnan(low) else f" ({low:{form}}{between}{high:{form}})"
    return _number(estimate, form) + limits


def _number(value: float, form: str, unit: str = "") -> str:
    return "–" if math.isnan(value) else f"{value:{form}}{unit}"
