"""Create, list, show, close and export studies: `python -m survey_app.studies`.

A finished sweep opens a study by itself; this is for others: another protocol, other contenders, another exposure.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import get_args

import pandas as pd
from rich.console import Console
from sqlalchemy import Engine

from db.errors import UserError, run_command
from db.schema import Protocol
from db.store import DATABASE_HELP, default_database, open_existing, read_session
from db.surveys.answers import load_answers
from db.surveys.study import (
    StudyOptions,
    StudySummary,
    SurveyError,
    close_study,
    create_study,
    find_study,
    list_studies,
    study_summary,
)
from db.sweeps.trials import newest_experiment
from platform.tables.table import Table
from survey_app.analysis.archive import export_study
from survey_app.analysis.inclusions import inclusions_table

EXAMPLES = """\
examples:
  python -m survey_app.studies create                            of the newest experiment, as a sweep would
  python -m survey_app.studies create rebalance --name "rebalance, no hurry" --exposure none
  python -m survey_app.studies create rebalance --name glance --exposure 100 --questions 60
  python -m survey_app.studies create rebalance --name lambda --arm classification=3 --arm "tilted 0.25"
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
    """Of a study: how it asks. They go to StudyOptions under their names there."""
    default = StudyOptions()
    add = create.add_argument
    add("experiment", nargs="?", help="its name (default: the newest)")
    add("--name", help="of the study (default: the experiment's)")
    add(
        "--arm",
        dest="arms",
        action="append",
        metavar="ARM[=NUMBER]",
        help="a contender, by its best finished trial or the one of that number (default: all but baselines)",
    )
    add(
        "--protocol",
        choices=get_args(Protocol),
        default=default.protocol,
        help="pair: which of two is real; single: is this one real (default: %(default)s)",
    )

    def number(option: str, name: str, words: str = "default: %(default)s", kind: type = int) -> None:
        metavar = "N" if kind is int else "SHARE"
        add(option, dest=name, type=kind, default=getattr(default, name), metavar=metavar, help=words)

    number("--questions", "question_count")
    number("--practice", "practice_count")
    number("--sentinels", "sentinel_share", "of the questions (default: %(default)s)", float)
    add(
        "--exposure",
        dest="exposure_ms",
        default=str(default.exposure_ms),
        metavar="MS",
        help="milliseconds, or none: until answered (default: %(default)s)",
    )
    number("--seed", "seed", "of the sentinels' colours (default: drawn)")
    number("--participants", "planned_participants", "planned (default: %(default)s)")
    number(
        "--sentinels-wrong",
        "sentinels_wrong_at_most",
        "exclusion rule: the attentive have at most so many wrong (default: 1 of four or more, else 0)",
    )
    number(
        "--hidden",
        "hidden_at_most",
        "exclusion rule: the attentive gave at most so many answers with the page hidden (default: any number)",
    )
    add(
        "--id-parameter",
        default=default.id_parameter,
        metavar="NAME",
        help="of the link, in which a recruiting system tells who comes (default: %(default)s)",
    )
    add(
        "--consent",
        dest="consent_version",
        default=default.consent_version,
        metavar="VERSION",
        help="of its text (default: %(default)s)",
    )
    add(
        "--blinded",
        action="store_true",
        help="hide all outcomes until the planned participants have finished, or the study is closed",
    )
    add("--completion-url", metavar="URL", help="link at the end, such as Prolific's")


def _create(engine: Engine, options: argparse.Namespace, console: Console) -> int:
    with read_session(engine) as session:
        experiment = options.experiment or newest_experiment(session)
    values = {field.name: getattr(options, field.name) for field in fields(StudyOptions)}
    values["exposure_ms"] = _read_exposure(options.exposure_ms)
    _describe(create_study(engine, experiment, **values), console)
    return 0


def _list(engine: Engine, console: Console) -> int:
    studies = list_studies(engine)
    if not studies:
        raise SurveyError("There is no study yet; finish a sweep, or create one: python -m survey_app.studies create.")
    rows = [
        {
            "study": study.view.name,
            "is": study.view.status,
            "experiment": study.experiment,
            "protocol": study.view.protocol,
            "finished": study.finished,
            "planned": study.planned_participants,
            "votes": study.votes,
        }
        for study in studies
    ]
    console.print(Table("studies", "Studies", pd.DataFrame(rows)).for_console(), crop=False)
    return 0


def _show(engine: Engine, name: str, console: Console, *, simulated: bool) -> int:
    study = study_summary(engine, name)
    _describe(study, console)
    with read_session(engine) as session:
        answers = load_answers(session, find_study(session, name), simulated=simulated)
    console.print(inclusions_table(answers).for_console())
    return 0


def _describe(study: StudySummary, console: Console) -> None:
    view = study.view
    exposure = "until answered" if view.exposure_ms is None else f"for {view.exposure_ms} ms"
    lines = [
        f"Study {view.name!r} is {view.status}: protocol {view.protocol}, {view.question_count} questions "
        f"({study.sentinel_count} of them sentinels) after {view.practice_count} for practice, shown {exposure}.",
        f"Contenders of experiment {study.experiment!r} ({study.dataset}): {', '.join(study.arms)}; {study.images} "
        f"images, seed {study.seed}.",
        f"{study.participants} participants so far, {study.finished} of them finished, {study.planned_participants} "
        f"planned; {study.votes} votes{_count_flags(study)}; {study.simulated} simulated participants, never counted "
        "with people.",
        f"{study.without_id} of them came without an id in their link's {view.id_parameter}."
        if study.participants
        else f"Who comes is told by the link's {view.id_parameter}, where there is one.",
        f"Attentive: {study.exclusion_rule}. Consent text {view.consent_version}."
        + (f" Completion link {view.completion_url}" if view.completion_url else "")
        + (" Blinded: outcomes stay hidden until the planned participants have finished." if study.blinded else ""),
    ]
    for line in lines:
        console.print(line, markup=False, highlight=False)


def _count_flags(study: StudySummary) -> str:
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
    folder = options.to or Path(name_folder(name))
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


def name_folder(study: str) -> str:
    """A study's name as that of a folder inside the one where the command runs, on any system."""
    return re.sub(r"[^\w ,-]", "_", study)[:40]


def _read_exposure(text: str) -> int | None:
    if text == "none":
        return None
    try:
        return int(text)
    except ValueError:
        raise SurveyError(f"The exposure {text!r} is neither a number of milliseconds nor none.") from None


if __name__ == "__main__":
    sys.exit(main())
