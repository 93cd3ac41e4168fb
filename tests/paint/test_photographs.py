"""Photographs of any size and kind are coloured, keep their lightness, and bad ones are a sentence each."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from db.errors import UserError
from platform.arms.compose import compose
from platform.arms.options import ArmOptions
from platform.color.lab import lab_to_rgb, rgb_to_lab
from platform.model.training import build_model
from platform.paint.photographs import (
    choose_reading,
    color_photograph,
    encode_photograph,
    paint_lightness,
    predict_outputs,
    read_ab,
    read_photograph,
    reduce_lightness,
)
from tests.contracts import HYPERPARAMETERS, drawn_colours

OPTIONS = {
    "plain": ArmOptions(kind="classification"),
    "tilted": ArmOptions(renders="plain", tilt=0.5),
    "both": ArmOptions(renders="plain", tilt=0.5, temperature=0.2),
    "mode": ArmOptions(renders="plain", decoding="mode"),
}
TASK = compose(OPTIONS, "plain", drawn_colours())
MODEL = build_model(TASK, HYPERPARAMETERS).eval()
MOST_PIXELS = 1_000_000  # in what follows


def drawn(height: int, width: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (height, width, 3), dtype=np.uint8)


def file_of(rgb: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, kind)
    return buffer.getvalue()


# Colours


def by_lightness(lightness: Tensor) -> Tensor:
    """Colours that follow from lightness linearly, as a guided filter has them exactly."""
    return torch.stack((0.4 * lightness - 20, 20 - 0.4 * lightness), dim=-1)


@pytest.mark.parametrize(("height", "width"), [(70, 90), (131, 64), (300, 517)])
def test_colours_that_follow_the_lightness_follow_it_at_full_size(height: int, width: int) -> None:
    """Blocks of different lightness: what is predicted small meets the edges of the large picture."""
    generator = np.random.default_rng(0)
    blocks = generator.integers(40, 220, (5, 7, 1), dtype=np.uint8).repeat(3, axis=2)
    rgb = np.asarray(Image.fromarray(blocks).resize((width, height), Image.Resampling.NEAREST))
    lightness = rgb_to_lab(torch.tensor(rgb))[..., 0]
    small = reduce_lightness(lightness)
    assert min(small.shape) == 64
    found = paint_lightness(lightness, small, by_lightness(small))
    expected = lab_to_rgb(torch.cat((lightness[..., None], by_lightness(lightness)), dim=-1)).numpy()
    difference = np.abs(found.astype(int) - expected)
    assert found.shape == rgb.shape
    assert np.median(difference) <= 2
    assert np.percentile(difference, 99) <= 12


@pytest.mark.parametrize(("height", "width"), [(30, 21), (200, 100)])
def test_a_models_colours_are_painted_of_the_lightness_alone(height: int, width: int) -> None:
    """The small one at its own size, which its sides are filled up for; the large one's colours predicted at 64."""
    rgb = drawn(height, width)
    lightness = rgb_to_lab(torch.tensor(rgb))[..., 0]
    small = reduce_lightness(lightness)
    assert small.shape == ((30, 21) if height == 30 else (128, 64))
    outputs = predict_outputs(lightness, TASK, MODEL)
    ab = read_ab(outputs, TASK.readings["plain"])
    filled = np.pad(small.numpy(), ((0, -small.shape[0] % 4), (0, -small.shape[1] % 4)), mode="edge")
    with torch.no_grad():
        features = MODEL(torch.from_numpy(filled)[None, None])[0].flatten(1).T
        expected = TASK.readings["plain"].read(MODEL.head(features.float()), None).ab.view(*filled.shape, 2)
    assert torch.allclose(ab, expected[: small.shape[0], : small.shape[1]], atol=1e-3)
    coloured = color_photograph(rgb, TASK, MODEL, TASK.readings["plain"])
    assert np.array_equal(coloured, paint_lightness(lightness, small, ab))


def test_what_is_asked_for_is_laid_over_the_arms_own_options() -> None:
    """As bytes of an arm that is configured so, off the outputs of one pass."""
    rgb = drawn(90, 70)
    expected = {name: color_photograph(rgb, TASK, MODEL, TASK.readings[name]) for name in OPTIONS}
    assert len({picture.tobytes() for picture in expected.values()}) == len(OPTIONS)
    lightness = rgb_to_lab(torch.tensor(rgb))[..., 0]
    outputs = predict_outputs(lightness, TASK, MODEL)
    cooled = ArmOptions(renders="plain", temperature=0.2)
    for arm, options, asked, same_as in (
        ("plain", OPTIONS["plain"], {}, "plain"),
        ("plain", OPTIONS["plain"], {"tilt": 0.5}, "tilted"),
        ("tilted", OPTIONS["tilted"], {"temperature": 0.2}, "both"),
        ("cooled", cooled, {"tilt": 0.5}, "both"),
        ("both", OPTIONS["both"], {"tilt": 1.0, "temperature": 0.38}, "plain"),
        ("mode", OPTIONS["mode"], {"tilt": 1.0}, "mode"),
    ):
        reading = choose_reading(TASK, arm, options, asked)
        found = paint_lightness(lightness, outputs.small, read_ab(outputs, reading))
        assert np.array_equal(found, expected[same_as]), (arm, asked)


