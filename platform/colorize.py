"""Colour whole photographs, of any size, with any model of any sweep:

    python -m platform.colorize PHOTO ...

A photograph keeps its own lightness: see photographs.py.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sqlalchemy import Engine

from db.errors import UserError, run_command
from db.png import encode_png
from db.store import DATABASE_HELP, default_database, read_session
from platform.arms.compose import Reading, Task
from platform.model.network import Colorizer
from platform.model.stored import finished_models, load_trial, name_file
from platform.paint.photographs import choose_reading, color_photograph, encode_photograph, read_photograph
from platform.paint.sheet import PICTURE_PX, paste_sheet
from platform.tables.experiment import open_experiment

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")

Painter = tuple[Task, Colorizer, Reading]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m platform.colorize",
        description="Colour photographs with a model of a sweep. Each is written beside its original, the model's name "
        "added to its own; the original is left as it is.",
    )
    parser.add_argument("photographs", nargs="+", type=Path, metavar="PHOTO", help="any picture, in colour or grey")
    parser.add_argument("--experiment", help="whose model (default: the newest's)")
    parser.add_argument("--arm", action="append", help="which of its models (default: the one with the least colour "
                        "error); given several times, there is a sheet, too")  # fmt: skip
    parser.add_argument("--all-arms", action="store_true", help="every model, and a sheet of all")
    parser.add_argument("--tilt", type=float, metavar="λ", help="make rare colours likelier: 1 changes nothing, 0 most")
    parser.add_argument("--temperature", type=float, metavar="T", help="of the annealed mean: lower is more colourful")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where to (default: beside each photograph); "
                        "of one photograph by one model the .png or .jpg file, too")  # fmt: skip
    parser.add_argument("--database", default=default_database(), help=DATABASE_HELP)
    options = parser.parse_intermixed_args(arguments)  # photographs may stand among the options
    return run_command(lambda: color_all(options))


def color_all(options: argparse.Namespace) -> int:
    """Colour what the command's options say; the exit status. Raises UserError before the first photograph is read."""
    torch.set_num_threads(1)  # two wait for each other as soon as anything else wants a core
    engine, experiment = open_experiment(options.database, options.experiment)
    painters = load_painters(engine, experiment, options)
    out: Path | None = options.out
    file = out if out is not None and out.suffix.lower() in PICTURE_SUFFIXES and not out.is_dir() else None
    if file is not None and len(options.photographs) * len(painters) > 1:
        raise UserError(f"{file} is one file: for several photographs or models give a folder as --out.")
    faults, rows = 0, []
    taken = {path.resolve() for path in options.photographs}  # what is read and what was written, for nothing to cover
    for path in options.photographs:
        try:
            rgb = read_photograph(path)
            pictures = {"photograph": rgb}
            for arm, painter in painters.items():
                pictures[arm] = color_photograph(rgb, *painter)
                suffix = ".jpg" if path.suffix.lower() in (".jpg", ".jpeg") else ".png"
                target = file or (out or path.parent) / f"{path.stem}-{name_file(arm)}{suffix}"
                write_picture(target, encode_photograph(pictures[arm], target.suffix), taken)
            rows.append((path.stem, {name: shrink(picture) for name, picture in pictures.items()}))
        except UserError as error:
            print(error, file=sys.stderr)
            faults += 1
    if len(painters) > 1 and rows:
        lines = [(name, list(pictures.values())) for name, pictures in rows]
        sheet = encode_png(paste_sheet(experiment, list(rows[0][1]), lines))
        write_picture((out or options.photographs[0].parent) / f"{name_file(experiment)}-all.png", sheet, taken)
    return 2 if faults else 0


def load_painters(engine: Engine, experiment: str, options: argparse.Namespace) -> dict[str, Painter]:
    """What colours, for each arm that was asked for, or for the best."""
    asked = {key: value for key in ("tilt", "temperature") if (value := getattr(options, key)) is not None}
    painters: dict[str, Painter] = {}
    with read_session(engine) as session:
        models = finished_models(session, experiment, None if options.all_arms else options.arm)
        if not options.arm and not options.all_arms:
            best = min(models, key=lambda arm: models[arm].score("delta_e_2000") or math.inf)
            print(f"Coloured by {best}, the model of {experiment} with the least colour error; "
                  f"--arm names another: {', '.join(models)}.")  # fmt: skip
            models = {best: models[best]}
        for arm, trial in models.items():
            task, model = load_trial(session, trial.id)
            assert model is not None  # no baseline is among them
            painters[arm] = task, model, choose_reading(task, arm, trial.arm.choices, asked)
    return painters


def write_picture(path: Path, picture: bytes, taken: set[Path]) -> None:
    """Write a file, and say so. Raises UserError where that fails, or would cover a photograph or what one has become:
    what is taken."""
    if path.resolve() in taken:
        raise UserError(f"{path} is a photograph or the colours of one, which is not overwritten; give another --out.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror or error}); give another --out.") from error
    taken.add(path.resolve())
    print(path)


def shrink(picture: np.ndarray) -> np.ndarray:
    """A picture as it stands on a sheet."""
    image = Image.fromarray(picture)
    image.thumbnail((PICTURE_PX, PICTURE_PX))
    return np.asarray(image)


if __name__ == "__main__":
    sys.exit(main())
