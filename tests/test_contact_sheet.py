"""The contact sheet of an experiment as a PNG."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from db.gallery import Photograph
from db.store import open_database
from platform.contact_sheet import GAP_PX, LABEL_PX, MARGIN_PX, PICTURE_PX, main, varied
from tests.survey_data import ARMS, add_experiment, colourized, photographs

SCALE = 2  # the PNG's pixels per pixel of the drawing


def test_a_row_is_the_photograph_grey_and_every_arms_best(tmp_path: Path) -> None:
    add_experiment(open_database(tmp_path / "cats.sqlite"), images=5, size=16)
    out = tmp_path / "sheet.png"
    assert main(["cats", "--database", str(tmp_path / "cats.sqlite"), "--rows", "5", "--out", str(out)]) == 0
    sheet = np.asarray(Image.open(out).convert("RGB"))
    expected = [
        [photograph, None, *(colourized(photograph, arm) for arm in range(len(ARMS)))] for photograph in photographs(5)
    ]
    step = SCALE * PICTURE_PX // 16  # of the sheet's pixels to one of a picture's
    left = SCALE * (MARGIN_PX + LABEL_PX) + step // 2

    def picture(top: int, column: int) -> np.ndarray:
        start = left + column * SCALE * (PICTURE_PX + GAP_PX)
        return sheet[top : top + 16 * step : step, start : start + 16 * step : step]

    # The first row's top, which names of columns push down, is where the first photograph is.
    top = next(y for y in range(sheet.shape[0] - 16 * step) if np.array_equal(picture(y, 0), photographs(5)[0]))
    for row, pictures in enumerate(expected):
        below = top + row * SCALE * (PICTURE_PX + GAP_PX)
        for column, shown in enumerate(pictures):
            if shown is not None:
                assert np.array_equal(picture(below, column), shown)
        grey = picture(below, 1)
        assert np.ptp(grey.astype(int), axis=-1).max() <= 1
        assert len(np.unique(grey)) > 10


def test_the_pictures_take_classes_in_turn_and_lie_far_apart() -> None:
    pictures = [Photograph(image_id, image_id, image_id // 10) for image_id in range(25)]  # 10, 10 and 5 of a class
    chosen = varied(pictures, 12)
    assert [picture.class_index for picture in chosen] == [0, 1, 2] * 4
    assert [picture.image_id for picture in chosen if picture.class_index == 0] == [0, 2, 5, 7]
    assert sorted(picture.image_id for picture in varied(pictures, 100)) == list(range(25))
    assert varied(pictures[:3], 2) == [pictures[0], pictures[1]]
    assert varied([], 12) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--database", "none.sqlite"], "none.sqlite; run a sweep first"),
        (["dogs", "--database", "cats.sqlite"], "There is no experiment 'dogs'; there is cats."),
        (["cats", "--database", "cats.sqlite", "--out", "no/where.png"], "no/where.png cannot be written"),
    ],
)
def test_mistakes_are_one_sentence(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    add_experiment(open_database(tmp_path / "cats.sqlite"), images=2)
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
