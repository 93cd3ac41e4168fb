"""Whole photographs, of any size: read, coloured and written.

A photograph keeps its own lightness. Colours are predicted from it at a small size, where a model that was trained on
small pictures knows its way, and brought to full size along the edges of the lightness (fast guided filter: He & Sun
2015).
"""

import io
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TypeVar

import numpy as np
import torch
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional

from db.errors import UserError
from platform.arms.compose import Reading, Task
from platform.arms.options import ArmOptions, read_options
from platform.color.lab import lab_to_rgb, rgb_to_lab
from platform.data.folder import FORMATS, lay_on_white, reduce_to_8_bits, refuse_odd_depth
from platform.model.evaluation import known_of, outputs_of
from platform.model.network import Colorizer
from platform.model.training import cores_here

MOST_PIXELS = 50_000_000
MOST_OBLONG = 12  # how many times as long as the shorter side the longer one is
SHORT_SIDE = 64  # pixels, that colours are predicted at
RADIUS = 4  # pixels at that size, of the guided filter's windows
SMOOTHNESS = 16.0  # squared Lab units: lightness that varies by less is no edge
MOST_CORES = 4  # that one photograph is painted on
ROWS_AT_A_TIME = 128

Part = TypeVar("Part")


def read_photograph(path: Path, upload: IO[bytes] | None = None, *, most_pixels: int = MOST_PIXELS) -> np.ndarray:
    """Read any picture that Pillow reads: upright, in sRGB, uint8 (height, width, 3), clear pixels on white; of an
    animation the first picture.

    upload: what to read, of the common formats only, where it is not on the disk; `path` is then its name. Raises
    UserError, one sentence, for what is no picture, is damaged, too large, or too oblong.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, of many pixels and of damaged EXIF data
            with Image.open(upload or path, formats=FORMATS if upload else None) as image:
                _check_size(path, image, most_pixels)
                refuse_odd_depth(image)
                image.load()
                return np.asarray(lay_on_white(_convert_to_srgb(reduce_to_8_bits(_turn_upright(image)))))
    except UserError:
        raise
    except Image.DecompressionBombError:
        raise UserError(f"{path} has more than {most_pixels:,} pixels; make it smaller.") from None
    except FileNotFoundError:
        raise UserError(f"There is no file {path}; check its name.") from None
    except UnidentifiedImageError:
        raise UserError(f"{path} is no picture that can be read; get the picture again.") from None
    except Exception as error:  # Pillow's decoders raise many kinds on a damaged file
        raise UserError(f"{path} cannot be read as a picture ({error}); get it again.") from error


def _check_size(path: Path, image: Image.Image, most_pixels: int) -> None:
    """Before it is decoded: a bomb is small until then. Of a ribbon, colours would be predicted at its whole length."""
    shorter, longer = sorted(image.size)
    if shorter * longer > most_pixels:
        raise Image.DecompressionBombError
    if longer > MOST_OBLONG * shorter:
        raise UserError(
            f"{path} is {image.width} × {image.height} pixels: a photograph is at most {MOST_OBLONG} times as long as "
            "wide; cut another part out of it."
        )


def _turn_upright(image: Image.Image) -> Image.Image:
    """As it was held, which damaged EXIF data do not say."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # Pillow raises many kinds
        return image


def _convert_to_srgb(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    if not profile or image.mode not in ("RGB", "CMYK", "L"):
        return image
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):
        return image  # a profile that is damaged or of another mode says nothing
    return converted or image


@dataclass(frozen=True, eq=False)
class Outputs:
    """What a model makes of a photograph in one pass, off which colours are read in as many ways as one likes."""

    small: Tensor  # L, float32 (height, width), that colours are predicted from
    wide_px: int  # its width when its sides were filled up
    parts: list[Tensor]  # float32 (pixels, outputs) each: of the model's head, for all of that in turn


@torch.no_grad()
def predict_outputs(lightness: Tensor, task: Task, model: Colorizer) -> Outputs:
    """Have a model look at L (height, width), at a smaller size if its short side is longer than SHORT_SIDE."""
    small = reduce_lightness(lightness)
    lab = fill_sides(small, 2 ** len(model.encoder))
    return Outputs(small, lab.shape[2], list(outputs_of(model, known_of(task, model, lab))))


@torch.no_grad()
def read_ab(outputs: Outputs, reading: Reading) -> Tensor:
    """Read the colours, float32 (height, width, 2), of the small size."""
    height, width = outputs.small.shape
    ab = torch.cat([reading.read(part, None).ab for part in outputs.parts])
    return ab.view(-1, outputs.wide_px, 2)[:height, :width].float()


def choose_reading(task: Task, arm: str, options: ArmOptions, asked: Mapping[str, float]) -> Reading:
    """How an arm's colours are read, with another "tilt" or "temperature" where one is asked for. Raises
    UserError where the arm has no such thing, or not so much of it."""
    if not asked:
        return task.readings[arm]
    if task.reread is None:
        raise UserError(f"{arm} gives colours directly: --tilt and --temperature are for classifications.")
    if "temperature" in asked and options.decoding != "annealed_mean":
        raise UserError(f"{arm} is read by its {options.decoding}: --temperature is for the annealed mean.")
    try:
        return task.reread(read_options({**asdict(options), **asked}))
    except ValidationError as error:
        [first, *_] = error.errors()
        raise UserError(f"--{first['loc'][0]} is {first['input']}: {first['msg'].lower()}.") from None


