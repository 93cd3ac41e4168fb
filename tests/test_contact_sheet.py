from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from db.store import open_database
from platform.contact_sheet import CLASS_WIDTH, GAP, LABEL_HEIGHT, SCALE, main
from tests.survey_data import ARMS, add_experiment, colourized, photographs


def test_a_row_is_the_photograph_grey_and_every_arm_s_best(tmp_path: Path) -> None:
    add_experiment(open_database(tmp_path / "cats.sqlite"), images=5, size=16)
    out = tmp_path / "sheet.png"
    assert main(["cats", "--database", str(tmp_path / "cats.sqlite"), "--rows", "3", "--out", str(out)]) == 0
    sheet = np.asarray(Image.open(out))
    cell = 16 * SCALE + GAP
    assert sheet.shape == (LABEL_HEIGHT + 3 * cell, CLASS_WIDTH + (2 + len(ARMS)) * cell, 3)

    def picture(row: int, column: int) -> np.ndarray:
        top, left = LABEL_HEIGHT + row * cell, CLASS_WIDTH + column * cell
        return sheet[top : top + 16 * SCALE : SCALE, left : left + 16 * SCALE : SCALE]

    for row, photograph in enumerate(photographs(5)[:3]):
        assert np.array_equal(picture(row, 0), photograph)
        for arm in range(len(ARMS)):
            assert np.array_equal(picture(row, 2 + arm), colourized(photograph, arm))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--database", "none.sqlite"], "There is no database none.sqlite; run a sweep first"),
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
