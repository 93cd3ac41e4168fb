"""What is tried on a photograph: the same bytes as an arm that does the same, hints, and files that are none."""

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from db.errors import UserError
from platform import canvas as canvas_module
from platform.arm_options import ArmOptions
from platform.canvas import Canvas, Hint, Look, Place, begin, example, open_photograph, pixels_of
from platform.compose import compose
from platform.evaluation import known_of, predict
from platform.photographs import colour_photograph, lightness_of, painted, photograph_file
from platform.training import build_model
from tests.contracts import HYPERPARAMETERS, drawn_colours
from tests.processes import StartPython, finish

OPTIONS = {
    "plain": ArmOptions(kind="classification"),
    "other": ArmOptions(renders="plain", tilt=0.5, temperature=0.2),
    "mode": ArmOptions(renders="plain", decoding="mode"),
}
TASK = compose(OPTIONS, "plain", drawn_colours())
MODEL = build_model(TASK, HYPERPARAMETERS).eval()
SPLIT = np.full((150, 200, 3), 60, np.uint8)  # a dark half beside a bright one
SPLIT[:, 100:] = 190


def file_of(rgb: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, kind)
    return buffer.getvalue()


def canvas_of(rgb: np.ndarray, arm: str = "plain") -> Canvas:
    return begin(open_photograph(file_of(rgb), "split.png").small, TASK, MODEL, arm, {"kind": "classification"})


def test_settings_give_the_bytes_of_an_arm_that_does_the_same_without_another_pass() -> None:
    data = example("cat")
    rgb = pixels_of(data, "cat.png")[0]

    def by_arm(name: str) -> np.ndarray:
        def colour(lab: Tensor) -> Tensor:
            return predict(TASK, MODEL, known_of(TASK, MODEL, lab))[name].ab.view(*lab.shape[:3], 2)

        with torch.no_grad():
            return colour_photograph(rgb, colour, parts=2**HYPERPARAMETERS.depth)

    expected = {name: by_arm(name) for name in OPTIONS}
    passes: list[object] = []
    hook = MODEL.stem.register_forward_hook(lambda *_: passes.append(None))
    canvas = begin(open_photograph(data, "cat.png").small, TASK, MODEL, "plain", {"kind": "classification"})
    looks = {"plain": canvas.start, "other": Look(0.5, 0.2)}
    for name, look in looks.items():
        assert np.array_equal(painted(lightness_of(rgb), canvas.small, canvas.ab(look)), expected[name]), name
    assert len(passes) == 1
    hook.remove()
    assert not np.array_equal(expected["plain"], expected["other"])
    mode = begin(canvas.small, TASK, MODEL, "mode", {"renders": "plain", "decoding": "mode"})
    assert np.array_equal(painted(lightness_of(rgb), mode.small, mode.ab(mode.start)), expected["mode"])


