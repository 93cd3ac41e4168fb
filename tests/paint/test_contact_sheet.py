"""The contact sheet of an experiment as a PNG."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from db.png import encode_png
from db.store import open_database
from db.sweeps.pictures import Photograph
from platform.contact_sheet import choose_varied, main
from platform.paint.sheet import GAP_PX, LABEL_PX, MARGIN_PX, PICTURE_PX, convert_to_grey, paste_sheet
from tests.survey_data import ARMS, add_experiment, colourized, photographs


def find_picture(sheet: np.ndarray, picture: np.ndarray, scale: int) -> list[tuple[int, int]]:
    """Row and column of every place where the sheet has the picture, each of its pixels `scale` pixels wide."""
    large = picture.repeat(scale, axis=0).repeat(scale, axis=1)
    height, width = large.shape[:2]
    corners = np.argwhere(np.all(sheet[: 1 - height, : 1 - width] == large[0, 0], axis=-1)).tolist()
    return [(y, x) for y, x in corners if np.array_equal(sheet[y : y + height, x : x + width], large)]


def test_a_row_is_the_photograph_grey_and_every_arms_best(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add_experiment(open_database(tmp_path / "cats.sqlite"), images=5, size=16)
    out = tmp_path / "sheet.png"
    assert main(["cats", "--database", str(tmp_path / "cats.sqlite"), "--rows", "5", "--out", str(out)]) == 0
    sheet = np.asarray(Image.open(out))
    scale = PICTURE_PX // 16
    columns = [MARGIN_PX + LABEL_PX + number * (PICTURE_PX + GAP_PX) for number in range(2 + len(ARMS))]
    tops = []
    for photograph in photographs(5):
        pictures = [
            photograph,
            convert_to_grey(encode_png(photograph)),
            *(colourized(photograph, share) for share in (0.25, 0.5, 0.75)),
        ]
        places = [find_picture(sheet, picture, scale) for picture in pictures]
        tops.append(places[0][0][0])
        for place, column in zip(places, columns, strict=True):
            assert (tops[-1], column) in place
    assert set(np.diff(tops)) == {PICTURE_PX + GAP_PX}
    nowhere = str(tmp_path / "no" / "where.png")
    assert main(["cats", "--database", str(tmp_path / "cats.sqlite"), "--out", nowhere]) == 2
    assert f"{nowhere} cannot be written (No such file or directory)" in capsys.readouterr().err


def test_pictures_of_several_sizes_are_whole_and_a_missing_one_leaves_its_place() -> None:
    [whole] = photographs(1, size=16)
    wide, high = whole[:9], whole[:, :5]
    sheet = paste_sheet("two", ["a", "b"], [("first", [wide, None]), ("second", [high, wide])], scale=3)
    (first_top, left), (second_top, right) = find_picture(sheet, wide, 3)
    assert find_picture(sheet, high, 3) == [(second_top, left)]
    assert second_top > first_top + 3 * 16
    assert right > left + 3 * 16


def test_the_pictures_are_of_every_class_and_lie_far_apart() -> None:
    pictures = [Photograph(image_id, image_id, image_id // 10) for image_id in range(25)]  # 10, 10 and 5 of a class
    assert [picture.image_id for picture in choose_varied(pictures, 5)] == [0, 5, 10, 15, 20]
    assert choose_varied(pictures, 100) == pictures
    assert choose_varied([], 12) == []