@pytest.mark.parametrize(
    ("arm", "asked", "words"),
    [
        ("plain", {"tilt": 7.0}, r"--tilt is 7.0: input should be less than or equal to 1\.$"),
        ("plain", {"temperature": 0.0}, "--temperature is 0.0: input should be greater"),
        ("mode", {"temperature": 0.3}, "read by its mode: --temperature is for"),
    ],
)
def test_what_an_arm_has_not_is_refused(arm: str, asked: dict[str, float], words: str) -> None:
    with pytest.raises(UserError, match=words):
        choose_reading(TASK, arm, OPTIONS[arm], asked)


# Files


def test_modes_are_read_alike(tmp_path: Path) -> None:
    grey = np.linspace(0, 255, 40 * 30).reshape(30, 40).round().astype(np.uint8)
    whole = Image.fromarray(grey)
    kinds = {
        "grey.png": whole,
        "deep.png": Image.fromarray(grey.astype(np.uint16) * 257),
        "colour.png": whole.convert("RGB"),
        "palette.gif": whole.convert("P"),
        "alpha.png": whole.convert("RGBA"),
    }
    for name, image in kinds.items():
        image.save(tmp_path / name)
        assert np.array_equal(read_photograph(tmp_path / name), np.repeat(grey[..., None], 3, axis=2)), name


def test_it_is_upright_and_damaged_exif_data_and_profiles_say_nothing(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a camera"
    Image.fromarray(drawn(20, 30)).save(tmp_path / "whole.jpg", exif=exif, icc_profile=b"no profile")
    assert read_photograph(tmp_path / "whole.jpg").shape == (30, 20, 3)
    whole = (tmp_path / "whole.jpg").read_bytes()
    start = whole.index(b"Exif") + 6
    generator = np.random.default_rng(0)
    for _ in range(60):
        changed = bytearray(whole)
        for place in generator.integers(start, start + 40, 3):
            changed[place] = generator.integers(256)
        (tmp_path / "changed.jpg").write_bytes(changed)
        assert sorted(read_photograph(tmp_path / "changed.jpg").shape) == [3, 20, 30]
    assert not recwarn.list


def png_of(width: int, height: int) -> bytes:
    """A PNG that says to be so large; what pixels it has is a few bytes of zeros, compressed."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(9))) + chunk(b"IEND", b"")


SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><rect width="9" height="9"/></svg>'
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\n%%EndComments\nshowpage\n"
HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "bomb.png": (lambda: png_of(60_000, 60_000), "has more than 1,000,000 pixels"),  # Pillow itself refuses it
    "large.png": (lambda: png_of(9_000, 8_000), "has more than 1,000,000 pixels"),
    "drawing.svg": (lambda: SVG, "no picture"),
    "page.jpg": (lambda: b"<!DOCTYPE html><p>not found</p>", "no picture"),
    "program.eps": (lambda: EPS, "no picture"),
    "empty.png": (lambda: b"", "no picture"),
    "cut.png": (lambda: file_of(drawn(64, 64))[:400], "cannot be read as a picture"),
    "cut.jpg": (lambda: file_of(drawn(64, 64), "JPEG")[:700], "cannot be read as a picture"),
    "line.png": (lambda: png_of(30_000, 1), "is at most 12 times as long as wide"),
    "nan.tif": (lambda: file_of(np.full((40, 40), np.nan, np.float32), "TIFF"), "cannot be read as a picture"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_photograph_is_one_sentence(name: str) -> None:
    make, words = HOSTILE[name]
    with pytest.raises(UserError, match=words) as refused:
        read_photograph(Path(name), io.BytesIO(make()), most_pixels=MOST_PIXELS)
    said = str(refused.value)
    assert said.startswith(name)
    assert said.endswith(".")
    assert "\n" not in said


@pytest.mark.parametrize(("suffix", "kind"), [(".jpg", "JPEG"), (".JPEG", "JPEG"), (".png", "PNG")])
def test_a_photograph_is_written_as_its_name_says(suffix: str, kind: str) -> None:
    with Image.open(io.BytesIO(encode_photograph(drawn(150, 200), suffix))) as image:
        assert (image.format, image.size) == (kind, (200, 150))
