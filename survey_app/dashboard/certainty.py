"""How sure is it? Differences between arms, what more participants would show, whether the answers can be trusted."""

import math
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
import streamlit as st

from db.answers import KINDS, Answers, Inclusion, summarise
from db.results import Share, wilson
from db.studies import StudySummary
from survey_app.dashboard.chosen import Chosen, choose
from survey_app.dashboard.exhibits import COLOURS, NEUTRAL, DataTable, Exhibit, Figure, show_exhibits, titled
from survey_app.statistics import (
    Contrast,
    Interval,
    bootstrap_shares,
    contrasts,
    planning,
    response_time_summary,
)

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
    picked, asked = kept.picked_and_asked()
    arms = [contender.arm for contender in answers.contenders]
    pairs = contrasts(picked, asked)
    simulated = chosen.simulated
    return [
        *([] if len(arms) < 2 else [_contrast_figure(pairs, arms, simulated=simulated)]),
        *([] if len(arms) < 2 else [_contrast_table(pairs, arms, simulated=simulated)]),
        _planning(kept, study, picked, asked, difference, simulated=simulated),
        _inclusions(answers, simulated=simulated),
        "### Can the answers be trusted?",
        _checks(answers, study, simulated=simulated),
        (
            _response_times(kept, simulated=simulated),
            _by_position(kept, study, simulated=simulated),
        ),
    ]


def _contrast_figure(pairs: list[Contrast], arms: list[str], *, simulated: bool) -> Figure:
    rows = pd.DataFrame(
        [
            {
                "contrast": f"{arms[pair.second]} − {arms[pair.first]}",
                "difference": pair.difference,
                "low": pair.low,
                "high": pair.high,
                "found": "yes" if pair.p_holm is not None and pair.p_holm < 0.05 else "no",
            }
            for pair in pairs
        ]
    ).astype({"difference": float, "low": float, "high": float})
    shown = rows.dropna(subset=["difference"])
    colour = alt.Color(
        "found:N",
        scale=alt.Scale(domain=["yes", "no"], range=[COLOURS[1], COLOURS[0]]),
        title="p < 0.05 after Holm",
    )
    y = alt.Y("contrast:N", sort=shown["contrast"].tolist(), title=None, axis=alt.Axis(labelLimit=400))
    x_axis = alt.Axis(format="+.0%")
    chart = alt.layer(
        alt.Chart(pd.DataFrame({"none": [0.0]})).mark_rule(color=NEUTRAL, strokeDash=[2, 2]).encode(x="none:Q"),
        alt.Chart(shown)
        .mark_rule(strokeWidth=3)
        .encode(x=alt.X("low:Q", title="difference (points)", axis=x_axis), x2="high:Q", y=y, color=colour),
        alt.Chart(shown)
        .mark_point(filled=True, size=90, opacity=1)
        .encode(
            x="difference:Q",
            y=y,
            color=colour,
            tooltip=[
                "contrast:N",
                *(alt.Tooltip(f"{name}:Q", format="+.1%") for name in ("difference", "low", "high")),
            ],
        ),
    ).properties(height=130 + 26 * len(shown))
    summary = "; ".join(
        f"{row['contrast']} {100 * row['difference']:+.0f} points ({100 * row['low']:+.0f} to {100 * row['high']:+.0f})"
        for _, row in shown.dropna(subset=["low"]).iterrows()
    )
    return Figure(
        name="contrasts",
        title=titled("Differences between models", simulated=simulated),
        alternative=f"Differences of shares picked as real with 95 % intervals: {summary or 'none can be told yet'}.",
        chart=chart,
        data=rows,
        note="95 % intervals, robust to clusters of answers by one participant; not corrected for the number of "
        "contrasts (the colours are).",
    )


