"""Plates of dots in the manner of Ishihara's, for a first look at a participant's colour vision.

A digit and its background differ along a line of confusion: in the excitation of one kind of cone alone, so that
whoever lacks that kind sees one colour with noise. It is a screening on an unknown screen: it flags, it diagnoses
nothing.

Cone excitations: Hunt-Pointer-Estevez, from linear sRGB (D65) by CIE XYZ.
"""

import io
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Kind = Literal["demonstration", "protan", "deutan", "tritan"]
KINDS: tuple[Kind, ...] = ("demonstration", "protan", "deutan", "tritan")

SIDE = 300  # pixels
OVERSAMPLING = 3  # drawn larger and reduced: round dots
SURROUND = (119, 119, 119)  # L* = 50, as around the questions' pictures
GREY = 0.25  # linear light of the dots' mean
BRIGHTNESS_NOISE = 0.16  # standard deviation of log light: hides differences in brightness between digit and background

XYZ_OF_LINEAR_RGB = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
LMS_OF_XYZ = np.array([[0.4002, 0.7076, -0.0808], [-0.2263, 1.1653, 0.0457], [0.0, 0.0, 0.9182]])
LMS_OF_LINEAR_RGB = LMS_OF_XYZ @ XYZ_OF_LINEAR_RGB
CONE = {"protan": 0, "deutan": 1, "tritan": 2}


@dataclass(frozen=True)
class Plate:
    """One question: png shows `digit` in dots; choices has it among others, in ascending order."""

    kind: Kind
    digit: int
    choices: tuple[int, ...]
    png: bytes


def plates(seed: int) -> list[Plate]:
    """One plate of each kind, the demonstration (which everyone can read) first; the same for the same seed."""
    random = np.random.default_rng(seed)
    digits = random.permutation(np.arange(2, 10))[: len(KINDS)]  # 1 is too thin
    return [_plate(kind, int(digit), random) for kind, digit in zip(KINDS, digits, strict=True)]


def colours(kind: Kind) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Linear sRGB of digit and background, in [0, 1]: one cone's excitation apart, as far as sRGB allows with room
    for the noise in brightness."""
    if kind == "demonstration":
        return np.array([0.55, 0.30, 0.02]), np.array([0.06, 0.11, 0.22])
    direction = np.linalg.solve(LMS_OF_LINEAR_RGB, np.eye(3)[CONE[kind]])
    grey = np.full(3, GREY)
    # Largest symmetrical step that leaves every channel between 0 and GREY's double.
    step = float(np.min(grey / np.abs(direction))) * 0.98
    return grey + step * direction, grey - step * direction


def _plate(kind: Kind, digit: int, random: np.random.Generator) -> Plate:
    others = random.permutation([other for other in range(2, 10) if other != digit])[:3]
    choices = tuple(sorted([digit, *(int(other) for other in others)]))
    figure, background = colours(kind)
    inside = _digit_mask(digit)
    picture = Image.new("RGB", (SIDE * OVERSAMPLING, SIDE * OVERSAMPLING), SURROUND)
    draw = ImageDraw.Draw(picture)
    for x, y, radius in _dots():
        light = (figure if inside[int(y), int(x)] else background) * np.exp(random.normal(0.0, BRIGHTNESS_NOISE))
        colour = tuple(int(value) for value in np.rint(255 * _encode(np.clip(light, 0.0, 1.0))))
        draw.circle((x * OVERSAMPLING, y * OVERSAMPLING), radius * OVERSAMPLING, fill=colour)
    file = io.BytesIO()
    picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS).save(file, "PNG")
    return Plate(kind, digit, choices, file.getvalue())


def _digit_mask(digit: int) -> NDArray[np.bool_]:
    """Where the digit is, (SIDE, SIDE)."""
    mask = Image.new("L", (SIDE, SIDE))
    font = ImageFont.load_default(size=0.78 * SIDE)
    draw = ImageDraw.Draw(mask)
    draw.text((SIDE / 2, SIDE / 2), str(digit), fill=255, font=font, anchor="mm", stroke_width=7)
    return np.asarray(mask) > 127


@cache
def _dots() -> list[tuple[float, float, float]]:
    """Dots (x, y, radius) that do not touch, in a disc; large ones first, small ones between them. The same for all
    plates: placing them takes most of the time."""
    random = np.random.default_rng(0)
    dots = np.empty((2000, 3))
    count = 0
    for radius, tries in ((8.0, 500), (6.0, 1200), (4.5, 2500), (3.2, 5000)):
        reach = SIDE / 2 - 4 - radius
        angles, distances = random.uniform(0, 2 * np.pi, tries), reach * np.sqrt(random.uniform(0, 1, tries))
        for x, y in zip(SIDE / 2 + distances * np.cos(angles), SIDE / 2 + distances * np.sin(angles), strict=True):
            others = dots[:count]
            if not np.any((others[:, 0] - x) ** 2 + (others[:, 1] - y) ** 2 < (others[:, 2] + radius + 1) ** 2):
                dots[count] = x, y, radius
                count += 1
    return [(float(x), float(y), float(radius)) for x, y, radius in dots[:count]]


def _encode(linear: NDArray[np.float64]) -> NDArray[np.float64]:
    """sRGB's transfer function (IEC 61966-2-1), [0, 1] to [0, 1]."""
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
