"""An experiment's results as tables, for the console, the dashboard and the report. What scores there are and how they
are printed, `platform.color.scores` says.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import pandas as pd
from rich.console import Console
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from db.schema import Arm, Experiment, Study, Trial, TrialStatus
from db.store import read_session
from db.surveys.answers import Answers, Inclusion, StudyBlinded, load_answers
from db.surveys.study import studies_of
from db.sweeps.trials import (
    ArmResult,
    MeasuredTrial,
    arm_results,
    experiment_progress,
    replicate_scores,
)
from platform.color.scores import JURY, SCORES
from platform.tables.intervals import Share, title_votes, wilson
from platform.tables.seeds import seed_tables
from platform.tables.table import Table, shorten

STATUSES: tuple[TrialStatus, ...] = ("finished", "stopped_early", "failed", "running", "pending")

# Beside the votes, with their splits; all other scores have a table of their own.
BESIDE_VOTES = (
    ("bin_accuracy", "train"),
    ("bin_accuracy", "validation"),
    ("exact_accuracy", "train"),
    ("exact_accuracy", "validation"),
    ("information", "validation"),
)
# The study that HueJury started from, as its poster gave it: model, which accuracy, in training and validation, picked
# as real of how many answers. CIFAR-10, 26 answers per model.
PUBLISHED = (
    ("regression (L2)", "exact_accuracy", 0.0001, 0.0001, 9, 26),
    ("classification", "bin_accuracy", 0.230, 0.226, 15, 26),
    ("classification, rebalanced", "bin_accuracy", 0.192, 0.177, 18, 26),
)


def results_tables(
    session: Session,
    experiment: str,
    answers: Answers | None,
    inclusion: Inclusion = "all",
    *,
    no_votes: str = "No study asks people about it yet.",
    published: bool = False,
) -> list[Table]:
    """Accuracies beside votes, the other scores, and the trials that stand behind them.

    An arm stands in them with the trial that the study asks about, else with its best one. answers: of the study, or
    None where there are none to be shown, and `no_votes` says why. published: with the original study's figures. Raises
    UnknownExperimentError.
    """
    results = arm_results(session, experiment)
    trials: dict[int, MeasuredTrial | None] = {result.arm_id: result.best for result in results}
    if answers is not None:
        trials |= {contender.arm_id: contender.trial for contender in answers.contenders}
    row = session.get_one(Experiment, experiment_progress(session, experiment).id)
    searched = [name for name, tried in row.config["search"].get("space", {}).items() if tried is not None]
    votes = _votes_table(results, trials, answers, inclusion, no_votes, published=published)
    note = f"{votes.note} {jury_note(session, experiment, None if answers is None else answers.study)}".strip()
    return [
        replace(votes, note=note),
        _scores_table(results, trials),
        _trials_table(results, trials, searched),
    ]


def _votes_table(
    results: Sequence[ArmResult],
    trials: dict[int, MeasuredTrial | None],
    answers: Answers | None,
    inclusion: Inclusion,
    no_votes: str,
    *,
    published: bool,
) -> Table:
    """The poster gave bin accuracy for classification and exact accuracy for regression; here both stand for all."""
    kept = None if answers is None else answers.of(inclusion)
    shares: dict[int, Share] = {}
    if kept is not None:
        for contender, count in zip(kept.contenders, kept.picked_as_real(), strict=True):
            shares[contender.arm_id] = wilson(count.count, count.total)
    nobody = wilson(0, 0)
    rows = [_votes_row(result.arm, trials[result.arm_id], shares.get(result.arm_id, nobody)) for result in results]
    if kept is not None and kept.protocol == "single":
        photographs = kept.right("real")
        rows.append(_votes_row("the photographs", None, wilson(photographs.count, photographs.total)))
    for model, score, train, validation, picked, asked in PUBLISHED if published else ():
        values, text, share = _votes_row(f"published: {model}", None, wilson(picked, asked))
        for split, value in (("train", train), ("validation", validation)):
            heading = _heading(score, split)
            values[heading], text[heading] = SCORES[score].in_unit(value), SCORES[score].write(value)
        rows.append((values, text, share))
    frame = pd.DataFrame([values for values, _, _ in rows])
    bars = [share.bar for _, _, share in rows]
    return Table(
        name="results",
        title=title_votes("Accuracy and votes", simulated=answers is not None and answers.simulated),
        frame=frame.astype(dict.fromkeys(frame.columns[1:], float)),
        shown=pd.DataFrame([text for _, text, _ in rows]).fillna("–"),
        bars=bars if any(bars) else None,
        mark=None if kept is None else kept.mark,
        note=" ".join([_accuracy_note(), *_votes_note(results, answers, no_votes), *([PUBLISHED_NOTE] * published)]),
    )


def _votes_row(model: str, trial: MeasuredTrial | None, share: Share) -> tuple[dict[str, Any], dict[str, str], Share]:
    values: dict[str, Any] = {"model": model}
    text = {"model": model}
    for score, split in BESIDE_VOTES:
        value = _score(trial, score, split)
        values[_heading(score, split)] = SCORES[score].in_unit(value)
        text[_heading(score, split)] = SCORES[score].write(value)
    asked = share.total > 0
    values |= {"picked as real": share.share, "times picked": share.count if asked else None}
    values |= {"times asked": share.total if asked else None, "95 % from": share.low, "95 % to": share.high}
    text |= {"picked as real": share.percent, "k/n": f"{share.count}/{share.total}" if asked else "–"}
    text |= {"95 % Wilson": share.range}
    jury, mark = SCORES[JURY], _score(trial, JURY)
    if mark is not None:
        values[jury.heading], text[jury.heading] = jury.in_unit(mark), jury.write(mark, _error(trial, JURY))
    return values, text, share


def describe_acuity(acuity: int) -> str:
    return (
        f"The jury sees chroma averaged over {acuity}×{acuity} pixels." if acuity > 1 else "The jury sees every pixel."
    )


def jury_note(session: Session, experiment: str, study: str | None) -> str:
    """What the machine jury was, and whether it was held before the study opened; "" where there was none."""
    found = session.scalar(select(Experiment.jury).where(Experiment.name == experiment))
    if found is None:
        return ""
    held = datetime.fromisoformat(found["judged_at"])
    opened = session.scalar(select(Study.created_at).where(Study.name == study))
    late = f", after study {study!r} had opened" if opened is not None and opened < held else ""
    return (
        f"The jury is a machine, held on {held:%Y-%m-%d}{late}: a critic that learned to tell these models' pictures "
        f"from photographs, on other pictures than it judges. {describe_acuity(found['acuity'])} It tells "
        f"{100 * found['pair_accuracy']:.0f} % of pairs apart. Its marks are no votes."
    )


PUBLISHED_NOTE = (
    "Rows marked published are the original study's, on its own images of CIFAR-10, models and participants: not to be "
    "ranked with the rows above."
)


def _accuracy_note() -> str:
    return (
        "Accuracies are shares of pixels: the right one of the grid's 400 bins, or exactly the right a and b (1/400 "
        f"and 1/65,536 by chance). {predictions_note([score for score, _ in BESIDE_VOTES])}"
    )


def predictions_note(scores: Sequence[str]) -> str:
    """Which of the scores are of the distribution over colours and which of the colour that was read off it."""
    kinds = {
        False: "Of the likeliest entry of a model's palette, or of its whole distribution:",
        True: "Of the decoded colour, which people see:",
    }
    sentences = []
    for decoded, what in kinds.items():
        names = dict.fromkeys(SCORES[score].words for score in scores if SCORES[score].of_decoded_colour == decoded)
        if names:
            sentences.append(f"{what} {', '.join(names)}.")
    return " ".join(sentences)


def _votes_note(results: Sequence[ArmResult], answers: Answers | None, no_votes: str) -> list[str]:
    """Who was asked, and by which trials."""
    if answers is None:
        return [no_votes]
    if not answers.participants:
        return [f"Nobody has answered study {answers.study!r} ({answers.status}) yet."]
    meaning = (
        "50 % means that nobody can tell the picture from the photograph beside it"
        if answers.protocol == "pair"
        else "as often as the photographs themselves means that nobody can tell"
    )
    best = {result.arm_id: result.best for result in results}
    others = [
        f"{contender.arm} by its trial #{contender.trial.number}"
        for contender in answers.contenders
        if (trial := best[contender.arm_id]) is not None and contender.trial.trial_id != trial.trial_id
    ]
    return [
        f"Picked as real: {meaning}. Study {answers.study!r} ({answers.status}): {answers.participants} participants "
        f"of {answers.planned_participants} planned, {int(answers.people['attentive'].sum())} of them attentive "
        f"({answers.exclusion_rule}). k/n and the Wilson interval count every answer as if it were another person's.",
        *([f"It asks about {', '.join(others)}, which is not the best."] if others else []),
    ]


def _scores_table(results: Sequence[ArmResult], trials: dict[int, MeasuredTrial | None]) -> Table:
    """Validation scores with their standard errors."""
    beside = {"loss", JURY, *(score for score, _ in BESIDE_VOTES)}
    scores = [score for score in SCORES if score not in beside]
    rows, texts = [], []
    for result in results:
        trial = trials[result.arm_id]
        row: dict[str, Any] = {"model": result.arm}
        text = {"model": result.arm}
        for name in scores:
            score, value, error = SCORES[name], _score(trial, name), _error(trial, name)
            row[score.heading] = score.in_unit(value)
            row[f"{score.heading}, standard error"] = score.in_unit(error)
            text[score.heading] = score.write(value, error)
        rows.append(row)
        texts.append(text)
    lower = [SCORES[score].words for score in scores if SCORES[score].higher_is_better is False]
    neither = [SCORES[score].words for score in scores if SCORES[score].higher_is_better is None]
    return Table(
        name="scores",
        title="Other scores on the validation split",
        frame=pd.DataFrame(rows),
        shown=pd.DataFrame(texts),
        note="± one standard error over the choice of validation images, where it was measured. Higher is better, "
        f"except for {', '.join(lower)} (0 is perfect) and {', '.join(neither)} (1 is best). "
        f"{predictions_note(scores)}",
    )


def _trials_table(
    results: Sequence[ArmResult], trials: dict[int, MeasuredTrial | None], searched: Sequence[str]
) -> Table:
    """What stands behind the figures. A baseline has neither hyperparameters nor a choice."""
    rows = []
    for result in results:
        if result.baseline:
            continue
        trial = trials[result.arm_id]
        counts = [f"{result.trials[name]} {name.replace('_', ' ')}" for name in STATUSES if result.trials.get(name)]
        with_ = [f"{name.replace('_', ' ')} {shorten(trial.hyperparameters.get(name))}" for name in searched if trial]
        rows.append(
            {
                "model": result.arm,
                "trials": ", ".join(counts) or "none yet",
                "shown": None if trial is None else f"#{trial.number}",
                "tuning loss": None if trial is None else trial.loss,
                "epochs": None if trial is None else str(trial.epoch),
                "trained with": ", ".join(with_) or None,
                "colours by": None if trial is None or trial.decoding is None else trial.decoding.replace("_", " "),
                "code": None if trial is None else ", ".join(trial.code_versions),
            }
        )
    frame = pd.DataFrame(rows)
    codes = sorted({version for trial in trials.values() if trial for version in trial.code_versions})
    table = Table(
        name="shown-trials",
        title="The trials shown",
        frame=frame,
        formats={"tuning loss": ".4g"},
        note="Of each model the trial that the study asks about, else its first replicate or, without replicates, its "
        "best: the finished one with the lowest loss on the tuning split, which is comparable within a model only. "
        + (f"Code: {codes[0]}." if len(codes) == 1 else "Code: of the runs that measured it."),
    )
    if len(codes) > 1 or frame.empty:
        return table
    return replace(table, shown=table.text().drop(columns="code"))


def _heading(score: str, split: str) -> str:
    return f"{SCORES[score].words}, {split} ({SCORES[score].unit})"


def _score(trial: MeasuredTrial | None, score: str, split: str = "validation") -> float | None:
    """As it is stored."""
    return None if trial is None else trial.score(score, split)


def _error(trial: MeasuredTrial | None, score: str) -> float | None:
    """In validation, as it is stored."""
    return None if trial is None else trial.error(score)


def print_results(engine: Engine, experiment: str, console: Console) -> None:
    """Print the experiment's tables. Raises UnknownExperimentError."""
    with read_session(engine) as session:
        summary = experiment_progress(session, experiment)
        study = next(iter(studies_of(session, summary.id)), None)
        answers, no_votes = None, "No study asks people about it yet."
        if study is not None:
            try:
                answers = load_answers(session, study)
            except StudyBlinded as hidden:
                no_votes = str(hidden)
        votes, scores, trials = results_tables(session, experiment, answers, no_votes=no_votes)
        tables = [votes, scores, *seed_tables(replicate_scores(session, summary.id)), trials]
    state = "" if summary.status == "finished" else f" ({summary.status}: these are the results so far)"
    console.print(f"\n[bold]{summary.name}[/bold]{state}", highlight=False)
    wide = not console.is_terminal
    console.print(f"{summary.dataset}: {summary.dataset_note}", markup=False, highlight=False, soft_wrap=wide)
    for table in tables:
        console.print(table.for_console(), crop=False)
        console.print(table.note, markup=False, highlight=False, soft_wrap=wide)


def report_failures(engine: Engine, experiment: str, say: Callable[[str], None]) -> int:
    """Say which trials failed and why; return 1 if any did, else 0."""
    with read_session(engine) as session:
        failed = session.execute(
            select(Arm.name, Trial.number, Trial.failure_reason)
            .join(Arm, Arm.id == Trial.arm_id)
            .join(Experiment, Experiment.id == Trial.experiment_id)
            .where(Experiment.name == experiment, Trial.status == "failed")
            .order_by(Arm.position, Trial.number)
        ).all()
    for arm, number, reason in failed:
        say(f"Failed: {arm} #{number}: {reason}")
    return 1 if failed else 0
