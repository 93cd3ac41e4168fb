"""Create, list, show, close and export studies: `python -m survey_app.studies`.

A finished sweep opens a study by itself; this is for others: another protocol, other contenders, another exposure.
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

from db.answers import load_answers
from db.errors import UserError, run_command
from db.results import newest_experiment
from db.schema import Protocol, Resampling
from db.store import DATABASE_HELP, default_database, open_existing, read_session
from db.studies import (
    CONSENT_VERSION,
    EXPOSURE_MS,
    ID_PARAMETER,
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
from survey_app.inclusions import inclusions_table

EXAMPLES = """\
examples:
  python -m survey_app.studies create                            of the newest experiment, as a sweep would
  python -m survey_app.studies create rebalance --name "rebalance, no hurry" --exposure none
  python -m survey_app.studies create rebalance --name glance --exposure 100 --questions 60
  python -m survey_app.studies create rebalance --name lambda --arm classification=3 --arm "rebalanced 0.25"
  python -m survey_app.studies show glance
  python -m survey_app.studies export glance --to results/glance

A study is never changed: create another one, and close this one. Exit status: 0, or 2 where something is wrong.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    return run_command(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    console = Console()
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m survey_app.studies",
        description="Create, list, show, close and export studies.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--database", default=default_database(), help=DATABASE_HELP)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    _add_options(commands.add_parser("create", help="open a study of an experiment"))
    commands.add_parser("list", help="all studies")
    show = commands.add_parser("show", help="a study and its votes so far")
    close = commands.add_parser("close", help="take no more participants and no more answers")
    export = commands.add_parser("export", help="votes as CSV, the study as JSON")
    show.add_argument("study", nargs="?", help="its name (default: the newest open one)")
    close.add_argument("study", help="its name")
    export.add_argument("study", nargs="?", help="its name (default: the newest open one)")
    export.add_argument("--to", type=Path, metavar="FOLDER", help="default: a folder of the study's name")
    for command in (show, export):
        command.add_argument("--simulated", action="store_true", help="of simulated participants instead of people")
    return parser


def _add_options(create: argparse.ArgumentParser) -> None:
    """Of a study: how it asks."""
    create.add_argument("experiment", nargs="?", help="its name (default: the newest)")
    create.add_argument("--name", help="of the study (default: the experiment's)")
    create.add_argument(
        "--arm",
        action="append",
        metavar="ARM[=NUMBER]",
        help="a contender, by its best finished trial or the one of that number (default: all but baselines)",
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
        help=f"milliseconds, or none: until answered (default: {EXPOSURE_MS})",
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
        "--hidden",
        type=int,
        metavar="N",
        help="exclusion rule: the attentive gave at most so many answers with the page hidden (default: any number)",
    )
    create.add_argument(
        "--id-parameter",
        default=ID_PARAMETER,
        metavar="NAME",
        help="of the link, in which a recruiting system tells who comes (default: %(default)s)",
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
        exposure_ms=_exposure(options.exposure or [str(EXPOSURE_MS)]),
        resampling=options.resampling,
        seed=options.seed,
        planned_participants=options.participants,
        sentinels_wrong_at_most=options.sentinels_wrong,
        hidden_at_most=options.hidden,
        id_parameter=options.id_parameter,
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
    console.print(inclusions_table(answers).rich())
    return 0


def _describe(study: StudySummary, console: Console) -> None:
    view = study.view
    exposure = "until answered" if view.exposure_ms is None else f"for {view.exposure_ms} ms"
    lines = [
        f"Study {view.name!r} is {view.status}: protocol {view.protocol}, {view.question_count} questions "
        f"({study.sentinel_count} of them sentinels) after {view.practice_count} for practice, shown {exposure}, "
        f"enlarged by {view.resampling}.",
        f"Contenders of experiment {study.experiment!r} ({study.dataset}): {', '.join(study.arms)}; {study.images} "
        f"images, seed {study.seed}.",
        f"{study.participants} participants so far, {study.finished} of them finished, {study.planned_participants} "
        f"planned; {study.votes} votes{_flagged(study)}; {study.simulated} simulated participants, never counted with "
        "people.",
        f"{study.without_id} of them came without an id in their link's {view.id_parameter}."
        if study.participants
        else f"Who comes is told by the link's {view.id_parameter}, where there is one.",
        f"Attentive: {study.exclusion_rule}. Consent text {view.consent_version}."
        + (f" Completion link {view.completion_url}" if view.completion_url else "")
        + (" Blinded: outcomes stay hidden until the planned participants have finished." if study.blinded else ""),
    ]
    for line in lines:
        console.print(line, markup=False, highlight=False)


def _flagged(study: StudySummary) -> str:
    """How many of the votes were given with the page hidden, edited (by a translator, say), or left open for long."""
    counts = ", ".join(f"{count} {flag}" for flag, count in sorted(study.flagged.items()))
    return f" ({counts})" if counts else ""


def _close(engine: Engine, name: str, console: Console) -> int:
    study = close_study(engine, name)
    way = f" {study.under_way} under way are thanked; what they answered counts." if study.under_way else ""
    console.print(
        f"Study {name!r} is closed: it takes no more participants and no more answers.{way}",
        markup=False,
        highlight=False,
    )
    return 0


def _export(engine: Engine, name: str, options: argparse.Namespace, console: Console) -> int:
    folder = options.to or Path(folder_name(name))
    try:
        rows = export_study(engine, name, folder, simulated=options.simulated)
    except OSError as error:
        raise UserError(f"{error.filename} cannot be written ({error.strerror}); give another --to.") from error
    console.print(
        f"{rows} votes are in {folder / 'votes.csv'}, the study's definition in {folder / 'study.json'}; "
        "docs/data-dictionary.md explains the columns.",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    return 0


def folder_name(study: str) -> str:
    """A study's name as that of a folder inside the one where the command runs, on any system, hidden on none."""
    kept = "".join(letter if letter.isalnum() or letter in " ,-_." else "_" for letter in study)
    short = kept.encode()[:100].decode(errors="ignore").strip(" ")  # some file systems take 143 bytes
    return short if short.strip(".") and not short.startswith(".") else "study" + short.replace(".", "_")


def _exposure(given: Sequence[str]) -> int | None:
    if len(given) > 1:
        raise SurveyError("A study has one exposure; create a study for each, and compare them.")
    (text,) = given
    if text == "none":
        return None
    try:
        return int(text)
    except ValueError:
        raise SurveyError(f"The exposure {text!r} is neither a number of milliseconds nor none.") from None


if __name__ == "__main__":
    sys.exit(main())
