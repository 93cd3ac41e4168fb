"""An experiment's results as tables, for the console, the dashboard and the report. What scores there are and how they
are printed, `platform.color.scores` says.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

import pandas as pd
from rich.console import Console
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from db.schema import Arm, Experiment, Split, Study, Trial, TrialStatus
from db.store import read_session
from db.surveys.answers import Answers, Inclusion, StudyBlinded, load_answers
from db.surveys.study import studies_of
from db.sweeps.trials import code_versions, find_experiment, load_arms, replicate_scores
from platform.color.scores import JURY, SCORES
from platform.tables.columns import Column, make_score_column, tabulate
from platform.tables.intervals import Share, title_votes, wilson
from platform.tables.seeds import seed_tables
from platform.tables.table import Table, shorten

STATUSES: tuple[TrialStatus, ...] = ("finished", "stopped_early", "failed", "running", "pending")
# Beside the votes, with their splits; all other scores have a table of their own. The study that HueJury started from
# gave bin accuracy for classification and exact accuracy for regression; here both stand for all.
BESIDE_VOTES: tuple[tuple[str, Split], ...] = (
    ("bin_accuracy", "train"),
    ("bin_accuracy", "validation"),
    ("exact_accuracy", "train"),
    ("exact_accuracy", "validation"),
    ("information", "validation"),
)

Shown = Mapping[str, Trial | None]
"""By arm the trial that stands for it in the tables, None where none has finished."""


def results_tables(
    session: Session,
    experiment: str,
    answers: Answers | None,
    inclusion: Inclusion = "all",
    *,
    no_votes: str = "No study asks people about it yet.",
) -> list[Table]:
    """Accuracies beside votes, the other scores, and the trials that stand behind them.

    An arm stands in them with the trial that the study asks about, else with its best one. answers: of the study, or
    None where there are none to be shown, and `no_votes` says why. Raises UnknownExperimentError.
    """
    row = find_experiment(session, experiment)
    arms = load_arms(session, row.id)
    shown = {arm.name: arm.best for arm in arms}
    if answers is not None:
        shown |= {trial.arm.name: trial for trial in answers.contenders}
    codes = code_versions(session, [trial.id for trial in shown.values() if trial is not None])
    searched = [name for name, tried in row.config["search"].get("space", {}).items() if tried is not None]
    votes = _make_votes_table(shown, answers, inclusion, no_votes)
    note = f"{votes.note} {jury_note(session, experiment, None if answers is None else answers.study)}".strip()
    return [replace(votes, note=note), _make_scores_table(shown), _make_trials_table(arms, shown, searched, codes)]


def _make_votes_table(shown: Shown, answers: Answers | None, inclusion: Inclusion, no_votes: str) -> Table:
    counted = None if answers is None else answers.of(inclusion)
    trials, shares = dict(shown), dict.fromkeys(shown, wilson(0, 0))
    if counted is not None:
        for trial, count in zip(counted.contenders, counted.picked_as_real(), strict=True):
            shares[trial.arm.name] = wilson(count.count, count.total)
        if counted.protocol == "single":
            real = counted.right("real")
            trials["the photographs"], shares["the photographs"] = None, wilson(real.count, real.total)
    columns = [make_score_column(score, _values(trials, score, split), split=split) for score, split in BESIDE_VOTES]
    columns += _make_share_columns(list(shares.values()))
    if any(value is not None for value in _values(trials, JURY)):
        columns.append(make_score_column(JURY, _values(trials, JURY), _errors(trials, JURY)))
    frame, texts = tabulate(list(trials), columns)
    bars = [share.bar for share in shares.values()]
    return Table(
        name="results",
        title=title_votes("Accuracy and votes", simulated=answers is not None and answers.simulated),
        frame=frame,
        shown=texts,
        bars=bars if any(bars) else None,
        mark=None if counted is None else counted.mark,
        note="Accuracies are shares of pixels: the right one of the grid's 400 bins, or exactly the right a and b "
        f"(1/400 and 1/65,536 by chance). {_votes_note(answers, no_votes)}",
    )


def _make_share_columns(shares: Sequence[Share]) -> list[Column]:
    counts = [(share.count, share.total) if share.total else (None, None) for share in shares]
    numbers: dict[str, Sequence[float | None]] = {
        "picked as real": [share.share for share in shares],
        "times picked": [count for count, _ in counts],
        "times asked": [total for _, total in counts],
        "95 % from": [share.low for share in shares],
        "95 % to": [share.high for share in shares],
    }
    return [
        Column("picked as real", [share.percent for share in shares], numbers),
        Column("k/n", ["–" if total is None else f"{count}/{total}" for count, total in counts]),
        Column("95 % Wilson", [share.range for share in shares]),
    ]


def _votes_note(answers: Answers | None, no_votes: str) -> str:
    """Who was asked."""
    if answers is None:
        return no_votes
    if not answers.participants:
        return f"Nobody has answered study {answers.study!r} ({answers.status}) yet."
    meaning = (
        "50 % means that nobody can tell the picture from the photograph beside it"
        if answers.protocol == "pair"
        else "as often as the photographs themselves means that nobody can tell"
    )
    return (
        f"Picked as real: {meaning}. Study {answers.study!r} ({answers.status}): {answers.participants} participants "
        f"of {answers.planned_participants} planned, {int(answers.people['attentive'].sum())} of them attentive "
        f"({answers.exclusion_rule}). k/n and the Wilson interval count every answer as if it were another person's."
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
        f"from photographs, on other pictures than it judges. It sees chroma averaged over {found['acuity']}×"
        f"{found['acuity']} pixels and tells {100 * found['pair_accuracy']:.0f} % of pairs apart. Its marks are no "
        "votes."
    )


def _make_scores_table(shown: Shown) -> Table:
    """Validation scores with their standard errors."""
    beside = {"loss", JURY, *(score for score, _ in BESIDE_VOTES)}
    scores = [score for score in SCORES if score not in beside]
    frame, texts = tabulate(
        list(shown), [make_score_column(score, _values(shown, score), _errors(shown, score)) for score in scores]
    )
    lower = [SCORES[score].words for score in scores if SCORES[score].higher_is_better is False]
    neither = [SCORES[score].words for score in scores if SCORES[score].higher_is_better is None]
    return Table(
        name="scores",
        title="Other scores on the validation split",
        frame=frame,
        shown=texts,
        note="± one standard error over the choice of validation images, where it was measured. Higher is better, "
        f"except for {', '.join(lower)} (0 is perfect) and {', '.join(neither)} (1 is best).",
    )


def _make_trials_table(
    arms: Sequence[Arm], shown: Shown, searched: Sequence[str], codes: Mapping[int, list[str]]
) -> Table:
    """What stands behind the figures. A baseline has neither hyperparameters nor a choice."""
    rows = []
    for arm in arms:
        if arm.baseline:
            continue
        trial, made = shown[arm.name], Counter(trial.status for trial in arm.trials)
        counts = [f"{made[status]} {status.replace('_', ' ')}" for status in STATUSES if made[status]]
        row: dict[str, object] = {"model": arm.name, "trials": ", ".join(counts) or "none yet"}
        if trial is not None:
            settings = [f"{name.replace('_', ' ')} {shorten(trial.hyperparameters.get(name))}" for name in searched]
            row |= {
                "shown": f"#{trial.number}",
                "tuning loss": trial.loss,
                "epochs": str(trial.epochs_done),
                "trained with": ", ".join(settings) or None,
                "colours by": arm.decoding,
                "code": ", ".join(codes[trial.id]),
            }
        rows.append(row)
    columns = ["model", "trials", "shown", "tuning loss", "epochs", "trained with", "colours by", "code"]
    versions = sorted({version for of_trial in codes.values() for version in of_trial})
    table = Table(
        name="shown-trials",
        title="The trials shown",
        frame=pd.DataFrame(rows, columns=columns),
        formats={"tuning loss": ".4g"},
        note="Of each model the trial that the study asks about, else its first replicate or, without replicates, its "
        "best: the finished one with the lowest loss on the tuning split, which is comparable within a model only. "
        f"Code: {', '.join(versions)}.",
    )
    return replace(table, shown=table.text().drop(columns="code"))


def _values(trials: Shown, score: str, split: Split = "validation") -> list[float | None]:
    """As they are stored."""
    return [None if trial is None else trial.score(score, split) for trial in trials.values()]


def _errors(trials: Shown, score: str) -> list[float | None]:
    """Standard errors in validation, as they are stored."""
    return [None if trial is None else trial.error(score) for trial in trials.values()]


def print_results(engine: Engine, experiment: str, console: Console) -> None:
    """Print the experiment's tables. Raises UnknownExperimentError."""
    with read_session(engine) as session:
        row = find_experiment(session, experiment)
        study = next(iter(studies_of(session, row.id)), None)
        answers, no_votes = None, "No study asks people about it yet."
        if study is not None:
            try:
                answers = load_answers(session, study)
            except StudyBlinded as hidden:
                no_votes = str(hidden)
        votes, scores, trials = results_tables(session, experiment, answers, no_votes=no_votes)
        tables = [votes, scores, *seed_tables(replicate_scores(session, row.id)), trials]
    state = "" if row.status == "finished" else f" ({row.status}: these are the results so far)"
    console.print(f"\n[bold]{row.name}[/bold]{state}", highlight=False)
    wide = not console.is_terminal
    console.print(f"{row.dataset.name}: {row.dataset.note}", markup=False, highlight=False, soft_wrap=wide)
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