def _contrast_table(pairs: list[Contrast], arms: list[str], *, simulated: bool) -> DataTable:
    frame = pd.DataFrame(
        [
            {
                "contrast": f"{arms[pair.second]} − {arms[pair.first]}",
                "difference": pair.difference,
                "95 % from": pair.low,
                "95 % to": pair.high,
                "odds ratio": pair.odds_ratio,
                "odds ratio, from": pair.odds_low,
                "odds ratio, to": pair.odds_high,
                "p": pair.p_value,
                "p (Holm)": pair.p_holm,
                "test": pair.method,
            }
            for pair in pairs
        ]
    )
    numbers = [heading for heading in frame.columns if heading not in ("contrast", "test")]
    frame = frame.astype(dict.fromkeys(numbers, float))
    shown = frame[["contrast"]].copy()
    shown["difference, points"] = [_points(*row) for row in frame[["difference", "95 % from", "95 % to"]].to_numpy()]
    shown["odds ratio"] = [
        _ratio(*row) for row in frame[["odds ratio", "odds ratio, from", "odds ratio, to"]].to_numpy()
    ]
    for heading in ("p", "p (Holm)"):
        shown[heading] = [_p_value(value) for value in frame[heading]]
    shown["test"] = frame["test"]
    return DataTable(
        name="contrasts-table",
        title=titled("Every contrast, tested", simulated=simulated),
        frame=frame,
        shown=shown,
        note="Two-sided. logit: of the answers on the model, clustered by participant. shares: a linear model, where a "
        "model was always or never picked. signs: a sign test over participants, where answers do not vary at all. "
        "Holm's correction is over all contrasts of this table.",
    )


def _planning(
    kept: Answers, study: StudySummary, picked: np.ndarray, asked: np.ndarray, difference: float, *, simulated: bool
) -> DataTable:
    """How far the study is from finding a difference: participants, power, and how many more it takes."""
    count = len(kept.contenders)
    comparisons = count * (count - 1) // 2
    share_of_arms = 1.0 if study.view.protocol == "pair" else 0.5  # half of the singles show the photograph itself
    questions = share_of_arms * (study.view.question_count - study.sentinel_count) / count
    rows: list[dict[str, Any]] = []
    for name, contrast_count in (("one contrast, chosen beforehand", 1), ("each of all contrasts", comparisons)):
        if contrast_count < 1 or (contrast_count == 1 and rows):
            continue
        plan = planning(
            picked,
            asked,
            difference=difference,
            questions_per_arm=questions,
            power=POWER,
            contrasts=contrast_count,
        )
        needed = plan.participants_needed
        rows.append(
            {
                "to find": name,
                "participants": plan.participants,
                "planned": kept.planned_participants,
                "power reached": plan.power_reached,
                "needed": needed,
                "more needed": None if needed is None else max(0, needed - plan.participants),
                "smallest difference found": plan.detectable_difference,
                "from": "assumed spread" if plan.assumed else "the answers' own spread",
            }
        )
    frame = pd.DataFrame(rows)
    shown = frame[["to find"]].copy()
    shown["participants / planned"] = [f"{row['participants']} / {row['planned']}" for _, row in frame.iterrows()]
    shown["power reached"] = [_percent(value) for value in frame["power reached"].astype(float)]
    shown["participants needed"] = [_count(value) for value in frame["needed"].astype(float)]
    shown["more needed"] = [_count(value) for value in frame["more needed"].astype(float)]
    shown[f"found with power {100 * POWER:.0f} %"] = [
        "–" if math.isnan(value) else f"{100 * value:.0f} points"
        for value in frame["smallest difference found"].astype(float)
    ]
    shown["from"] = frame["from"]
    return DataTable(
        name="planning",
        title=titled(f"Can it find a difference of {100 * difference:.0f} points?", simulated=simulated),
        frame=frame,
        shown=shown,
        note=f"Participants that a difference of {100 * difference:.0f} percentage points takes, to be found with "
        f"{100 * POWER:.0f} % power at p < 0.05 (paired t-test over participants; for all contrasts p < 0.05 over "
        "their number). Power reached is for that difference, were it real, with the participants so far.",
    )


