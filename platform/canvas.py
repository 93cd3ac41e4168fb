"""One photograph and one stored model, to try things on: a single forward pass, of which the outputs are kept.

Another tilt or temperature, or a colour that somebody gives to a place, is read off them without a further pass.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from PIL import Image
from pydantic import Field, TypeAdapter
from skimage.graph import MCP_Geometric
from torch import Tensor
from torch.nn import functional

from db.errors import UserError
from platform.arm_options import ArmOptions, Share, read_options
from platform.color import lab_to_rgb
from platform.compose import Reading, Task
from platform.evaluation import known_of, outputs_of
from platform.models import Colorizer
from platform.photographs import SHORT_SIDE, filled, lightness_of, painted, parts_of, read_photograph, reduced
from platform.photos import PHOTOS

MOST_PIXELS = 25_000_000  # of a photograph that a browser sends
MOST_BYTES = 30_000_000
SHORTEST_PX, MOST_OBLONG = 8, 8  # the shorter side; how many times as long the longer one is
PREVIEW_PX, THUMB_PX = 720, 192  # the longer sides of what is drawn
EXAMPLES = {**PHOTOS, "cameraman, in grey": "camera.png"}  # that scikit-image's wheel contains

REACH_PX = 48  # how far a hint reaches where nothing is in its way, of the pixels that colours are predicted at
EDGE = 20.0  # Lab units: so much change of lightness on the way ends it, too
TEXTURE = 3.0  # Lab units a pixel: slower changes are none
CERTAINTY = 4.0  # nats by which a hint's colour is likelier than any other, in the middle of its segment

Ratio = Annotated[float, Field(ge=0, lt=1)]


@dataclass(frozen=True)
class Place:
    """A pixel of a photograph of any size."""

    x: Ratio  # of its width, from the left
    y: Ratio  # of its height, from the top


@dataclass(frozen=True)
class Hint(Place):
    """A colour for the segment around a place."""

    entry: Annotated[int, Field(ge=0)]  # of the model's palette


@dataclass(frozen=True)
class Look:
    """How colours are to be read off a model's outputs. It comes from a browser."""

    tilt: Share  # λ
    temperature: Annotated[float, Field(ge=0.05, le=2)]  # of the annealed mean
    hints: Annotated[tuple[Hint, ...], Field(max_length=50)] = ()  # a later one lies over the earlier ones
    place: Place | None = None  # whose distribution is asked for


@dataclass(frozen=True, eq=False)
class Photograph:
    """What is kept of a photograph: L, float32 (height, width), at three sizes."""

    small: Tensor  # that colours are predicted from
    preview: Tensor
    thumb: Tensor
    grey_jpeg: bytes  # the preview's
    colours_jpeg: bytes | None  # None where the photograph is grey


def open_photograph(data: bytes, name: str) -> Photograph:
    """Read the bytes of a file. Raises UserError, one sentence, for what is no picture, damaged, or too large."""
    rgb = pixels_of(data, name)[0]
    preview, thumb = (_shrunk(rgb, longer) for longer in (PREVIEW_PX, THUMB_PX))
    colours = None if np.ptp(preview.astype(np.int16), axis=-1).max() <= 2 else jpeg(preview)
    lightness = lightness_of(preview)
    grey = painted(lightness, lightness, torch.zeros(*lightness.shape, 2))
    return Photograph(reduced(lightness_of(rgb), SHORT_SIDE), lightness, lightness_of(thumb), jpeg(grey), colours)


def pixels_of(data: bytes, name: str) -> tuple[np.ndarray, bytes | None]:
    """Decode a file to uint8 (height, width, 3) and its EXIF data: see `read_photograph`. Raises UserError."""
    if len(data) > MOST_BYTES:
        raise UserError(f"{name} has more than {MOST_BYTES / 1e6:.0f} MB; make it smaller.")
    return read_photograph(Path(name), io.BytesIO(data), check=partial(_check_size, name))


def _check_size(name: str, image: Image.Image) -> None:
    shorter, longer = sorted(image.size)
    if shorter * longer > MOST_PIXELS:
        raise UserError(f"{name} has more than {MOST_PIXELS:,} pixels; make it smaller.")
    if shorter < SHORTEST_PX or longer > MOST_OBLONG * shorter:
        raise UserError(
            f"{name} is {image.width} × {image.height} pixels: a photograph has at least {SHORTEST_PX} a side, and is "
            f"at most {MOST_OBLONG} times as long as wide; cut another part out of it."
        )


def example(name: str) -> bytes:
    """The file of one of EXAMPLES."""
    return (files("skimage") / "data" / EXAMPLES[name]).read_bytes()


def jpeg(rgb: np.ndarray) -> bytes:
    """Encode uint8 (height, width, 3), to be looked at while it changes."""
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


