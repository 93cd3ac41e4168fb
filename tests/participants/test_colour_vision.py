"""The plates, against an independent model of colour deficiency: Machado, Oliveira and Fernandes 2009, severity 1."""

import io

import numpy as np
import pytest
from PIL import Image
from skimage.color import deltaE_ciede2000, rgb2lab

from survey_app.participants.color_vision import KINDS, Kind, colours, plates

# On linear sRGB.
MACHADO = {
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def difference(kind: Kind, seen_by: str | None = None) -> float:
    """CIEDE2000 between a plate's digit and background."""
    lab = []
    for linear in colours(kind):
        seen = linear if seen_by is None else np.clip(np.array(MACHADO[seen_by]) @ linear, 0, 1)
        encoded = np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)
        lab.append(rgb2lab(encoded[None, None])[0, 0])
    return float(deltaE_ciede2000(*lab))  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "demonstration"])
def test_a_plate_hides_its_digit_from_those_it_looks_for_and_from_nobody_else(kind: Kind) -> None:
    assert difference(kind) > 40
    assert difference(kind, kind) < 0.35 * difference(kind)
    if kind == "tritan":
        assert min(difference(kind, "protan"), difference(kind, "deutan")) > 25
    else:
        assert difference(kind, "tritan") > 25


def test_everybody_can_read_the_demonstration() -> None:
    assert min(difference("demonstration", seen_by) for seen_by in (None, *MACHADO)) > 40


def test_plates_are_drawn_from_their_seed() -> None:
    first, again, other = plates(3), plates(3), plates(4)
    assert first == again
    assert first != other
    assert [plate.kind for plate in first] == list(KINDS)
    for plate in first:
        assert plate.digit in plate.choices
        assert len(set(plate.choices)) == 4
        picture = np.asarray(Image.open(io.BytesIO(plate.png)))
        assert picture.shape == (300, 300, 3)
        assert (picture != picture[0, 0]).any(axis=-1).mean() > 0.4  # dots cover a good part of it