def _inclusions(answers: Answers, *, simulated: bool) -> DataTable:
    """Both analyses side by side, with intervals by answers and by participants."""
    frame = pd.DataFrame({"model": [contender.arm for contender in answers.contenders]})
    shown = frame.copy()
    inclusions: dict[str, Inclusion] = {"all": "all", "attentive": "attentive"}
    for name, inclusion in inclusions.items():
        kept = answers.of(inclusion)
        heading = f"{name} ({kept.participants})"
        shares = [row.picked_as_real for row in summarise(answers, inclusion).rows]
        by_participant = bootstrap_shares(*kept.picked_and_asked())
        frame[f"{heading}: picked"] = [share.count for share in shares]
        frame[f"{heading}: asked"] = [share.total for share in shares]
        frame[f"{heading}: share"] = [share.share for share in shares]
        frame[f"{heading}: Wilson from"] = [share.low for share in shares]
        frame[f"{heading}: Wilson to"] = [share.high for share in shares]
        frame[f"{heading}: participants from"] = [interval.low for interval in by_participant]
        frame[f"{heading}: participants to"] = [interval.high for interval in by_participant]
        shown[heading] = [f"{_percent(share.share)} ({share.count}/{share.total})" for share in shares]
        shown[f"{name}: Wilson"] = [_range(share) for share in shares]
        shown[f"{name}: by participant"] = [_range(interval) for interval in by_participant]
    return DataTable(
        name="all-and-attentive",
        title=titled("All participants, and the attentive alone", simulated=simulated),
        frame=frame,
        shown=shown,
        note=f"Attentive: {answers.exclusion_rule}. Wilson's interval takes every answer for another person's; the one "
        "by participant (bootstrap) keeps the answers of one person together and is the one to trust, though with "
        "fewer than 20 participants it too is somewhat narrow.",
    )


def _checks(answers: Answers, study: StudySummary, *, simulated: bool) -> DataTable:
    """Sentinels and sides, of all who answered."""
    sentinels = answers.votes.of_kind("sentinel")
    rows = [
        ("sentinels seen through", wilson(int(sentinels.correct.sum()), len(sentinels.correct)), "near 100 %"),
    ]
    if study.view.protocol == "pair":
        main = answers.votes.where(answers.votes.main)
        left = main.photograph_left == main.correct  # the side that was taken
        sides = bootstrap_shares(
            np.bincount(main.participant[left], minlength=answers.participants)[:, None],
            np.bincount(main.participant, minlength=answers.participants)[:, None],
        )[0]
        rows.append(
            (
                "answers that took the left picture",
                Share(int(left.sum()), len(left), sides.estimate, sides.low, sides.high),
                "50 %: photographs stand left as often as right",
            )
        )
    else:
        real = answers.votes.of_kind("real")
        rows.append(
            (
                "photographs taken for photographs",
                wilson(int(real.correct.sum()), len(real.correct)),
                "what the models' shares are to be compared with",
            )
        )
    attentive = wilson(int(answers.attentive.sum()), answers.participants)
    rows.append(("attentive participants", attentive, "the exclusion rule leaves the others out"))
    frame = pd.DataFrame(
        [
            {"check": name, "count": share.count, "of": share.total, "share": share.share, "95 % from": share.low}
            | {"95 % to": share.high, "expected": expected}
            for name, share, expected in rows
        ]
    )
    shown = frame[["check"]].copy()
    shown["share"] = [f"{_percent(share.share)} ({share.count}/{share.total})" for _, share, _ in rows]
    shown["95 %"] = [_range(share) for _, share, _ in rows]
    shown["expected"] = frame["expected"]
    return DataTable(
        name="checks",
        title=titled("Attention and sides", simulated=simulated),
        frame=frame,
        shown=shown,
        note="Of all who answered, whoever is counted above. Sides: by participant (bootstrap); else Wilson.",
    )


