"""What to ask people next: `python -m survey_app.propose [STUDY]`.

From the curve over λ that a study's answers give it proposes further values of λ, and writes the config of a sweep that
renders them (or trains them, where the study's own λ's were trained), whose study then asks about them.
"""

import argparse
import io
import math
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from ruamel.yaml import YAML
from sqlalchemy import select

from db.answers import load_answers
from db.errors import UserError, run_command
from db.results import Contender
from db.schema import Arm, Experiment
from db.store import DATABASE_HELP, default_database, naming_database, open_existing, read_session
from db.studies import PLANNED_PARTICIPANTS, SurveyError, find_study, study_summary
from platform.arm_options import ArmOptions, as_configured, read_options
from platform.intervals import range_text
from platform.results import SIMULATED
from survey_app.curve import Curve, curve_of, earlier_votes, incumbent, participants_for_width
from survey_app.dashboard.rebalancing_view import best_table, how_sure_of_best

QUANTILES = (12.5, 37.5, 62.5, 87.5)  # of where the best λ is: proposed are the values there
STEP = 0.05  # to which they are rounded
WIDTH = 0.1  # of the curve's band at the best λ, that the next study is planned for

EXAMPLES = """\
examples:
  python -m survey_app.propose                                   from the newest open study
  python -m survey_app.propose rebalance --to tune_configs/closer.yaml

Exit status: 0, or 2 where something is wrong.
"""


def proposed_values(curve: Curve) -> list[float]:
    """The λ's of the next round beside its anchors, the curve's best and plain classification (λ = 1): they part into
    equal shares the probability of where the best λ is."""
    anchors = [incumbent(curve), 1.0]
    values = np.unique(np.round(np.percentile(curve.best_of_all(), QUANTILES) / STEP) * STEP).round(2)
    return [float(value) for value in values if np.abs(value - np.array(anchors)).min() > STEP / 2]


def next_config(
    config: dict[str, Any],
    arms: dict[str, ArmOptions],
    hyperparameters: dict[str, Any],
    participants: int,
) -> dict[str, Any]:
    """The config of the sweep after that of `config`, whose study this was: the same data and training, once, with the
    hyperparameters that were best."""
    name, _, number = config["experiment"].partition("-round-")
    tried = config["training"] | hyperparameters
    changed = {
        "experiment": f"{name}-round-{int(number) + 1 if number.isdecimal() else 2}",
        "arms": {arm: as_configured(options) for arm, options in arms.items()},
        "training": {name: value for name, value in tried.items() if name not in ("epochs", "seed")},
        "search": {"method": "random", "trials_per_arm": 1},
        "early_stopping": None,
        "replicates": None,
        "participants": participants,
    }
    # The images and epochs that fitted into the minutes of the first sweep: rounds are compared.
    return {key: value for key, value in (config | changed).items() if value is not None and key != "minutes"}


def next_arms(
    members: Sequence[Contender], configured: dict[str, ArmOptions], values: Sequence[float]
) -> dict[str, ArmOptions]:
    """Arms with these values of λ, by name. members: what the curve joins, by rising λ; configured: all arms of the
    experiment."""
    lowest = members[0].options
    known = {member.rebalancing: member.arm for member in members}
    falling = sorted(values, reverse=True)
    if lowest.renders is None:
        return {known.get(value, f"rebalanced {value:g}"): replace(lowest, rebalancing=value) for value in falling}
    tilted = {known.get(value, f"tilted {value:g}"): replace(lowest, tilt=value) for value in falling if value != 1}
    return {lowest.renders: configured[lowest.renders], **tilted}  # with plain classification, whose weights are there


def config_text(config: dict[str, Any], head: Sequence[str]) -> str:
    """As YAML under a comment, which the database keeps with the sweep."""
    buffer = io.StringIO()
    yaml = YAML()
    yaml.width = 120
    yaml.dump(config, buffer)
    return "".join(f"# {line}\n" for line in head) + buffer.getvalue()


