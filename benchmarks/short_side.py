"""At which short side a sweep's models should predict a whole photograph's colours.

    python -m benchmarks.short_side DATABASE [EXPERIMENT]

Mean ΔE2000 and colourfulness over the photographs' own, for every model and short side, as a table in Markdown: of
scikit-image's colour photographs, of its pictures from instruments, and of 256×256 mosaics of ImageNet 32×32 where
HUEJURY_DATA has it. A picture counts as much as any other; what is smaller than the side is coloured at its own size.
"""

import sys
from importlib.resources import files
from typing import Any

import numpy as np
import torch
from PIL import Image
from skimage.color import deltaE_ciede2000, rgb2lab

from db.store import read_session
from platform.chosen_experiment import open_experiment
from platform.datasets import DatasetError, load_dataset
from platform.evaluation import known_of, predict
from platform.image_files import PHOTOS
from platform.metrics import colourfulness
from platform.photographs import Colour, colour_photograph, finished_models
from platform.stored_models import load_trial

SIDES = (32, 48, 64, 96, 128, 192, 256)
INSTRUMENTS = ("retina.jpg", "ihc.png", "hubble_deep_field.jpg")
MOSAICS, TILES = 20, 8  # so many, of so many tiles across and down


def pictures() -> dict[str, list[np.ndarray]]:
    """uint8 (height, width, 3) each, by group."""
    groups = {"photographs": list(PHOTOS.values()), "instruments": list(INSTRUMENTS)}
    result = {name: [_packaged(file) for file in of_group] for name, of_group in groups.items()}
    try:
        count = MOSAICS * TILES * TILES
        data = load_dataset(["imagenet32"], train_images=100, validation_images=count, say=lambda line: None)
    except DatasetError as error:
        print(f"No mosaics: {error}", file=sys.stderr)
        return result
    tiles = data.validation_images.reshape(MOSAICS, TILES, TILES, 32, 32, 3)
    side = 32 * TILES
    return result | {"mosaics": list(tiles.transpose(0, 1, 3, 2, 4, 5).reshape(MOSAICS, side, side, 3))}


def _packaged(file: str) -> np.ndarray:
    with (files("skimage") / "data" / file).open("rb") as opened, Image.open(opened) as image:
        return np.asarray(image.convert("RGB"))


def painters(database: str, experiment: str | None = None) -> dict[str, tuple[Colour, int]]:
    """For each model what colours, and what the sides of its pictures divide by."""
    engine, name = open_experiment(database, experiment)
    result: dict[str, tuple[Colour, int]] = {}
    with read_session(engine) as session:
        for arm, trial in finished_models(session, name).items():
            task, model = load_trial(session, trial.trial_id)
            assert model is not None

            def colour(lab: torch.Tensor, arm: str = arm, task: Any = task, model: Any = model) -> torch.Tensor:
                return predict(task, model, known_of(task, model, lab))[arm].ab.view(*lab.shape[:3], 2)

            result[arm] = colour, 2 ** len(model.encoder)
    return result


def measured(rgb: np.ndarray, coloured: np.ndarray) -> tuple[float, float]:
    """ΔE2000, and the colourfulness over the photograph's."""
    error = deltaE_ciede2000(rgb2lab(rgb), rgb2lab(coloured)).mean()  # type: ignore[no-untyped-call]
    found, true = colourfulness(torch.from_numpy(np.stack((coloured, rgb)))).tolist()
    return float(error), found / true


def main() -> None:
    groups = pictures()
    print("| pictures | model | " + " | ".join(str(side) for side in SIDES) + " |")
    print("|---" * (2 + len(SIDES)) + "|")
    for arm, (colour, parts) in painters(*sys.argv[1:]).items():
        for group, of_group in groups.items():
            cells = []
            for side in SIDES:
                coloured = [colour_photograph(rgb, colour, parts=parts, short_side=side) for rgb in of_group]
                values = np.array([measured(*pair) for pair in zip(of_group, coloured, strict=True)])
                cells.append("{:.2f} / {:.2f}".format(*values.mean(0)))
            print(f"| {group} ({len(of_group)}) | {arm} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
