"""Create, list, show, close and export studies: `python -m survey_app.studies`.

A finished sweep opens a study by itself; this is for others: another protocol, other contenders, other exposures.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from sqlalchemy import Engine

from db.answers import StudyBlinded, SurveyResults, load_answers, summarise
from db.results import Share, UnknownExperimentError, newest_experiment
from db.schema import Protocol, Resampling
from db.store import DATABASE_HELP, StoreError, default_database, open_existing, read_session
from db.studies import (
    CONSENT_VERSION,
    EXPOSURE_MS,
    PLANNED_PARTICIPANTS,
    PRACTICE,
    QUESTIONS,
    SENTINEL_SHARE,
    StudySummary,
    SurveyError,
    close_study,
    create_study,
    find_study,
    list_studies,
    study_summary,
)
from survey_app.export import export_study

EXAMPLES = """\
examples:
  python -m survey_app.studies create                            of the newest experiment, as a sweep would
  python -m survey_app.studies create rebalance --name "rebalance, no hurry" --exposure none
  python -m survey_app.studies create rebalance --name times --exposure 100 --exposure 1000 --questions 60
  python -m survey_app.studies create rebalance --name lambda --arm classification --arm "rebalanced 0.25"
  python -m survey_app.studies show times
  python -m survey_app.studies export times --to results/times

A study is never changed: create another one, and close this one. Exit status: 0, or 2 where something is wrong.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    console = Console()
    try:
        engine = open_existing(options.database)
        if options.command == "create":
            return _create(engine, options, console)
        if options.command == "list":
            return _list(engine, console)
        with read_session(engine) as session:
            name = find_study(session, options.study).name
        if options.command == "show":
            return _show(engine, name, console, simulated=options.simulated)
        if options.command == "close":
            return _close(engine, name, console)
        return _export(engine, name, options, console)
    except (StoreError, StudyBlinded, SurveyError, UnknownExperimentError) as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{error.filename} cannot be written ({error.strerror}); give another --to.", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m survey_app.studies",
        description="Create, list, show, close and export studies.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--database", default=default_database(), help=DATABASE_HELP)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    create = commands.add_parser("create", help="open a study of an experiment")
    create.add_argument("experiment", nargs="?", help="its name (default: the newest)")
    create.add_argument("--name", help="of the study (default: the experiment's)")
    create.add_argument(
        "--arm",
        action="append",
        metavar="ARM[=TRIAL]",
        help="a contender, with its best finished trial or the one named (default: every arm but the baselines)",
    )
    create.add_argument(
        "--protocol",
        choices=get_args(Protocol),
        default="pair",
        help="pair: which of two is real; single: is this one real (default: %(default)s)",
    )
    create.add_argument("--questions", type=int, default=QUESTIONS, metavar="N", help="default: %(default)s")
    create.add_argument("--practice", type=int, default=PRACTICE, metavar="N", help="default: %(default)s")
    create.add_argument(
        "--sentinels",
        type=float,
        default=SENTINEL_SHARE,
        metavar="SHARE",
        help="of the questions (default: %(default)s)",
    )
    create.add_argument(
        "--exposure",
        action="append",
        metavar="MS",
        help=f"milliseconds, or none: until answered; each question has one of these (default: {EXPOSURE_MS})",
    )
    create.add_argument("--resampling", choices=get_args(Resampling), default="nearest", help="default: %(default)s")
    create.add_argument("--seed", type=int, help="of the sentinels' colours (default: drawn)")
    create.add_argument(
        "--participants", type=int, default=PLANNED_PARTICIPANTS, metavar="N", help="planned (default: %(default)s)"
    )
    create.add_argument(
        "--sentinels-wrong",
        type=int,
        metavar="N",
        help="exclusion rule: the attentive have at most so many wrong (default: 1 of four or more, else 0)",
    )
    create.add_argument(
        "--consent", default=CONSENT_VERSION, metavar="VERSION", help="of its text (default: %(default)s)"
    )
    create.add_argument(
        "--blinded",
        action="store_true",
        help="hide all outcomes until the planned participants have finished, or the study is closed",
    )
    create.add_argument("--completion-url", metavar="URL", help="link at the end, such as Prolific's")

    commands.add_parser("list", help="all studies")
    show = commands.add_parser("show", help="a study and its votes so far")
    close = commands.add_parser("close", help="take no more participants")
    export = commands.add_parser("export", help="votes as CSV, the study as JSON")
    show.add_argument("study", nargs="?", help="its name (default: the newest open one)")
    close.add_argument("study", help="its name")
    export.add_argument("study", nargs="?", help="its name (default: the newest open one)")
    export.add_argument("--to", type=Path, metavar="FOLDER", help="default: a folder of the study's name")
    for command in (show, export):
        command.add_argument("--simulated", action="store_true", help="of simulated participants instead of people")
    return parser


