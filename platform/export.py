"""Models to take away: `python -m platform.export EXPERIMENT [--arm ARM] --to FOLDER`.

Each arm's best trial becomes a folder: weights (safetensors), where they are from, what they scored and how their
colours are read (JSON), and `colour.py`, which colours photographs with them and without this project: it is
`platform/paint/standalone.py`.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from db.errors import UserError, run_command
from db.schema import Experiment, Trial
from db.store import DATABASE_HELP, default_database, open_existing, read_session
from db.sweeps.trials import code_versions, find_experiment
from platform.arms.compose import Task
from platform.color.counts import ColourCounts
from platform.model.network import Colorizer
from platform.model.stored import finished_models, load_trial, name_file
from platform.paint import standalone
from platform.paint.photographs import SHORT_SIDE


def describe_model(
    experiment: Experiment, trial: Trial, task: Task, model: Colorizer, colours: ColourCounts
) -> dict[str, Any]:
    """What `config.json` says, in plain values: where the model is from, and all that `colour.py` has to know. colours:
    of the training pixels."""
    assert trial.last is not None  # it has finished
    options = trial.arm.choices
    palette = None
    if task.palette is not None:  # else the network gives ab
        offset = torch.zeros(len(task.palette.centers))  # log w_λ, which is added to the logits
        if options.tilt != 1:
            offset = colours.rarity_weights(task.palette, options.tilt).log().float()
        palette = {"centers": task.palette.centers.tolist(), "offset": offset.tolist()}
    return {
        "experiment": experiment.name,
        "dataset": {"name": experiment.dataset.name, "fingerprint": experiment.dataset.fingerprint},
        "arm": trial.arm.name,
        "trial": trial.number,
        "seed": trial.seed,
        "images_seen": trial.images_seen,
        "trained": task.options,
        "hyperparameters": trial.hyperparameters,
        "scores": trial.last.scores,
        "depth": len(model.encoder),
        "short_side": SHORT_SIDE,
        "palette": palette,
        "decoding": options.decoding,
        "temperature": options.decoding_temperature,
        "tilt": options.tilt,
    }


def export_model(session: Session, experiment: Experiment, trial: Trial, folder: Path) -> None:
    """Write a model's folder, which must not be there. Raises UserError where its weights are lost, OSError."""
    task, model = load_trial(session, trial.id)
    assert model is not None  # a contender is no baseline
    colours = ColourCounts.from_bytes(experiment.dataset.colour_counts)
    config = describe_model(experiment, trial, task, model, colours)
    config["code_version"] = code_versions(session, [trial.id])[trial.id]
    # With what follows from the data, as the table of a prior, which checkpoints do without.
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    folder.mkdir(parents=True)
    save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
    text = json.dumps(config, indent=1, ensure_ascii=False, allow_nan=False)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")
    shutil.copyfile(standalone.__file__, folder / "colour.py")


def export_models(engine: Engine, experiment: str, arm: str | None, folder: Path) -> list[Path]:
    """Write a folder below this one for the arm, or for each, and return them. Raises UserError, also where one of that
    name is there."""
    written: list[Path] = []
    with read_session(engine) as session:
        row = find_experiment(session, experiment)
        for name, trial in finished_models(session, experiment, None if arm is None else [arm]).items():
            target = folder / name_file(name)
            try:
                export_model(session, row, trial, target)
            except FileExistsError:
                raise UserError(f"{target} is there already, and is not overwritten; give another --to.") from None
            except OSError as error:
                raise UserError(
                    f"{target} cannot be written ({error.strerror or error}); give another --to."
                ) from error
            written.append(target)
    return written


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m platform.export",
        description="Write models of a sweep, to be taken away: a folder each, which needs nothing of HueJury.",
    )
    parser.add_argument("experiment", metavar="EXPERIMENT")
    parser.add_argument("--arm", help="which of its models (default: every one)")
    parser.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="where to; each has a folder in it")
    parser.add_argument("--database", default=default_database(), help=DATABASE_HELP)
    options = parser.parse_args(arguments)

    def body() -> int:
        engine = open_existing(options.database)
        for path in export_models(engine, options.experiment, options.arm, options.to):
            print(path)
        return 0

    return run_command(body)


if __name__ == "__main__":
    sys.exit(main())
