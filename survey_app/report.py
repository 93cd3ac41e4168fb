"""One page of HTML with everything that the dashboard shows: `python -m survey_app.report [EXPERIMENT] --to FILE`.

It holds its figures itself and needs no server: to be mailed, archived, or put beside a paper.
"""

import argparse
import html
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from db.errors import UserError, run_command
from db.store import DATABASE_HELP, default_database, open_existing, read_session
from db.surveys.answers import Inclusion, StudyBlinded, load_answers
from db.surveys.study import find_study, studies_of
from db.sweeps.trials import find_experiment
from platform.tables import table
from survey_app.dashboard import certainty_view, pictures_view, prediction_view, results_view, sweep_view
from survey_app.dashboard.choice import SIMULATED_VOTES, Choice, describe_choice
from survey_app.dashboard.exhibits import Exhibit, Figure, svg

EXAMPLES = """\
examples:
  python -m survey_app.report                                    the newest experiment and its newest study
  python -m survey_app.report rebalance --to rebalance.html
  python -m survey_app.report rebalance --study times --attentive

Exit status: 0, or 2 where something is wrong.
"""

CSS = (
    """
:root { color-scheme: light; }
body { overflow-wrap: break-word; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
h1, h2, h3 { line-height: 1.2; } h2 { margin-top: 3rem; border-bottom: 2px solid #ddd; }
figure { margin: 1.5rem 0; } figure svg { max-width: 100%; height: auto; }
figcaption, .note { color: #555; font-size: .9rem; max-width: 50rem; }
.finding { font-size: 1.25rem; max-width: 50rem; }
.simulated { background: #fff3cd; border: 1px solid #b58900; padding: .6rem 1rem; }
nav a { margin-right: 1rem; }
@media print {
  .huejury-table { max-height: none; } h2 { break-before: page; } figure, .huejury-table { break-inside: avoid; }
}
"""
    + table.CSS
)


def report_html(
    engine: Engine,
    experiment: str | None = None,
    *,
    study: str | None = None,
    simulated: bool = False,
    inclusion: Inclusion = "all",
) -> str:
    """The report of an experiment, by default the newest, and a study of it, by default its newest.

    Raises UserError: no such experiment or study, or it is another experiment's. A blinded study's outcomes are not in
    it.
    """
    with read_session(engine) as session:
        experiment = find_experiment(session, experiment).name
        choice = _choose(engine, session, experiment, study, inclusion, simulated=simulated)
        gallery = pictures_view.gallery_of(session, choice)
        strip, pictures = (
            pictures_view.gallery_html(session, gallery, pictures_view.sort_rows(gallery, order)[:rows], order)
            for order, rows in ((pictures_view.TELLING, 1), (pictures_view.orders_of(gallery)[1], 8))
        )
        finding = f'<p class="finding">{_inline(results_view.headline(choice, gallery))}</p>'
        results = results_view.exhibits(session, choice)
        sections = {"Results": finding + strip + _exhibits_html(results)}
        if choice.answers is not None and choice.study is not None:
            predictions = prediction_view.exhibits(session, choice.answers.of(inclusion))
            sections["Do scores predict people?"] = _exhibits_html(predictions)
            certainty = certainty_view.exhibits(choice.answers, choice, choice.study)
            sections["How sure"] = _exhibits_html(certainty)
        sections["Sweep"] = _exhibits_html(sweep_view.exhibits(session, choice.experiment))
        sections["Pictures"] = pictures + _exhibits_html(pictures_view.class_tables(gallery))
    title = f"{experiment}: colourizations, scores and votes"
    links = "".join(f'<a href="#{_anchor(name)}">{html.escape(name)}</a>' for name in sections)
    body = "".join(
        f'<section id="{_anchor(name)}"><h2>{html.escape(name)}</h2>{inside}</section>'
        for name, inside in sections.items()
    )
    simulated_note = f'<p class="simulated">{SIMULATED_VOTES}</p>' if simulated else ""
    shown = "<br>".join(_inline(line) for line in describe_choice(choice))
    provenance = (
        f"Experiment {experiment}, begun {choice.experiment.created_at:%Y-%m-%d}, data fingerprint "
        f"{choice.experiment.dataset.fingerprint}. Written {datetime.now(UTC):%Y-%m-%d %H:%M} UTC."
    )
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{CSS}</style></head><body>'
        f"<h1>{html.escape(title)}</h1>{simulated_note}<p>{shown}</p><p>{html.escape(provenance)}</p>"
        f"<nav>{links}</nav>{body}</body></html>\n"
    )


def _choose(
    engine: Engine, session: Session, experiment: str, study: str | None, inclusion: Inclusion, *, simulated: bool
) -> Choice:
    found = find_experiment(session, experiment)
    row = next(iter(studies_of(session, found.id)), None) if study is None else find_study(session, study)
    if row is None:
        return Choice(engine, found, None, simulated)
    if row.experiment_id != found.id:
        raise UserError(f"The study {row.name!r} is not of experiment {experiment!r}; name its own experiment.")
    answers = hidden = None
    try:
        answers = load_answers(session, row, simulated=simulated)
    except StudyBlinded as blinded:
        hidden = str(blinded)
    return Choice(engine, found, row, simulated, inclusion, answers, hidden)


def _exhibits_html(exhibits: Sequence[Exhibit]) -> str:
    return "".join(map(_exhibit_html, exhibits))


def _exhibit_html(exhibit: Exhibit) -> str:
    if isinstance(exhibit, str):
        return f"<p>{_inline(exhibit)}</p>"
    note = html.escape(exhibit.note)
    if not isinstance(exhibit, Figure):
        return f'<h3>{html.escape(exhibit.title)}</h3>{exhibit.html()}<p class="note">{note}</p>'
    drawing = svg(exhibit).replace("<svg", f'<svg role="img" aria-label="{html.escape(exhibit.alternative)}"', 1)
    return f"<figure>{drawing}<figcaption>{note}</figcaption></figure>"


def _inline(markdown: str) -> str:
    """Markdown's bold as HTML; there is nothing else of it in exhibits' sentences."""
    return re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", html.escape(markdown))


def _anchor(name: str) -> str:
    return re.sub(r"[^a-z]+", "-", name.lower()).strip("-")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m survey_app.report",
        description="Write what the dashboard shows as one self-contained HTML file.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("experiment", nargs="?", help="its name (default: the newest)")
    parser.add_argument("--study", metavar="NAME", help="default: the experiment's newest")
    parser.add_argument("--simulated", action="store_true", help="votes of simulated participants instead of people's")
    parser.add_argument("--attentive", action="store_true", help="only who counts by the study's exclusion rule")
    parser.add_argument("--to", type=Path, metavar="FILE", default=Path("report.html"), help="default: %(default)s")
    parser.add_argument("--database", default=default_database(), help=DATABASE_HELP)
    options = parser.parse_args(arguments)

    def body() -> int:
        page = report_html(
            open_existing(options.database),
            options.experiment,
            study=options.study,
            simulated=options.simulated,
            inclusion="attentive" if options.attentive else "all",
        )
        try:
            options.to.parent.mkdir(parents=True, exist_ok=True)
            options.to.write_text(page, encoding="utf-8")
        except OSError as error:
            raise UserError(f"{options.to} cannot be written ({error.strerror}); give another --to.") from error
        print(f"The report is {options.to} ({len(page.encode()) / 1e6:.1f} MB).")
        return 0

    return run_command(body)


if __name__ == "__main__":
    sys.exit(main())