def _shrunk(rgb: np.ndarray, longer: int) -> np.ndarray:
    image = Image.fromarray(rgb)
    image.thumbnail((longer, longer), Image.Resampling.BOX, reducing_gap=None)
    return np.asarray(image)


@dataclass(frozen=True, eq=False)
class Canvas:
    """A photograph before a model that has looked at it."""

    small: Tensor  # L, float32 (height, width), that colours are predicted from
    size: tuple[int, int]  # height and width of what the model was given: the same, its sides filled up
    task: Task
    arm: str
    options: ArmOptions  # of the arm
    outputs: list[Tensor]  # float32 (pixels, outputs) each: of the head, for all of that in turn
    reaches: dict[tuple[int, int], Tensor] = field(default_factory=dict)  # of hints, by row and column; see `_reach`

    @property
    def start(self) -> Look | None:
        """As the arm itself has its colours read; None where its head gives colours, and there is nothing to try."""
        return None if self.task.reread is None else Look(self.options.tilt, self.options.temperature)

    def look(self, sent: object) -> Look:
        """What a browser sent as one. Raises ValueError for what is none."""
        look = TypeAdapter(Look).validate_python(sent)
        if any(hint.entry >= self.task.outputs for hint in look.hints):
            raise ValueError("that colour is not in the palette")
        return look

    @torch.no_grad()
    def ab(self, look: Look | None) -> Tensor:
        """Read the colours, float32 (height, width, 2)."""
        reading = self._reading(look)
        parts = [reading.read(part, None).ab for part in self._hinted(reading, look)]
        height, width = self.small.shape
        return torch.cat(parts).view(*self.size, 2)[:height, :width]

    @torch.no_grad()
    def colours_at(self, look: Look, place: Place) -> tuple[Tensor, Tensor]:
        """What the model has for a place: how likely each colour of the palette is, float32 (entries,), before any
        temperature, and what it looks like there, uint8 (entries, 3)."""
        row, column = self._pixel(place)
        reading = self._reading(look)
        logits = torch.cat(self._hinted(reading, look))[row * self.size[1] + column]
        logits = logits if reading.offset is None else logits + reading.offset
        assert self.task.palette is not None  # whatever has a look has one
        centers = self.task.palette.centers
        lab = torch.cat((self.small[row, column].expand(len(centers), 1), centers), dim=-1)
        return logits.softmax(-1), lab_to_rgb(lab)

    def _reading(self, look: Look | None) -> Reading:
        if look is None or self.task.reread is None:
            return self.task.readings[self.arm]
        return self.task.reread(replace(self.options, tilt=look.tilt, temperature=look.temperature))

    def _hinted(self, reading: Reading, look: Look | None) -> list[Tensor]:
        """The outputs, with each hint's colour raised above all others in its segment."""
        if look is None or not look.hints:
            return self.outputs
        parts = [part.clone() for part in self.outputs]
        offset = torch.zeros(self.task.outputs) if reading.offset is None else reading.offset
        for hint in look.hints:
            reach = self._reach(self._pixel(hint)).split(len(parts[0]))
            for part, near in zip(parts, reach, strict=True):
                gap = (part + offset).amax(-1) - part[:, hint.entry] - offset[hint.entry]
                part[:, hint.entry] += near * (gap + CERTAINTY)
        return parts

    def _pixel(self, place: Place) -> tuple[int, int]:
        height, width = self.small.shape
        return int(place.y * height), int(place.x * width)

    def _reach(self, pixel: tuple[int, int]) -> Tensor:
        """How much of a hint at (row, column) each pixel gets, float32 (pixels,) in [0, 1]: by the shortest way there,
        whose length grows with the pixels and with the lightness that changes on it."""
        if pixel not in self.reaches:
            height, width = self.small.shape
            slopes = np.hypot(*np.gradient(self.small.numpy()))
            steps = 1 / REACH_PX + np.maximum(slopes - TEXTURE, 0) / EDGE
            distances, _ = MCP_Geometric(steps).find_costs([pixel])
            reach = (2 - 2 * torch.from_numpy(distances).float()).clamp(0, 1)
            padding = (0, self.size[1] - width, 0, self.size[0] - height)
            self.reaches[pixel] = functional.pad(reach, padding).flatten()
        return self.reaches[pixel]


@torch.no_grad()
def begin(small: Tensor, task: Task, model: Colorizer | None, arm: str, options: Mapping[str, Any]) -> Canvas:
    """Have a model look at L (height, width), once. options: the arm's, as they are stored."""
    lab = filled(small, parts_of(model))
    outputs = list(outputs_of(model, known_of(task, model, lab)))
    return Canvas(small, (lab.shape[1], lab.shape[2]), task, arm, read_options(options), outputs)
