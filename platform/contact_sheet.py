"""Draw an experiment's sample pictures side by side: `python -m platform.contact_sheet [EXPERIMENT] --out sheet.png`.

A row an image: the photograph, grey, and each arm's best finished trial, whatever is in the database.
"""

import io
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from sqlalchemy import Engine, select

from db.results import UnknownExperimentError, arm_results
from db.schema import Dataset, Sample
from db.schema import Image as ImageRow
from db.store import StoreError, read_session
from platform.results import open_experiment, parser_of_results

SCALE = 3  # screen pixels a picture's pixel
GAP = 8  # pixels
LABEL_HEIGHT = 34
CLASS_WIDTH = 84


class NoSamplesError(LookupError):
    """The experiment has no sample pictures of a finished trial yet."""


def contact_sheet(engine: Engine, experiment: str, rows: int) -> Image.Image:
    """Draw the first `rows` sample images. Raises UnknownExperimentError, NoSamplesError."""
    with read_session(engine) as session:
        results = arm_results(session, experiment)
        trials = {result.arm: result.best.trial_id for result in results if result.best}
        # The baseline of one brown says nothing that grey does not; the photograph and grey frame the models.
        trials.pop("most frequent bin", None)
        columns = ["grey", *(arm for arm in trials if arm != "grey")]
        trained = [trial for arm, trial in trials.items() if arm != "grey"]
        pictures = {
            (sample.trial_id, sample.image_id): sample.png
            for sample in session.scalars(select(Sample).where(Sample.trial_id.in_(trials.values())))
        }
        shown = sorted({image for trial, image in pictures if trial in trained})[:rows]
        if not shown:
            raise NoSamplesError(f"Experiment {experiment!r} has no sample pictures of a finished trial yet.")
        images = [session.get_one(ImageRow, image) for image in shown]
        class_names = session.get_one(Dataset, images[0].dataset_id).class_names
        cells = [
            [image.truth_png, *(pictures.get((trials[arm], image.id)) for arm in columns if arm in trials)]
            for image in images
        ]
        labels = [class_names[image.class_index] for image in images]
    return _draw(["photograph", *columns], labels, cells)


def _draw(columns: Sequence[str], labels: Sequence[str], cells: Sequence[Sequence[bytes | None]]) -> Image.Image:
    first = Image.open(io.BytesIO(next(png for row in cells for png in row if png)))
    width, height = first.width * SCALE, first.height * SCALE
    sheet = Image.new(
        "RGB",
        (CLASS_WIDTH + len(columns) * (width + GAP), LABEL_HEIGHT + len(cells) * (height + GAP)),
        "white",
    )
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for column, name in enumerate(columns):
        left = CLASS_WIDTH + column * (width + GAP)
        draw.multiline_text(
            (left + width / 2, 4), name.replace(" ", "\n", 1), "black", font, anchor="ma", align="center"
        )
    for row, (label, pngs) in enumerate(zip(labels, cells, strict=True)):
        top = LABEL_HEIGHT + row * (height + GAP)
        draw.text((4, top + height / 2), label, "black", font, anchor="lm")
        for column, png in enumerate(pngs):
            if png is not None:
                picture = Image.open(io.BytesIO(png)).resize((width, height), Image.Resampling.NEAREST)
                sheet.paste(picture, (CLASS_WIDTH + column * (width + GAP), top))
    return sheet


def main(arguments: Sequence[str] | None = None) -> int:
    parser = parser_of_results("contact_sheet", "Draw an experiment's sample pictures side by side.")
    parser.add_argument("--rows", type=int, default=12, help="how many images (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("contact_sheet.png"), help="a PNG (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        engine, experiment = open_experiment(options.database, options.experiment)
        contact_sheet(engine, experiment, options.rows).save(options.out)
    except (StoreError, UnknownExperimentError, NoSamplesError) as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{options.out} cannot be written ({error.strerror or error}): give another --out.", file=sys.stderr)
        return 2
    print(f"{options.out}: {experiment}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
