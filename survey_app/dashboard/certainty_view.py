"""How sure is it? Differences between arms, what more participants would show, whether the answers can be trusted."""

from dataclasses import asdict

import numpy as np
import pandas as pd
import streamlit as st

from db.schema import Study
from db.surveys.answers import Answers
from db.surveys.study import plan_for
from platform.tables.intervals import Share, title_votes, wilson
from platform.tables.table import Table
from survey_app.analysis.inference import bootstrap_shares, contrasts, planning
from survey_app.analysis.tables import inclusions_table
from survey_app.dashboard.choice import Choice
from survey_app.dashboard.exhibits import Exhibit, show_exhibits

POWER = 0.8
DIFFERENCES = (0.05, 0.1, 0.2)  # of shares, that a study is planned for


def show(choice: Choice) -> None:
    """Draw the view."""
    if choice.answers is None or choice.study is None:
        st.info(choice.hidden or "Nobody has been asked yet: this view tells how sure the votes are.")
    else:
        show_exhibits(exhibits(choice.answers, choice, choice.study))


def exhibits(answers: Answers, choice: Choice, study: Study) -> list[Exhibit]:
    """Contrasts, planning, all beside the attentive, and checks of the answers."""
    counted = answers.of(choice.inclusion)
    if not counted.participants:
        return ["No votes yet: the figures appear with the first answers."]
    of_pairs = [_contrasts_table(counted), _planning_table(counted, study)] if len(counted.contenders) > 1 else []
    return [*of_pairs, inclusions_table(answers), _checks_table(answers)]


def _contrasts_table(counted: Answers) -> Table:
    arms = np.array([trial.arm.name for trial in counted.contenders])
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


def _planning_table(counted: Answers, study: Study) -> Table:
    """How far the study is from finding differences: power, and how many participants it takes, for one contrast and
    for each of all."""
    pairs = len(counted.contenders) * (len(counted.contenders) - 1) // 2
    rows = []
    for difference in DIFFERENCES:
        one, each = (
            planning(
                *counted.picked_and_asked(),
                difference=difference,
                questions_per_arm=plan_for(study, arms=len(counted.contenders)).questions_per_arm,
                power=POWER,
                alpha=0.05 / count,  # Bonferroni's, which Holm never falls short of
            )
            for count in (1, pairs)
        )
        rows.append(
            {
                "difference (points)": 100 * difference,
                "needed, one contrast": one.participants_needed,
                "power so far (%)": None if one.power_reached is None else 100 * one.power_reached,
                "needed, all contrasts": each.participants_needed,
            }
        )
    spread = "an assumed spread" if one.assumed else "the answers' own spread"
    frame = pd.DataFrame(rows).astype(float)
    return Table(
        name="planning",
        title=title_votes("How many participants does it take?", simulated=counted.simulated),
        frame=frame,
        formats=dict.fromkeys(frame.columns, ".0f"),
        note=f"To find such a difference between two models, were it real, with {100 * POWER:.0f} % power at p < 0.05: "
        "one contrast that was chosen beforehand, or each of all (p < 0.05 over their number); paired t-test over "
        f"participants, from {spread}. So far: {counted.participants} of {counted.planned_participants} planned.",
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
        rows.append(("photographs taken for photographs", share, "what the models' shares are to be compared with"))
    hidden = wilson(int(main["hidden"].sum()), len(main))
    rows.append(("answers to pictures shown out of sight", hidden, "0 %: the page was hidden meanwhile"))
    attentive = wilson(int(answers.people["attentive"].sum()), answers.participants)
    rows.append(("attentive participants", attentive, "the exclusion rule leaves the others out"))
    seconds = main["response_time_ms"].quantile([0.25, 0.5, 0.75]) / 1000
    return Table(
        name="checks",
        title=title_votes("Can the answers be trusted?", simulated=answers.simulated),
        frame=pd.DataFrame([{"check": name, **asdict(share), "expected": expected} for name, share, expected in rows]),
        shown=pd.DataFrame(
            [
                {"check": name, "share": str(share), "95 %": share.range, "expected": expected}
                for name, share, expected in rows
            ]
        ),
        note="Of all who answered, whoever is counted above. Sides: by participant (bootstrap); else Wilson. Half of "
        f"all answers took between {seconds[0.25]:.2g} and {seconds[0.75]:.2g} s, the median {seconds[0.5]:.2g} s.",
    )
