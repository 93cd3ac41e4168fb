"""Create, list, show, close and export studies: `python -m survey_app.studies`.

A finished sweep opens a study by itself; this is for others: another protocol, other contenders, another exposure.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import pandas as pd
from rich.console import Console
from sqlalchemy import Engine

from db.answers import Answers, Count, load_answers
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
from platform.intervals import wilson
from platform.tables import Table
from survey_app.export import export_study

EXAMPLES = """\
examples:
  python -m survey_app.studies create                            of the newest experiment, as a sweep would
  python -m survey_app.studies create rebalance --name "rebalance, no hurry" --exposure none
  python -m survey_app.studies create rebalance --name brief --exposure 100 --questions 60
  python -m survey_app.studies create rebalance --name lambda --arm classification --arm "rebalanced 0.25"
  python -m survey_app.studies show brief
  python -m survey_app.studies export brief --to results/brief

A study is never changed: create another one, and close this one. Exit status: 0, or 2 where something is wrong.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    return run_command(lambda: _run(options, Console()))


def _run(options: argparse.Namespace, console: Console) -> int:
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
        default=str(EXPOSURE_MS),
        metavar="MS",
        help="milliseconds, or none: until answered (default: %(default)s)",
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
        help="of the link, by which the recruiting system tells participants apart (default: %(default)s)",
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
        exposure_ms=_exposure(options.exposure),
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
    rows = [
        {
            "study": study.view.name,
            "status": study.view.status,
            "experiment": study.experiment,
            "protocol": study.view.protocol,
            "finished": study.finished,
            "planned": study.planned_participants,
            "votes": study.votes,
        }
        for study in studies
    ]
    console.print(Table("studies", "Studies", pd.DataFrame(rows)).rich())
    return 0


def _show(engine: Engine, name: str, console: Console, *, simulated: bool) -> int:
    study = study_summary(engine, name)
    _describe(study, console)
    with read_session(engine) as session:
        answers = load_answers(session, find_study(session, name), simulated=simulated)
    console.print(_votes_table(answers).rich())
    return 0


def _votes_table(answers: Answers) -> Table:
    who = "simulated participants" if answers.simulated else "participants"
    columns = {}
    for label, kept in (("all", answers), ("attentive", answers.of("attentive"))):
        counts = {contender.arm: count for contender, count in zip(kept.contenders, kept.picked_as_real(), strict=True)}
        if kept.protocol == "single":
            counts["the photographs"] = kept.right("real")
        counts["sentinels found"] = kept.right("sentinel")
        columns[f"{label} ({kept.participants})"] = {name: _share(count) for name, count in counts.items()}
    frame = pd.DataFrame(columns).rename_axis("model").reset_index()
    return Table("votes", f"Picked as real, with 95 % Wilson intervals, by {who}", frame)


def _share(count: Count) -> str:
    share = wilson(count.count, count.total)
    return f"{share} {share.range}" if count.total else "no votes"


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
        f"planned; {study.votes} votes; {study.simulated} simulated participants, never counted with people.",
        *_noticed(study),
        f"Attentive: {study.exclusion_rule}. Consent text {view.consent_version}."
        + (f" Completion link {view.completion_url}" if view.completion_url else "")
        + (" Blinded: outcomes stay hidden until the planned participants have finished." if study.blinded else ""),
    ]
    for line in lines:
        console.print(line, markup=False, highlight=False)


def _noticed(study: StudySummary) -> list[str]:
    """What its makers should look at, where there is anything."""
    lines = []
    if study.flagged:
        lines.append(f"Votes flagged: {', '.join(f'{count} {flag}' for flag, count in sorted(study.flagged.items()))}.")
    if study.without_id and study.without_id < study.participants:
        lines.append(
            f"{study.without_id} participants came without a usable {study.view.id_parameter} in their link: they "
            "cannot be matched with the recruiting system, nor go on in another browser."
        )
    return lines


def _close(engine: Engine, name: str, console: Console) -> int:
    study = close_study(engine, name)
    way = f"; {study.under_way} under way are told so, and what they answered counts" if study.under_way else ""
    console.print(f"Study {name!r} is closed: it takes no more answers{way}.", markup=False, highlight=False)
    return 0


def _export(engine: Engine, name: str, options: argparse.Namespace, console: Console) -> int:
    folder = options.to or Path(_folder_name(name))
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


def _folder_name(study: str) -> str:
    """A name for a folder right here: never one that leads elsewhere, nor longer than file systems take."""
    plain = "".join(letter if letter.isalnum() or letter in " ,-_." else "_" for letter in study).strip(" .")
    return plain.encode()[:100].decode(errors="ignore") or "study"


def _exposure(text: str) -> int | None:
    if text == "none":
        return None
    try:
        return int(text)
    except ValueError:
        raise SurveyError(f"The exposure {text!r} is neither a number of milliseconds nor none.") from None


if __name__ == "__main__":
    sys.exit(main())