def _create(engine: Engine, options: argparse.Namespace, console: Console) -> int:
    experiment = options.experiment
    if experiment is None:
        with read_session(engine) as session:
            experiment = newest_experiment(session)
    study = create_study(
        engine,
        experiment,
        name=options.name,
        arms=options.arm,
        protocol=options.protocol,
        question_count=options.questions,
        practice_count=options.practice,
        sentinel_share=options.sentinels,
        exposures_ms=[_exposure(text) for text in options.exposure or [str(EXPOSURE_MS)]],
        resampling=options.resampling,
        seed=options.seed,
        planned_participants=options.participants,
        sentinels_wrong_at_most=options.sentinels_wrong,
        consent_version=options.consent,
        completion_url=options.completion_url,
        blinded=options.blinded,
    )
    _describe(study, console)
    return 0


def _list(engine: Engine, console: Console) -> int:
    studies = list_studies(engine)
    if not studies:
        raise SurveyError("There is no study yet; finish a sweep, or create one: python -m survey_app.studies create.")
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for header in ("study", "", "experiment", "protocol"):
        table.add_column(header)
    for header in ("finished", "planned", "votes"):
        table.add_column(header, justify="right")
    for study in studies:
        counts = (study.finished, study.planned_participants, study.votes)
        cells = (study.view.name, study.view.status, study.experiment, study.view.protocol, *counts)
        table.add_row(*(escape(str(cell)) for cell in cells))
    console.print(table)
    return 0


def _show(engine: Engine, name: str, console: Console, *, simulated: bool) -> int:
    study = study_summary(engine, name)
    _describe(study, console)
    with read_session(engine) as session:
        answers = load_answers(session, find_study(session, name), simulated=simulated)
    console.print(_votes_table(summarise(answers, "all"), summarise(answers, "attentive")))
    return 0


def _votes_table(everybody: SurveyResults, attentive: SurveyResults) -> Table:
    who = "simulated participants" if everybody.simulated else "participants"
    table = Table(
        title=f"\nPicked as real, with 95 % Wilson intervals, by {who}",
        title_justify="left",
        box=None,
        header_style="bold",
        padding=(0, 2, 0, 0),
    )
    table.add_column("model")
    for label, results in (("all", everybody), ("attentive", attentive)):
        table.add_column(f"{label} ({results.participants})", justify="right", no_wrap=True)
        table.add_column("", justify="right", no_wrap=True)
    for mine, theirs in zip(everybody.rows, attentive.rows, strict=True):
        table.add_row(escape(mine.arm), *_cells(mine.picked_as_real), *_cells(theirs.picked_as_real))
    if everybody.photographs is not None and attentive.photographs is not None:
        table.add_row("the photographs", *_cells(everybody.photographs), *_cells(attentive.photographs))
    table.add_row("sentinels found", *_cells(everybody.sentinels), *_cells(attentive.sentinels))
    return table


def _cells(share: Share) -> tuple[str, str]:
    if share.share is None or share.low is None or share.high is None:
        return "no votes", ""
    return f"{100 * share.share:.1f} % ({share.count}/{share.total})", f"{100 * share.low:.0f}–{100 * share.high:.0f} %"


def _describe(study: StudySummary, console: Console) -> None:
    view = study.view
    exposures = ", ".join("until answered" if ms is None else f"{ms} ms" for ms in view.exposures_ms)
    lines = [
        f"Study {view.name!r} is {view.status}: protocol {view.protocol}, {view.question_count} questions "
        f"({study.sentinel_count} of them sentinels) after {view.practice_count} for practice, shown {exposures}, "
        f"enlarged by {view.resampling}.",
        f"Contenders of experiment {study.experiment!r} ({study.dataset}): {', '.join(study.arms)}; {study.images} "
        f"images, seed {study.seed}.",
        f"{study.participants} participants so far, {study.finished} of them finished, {study.planned_participants} "
        f"planned; {study.votes} votes; {study.simulated} simulated participants, never counted with people.",
        f"Attentive: {study.exclusion_rule}. Consent text {view.consent_version}."
        + (f" Completion link {view.completion_url}" if view.completion_url else "")
        + (" Blinded: outcomes stay hidden until the planned participants have finished." if study.blinded else ""),
    ]
    for line in lines:
        console.print(line, markup=False, highlight=False)


def _close(engine: Engine, name: str, console: Console) -> int:
    study = close_study(engine, name)
    way = f"; {study.under_way} under way may still finish" if study.under_way else ""
    console.print(f"Study {name!r} is closed: it takes no more participants{way}.", markup=False, highlight=False)
    return 0


def _export(engine: Engine, name: str, options: argparse.Namespace, console: Console) -> int:
    folder = options.to or Path("".join(letter if letter.isalnum() or letter in " .,-_" else "_" for letter in name))
    rows = export_study(engine, name, folder, simulated=options.simulated)
    console.print(
        f"{rows} votes are in {folder / 'votes.csv'}, the study's definition in {folder / 'study.json'}; "
        "docs/data-dictionary.md explains the columns.",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    return 0


def _exposure(text: str) -> int | None:
    if text == "none":
        return None
    try:
        return int(text)
    except ValueError:
        raise SurveyError(f"The exposure {text!r} is neither a number of milliseconds nor none.") from None


if __name__ == "__main__":
    sys.exit(main())
