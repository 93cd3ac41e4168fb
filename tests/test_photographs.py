"""Photographs of any size and kind are coloured, keep their lightness, and bad ones are a sentence each."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from db.errors import UserError
from platform import photographs
from platform.color import lab_to_rgb, rgb_to_lab
from platform.photographs import colour_photograph, read_photograph


def drawn(height: int, width: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (height, width, 3), dtype=np.uint8)


def by_lightness(lab: Tensor) -> Tensor:
    """Colours that follow from lightness linearly, as a guided filter has them exactly."""
    return torch.stack((0.4 * lab[..., 0] - 20, 20 - 0.4 * lab[..., 0]), dim=-1)


@pytest.mark.parametrize(("height", "width"), [(70, 90), (131, 64), (300, 517)])
def test_colours_that_follow_the_lightness_follow_it_at_full_size(height: int, width: int) -> None:
    """Blocks of different lightness: what is predicted small meets the edges of the large picture."""
    generator = np.random.default_rng(0)
    blocks = generator.integers(40, 220, (5, 7, 1), dtype=np.uint8).repeat(3, axis=2)
    rgb = np.asarray(Image.fromarray(blocks).resize((width, height), Image.Resampling.NEAREST))
    found = colour_photograph(rgb, by_lightness, parts=8)
    lab = rgb_to_lab(torch.tensor(rgb))
    expected = lab_to_rgb(torch.cat((lab[..., :1], by_lightness(lab)), dim=-1)).numpy()
    difference = np.abs(found.astype(int) - expected)
    assert found.shape == rgb.shape
    assert np.median(difference) <= 2
    assert np.percentile(difference, 99) <= 12


def test_a_small_photograph_is_coloured_at_its_own_size() -> None:
    rgb = drawn(30, 21)
    lab = rgb_to_lab(torch.tensor(rgb))
    expected = lab_to_rgb(torch.cat((lab[..., :1], by_lightness(lab)), dim=-1)).numpy()
    assert np.array_equal(colour_photograph(rgb, by_lightness, parts=8), expected)


def test_its_own_colours_are_not_looked_at() -> None:
    lab = rgb_to_lab(torch.tensor(drawn(200, 100)))
    seen = []

    def colour(given: Tensor) -> Tensor:
        seen.append(given)
        return torch.zeros(*given.shape[:3], 2)

    colour_photograph(lab_to_rgb(lab).numpy(), colour, parts=8)
    assert float(seen[0][..., 1:].abs().max()) == 0
    assert seen[0].shape == (1, 128, 64, 3)


def test_modes_are_read_alike(tmp_path: Path) -> None:
    grey = np.linspace(0, 255, 40 * 30).reshape(30, 40).round().astype(np.uint8)
    whole = Image.fromarray(grey)
    kinds = {
        "grey.png": whole,
        "deep.png": Image.fromarray(grey.astype(np.uint16) * 257),
        "float.tif": Image.fromarray(grey.astype(np.float32) / 255),
        "colour.png": whole.convert("RGB"),
        "palette.gif": whole.convert("P"),
        "alpha.png": whole.convert("RGBA"),
    }
    for name, image in kinds.items():
        image.save(tmp_path / name)
        rgb, exif = read_photograph(tmp_path / name)
        assert np.array_equal(rgb, np.repeat(grey[..., None], 3, axis=2)), name
        assert exif is None, name


def test_it_is_upright_and_forgets_the_place(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a camera"
    exif.get_ifd(0x8825)[1] = "N"
    Image.fromarray(drawn(20, 30)).save(tmp_path / "turned.jpg", exif=exif)
    rgb, kept = read_photograph(tmp_path / "turned.jpg")
    assert rgb.shape == (30, 20, 3)
    assert kept is not None
    found = Image.Exif()
    found.load(kept)
    assert found[0x010F] == "a camera"
    assert 0x0112 not in found
    assert not found.get_ifd(0x8825)
    _, kept = read_photograph(tmp_path / "turned.jpg", location=True)
    assert kept is not None
    found.load(kept)
    assert found.get_ifd(0x8825) == {1: "N"}


def test_damaged_exif_data_and_profiles_say_nothing(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a camera"
    Image.fromarray(drawn(20, 30)).save(tmp_path / "whole.jpg", exif=exif, icc_profile=b"no profile")
    whole = (tmp_path / "whole.jpg").read_bytes()
    start = whole.index(b"Exif") + 6
    generator = np.random.default_rng(0)
    for _ in range(60):
        changed = bytearray(whole)
        for place in generator.integers(start, start + 40, 3):
            changed[place] = generator.integers(256)
        (tmp_path / "changed.jpg").write_bytes(changed)
        rgb, _ = read_photograph(tmp_path / "changed.jpg")
        assert sorted(rgb.shape) == [3, 20, 30]
    assert not recwarn.list


def test_of_an_animation_it_is_said_that_the_first_picture_is_taken(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.full((8, 9, 3), value, np.uint8)) for value in (50, 200)]
    frames[0].save(tmp_path / "moves.gif", save_all=True, append_images=frames[1:])
    said: list[str] = []
    rgb, _ = read_photograph(tmp_path / "moves.gif", say=said.append)
    assert rgb[0, 0].tolist() == [50] * 3
    assert said == [f"{tmp_path / 'moves.gif'} holds 2 pictures, of which the first is taken."]


def test_what_is_no_picture_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "page.jpg").write_bytes(b"<!DOCTYPE html><p>not found</p>")
    Image.fromarray(drawn(64, 64)).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:400])
    Image.fromarray(drawn(40, 40)).save(tmp_path / "large.png")
    monkeypatch.setattr(photographs, "MOST_PIXELS", 1000)
    for name, words in {
        "none.png": "There is no file",
        "page.jpg": "is no picture",
        "large.png": "has more than 1,000 pixels",
    }.items():
        with pytest.raises(UserError, match=words):
            read_photograph(tmp_path / name)
    monkeypatch.setattr(photographs, "MOST_PIXELS", 10_000)
    with pytest.raises(UserError, match="cannot be read as a picture"):
        read_photograph(tmp_path / "cut.png")
