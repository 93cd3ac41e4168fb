"""Colour whole photographs, of any size, with any model of any sweep:

    python -m platform.colorize PHOTO ...

A photograph keeps its own lightness: see photographs.py.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from pydantic import ValidationError
from sqlalchemy import Engine
from sqlalchemy.orm import Session
from torch import Tensor

from db.errors import UserError, run_command
from db.pictures import encoded
from db.store import DATABASE_HELP, default_database, read_session
from platform.arm_options import read_options
from platform.chosen_experiment import open_experiment
from platform.contact_sheet import PICTURE_PX, paste_sheet
from platform.evaluation import known_of, predict
from platform.photographs import (
    MOST_PIXELS,
    PILLOWS_MOST_PIXELS,
    SHORT_SIDE,
    Colour,
    colour_photograph,
    parts_of,
    photograph_file,
    read_photograph,
)
from platform.stored_models import file_name, finished_models, load_trial


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
    parser.add_argument("--short-side", type=int, default=SHORT_SIDE, metavar="PIXELS", help="that colours are "
                        "predicted at (default: %(default)s)")  # fmt: skip
    parser.add_argument("--most-pixels", type=int, default=MOST_PIXELS, metavar="N", help="of a photograph (default: "
                        "%(default)s)")  # fmt: skip
    parser.add_argument("--location", action="store_true", help="keep where it was taken, which is left out otherwise")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where to (default: beside each photograph)")
    parser.add_argument("--database", default=default_database(), help=DATABASE_HELP)
    options = parser.parse_intermixed_args(arguments)  # photographs may stand among the options
    return run_command(lambda: _colour_all(options))


def _colour_all(options: argparse.Namespace) -> int:
    if options.short_side < 8:
        raise UserError(f"--short-side is {options.short_side}; give at least 8 pixels.")
    if not 1 <= options.most_pixels <= PILLOWS_MOST_PIXELS:
        raise UserError(f"--most-pixels is {options.most_pixels}; give 1 to {PILLOWS_MOST_PIXELS:,}.")
    torch.set_num_threads(1)  # two wait for each other as soon as anything else wants a core
    engine, experiment = open_experiment(options.database, options.experiment)
    painters = _painters(engine, experiment, options)
    if options.out is not None:
        _make_folder(options.out)
    faults, rows = 0, []
    taken = {path.resolve() for path in options.photographs}  # what is read and what was written, for nothing to cover
    for path in options.photographs:
        try:
            rgb, exif = read_photograph(
                path, location=options.location, most_pixels=options.most_pixels, say=partial(print, file=sys.stderr)
            )
            beside = (path.parent if options.out is None else options.out) / path.stem
            coloured = {}
            for arm, (colour, parts) in painters.items():
                target = _free(beside.with_name(f"{beside.name}-{file_name(arm)}{_suffix(path)}"), taken)
                coloured[arm] = colour_photograph(rgb, colour, parts=parts, short_side=options.short_side)
                print(_save(coloured[arm], target, exif))
            pictures = {"photograph": rgb, **coloured}
            rows.append((path.stem, {name: _shrink(picture) for name, picture in pictures.items()}))
        except UserError as error:
            print(error, file=sys.stderr)
            faults += 1
    if len(painters) > 1 and rows:
        folder = options.photographs[0].parent if options.out is None else options.out
        print(_save_sheet(rows, _free(folder / f"{file_name(experiment)}-all.png", taken), experiment))
    return 2 if faults else 0


def _painters(engine: Engine, experiment: str, options: argparse.Namespace) -> dict[str, tuple[Colour, int]]:
    """For each arm that was asked for, or the best, what colours, and what the sides of its pictures divide by."""
    with read_session(engine) as session:
        finished = finished_models(session, experiment)
        for arm in options.arm or ():
            finished_models(session, experiment, arm)
        names = list(finished) if options.all_arms else options.arm
        if not options.arm and not options.all_arms:
            names = [min(finished, key=lambda arm: finished[arm].scores["validation"]["delta_e_2000"])]
            print(f"Coloured by {names[0]}, the model of {experiment} with the least colour error; "
                  f"--arm names another: {', '.join(finished)}.")  # fmt: skip
        return {name: _painter(session, name, finished[name].trial_id, options) for name in names}


def _painter(session: Session, arm: str, trial_id: int, options: argparse.Namespace) -> tuple[Colour, int]:
    asked = {key: value for key in ("tilt", "temperature") if (value := getattr(options, key)) is not None}
    task, model = load_trial(session, trial_id)
    reading = task.readings[arm]
    if asked and task.reread is None:
        raise UserError(f"{arm} gives colours directly: --tilt and --temperature are for classifications.")
    if asked and task.reread is not None:
        try:
            reading = task.reread(read_options(asked))
        except ValidationError as error:
            [first, *_] = error.errors()
            raise UserError(f"--{first['loc'][0]} is {first['input']}: {first['msg'].lower()}.") from None
    task = replace(task, readings={arm: reading})

    def colour(lab: Tensor) -> Tensor:
        found = predict(task, model, known_of(task, model, lab))[arm]
        return found.ab.view(*lab.shape[:3], 2)

    return colour, parts_of(model)


def _free(path: Path, taken: set[Path]) -> Path:
    """The path, if it covers neither a photograph nor what another has become; then it is taken, too."""
    if path.resolve() in taken:
        raise UserError(f"{path} is a photograph or the colours of one, which is not overwritten; give another --out.")
    taken.add(path.resolve())
    return path


def _save(rgb: np.ndarray, path: Path, exif: bytes | None) -> Path:
    with _written(path):
        path.write_bytes(photograph_file(rgb, path.suffix, exif))
    return path


@contextmanager
def _written(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: more EXIF data than a JPEG file can hold
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path} cannot be written ({reason}); give another --out.") from error


def _shrink(picture: np.ndarray) -> np.ndarray:
    image = Image.fromarray(picture)
    image.thumbnail((PICTURE_PX, PICTURE_PX))
    return np.asarray(image)


def _save_sheet(rows: Sequence[tuple[str, Mapping[str, np.ndarray]]], path: Path, title: str) -> Path:
    """The photographs, a row each, and what each model makes of them; rows: their names and small pictures."""
    lines = [(name, list(pictures.values())) for name, pictures in rows]
    with _written(path):
        path.write_bytes(encoded(paste_sheet(title, list(rows[0][1]), lines)))
    return path


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be made ({error.strerror}); give another --out.") from error


def _suffix(path: Path) -> str:
    return ".jpg" if path.suffix.lower() in (".jpg", ".jpeg") else ".png"


if __name__ == "__main__":
    sys.exit(main())
