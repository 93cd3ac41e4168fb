"""Create, list, show, close and export studies: `python -m survey_app.studies`.

A finished sweep opens a study by itself; this is for others: another protocol, other contenders, another exposure.
"""

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import get_args

import pandas as pd
from rich.console import Console
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from db.errors import UserError, run_command
from db.schema import Protocol, Study
from db.store import DATABASE_HELP, default_database, open_existing, read_session
from db.surveys.answers import ExclusionRule, load_answers
from db.surveys.archive import export_study
from db.surveys.study import (
    EXPOSURE_MS,
    ID_PARAMETER,
    PRACTICE,
    QUESTIONS,
    StudyOptions,
    SurveyError,
    close_study,
    count_turnout,
    create_study,
    find_study,
    list_studies,
    plan_of,
)
from db.sweeps.trials import contenders, find_experiment
from platform.tables.table import Table
from survey_app.analysis.tables import inclusions_table

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
    engine = open_existing(options.database)
    command: Callable[[Engine, argparse.Namespace, Console], None] = options.run
    command(engine, options, Console(highlight=False, markup=False))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m survey_app.studies",
        description="Create, list, show, close and export studies.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--database", default=default_database(), help=DATABASE_HELP)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    create = commands.add_parser("create", help="open a study of an experiment")
    listed = commands.add_parser("list", help="all studies")
    show = commands.add_parser("show", help="a study and its votes so far")
    close = commands.add_parser("close", help="take no more participants and no more answers")
    export = commands.add_parser("export", help="votes as CSV, the study as JSON")
    for command, run in ((create, _create), (listed, _list), (show, _show), (close, _close), (export, _export)):
        command.set_defaults(run=run)
    _add_options(create)
    close.add_argument("study", help="its name")
    for command in (show, export):
        command.add_argument("study", nargs="?", help="its name (default: the newest open one)")
        command.add_argument("--simulated", action="store_true", help="of simulated participants instead of people")
    export.add_argument("--to", type=Path, metavar="FOLDER", help="default: a folder of the study's name")
    return parser


def _add_options(create: argparse.ArgumentParser) -> None:
    """Of a study: how it asks. What is given goes to StudyOptions under its name there."""
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
        default="pair",
        help="pair: which of two is real; single: is this one real (default: %(default)s)",
    )
    for option, name, words in (
        ("--questions", "question_count", f"default: {QUESTIONS}, fewer where there are few pictures"),
        ("--practice", "practice_count", f"default: {PRACTICE}, fewer where there are few pictures"),
        ("--participants", "planned_participants", "planned (default: as the sweep's config says)"),
    ):
        add(option, dest=name, type=int, metavar="N", help=words)
    add(
        "--exposure",
        dest="exposure_ms",
        type=milliseconds,
        default=EXPOSURE_MS,
        metavar="MS",
        help="milliseconds, or none: until answered (default: %(default)s)",
    )
    add(
        "--id-parameter",
        default=ID_PARAMETER,
        metavar="NAME",
        help="of the link, in which a recruiting system tells who comes (default: %(default)s)",
    )
    add(
        "--blinded",
        action="store_true",
        help="hide all outcomes until the planned participants have finished, or the study is closed",
    )
    add("--completion-url", metavar="URL", help="link at the end, such as Prolific's")


def milliseconds(text: str) -> int | None:
    """Of an exposure; None: until answered."""
    return None if text == "none" else int(text)


def _create(engine: Engine, options: argparse.Namespace, console: Console) -> None:
    with read_session(engine) as session:
        experiment = find_experiment(session, options.experiment).name
    given = {field.name: getattr(options, field.name) for field in fields(StudyOptions) if field.name in options}
    name = create_study(engine, experiment, **given).name
    with read_session(engine) as session:
        _describe(session, find_study(session, name), console)


def _list(engine: Engine, _options: argparse.Namespace, console: Console) -> None:
    with read_session(engine) as session:
        rows = [
            {
                "study": study.name,
                "is": study.status,
                "experiment": study.experiment.name,
                "protocol": study.protocol,
                "finished": turnout.finished,
                "planned": study.planned_participants,
                "votes": turnout.votes,
            }
            for study in list_studies(session)
            for turnout in [count_turnout(session, study)]
        ]
    if not rows:
        raise SurveyError("There is no study yet; finish a sweep, or create one: python -m survey_app.studies create.")
    console.print(Table("studies", "Studies", pd.DataFrame(rows)).for_console(), crop=False)


def _show(engine: Engine, options: argparse.Namespace, console: Console) -> None:
    with read_session(engine) as session:
        study = find_study(session, options.study)
        _describe(session, study, console)
        answers = load_answers(session, study, simulated=options.simulated)
    console.print(inclusions_table(answers).for_console())


def _describe(session: Session, study: Study, console: Console) -> None:
    experiment, dataset = study.experiment.name, study.experiment.dataset.name
    plan, _, _ = plan_of(session, study)
    arms = ", ".join(trial.arm.name for trial in contenders(session, study))
    turnout = count_turnout(session, study)
    exposure = "until answered" if study.exposure_ms is None else f"for {study.exposure_ms} ms"
    flagged = ", ".join(f"{count} {flag}" for flag, count in sorted(turnout.flagged.items()))
    for line in (
        f"Study {study.name!r} is {study.status}: protocol {study.protocol}, {study.question_count} questions "
        f"({study.sentinel_count} of them sentinels) after {study.practice_count} for practice, shown {exposure}.",
        f"Contenders of experiment {experiment!r} ({dataset}): {arms}; {plan.images} images, seed {study.seed}.",
        f"{turnout.participants} participants so far, {turnout.finished} of them finished, "
        f"{study.planned_participants} planned; {turnout.votes} votes{f' ({flagged})' if flagged else ''}; "
        f"{turnout.simulated} simulated participants, never counted with people.",
        f"{turnout.without_id} of them came without an id in their link's {study.id_parameter}."
        if turnout.participants
        else f"Who comes is told by the link's {study.id_parameter}, where there is one.",
        f"Attentive: {ExclusionRule(**study.exclusion_rule)}. Consent text {study.consent_version}."
        + (f" Completion link {study.completion_url}" if study.completion_url else "")
        + (" Blinded: outcomes stay hidden until the planned participants have finished." if study.blinded else ""),
    ):
        console.print(line)


def _close(engine: Engine, options: argparse.Namespace, console: Console) -> None:
    study = close_study(engine, options.study)
    with read_session(engine) as session:
        turnout = count_turnout(session, study)
    under_way = turnout.participants - turnout.finished
    way = f" {under_way} under way are thanked; what they answered counts." if under_way else ""
    console.print(f"Study {study.name!r} is closed: it takes no more participants and no more answers.{way}")


def _export(engine: Engine, options: argparse.Namespace, console: Console) -> None:
    with read_session(engine) as session:
        name = find_study(session, options.study).name
    folder = options.to or Path(name_folder(name))
    try:
        rows = export_study(engine, name, folder, simulated=options.simulated)
    except OSError as error:
        raise UserError(f"{error.filename} cannot be written ({error.strerror}); give another --to.") from error
    console.print(
        f"{rows} votes are in {folder / 'votes.csv'}, the study's definition in {folder / 'study.json'}; "
        "docs/data-dictionary.md explains the columns.",
        soft_wrap=True,
    )


def name_folder(study: str) -> str:
    """A study's name as that of a folder inside the one where the command runs, on any system."""
    return re.sub(r"[^\w ,-]", "_", study)[:40]


if __name__ == "__main__":
    sys.exit(main())
