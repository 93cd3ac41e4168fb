"""Colour whole photographs, of any size, with any model of any sweep: `python -m platform.colorize` (see there).

A photograph keeps its own lightness. Colours are predicted from it at a small size, where a model that was trained on
small pictures knows its way, and brought to full size along the edges of the lightness (fast guided filter: He & Sun
2015).
"""

import argparse
import io
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
import torch
import vl_convert
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError
from pydantic import TypeAdapter, ValidationError
from sqlalchemy import Engine
from sqlalchemy.orm import Session
from torch import Tensor
from torch.nn import functional

from db.errors import UserError, run_command
from db.pictures import encoded
from db.results import MeasuredTrial, arm_results
from db.store import DATABASE_HELP, default_database, read_session
from platform.arms import ArmOptions
from platform.chosen_experiment import open_experiment
from platform.color import lab_to_rgb, rgb_to_lab
from platform.contact_sheet import Cell, drawn, sheet_svg
from platform.evaluation import known_of, predict
from platform.image_files import FOLDER_FORMATS, check_known, in_8_bits, on_white
from platform.models import Colorizer
from platform.stored_models import load_trial
from platform.workers import cores_here
from platform.yaml_input import nearest

MOST_PIXELS = 50_000_000
PILLOWS_MOST_PIXELS = 178_956_970  # what it opens
SHORT_SIDE = 64  # pixels, that colours are predicted at
RADIUS = 4  # pixels at that size, of the guided filter's windows
SMOOTHNESS = 16.0  # squared Lab units: lightness that varies by less is no edge
MOST_CORES = 4  # that one photograph is painted on
ROWS_AT_A_TIME = 128
PLACE = 0x8825  # the EXIF tag of where a photograph was taken
SHEET_PX = 120  # the longer side of a picture on a sheet

Colour = Callable[[Tensor], Tensor]
Part = TypeVar("Part")
"""From Lab pictures (n, height, width, 3), of which it looks at L alone, to their ab (n, height, width, 2)."""