@pytest.mark.parametrize("tilt", [1.0, 0.0])
def test_a_hint_colours_its_segment_and_no_other(tilt: float) -> None:
    canvas = canvas_of(SPLIT)
    assert TASK.palette is not None
    entry = int(TASK.palette.own_entry(torch.tensor([[60.0, 40.0]])))
    before = canvas.ab(Look(tilt, 0.38))
    look = Look(tilt, 0.38, (Hint(0.25, 0.5, entry),))
    after = canvas.ab(look)
    row, column = (extent // 2 for extent in canvas.small.shape)
    left, right = (part[row - 5 : row + 5] for part in (after[:, : column - 4], after[:, column + 4 :]))
    assert (left[:, 5:] - TASK.palette.centers[entry]).abs().max() < 3
    assert torch.equal(right, before[row - 5 : row + 5, column + 4 :])
    probabilities, colours = canvas.colours_at(look, Place(0.25, 0.5))
    assert probabilities.argmax() == entry
    assert float(probabilities.sum()) == pytest.approx(1)
    assert colours.shape == (TASK.outputs, 3)


def test_a_later_hint_lies_over_an_earlier_one() -> None:
    canvas = canvas_of(SPLIT)
    hints = tuple(Hint(0.25, 0.5, entry) for entry in (3, 90))
    assert int(canvas.colours_at(Look(1, 0.38, hints), Place(0.25, 0.5))[0].argmax()) == 90
    assert int(canvas.colours_at(Look(1, 0.38, hints[::-1]), Place(0.25, 0.5))[0].argmax()) == 3


def test_probabilities_are_the_tilted_softmax_of_the_pixel() -> None:
    canvas = canvas_of(SPLIT)
    height, width = canvas.small.shape
    rows = torch.cat(canvas.outputs).view(*canvas.size, -1)
    logits = rows[int(0.7 * height), int(0.9 * width)].double()
    weights = drawn_colours().rarity_weights(TASK.palette, 0.5)  # type: ignore[arg-type]
    expected = logits.exp() * weights / (logits.exp() * weights).sum()
    found, _ = canvas.colours_at(Look(0.5, 0.1), Place(0.9, 0.7))
    assert torch.allclose(found.double(), expected, atol=1e-6)


@pytest.mark.parametrize(
    "sent",
    [
        None,
        {},
        {"tilt": float("nan"), "temperature": 0.3},
        {"tilt": 2, "temperature": 0.3},
        {"tilt": 1, "temperature": 0.3, "hints": [{"x": 1, "y": 0, "entry": 0}]},
        {"tilt": 1, "temperature": 0.3, "hints": [{"x": 0, "y": 0, "entry": 9999}]},
        {"tilt": 1, "temperature": 0.3, "hints": [{"x": 0, "y": 0, "entry": 0}] * 51},
        {"tilt": 1, "temperature": 0.3, "place": {"x": 0, "y": -0.1}},
    ],
)
def test_what_a_browser_sends_is_checked(sent: object) -> None:
    with pytest.raises(ValueError, match=r"validation error|palette"):
        canvas_of(SPLIT).look(sent)


def png_of(width: int, height: int) -> bytes:
    """A PNG that says to be so large; what pixels it has is a few bytes of zeros, compressed."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(9))) + chunk(b"IEND", b"")


def nan_tiff() -> bytes:
    return file_of(np.full((40, 40), np.nan, np.float32), "TIFF")


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "bomb.png": (lambda: png_of(60_000, 60_000), "has more than"),  # Pillow itself refuses it
    "large.png": (lambda: png_of(9_000, 8_000), "has more than 50,000,000 pixels"),
    "largish.png": (lambda: png_of(6_000, 6_000), "has more than 25,000,000 pixels"),
    "drawing.svg": (
        lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><rect width="9" height="9"/></svg>',
        "no picture",
    ),
    "page.jpg": (lambda: b"<!DOCTYPE html><p>not found</p>", "no picture"),
    "program.eps": (
        lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\n%%EndComments\nshowpage\n",
        "no picture",
    ),
    "empty.png": (lambda: b"", "no picture"),
    "cut.jpg": (lambda: file_of(SPLIT, "JPEG")[:700], "cannot be read as a picture"),
    "dot.png": (lambda: png_of(1, 1), "is 1 × 1 pixels"),
    "line.png": (lambda: png_of(30_000, 1), "is 30000 × 1 pixels"),
    "nan.tif": (nan_tiff, "cannot be read as a picture"),
    "heavy.png": (lambda: bytes(30_000_001), "has more than 30 MB"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_photograph_is_one_sentence(name: str) -> None:
    make, words = HOSTILE[name]
    with pytest.raises(UserError, match=words) as refused:
        open_photograph(make(), name)
    said = str(refused.value)
    assert said.startswith(name)
    assert said.endswith(".")
    assert "\n" not in said


def test_a_wrong_extension_and_a_small_or_grey_photograph_are_no_faults() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (8, 40, 3), dtype=np.uint8)
    photograph = open_photograph(file_of(rgb, "PNG"), "photograph.jpg")
    assert photograph.small.shape == photograph.preview.shape == (8, 40)
    assert photograph.colours_jpeg is not None
    assert open_photograph(example("cameraman, in grey"), "cameraman.png").colours_jpeg is None


def test_every_example_is_there() -> None:
    for name in canvas_module.EXAMPLES:
        assert pixels_of(example(name), name)[0].ndim == 3


def test_a_downloaded_jpeg_is_a_jpeg_of_full_size() -> None:
    with Image.open(io.BytesIO(photograph_file(SPLIT, ".jpg"))) as image:
        assert (image.format, image.size) == ("JPEG", (200, 150))


PHOTOGRAPHS_IN_A_ROW = """
import io, resource, sys
import numpy as np
from PIL import Image
from platform.canvas import begin, jpeg, open_photograph
from platform.photographs import painted
from tests.test_canvas import MODEL, TASK, file_of

peaks = []
for number in range(16):
    rgb = np.random.default_rng(number).integers(0, 256, (600, 800, 3), dtype=np.uint8)
    photograph = open_photograph(file_of(rgb, "BMP"), "photograph.bmp")
    canvas = begin(photograph.small, TASK, MODEL, "plain", {"kind": "classification"})
    jpeg(painted(photograph.preview, photograph.small, canvas.ab(canvas.start)))
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
print(peaks[5], peaks[15])
"""


@pytest.mark.long
def test_memory_after_many_photographs_does_not_grow(start_python: StartPython) -> None:
    """Each has 1.4 MB, and outputs of 3.6 MB. Of a hundred uploads to a server: faults_photograph.py."""
    early, late = map(int, finish(start_python(PHOTOGRAPHS_IN_A_ROW)).split())
    assert late - early < 12_000, f"from {early:,} to {late:,} kB"