def _run(options: argparse.Namespace) -> int:
    console = Console(soft_wrap=True, highlight=False, markup=False)
    engine = open_existing(options.database)
    with read_session(engine) as session:
        study = find_study(session, options.study)
        name, experiment = study.name, session.get_one(Experiment, study.experiment_id)
        answers = load_answers(session, study, simulated=options.simulated)
        before = earlier_votes(session, answers)
        rows = session.scalars(select(Arm).where(Arm.experiment_id == study.experiment_id))
        configured = {arm.name: read_options(arm.options) for arm in rows}
        config = experiment.config
    summary = study_summary(engine, name)
    if not answers.participants:
        raise SurveyError(_why_nobody(name, summary.simulated, simulated=options.simulated))
    found = curve_of(answers, before)
    if found is None:
        raise SurveyError(
            f"Study {name!r} has no answers about two values of λ of one model, so there is no curve to propose from; "
            "ask about tilts of a classification, as tune_configs/rebalance.yaml has them."
        )
    places, curve = found
    members = [answers.contenders[place] for place in places]
    best, values = incumbent(curve), proposed_values(curve)
    arms = next_arms(members, configured, sorted({best, 1.0, *values}))
    per_arm = len(arms) / len(answers.contenders)  # the more arms, the fewer questions about each
    needed = participants_for_width(answers, best, WIDTH, before)
    participants = PLANNED_PARTICIPANTS if needed is None else math.ceil(needed * per_arm)
    trial = next(member.trial for member in members if member.rebalancing == best)
    sweep = next_config(config, arms, trial.hyperparameters, participants)
    whom = f"{answers.participants} {SIMULATED if answers.simulated else 'people'}"
    head = [
        f"Proposed from study {name!r} of experiment {answers.experiment!r}, {whom}: python -m survey_app.propose.",
        f"Anchors: λ = {best:g}, the best so far, and plain classification. Proposed: "
        f"{', '.join(f'{value:g}' for value in values) or 'nothing, as no other λ is likely to be better'}.",
    ]
    file = options.to or Path("tune_configs") / f"{sweep['experiment']}.yaml"
    try:
        with file.open("x", encoding="utf-8") as stream:
            stream.write(config_text(sweep, head))
    except OSError as error:
        raise UserError(f"{file} cannot be written ({error.strerror}); give another --to.") from error
    console.print(best_table(answers, before, places, curve).rich(console.width), crop=False)
    for line in _reasons(curve, best, values, how_sure_of_best(answers, before)):
        console.print(line)
    console.print(
        f"{file} plans them, with {participants} participants: so many make the band at λ = {best:g} {100 * WIDTH:.0f} "
        f"points wide. Then: python -m platform.sweep {shlex.quote(str(file))}{naming_database(engine, '--database ')}"
    )
    return 0


def _why_nobody(study: str, there: int, *, simulated: bool) -> str:
    if simulated:
        return f"No simulated participant has answered study {study!r}; let some: python -m survey_app.simulate."
    if there:
        return f"Only simulated participants have answered study {study!r}; add --simulated to propose from them."
    return f"Nobody has answered study {study!r} yet; ask people first: python -m survey_app.serve."


def _reasons(curve: Curve, best: float, values: Sequence[float], how_sure: str) -> list[str]:
    """The incumbent and each proposed value, with what is known of it."""
    low, middle, high = curve.interval()[:, curve.places([best, *values])]
    shares = [
        f"{100 * share:.0f} % ({range_text(float(start), float(end))})"
        for start, share, end in zip(low, middle, high, strict=True)
    ]
    lines = [f"The best so far is λ = {best:g}: {shares[0]} by the curve. {how_sure}"]
    if not values:
        return [*lines, "No other λ is likely to be better: ask once more about this one and plain classification."]
    lines.append("Proposed, as they part into equal shares the probability of where the best λ is:")
    at = curve.draws[:, curve.places([best, *values])]
    for value, share, better in zip(values, shares[1:], (at[:, 1:] > at[:, :1]).mean(axis=0), strict=True):
        lines.append(
            f"  λ = {value:g}: {share} by the curve, better than {best:g} with probability {100 * better:.0f} %"
        )
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m survey_app.propose",
        description="Propose what to ask people next, and write the sweep's config for it.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("study", nargs="?", help="its name (default: the newest open one)")
    parser.add_argument("--simulated", action="store_true", help="from simulated participants' answers")
    parser.add_argument("--to", type=Path, metavar="FILE", help="default: tune_configs/EXPERIMENT-round-2.yaml")
    parser.add_argument("--database", default=default_database(), help=DATABASE_HELP)
    options = parser.parse_args(arguments)
    return run_command(lambda: _run(options))


if __name__ == "__main__":
    sys.exit(main())
