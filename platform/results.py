"""Print an experiment's results: `python -m platform.results [EXPERIMENT]`, by default the newest one's.

The poster's table comes first (model, accuracy on the training and the validation split, survey), then the other
scores, then what was tried. All tables fit 80 columns.
"""

import argparse
import sys
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from db.answers import StudyBlinded, SurveyResults, load_answers, summarise
from db.results import (
    ArmResult,
    BestTrial,
    Share,
    UnknownExperimentError,
    arm_results,
    experiment_progress,
    list_experiments,
    newest_study,
)
from db.schema import Arm, Experiment, Trial, TrialStatus
from db.store import DATABASE_HELP, StoreError, default_database, open_existing, read_session

STATUSES: tuple[TrialStatus, ...] = ("finished", "stopped_early", "failed", "lost", "running", "pending")


def print_results(engine: Engine, experiment: str, console: Console) -> None:
    """Print the experiment's tables. Raises UnknownExperimentError."""
    with read_session(engine) as session:
        summary = experiment_progress(session, experiment)
        results = arm_results(session, experiment)
        searched = _searched(session, summary.id)
        study = newest_study(session, experiment)
        survey = attentive = blinded = None
        if study is not None:
            try:
                answers = load_answers(session, study)
                survey, attentive = summarise(answers, "all"), summarise(answers, "attentive")
            except StudyBlinded as hidden:
                blinded = str(hidden)
    state = "" if summary.status == "finished" else f" ({summary.status}: these are the results so far)"
    profile = f", profile {summary.profile}" if summary.profile else ""
    console.print(f"\n[bold]{summary.name}[/bold]{state}", highlight=False)
    console.print(
        f"{summary.dataset_note} Colours decoded as {summary.decoding.replace('_', ' ')}{profile}, "
        f"code {summary.code_version}.",
        markup=False,
        highlight=False,
        soft_wrap=not console.is_terminal,
    )
    console.print(_poster_table(results, survey, blinded=blinded is not None))
    if blinded is not None:
        console.print(blinded, markup=False, highlight=False)
    if survey is not None and attentive is not None:
        console.print(_survey_note(results, survey, attentive), markup=False, highlight=False)
    console.print(_score_table(results))
    console.print(_trial_table(results, searched))


def report_failures(engine: Engine, experiment_id: int, say: Callable[[str], None]) -> int:
    """Say which trials failed and why; return 1 if any did, else 0."""
    with read_session(engine) as session:
        failed = session.execute(
            select(Arm.name, Trial.ray_id, Trial.failure_reason)
            .join(Arm, Arm.id == Trial.arm_id)
            .where(Trial.experiment_id == experiment_id, Trial.status == "failed")
            .order_by(Trial.id)
        ).all()
    for arm, ray_id, reason in failed:
        say(f"Failed: {arm} ({ray_id}): {reason}")
    return 1 if failed else 0


def _poster_table(results: Sequence[ArmResult], survey: SurveyResults | None, *, blinded: bool) -> Table:
    """The poster gave bin accuracy for classification and exact accuracy for regression; here both stand for all."""
    table = _table(f"Accuracy on {results[0].dataset}: pixels with the right bin, and with exactly the right a and b")
    for header in ("bin acc.\ntrain", "bin acc.\nval.", "exact\ntrain", "exact\nval.", "picked as real,\n95 % Wilson"):
        table.add_column(header, justify="right", no_wrap=True)
    shares = {row.arm_id: row.picked_as_real for row in survey.rows} if survey else {}
    for result in results:
        cells = [
            _cell(result.best, split, score, _percent)
            for score in ("bin_accuracy", "exact_accuracy")
            for split in ("train", "validation")
        ]
        asked = "-" if survey or result.kind == "baseline" else "blinded" if blinded else "no survey yet"
        share = shares.get(result.arm_id)
        table.add_row(escape(result.arm), *cells, asked if share is None else _picked(share))
    if survey is not None and survey.photographs is not None:
        table.add_row("the photographs", *("" for _ in range(4)), _picked(survey.photographs))
    return table


def _picked(share: Share) -> str:
    if share.share is None or share.low is None or share.high is None:
        return "no votes yet"
    return f"{100 * share.share:.1f} % ({share.count}/{share.total})\n{100 * share.low:.0f}–{100 * share.high:.0f} %"