def read_photograph(
    path: Path,
    file: IO[bytes] | None = None,
    *,
    check: Callable[[Image.Image], None] | None = None,
    location: bool = False,
    most_pixels: int | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[np.ndarray, bytes | None]:
    """Read any picture that Pillow reads: upright, in sRGB, uint8 (height, width, 3), clear pixels on white; and its
    EXIF data, without the location unless it is asked for. Of an animation the first picture, and it is said.

    file: what to read where it is not on the disk; `path` is then its name. check: what else has to hold of it before
    it is decoded; it raises UserError. Raises UserError, one sentence, for what is no picture, is damaged, or has more
    than most_pixels (MOST_PIXELS).
    """
    most = most_pixels or MOST_PIXELS
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, of many pixels and of damaged EXIF data
            with Image.open(file or path, formats=FOLDER_FORMATS if file else None) as image:
                if image.width * image.height > most:
                    raise Image.DecompressionBombError
                if check is not None:
                    check(image)
                check_known(image)
                if (count := getattr(image, "n_frames", 1)) > 1:
                    say(f"{path} holds {count} pictures, of which the first is taken.")
                image.load()
                upright, exif = _upright(image, location=location)
                return np.asarray(on_white(_in_srgb(in_8_bits(upright)))), exif
    except UserError:
        raise
    except Image.DecompressionBombError:
        raise UserError(f"{path} has more than {most:,} pixels; make it smaller.") from None
    except FileNotFoundError:
        raise UserError(f"There is no file {path}; check its name.") from None
    except UnidentifiedImageError:
        raise UserError(f"{path} is no picture that can be read; get the picture again.") from None
    except Exception as error:  # Pillow's decoders raise many kinds on a damaged file
        raise UserError(f"{path} cannot be read as a picture ({error}); get it again.") from error


def _upright(image: Image.Image, *, location: bool) -> tuple[Image.Image, bytes | None]:
    """As it was held, and its EXIF data; damaged data say nothing."""
    try:
        upright = ImageOps.exif_transpose(image)
        exif = upright.getexif() if "exif" in image.info else Image.Exif()
        if not location:
            exif.pop(PLACE, None)
        return upright, exif.tobytes() if exif else None
    except Exception:  # Pillow raises many kinds
        return image, None


def _in_srgb(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    if not profile or image.mode not in ("RGB", "CMYK", "L"):
        return image
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):
        return image  # a profile that is damaged or of another mode says nothing
    return converted or image


@torch.no_grad()
def colour_photograph(rgb: np.ndarray, colour: Colour, *, parts: int, short_side: int = SHORT_SIDE) -> np.ndarray:
    """Colour uint8 (height, width, 3), returning the same shape; what colours it has are not looked at.

    parts: sides of what `colour` gets divide by it. A picture whose short side is at most `short_side` is coloured at
    its own size, and nothing is filtered.
    """
    lightness = lightness_of(rgb)
    small = reduced(lightness, short_side)
    height, width = small.shape
    ab = colour(filled(small, parts))[0, :height, :width].float()
    return painted(lightness, small, ab)


def lightness_of(rgb: np.ndarray) -> Tensor:
    """L, float32 (height, width), of uint8 (height, width, 3)."""
    return torch.cat(_by_rows(lambda rows: rgb_to_lab(torch.from_numpy(rgb[rows].copy()))[..., 0], len(rgb)))


def reduced(lightness: Tensor, short_side: int) -> Tensor:
    """L (height, width) at the size that colours are predicted at."""
    scale = short_side / min(lightness.shape)
    if scale >= 1:
        return lightness
    size = [max(1, round(extent * scale)) for extent in lightness.shape]
    return functional.interpolate(lightness[None, None], size, mode="area")[0, 0]


def filled(lightness: Tensor, parts: int) -> Tensor:
    """L (height, width), its sides filled up to multiples of `parts` by its edge, as a grey Lab picture (1, ..., 3)."""
    height, width = lightness.shape
    whole = functional.pad(lightness[None, None], (0, -width % parts, 0, -height % parts), mode="replicate")
    return functional.pad(whole.movedim(1, -1), (0, 2))


@torch.no_grad()
def painted(lightness: Tensor, small: Tensor, ab: Tensor) -> np.ndarray:
    """Give L (height, width) the colours that were predicted of the reduced one: ab (its height, its width, 2), brought
    to full size along L's edges. Returns uint8 (height, width, 3)."""
    planes = ab.movedim(-1, 0)
    if small.shape == lightness.shape:
        return _to_rgb(lightness, planes)
    lines = torch.cat(_guided(small, planes))
    down, across = (_bilinear(new, old) for new, old in zip(lightness.shape, small.shape, strict=True))
    wide = lines @ across.T

    def paint(rows: slice) -> np.ndarray:
        slope, shift = (down[rows] @ wide).chunk(2)
        return _to_rgb(lightness[rows], slope.mul_(lightness[rows]).add_(shift))

    return np.concatenate(_by_rows(paint, len(lightness)))


def _guided(lightness: Tensor, planes: Tensor) -> tuple[Tensor, Tensor]:
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


def _bilinear(new: int, old: int) -> Tensor:
    """What enlarges an axis bilinearly, as a matrix (new, old)."""
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


# The command


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m platform.colorize",
        description="Colour photographs with a model of a sweep. Each is written beside its original, the model's name "
        "added to its own; the original is left as it is.",
    )
    parser.add_argument("photographs", nargs="+", type=Path, metavar="PHOTO", help="any picture, in colour or grey")
    parser.add_argument("--experiment", help="whose model (default: the newest's)")
    parser.add_argument("--arm", action="append", help="which of its models (default: the one with the least colour "
                        "error); given several times, there is a sheet, too")  # fmt: skip
    parser.add_argument("--all-arms", action="store_true", help="every model, and a sheet of all")
    parser.add_argument("--tilt", type=float, metavar="λ", help="make rare colours likelier: 1 changes nothing, 0 most")
    parser.add_argument("--temperature", type=float, metavar="T", help="of the annealed mean: lower is more colourful")
    parser.add_argument("--short-side", type=int, default=SHORT_SIDE, metavar="PIXELS", help="that colours are "
                        "predicted at (default: %(default)s)")  # fmt: skip
    parser.add_argument("--most-pixels", type=int, default=MOST_PIXELS, metavar="N", help="of a photograph (default: "
                        "%(default)s)")  # fmt: skip
    parser.add_argument("--location", action="store_true", help="keep where it was taken, which is left out otherwise")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where to (default: beside each photograph)")
    parser.add_argument("--database", default=default_database(), help=DATABASE_HELP)
    options = parser.parse_intermixed_args(arguments)  # photographs may stand among the options
    return run_command(lambda: _colour_all(options))