def _response_times(kept: Answers, *, simulated: bool) -> Figure:
    frames, alternatives = [], []
    for name, votes in (
        ("right", kept.votes.where(kept.votes.main & kept.votes.correct)),
        ("wrong", kept.votes.where(kept.votes.main & ~kept.votes.correct)),
    ):
        summary = response_time_summary(votes.response_time_ms)
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
                "answers:N", scale=alt.Scale(domain=["right", "wrong"], range=[COLOURS[0], COLOURS[1]]), title="answers"
            ),
            tooltip=["answers:N", "from, s:Q", "to, s:Q", "count:Q"],
        )
        .properties(height=360)
    )
    summary_text = "; ".join(alternatives)
    return Figure(
        name="response-times",
        title=titled("Response times", simulated=simulated),
        alternative=f"Histogram of response times. {summary_text}.",
        chart=chart,
        data=data,
        note=summary_text.capitalize() + ".",
    )


def _by_position(kept: Answers, study: StudySummary, *, simulated: bool) -> Figure:
    """Share of right answers along the survey: practice one by one, then in blocks; sentinels and all."""
    votes = kept.votes.where(kept.votes.kind != KINDS.index("sentinel"))
    practice = study.view.practice_count
    rows = []
    starts = [*range(1, practice + 1), *range(practice + 1, practice + study.view.question_count + 1, BLOCK)]
    for start in starts:
        end = start if start <= practice else min(start + BLOCK - 1, practice + study.view.question_count)
        inside = (votes.position >= start) & (votes.position <= end)
        share = wilson(int(votes.correct[inside].sum()), int(inside.sum()))
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
    colour = alt.Color(
        "phase:N", scale=alt.Scale(domain=["practice", "main"], range=[COLOURS[1], COLOURS[0]]), title="phase"
    )
    base = alt.Chart(data.dropna(subset=["share"]))
    x = alt.X("question:Q", title="question, in order")
    chart = alt.layer(
        alt.Chart(pd.DataFrame({"half": [0.5]})).mark_rule(color=NEUTRAL, strokeDash=[2, 2]).encode(y="half:Q"),
        base.mark_line().encode(x=x, y="share:Q", color=colour),
        base.mark_rule().encode(x=x, y="low:Q", y2="high:Q", color=colour),
        base.mark_point(filled=True, size=60, opacity=1).encode(
            x=x,
            y=alt.Y("share:Q", title="right answers", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format="%")),
            color=colour,
            tooltip=["questions:N", "phase:N", "right:Q", "of:Q", alt.Tooltip("share:Q", format=".1%")],
        ),
    ).properties(height=360)
    main = data[data["phase"] == "main"].dropna(subset=["share"])
    first_last = (
        f"{100 * main['share'].iloc[0]:.0f} % right in the first main block, "
        f"{100 * main['share'].iloc[-1]:.0f} % in the last"
        if len(main)
        else "no main answers"
    )
    return Figure(
        name="right-answers-by-position",
        title=titled("Practice and fatigue", simulated=simulated),
        alternative=f"Share of right answers along the survey: {first_last}.",
        chart=chart,
        data=data,
        note=f"95 % Wilson; main questions in blocks of {BLOCK}, without sentinels.",
    )


def _points(difference: float, low: float, high: float) -> str:
    if math.isnan(difference):
        return "–"
    return f"{100 * difference:+.1f}" + ("" if math.isnan(low) else f" ({100 * low:+.1f} to {100 * high:+.1f})")


def _ratio(ratio: float, low: float, high: float) -> str:
    if math.isnan(ratio):
        return "–"
    return f"{ratio:.2f}" + ("" if math.isnan(low) else f" ({low:.2f}–{high:.2f})")


def _p_value(value: float) -> str:
    return "–" if math.isnan(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _percent(share: float | None) -> str:
    return "–" if share is None or math.isnan(share) else f"{100 * share:.1f} %"


def _count(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.0f}"


def _range(interval: Share | Interval) -> str:
    if interval.low is None or interval.high is None:
        return "–"
    return f"{100 * interval.low:.0f}–{100 * interval.high:.0f} %"
