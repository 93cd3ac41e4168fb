"""A sheet with one row per image: the photograph, grey, and the picture of each arm's best trial.

python -m platform.contact_sheet [EXPERIMENT] --out sheet.png
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sqlalchemy import Engine

from db.errors import UserError, run_command
from db.png import encode_png, pixels
from db.store import read_session
from db.sweeps.pictures import Photograph, photographs, sample_pngs, truth_pngs
from db.sweeps.trials import best_trials, find_experiment
from platform.paint.sheet import PICTURE_PX, choose_scale, convert_to_grey, paste_sheet
from platform.tables.experiment import open_experiment, parser_of_results


def choose_varied(pictures: Sequence[Photograph], count: int) -> list[Photograph]:
    """At most `count` of them, evenly spaced, class by class: neighbours may be alike."""
    by_class = sorted(pictures, key=lambda picture: picture.class_index)
    wanted = min(count, len(by_class))
    return [by_class[place * len(by_class) // wanted] for place in range(wanted)]


def paste_contact_sheet(engine: Engine, experiment: str, rows: int) -> np.ndarray:
    """`rows` sample images, class by class, uint8 (height, width, 3). Raises UserError: no such experiment, or it has
    no pictures yet."""
    with read_session(engine) as session:
        row = find_experiment(session, experiment)
        contenders = best_trials(session, row.id)
        trials = [trial.id for trial in contenders]
        shown = choose_varied(photographs(session, trials), rows)
        truths = truth_pngs(session, [photograph.image_id for photograph in shown])
        pngs = sample_pngs(session, trials, list(truths))
    if not shown:
        raise UserError(f"Experiment {experiment!r} has no sample pictures of a finished trial yet; wait for one.")
    lines = []
    for photograph in shown:
        truth = truths[photograph.image_id]
        stored = [pngs.get((trial, photograph.image_id)) for trial in trials]
        pictures = [pixels(truth), convert_to_grey(truth), *(None if png is None else pixels(png) for png in stored)]
        lines.append((row.dataset.class_names[photograph.class_index], pictures))
    columns = ["photograph", "grey", *(trial.arm.name for trial in contenders)]
    scale = choose_scale(pixels(truths[shown[0].image_id]), PICTURE_PX)
    return paste_sheet(experiment, columns, lines, row.dataset.note, scale=scale)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = parser_of_results("contact_sheet", "Draw an experiment's sample pictures side by side.")
    parser.add_argument("--rows", type=int, default=12, help="how many images (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("contact_sheet.png"), help="a PNG (default: %(default)s)")
    options = parser.parse_args(arguments)

    def body() -> int:
        engine, experiment = open_experiment(options.database, options.experiment)
        sheet = encode_png(paste_contact_sheet(engine, experiment, options.rows))
        try:
            options.out.write_bytes(sheet)
        except OSError as error:
            raise UserError(
                f"{options.out} cannot be written ({error.strerror or error}): give another --out."
            ) from error
        print(f"{options.out}: {experiment}")
        return 0

    return run_command(body)


if __name__ == "__main__":
    sys.exit(main())