def _colour_all(options: argparse.Namespace) -> int:
    if options.short_side < 8:
        raise UserError(f"--short-side is {options.short_side}; give at least 8 pixels.")
    if not 1 <= options.most_pixels <= PILLOWS_MOST_PIXELS:
        raise UserError(f"--most-pixels is {options.most_pixels}; give 1 to {PILLOWS_MOST_PIXELS:,}.")
    torch.set_num_threads(1)  # two wait for each other as soon as anything else wants a core
    engine, experiment = open_experiment(options.database, options.experiment)
    painters = _painters(engine, experiment, options)
    if options.out is not None:
        _make_folder(options.out)
    faults, rows = 0, []
    taken = {path.resolve() for path in options.photographs}  # what is read and what was written, for nothing to cover
    for path in options.photographs:
        try:
            rgb, exif = read_photograph(
                path, location=options.location, most_pixels=options.most_pixels, say=partial(print, file=sys.stderr)
            )
            beside = (path.parent if options.out is None else options.out) / path.stem
            coloured = {}
            for arm, (colour, parts) in painters.items():
                target = _free(beside.with_name(f"{beside.name}-{file_name(arm)}{_suffix(path)}"), taken)
                coloured[arm] = colour_photograph(rgb, colour, parts=parts, short_side=options.short_side)
                print(_save(coloured[arm], target, exif))
            pictures = {"photograph": rgb, **coloured}
            rows.append((path.stem, {name: _thumbnail(picture) for name, picture in pictures.items()}))
        except UserError as error:
            print(error, file=sys.stderr)
            faults += 1
    if len(painters) > 1 and rows:
        folder = options.photographs[0].parent if options.out is None else options.out
        print(_save_sheet(rows, _free(folder / f"{file_name(experiment)}-all.png", taken), experiment))
    return 2 if faults else 0


def _painters(engine: Engine, experiment: str, options: argparse.Namespace) -> dict[str, tuple[Colour, int]]:
    """For each arm that was asked for, or the best, what colours, and what the sides of its pictures divide by."""
    with read_session(engine) as session:
        finished = finished_models(session, experiment)
        for arm in options.arm or ():
            finished_models(session, experiment, arm)
        names = list(finished) if options.all_arms else options.arm
        if not options.arm and not options.all_arms:
            names = [min(finished, key=lambda arm: finished[arm].scores["validation"]["delta_e_2000"])]
            print(f"Coloured by {names[0]}, the model of {experiment} with the least colour error; "
                  f"--arm names another: {', '.join(finished)}.")  # fmt: skip
        return {name: _painter(session, name, finished[name].trial_id, options) for name in names}


def finished_models(session: Session, experiment: str, arm: str | None = None) -> dict[str, MeasuredTrial]:
    """The best trial of each arm that has a finished one, or of one arm; baselines are no models. Raises UserError."""
    results = [result for result in arm_results(session, experiment) if not result.baseline]
    finished = {result.arm: result.best for result in results if result.best is not None}
    if not finished:
        raise UserError(f"No trial of {experiment!r} has finished yet: wait for one, or name another experiment.")
    if arm is None:
        return finished
    if arm not in finished:
        near, there = nearest(arm, list(finished)), ", ".join(finished)
        raise UserError(f"{experiment!r} has no finished model {arm!r}, but {there}{near or '.'}")
    return {arm: finished[arm]}


