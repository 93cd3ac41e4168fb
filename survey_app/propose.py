"""What to ask people next: `python -m survey_app.propose [STUDY]`.

From the curve over λ that a study's answers give it proposes further values of λ. Where the study asked about tilts, it
says the commands that give the experiment further ones, from the same weights, and open a study of them; where the
study's own λ's were trained, it writes the config of a sweep that trains others.
"""

import argparse
import io
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from ruamel.yaml import YAML
from sqlalchemy import Engine, select

from db.errors import UserError, run_command
from db.schema import Arm, Experiment, Study, Trial
from db.store import DATABASE_HELP, default_database, naming_database, open_existing, read_session
from db.surveys.answers import Answers, load_answers, load_earlier_answers
from db.surveys.study import (
    EXPOSURE_MS,
    PLANNED_PARTICIPANTS,
    PRACTICE,
    QUESTIONS,
    SurveyError,
    count_turnout,
    find_study,
)
from platform.arms.options import ArmOptions, as_configured, read_options
from platform.tables.intervals import SIMULATED, range_text
from survey_app.analysis.curve import Curve, curve_of, earlier_votes, incumbent
from survey_app.analysis.tables import best_table, how_sure_of_best

QUANTILES = (12.5, 37.5, 62.5, 87.5)  # of where the best λ is: proposed are the values there
STEP = 0.05  # to which they are rounded

EXAMPLES = """\
examples:
  python -m survey_app.propose                                   from the newest open study
  python -m survey_app.propose lambda --to tune_configs/closer.yaml      of a study of trained λ's

Exit status: 0, or 2 where something is wrong.
"""


def proposed_values(curve: Curve) -> list[float]:
    """The λ's of the next round beside its anchors, the curve's best and plain classification (λ = 1): they part into
    equal shares the probability of where the best λ is."""
    anchors = [incumbent(curve), 1.0]
    values = np.unique(np.round(np.percentile(curve.best_of_all(), QUANTILES) / STEP) * STEP).round(2)
    return [float(value) for value in values if np.abs(value - np.array(anchors)).min() > STEP / 2]


def next_tilts(
    members: Sequence[Trial], configured: Mapping[str, ArmOptions], values: Iterable[float]
) -> tuple[list[str], dict[str, ArmOptions]]:
    """The names of the arms with these values of λ, in their order, and the options of those that the experiment lacks.
    members: what the curve joins, by rising λ, so that the first is a tilt; configured: the experiment's arms."""
    lowest = members[0].arm.choices
    known = {trial.arm.rebalancing: trial.arm.name for trial in members}
    assert lowest.renders is not None
    names: list[str] = []
    further: dict[str, ArmOptions] = {}
    for value in values:
        options = replace(lowest, tilt=value)
        name = known.get(value, lowest.renders if value == 1 else None)
        name = name or next((arm for arm, of_arm in configured.items() if of_arm == options), None)
        if name is None:
            short = f"tilted {value:g}"
            name = f"{lowest.renders} {short}" if short in configured else short
            further[name] = options
        names.append(name)
    return names, further


def next_config(
    config: dict[str, Any],
    members: Sequence[Trial],
    values: Sequence[float],
    hyperparameters: dict[str, Any],
) -> dict[str, Any]:
    """The config of a sweep that trains with these λ's: the same data and training as that of `config`, whose study
    this was, once, with the hyperparameters that were best. members: what the curve joins."""
    name, _, number = config["experiment"].partition("-round-")
    tried = config["training"] | hyperparameters
    known = {trial.arm.rebalancing: trial.arm.name for trial in members}
    alike = members[0].arm.choices
    arms = {
        known.get(value, f"rebalanced {value:g}"): as_configured(replace(alike, rebalancing=value)) for value in values
    }
    changed = {
        "experiment": f"{name}-round-{int(number) + 1 if number.isdecimal() else 2}",
        "arms": arms,
        "training": {name: value for name, value in tried.items() if name not in ("epochs", "seed")},
        "search": {"method": "random", "trials_per_arm": 1},
        "early_stopping": None,
        "replicates": None,
    }
    # The images and epochs that fitted into the minutes of the first sweep: rounds are compared.
    return {key: value for key, value in (config | changed).items() if value is not None and key != "minutes"}


def in_yaml(data: Mapping[str, Any], *, one_line: bool = False) -> str:
    """As a file has it or, on one line, as a command's option has it: without braces around."""
    buffer = io.StringIO()
    yaml = YAML()
    yaml.default_flow_style = one_line
    yaml.width = 10_000 if one_line else 120
    yaml.dump(dict(data), buffer)
    return buffer.getvalue().strip()[1:-1] if one_line else buffer.getvalue()


