"""Colour photographs with the model in this folder: `python colour.py PHOTO ...` adds a PHOTO-coloured.png to each.

It needs torch, safetensors, scikit-image and Pillow, and nothing of HueJury, whose platform/export.py put it there. In
Python: `colour(Model(Path(FOLDER)), rgb)`, uint8 (height, width, 3) in and out. HueJury's code is MIT; the data that
the model learned from are their publishers', whose terms apply to what is made of them.
"""

import json
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from safetensors.torch import load_file
from skimage.color import lab2rgb, rgb2lab
from torch import Tensor
from torch.nn import functional


class Model:
    """Map L in [0, 100], (1, 1, height, width), to ab (1, 2, height, width); both sides divide by `parts`."""

    def __init__(self, folder: Path) -> None:
        self.config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        self.palette = self.config["palette"]  # None where the network gives ab
        self.weights: dict[str, Tensor] = load_file(folder / "model.safetensors")
        self.parts = 2 ** self.config["depth"]

    def __call__(self, lightness: Tensor) -> Tensor:
        x, skipped = self.block("stem", (lightness - 50) / 50), []
        for level in range(self.config["depth"]):
            skipped.append(x)
            x = self.block(f"encoder.{level}.1", self.block(f"encoder.{level}.0", x, stride=2))
        deepest = x
        for level in range(self.config["depth"]):
            narrow = functional.conv2d(x, self.weights[f"narrow.{level}.weight"], self.weights[f"narrow.{level}.bias"])
            x = self.block(f"decoder.{level}", functional.interpolate(narrow, scale_factor=2.0) + skipped.pop())
        ab = self.ab(self.head(x.flatten(2)[0].T, deepest, lightness))
        return ab.T.reshape(1, 2, *lightness.shape[2:])

    def block(self, name: str, x: Tensor, stride: int = 1) -> Tensor:
        of = {key.removeprefix(f"{name}."): value for key, value in self.weights.items() if key.startswith(f"{name}.")}
        padding = of["0.weight"].shape[-1] // 2
        x = functional.conv2d(x, of["0.weight"], of.get("0.bias"), stride=stride, padding=padding)
        if "1.weight" in of:
            means, variances = of["1.running_mean"], of["1.running_var"]
            x = functional.batch_norm(x, means, variances, of["1.weight"], of["1.bias"])
        return x.relu()

    def linear(self, name: str, x: Tensor) -> Tensor:
        return functional.linear(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def head(self, features: Tensor, deepest: Tensor, lightness: Tensor) -> Tensor:
        """What each pixel's features, (pixels, width), mean: ab, or the logits of the palette's colours."""
        if "head.weight" in self.weights:
            return self.linear("head", features)
        if "head.colours" in self.weights:  # learned segments, each with colours of its own
            segments = self.linear("head.segment", features).softmax(-1)
            return (segments @ self.weights["head.colours"].softmax(-1)).clamp_min(1e-12).log()
        # A table of colours by the picture's class, and by a pixel's eighth of lightness and quarter of the height.
        classes = self.linear("classify", deepest.mean((2, 3))).softmax(-1)
        height = lightness.shape[2]
        row = 4 * torch.arange(height) // height
        place = (lightness[0, 0] * 0.08).long().clamp(0, 7) * 4 + row[:, None]
        prior = (classes @ self.weights["head.table"])[:, 0][place.flatten()].clamp_min(1e-9).log()
        return self.linear("head.plain", features) + prior

    def ab(self, outputs: Tensor) -> Tensor:
        if self.palette is None:
            return outputs * 12.8  # the network's unit, of a regression
        logits, centers = outputs + torch.tensor(self.palette["offset"]), torch.tensor(self.palette["centers"])
        temperature: float = self.config["temperature"]
        if temperature == 0:
            return centers[logits.argmax(-1)]
        return (logits / temperature).softmax(-1) @ centers


@torch.no_grad()
def colour(model: Model, rgb: np.ndarray) -> np.ndarray:
    """Colour a photograph, uint8 (height, width, 3), whose lightness stays as it is, and its edges' colours with it."""
    lightness = torch.tensor(rgb2lab(rgb)[..., 0], dtype=torch.float32)[None, None]
    size, scale = lightness.shape[2:], model.config["short_side"] / min(rgb.shape[:2])
    small = lightness
    if scale < 1:
        small = functional.interpolate(lightness, [max(1, round(side * scale)) for side in size], mode="area")
    height, width = small.shape[2:]
    filled = functional.pad(small, (0, -width % model.parts, 0, -height % model.parts), mode="replicate")
    ab = model(filled)[..., :height, :width]
    if scale < 1:  # a guided filter, as in He & Sun 2015: around each pixel ab is a linear function of L
        slope = (_mean(small * ab) - _mean(small) * _mean(ab)) / (_mean(small**2) - _mean(small) ** 2 + 16.0)
        lines = torch.cat((_mean(slope), _mean(_mean(ab) - slope * _mean(small))), dim=1)
        slope, shift = functional.interpolate(lines, size, mode="bilinear").chunk(2, dim=1)
        ab = slope * lightness + shift
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of colours that sRGB does not have, and that are clipped
        coloured = lab2rgb(torch.cat((lightness, ab), dim=1)[0].movedim(0, -1).double().numpy())
    return np.asarray((255 * coloured).round().astype(np.uint8))


def _mean(x: Tensor) -> Tensor:
    return functional.avg_pool2d(x, 9, stride=1, padding=4, count_include_pad=False)


if __name__ == "__main__":
    model = Model(Path(__file__).parent)
    for path in map(Path, sys.argv[1:]):
        photograph = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))
        Image.fromarray(colour(model, photograph)).save(path.with_name(f"{path.stem}-coloured.png"))