def _painter(session: Session, arm: str, trial_id: int, options: argparse.Namespace) -> tuple[Colour, int]:
    asked = {key: value for key in ("tilt", "temperature") if (value := getattr(options, key)) is not None}
    task, model = load_trial(session, trial_id)
    reading = task.readings[arm]
    if asked and task.reread is None:
        raise UserError(f"{arm} gives colours directly: --tilt and --temperature are for classifications.")
    if asked and task.reread is not None:
        try:
            reading = task.reread(TypeAdapter(ArmOptions).validate_python(asked))
        except ValidationError as error:
            [first, *_] = error.errors()
            raise UserError(f"--{first['loc'][0]} is {first['input']}: {first['msg'].lower()}.") from None
    task = replace(task, readings={arm: reading})

    def colour(lab: Tensor) -> Tensor:
        found = predict(task, model, known_of(task, model, lab))[arm]
        return found.ab.view(*lab.shape[:3], 2)

    return colour, parts_of(model)


def parts_of(model: Colorizer | None) -> int:
    """What the sides of a model's pictures divide by."""
    return 1 if model is None else 2 ** len(model.encoder)


def _free(path: Path, taken: set[Path]) -> Path:
    """The path, if it covers neither a photograph nor what another has become; then it is taken, too."""
    if path.resolve() in taken:
        raise UserError(f"{path} is a photograph or the colours of one, which is not overwritten; give another --out.")
    taken.add(path.resolve())
    return path


def _save(rgb: np.ndarray, path: Path, exif: bytes | None) -> Path:
    with _written(path):
        path.write_bytes(photograph_file(rgb, path.suffix, exif))
    return path


def photograph_file(rgb: np.ndarray, suffix: str, exif: bytes | None = None) -> bytes:
    """A file of uint8 (height, width, 3), as the suffix says: ".jpg" or ".png"."""
    buffer = io.BytesIO()
    more: dict[str, Any] = {} if exif is None else {"exif": exif}
    if suffix == ".jpg":
        more |= {"quality": 95, "subsampling": 0}
    Image.fromarray(rgb).save(buffer, "JPEG" if suffix == ".jpg" else "PNG", **more)
    return buffer.getvalue()


@contextmanager
def _written(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: more EXIF data than a JPEG file can hold
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path} cannot be written ({reason}); give another --out.") from error


def _thumbnail(picture: np.ndarray) -> np.ndarray:
    image = Image.fromarray(picture)
    image.thumbnail((SHEET_PX, SHEET_PX))
    return np.asarray(image)


def _save_sheet(rows: Sequence[tuple[str, Mapping[str, np.ndarray]]], path: Path, title: str) -> Path:
    """The photographs, a row each, and what each model makes of them; rows: their names and thumbnails."""
    sizes = [thumb.shape for _, thumbs in rows for thumb in thumbs.values()]
    box_px = max(width for _, width, _ in sizes), max(height for height, _, _ in sizes)
    cells = [(name, [Cell(drawn(encoded(thumb))) for thumb in thumbs.values()]) for name, thumbs in rows]
    svg = sheet_svg(title, list(rows[0][1]), cells, "", box_px=box_px)
    with _written(path):
        path.write_bytes(vl_convert.svg_to_png(svg, scale=1))
    return path


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be made ({error.strerror}); give another --out.") from error


def _suffix(path: Path) -> str:
    return ".jpg" if path.suffix.lower() in (".jpg", ".jpeg") else ".png"


def file_name(arm: str) -> str:
    """An arm's name, of which a file's may hold some letters only, and not many."""
    return re.sub(r"[^\w.-]+", "-", arm).encode()[:60].decode(errors="ignore").strip("-.") or "coloured"