def _survey_note(results: Sequence[ArmResult], survey: SurveyResults, attentive: SurveyResults) -> str:
    """Who was asked, in one line or two."""
    meaning = (
        "50 % cannot be told from the photograph beside it"
        if survey.protocol == "pair"
        else "compare with the photographs' own share"
    )
    note = (
        f"Picked as real: study {survey.study!r} ({survey.status}), {survey.participants} participants of "
        f"{survey.planned_participants} planned, {attentive.participants} of them attentive "
        f"({survey.exclusion_rule}); {meaning}."
    )
    judged = {row.arm_id: row.trial for row in survey.rows}
    others = [
        f"{result.arm} by its trial {judged[result.arm_id].ray_id}"
        for result in results
        if result.arm_id in judged and result.best and judged[result.arm_id].trial_id != result.best.trial_id
    ]
    return note + (f" It judged {', '.join(others)}, which is not the best." if others else "")


def _score_table(results: Sequence[ArmResult]) -> Table:
    columns: list[tuple[str, str, Callable[[float], str]]] = [
        ("balanced\nbin acc.", "balanced_bin_accuracy", _percent),
        ("AuC", "raw_auc", _percent),
        ("rebal.\nAuC", "rebalanced_auc", _percent),
        ("PSNR\ndB", "psnr_db", "{:.2f}".format),
        ("ΔE2000", "delta_e_2000", "{:.2f}".format),
        ("colour-\nfulness", "colourfulness_ratio", "{:.2f}".format),
    ]
    table = _table("Other scores on the validation split")
    for header, _, _ in columns:
        table.add_column(header, justify="right", no_wrap=True)
    for result in results:
        table.add_row(
            escape(result.arm), *(_cell(result.best, "validation", score, form) for _, score, form in columns)
        )
    return table


def _trial_table(results: Sequence[ArmResult], searched: Sequence[str]) -> Table:
    table = _table("Trials, and the best of each arm by validation loss")
    table.add_column("trials")
    table.add_column("loss", justify="right", no_wrap=True)
    table.add_column("epochs", justify="right", no_wrap=True)
    table.add_column("trained with")
    for result in results:
        if result.kind == "baseline":
            continue
        counts = [f"{result.trials[name]} {name.replace('_', ' ')}" for name in STATUSES if result.trials.get(name)]
        best = result.best
        hyperparameters = [f"{name} {_short(best.config.get(name))}" for name in searched] if best else []
        table.add_row(
            escape(result.arm),
            ", ".join(counts),
            f"{best.validation['loss']:.4g}" if best else "-",
            str(best.epoch) if best else "-",
            ", ".join(hyperparameters) or "-",
        )
    return table


def _table(title: str) -> Table:
    table = Table(title=f"\n{title}", title_justify="left", box=None, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("model")
    return table


def _cell(best: BestTrial | None, split: str, score: str, form: Callable[[float], str]) -> str:
    scores = {} if best is None else best.train if split == "train" else best.validation
    return form(scores[score]) if score in scores else "-"


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _searched(session: Session, experiment_id: int) -> list[str]:
    experiment = session.get_one(Experiment, experiment_id)
    return [name for name, values in experiment.config["search"]["space"].items() if values is not None]


def open_experiment(database: str, experiment: str | None) -> tuple[Engine, str]:
    """Open an existing database and name the experiment, the newest one if None was asked for.

    Raises StoreError, and UnknownExperimentError if there is none at all.
    """
    engine = open_existing(database)
    if experiment is None:
        with read_session(engine) as session:
            experiments = list_experiments(session)
        if not experiments:
            raise UnknownExperimentError(f"The database {database} holds no experiment yet; run a sweep first.")
        experiment = experiments[0].name
    return engine, experiment


def parser_of_results(program: str, description: str) -> argparse.ArgumentParser:
    """The arguments of every command that reads one experiment's results."""
    parser = argparse.ArgumentParser(prog=f"python -m platform.{program}", description=description)
    parser.add_argument("experiment", nargs="?", help="its name (default: the newest)")
    parser.add_argument("--database", default=default_database(), help=DATABASE_HELP)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser_of_results("results", "Print an experiment's results.").parse_args(arguments)
    console = Console()
    try:
        engine, experiment = open_experiment(options.database, options.experiment)
        print_results(engine, experiment, console)
    except (StoreError, UnknownExperimentError) as error:
        print(error, file=sys.stderr)
        return 2
    with read_session(engine) as session:
        others = [summary.name for summary in list_experiments(session) if summary.name != experiment]
    if options.experiment is None and others:
        console.print(f"Other experiments: {', '.join(others)}", markup=False, highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