def _run(options: argparse.Namespace) -> int:
    console = Console(soft_wrap=True, highlight=False, markup=False)
    engine = open_existing(options.database)
    with read_session(engine) as session:
        study = find_study(session, options.study)
        experiment = session.get_one(Experiment, study.experiment_id)
        answers = load_answers(session, study, simulated=options.simulated)
        before = earlier_votes(answers, load_earlier_answers(session, answers))
        rows = select(Arm).where(Arm.experiment_id == study.experiment_id, Arm.baseline.is_(False))
        configured = {arm.name: read_options(arm.options) for arm in session.scalars(rows)}
        taken = set(session.scalars(select(Study.name)))
        simulated = count_turnout(session, study).simulated
    if not answers.participants:
        raise SurveyError(_why_nobody(study.name, simulated, asked_for=options.simulated))
    found = curve_of(answers, before)
    if found is None:
        raise SurveyError(
            f"Study {study.name!r} has no answers about two values of λ of one model, so there is no curve to propose "
            "from; ask about tilts of a classification, as tune_configs/rebalance.yaml has them."
        )
    places, curve = found
    members = [answers.contenders[place] for place in places]
    best, values = incumbent(curve), proposed_values(curve)
    asked = sorted({best, 1.0, *values}, reverse=True)
    trial = next(trial for trial in members if trial.arm.rebalancing == best)
    if members[0].arm.choices.renders is not None:
        if options.to is not None:
            raise UserError(f"Study {study.name!r} asked about tilts, which need no config: leave --to out.")
        names, further = next_tilts(members, configured, asked)
        contenders = [f"{name}={trial.number}" for name in names]
        lines = ["It trains nothing: further arms are read from the weights that are there. Then ask about them:"]
        lines += _commands(engine, experiment.name, study, further, contenders, taken)
    else:
        config = next_config(experiment.config, members, asked, trial.hyperparameters)
        file = options.to or Path("tune_configs") / f"{config['experiment']}.yaml"
        _write(config, file, answers)
        lines = [f"{file} plans them. Then:"]
        lines += [f"  python -m platform.sweep {shlex.quote(str(file))}{naming_database(engine, '--database ')}"]
    console.print(best_table(answers, before, places, curve).for_console(), crop=False)
    if before:
        console.print(f"Earlier studies of the same experiment whose answers are on this curve, too: {len(before)}.")
    for line in (*_reasons(curve, best, values, how_sure_of_best(answers, before)), *lines):
        console.print(line)
    return 0


def _commands(
    engine: Engine,
    experiment: str,
    study: Study,
    further: Mapping[str, ArmOptions],
    contenders: Sequence[str],
    taken: Iterable[str],
) -> list[str]:
    """What to type: the command that gives the experiment further arms, if any, and the one that opens a study which
    asks as this one did. contenders: each ARM=NUMBER; taken: names of studies."""
    database = naming_database(engine, "--database ")
    lines = []
    if further:
        additions = [
            f" --add {shlex.quote(in_yaml({name: as_configured(options)}, one_line=True))}"
            for name, options in further.items()
        ]
        lines.append(f"  python -m platform.sweep --resume {shlex.quote(experiment)}{''.join(additions)}{database}")
    name = next(name for number in range(2, 10_000) if (name := f"{experiment} {number}") not in taken)
    asked = {
        "--protocol": (study.protocol, "pair"),
        "--questions": (study.question_count, QUESTIONS),
        "--practice": (study.practice_count, PRACTICE),
        "--exposure": ("none" if study.exposure_ms is None else study.exposure_ms, EXPOSURE_MS),
        "--participants": (study.planned_participants, PLANNED_PARTICIPANTS),
    }
    changed = "".join(f" {option} {value}" for option, (value, usual) in asked.items() if value != usual)
    arms = "".join(f" --arm {shlex.quote(contender)}" for contender in contenders)
    create = f"create {shlex.quote(experiment)} --name {shlex.quote(name)}{arms}{changed}"
    return [*lines, f"  python -m survey_app.studies{database} {create}"]


def _write(config: dict[str, Any], file: Path, answers: Answers) -> None:
    """Write the config under a comment, which the database keeps with the sweep."""
    whom = f"{answers.participants} {SIMULATED if answers.simulated else 'people'}"
    head = f"# Proposed by survey_app.propose from study {answers.study!r} of {answers.experiment!r}, {whom}.\n"
    try:
        with file.open("x", encoding="utf-8") as stream:
            stream.write(head + in_yaml(config))
    except OSError as error:
        raise UserError(f"{file} cannot be written ({error.strerror}); give another --to.") from error


def _why_nobody(study: str, simulated: int, *, asked_for: bool) -> str:
    """simulated: participants who answered it; asked_for: whether they were."""
    if simulated:
        return f"Only simulated participants have answered study {study!r}; add --simulated to propose from them."
    command = "survey_app.simulate" if asked_for else "survey_app.serve"
    return f"Nobody has answered study {study!r} yet; have it answered first: python -m {command}."


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
        description="Propose which λ's to ask people about next, and say the commands for it.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("study", nargs="?", help="its name (default: the newest open one)")
    parser.add_argument("--simulated", action="store_true", help="from simulated participants' answers")
    parser.add_argument("--to", type=Path, metavar="FILE", help="of the config, where λ's are trained (default: "
                        "tune_configs/EXPERIMENT-round-2.yaml)")  # fmt: skip
    parser.add_argument("--database", default=default_database(), help=DATABASE_HELP)
    options = parser.parse_args(arguments)
    return run_command(lambda: _run(options))


if __name__ == "__main__":
    sys.exit(main())