def color_photograph(rgb: np.ndarray, task: Task, model: Colorizer, reading: Reading) -> np.ndarray:
    """Colour uint8 (height, width, 3), returning the same shape; what colours it has are not looked at."""
    lightness = measure_lightness(rgb)
    outputs = predict_outputs(lightness, task, model)
    return paint_lightness(lightness, outputs.small, read_ab(outputs, reading))


def measure_lightness(rgb: np.ndarray) -> Tensor:
    """L, float32 (height, width), of uint8 (height, width, 3)."""
    return torch.cat(_by_rows(lambda rows: rgb_to_lab(torch.from_numpy(rgb[rows].copy()))[..., 0], len(rgb)))


def reduce_lightness(lightness: Tensor) -> Tensor:
    """L (height, width) at the size that colours are predicted at: its own, if its short side is at most SHORT_SIDE."""
    scale = SHORT_SIDE / min(lightness.shape)
    if scale >= 1:
        return lightness
    size = [max(1, round(extent * scale)) for extent in lightness.shape]
    return functional.interpolate(lightness[None, None], size, mode="area")[0, 0]


def fill_sides(lightness: Tensor, parts: int) -> Tensor:
    """L (height, width), its sides filled up to multiples of `parts` by its edge, as a grey Lab picture (1, ..., 3)."""
    height, width = lightness.shape
    whole = functional.pad(lightness[None, None], (0, -width % parts, 0, -height % parts), mode="replicate")
    return functional.pad(whole.movedim(1, -1), (0, 2))


@torch.no_grad()
def paint_lightness(lightness: Tensor, small: Tensor, ab: Tensor) -> np.ndarray:
    """Give L (height, width) the colours that were predicted of the reduced one: ab (its height, its width, 2), brought
    to full size along L's edges. Returns uint8 (height, width, 3)."""
    planes = ab.movedim(-1, 0)
    if small.shape == lightness.shape:
        return _to_rgb(lightness, planes)
    lines = torch.cat(_fit_lines(small, planes))
    down, across = (_bilinear_matrix(new, old) for new, old in zip(lightness.shape, small.shape, strict=True))
    wide = lines @ across.T

    def paint(rows: slice) -> np.ndarray:
        slope, shift = (down[rows] @ wide).chunk(2)
        return _to_rgb(lightness[rows], slope.mul_(lightness[rows]).add_(shift))

    return np.concatenate(_by_rows(paint, len(lightness)))


def _fit_lines(lightness: Tensor, planes: Tensor) -> tuple[Tensor, Tensor]:
    """Slope and shift, each (2, height, width), of ab as linear functions of L around each pixel (He, Sun & Tang 2013,
    equations 5, 6 and 8)."""
    guide, values = lightness[None, None], planes[:, None]
    count = _window_mean(torch.ones_like(guide))

    def mean(x: Tensor) -> Tensor:
        return _window_mean(x) / count

    guide_mean, values_mean = mean(guide), mean(values)
    variance = mean(guide * guide) - guide_mean**2
    slope = (mean(guide * values) - guide_mean * values_mean) / (variance.clamp_min(0) + SMOOTHNESS)
    shift = values_mean - slope * guide_mean
    return mean(slope)[:, 0], mean(shift)[:, 0]


def _window_mean(x: Tensor) -> Tensor:
    return functional.avg_pool2d(x, 2 * RADIUS + 1, stride=1, padding=RADIUS)


def _bilinear_matrix(new: int, old: int) -> Tensor:
    """That enlarges an axis, as a matrix (new, old)."""
    return functional.interpolate(torch.eye(old)[None], new, mode="linear", align_corners=False)[0].T


def _to_rgb(lightness: Tensor, planes: Tensor) -> np.ndarray:
    rgb: np.ndarray = lab_to_rgb(torch.cat((lightness[None], planes)).movedim(0, -1)).numpy()
    return rgb


def _by_rows(work: Callable[[slice], Part], height: int) -> list[Part]:
    """What is made of so many rows at a time, on all cores: unlike PyTorch's own threads these don't wait for each
    other after every step."""
    parts = [slice(top, top + ROWS_AT_A_TIME) for top in range(0, height, ROWS_AT_A_TIME)]
    with ThreadPoolExecutor(min(MOST_CORES, cores_here())) as pool:
        return list(pool.map(work, parts))


def encode_photograph(rgb: np.ndarray, suffix: str) -> bytes:
    """uint8 (height, width, 3) as a file: JPEG if the suffix is ".jpg" or ".jpeg", else PNG. It says nothing of where
    and when the photograph was taken."""
    buffer = io.BytesIO()
    if suffix.lower() in (".jpg", ".jpeg"):
        Image.fromarray(rgb).save(buffer, "JPEG", quality=95, subsampling=0)
    else:
        Image.fromarray(rgb).save(buffer, "PNG")
    return buffer.getvalue()
