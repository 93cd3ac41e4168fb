"""The network: a small fully convolutional encoder-decoder from lightness to features, and a head a pixel."""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from platform.color.counts import places


class Colorizer(nn.Module):
    """Map lightness (n, 1, height, width), L in [0, 100], to features (n, width, height, width); with `classes`, the
    picture's class logits and the pixel's place (see `colour_counts`) follow them as further channels.

    depth: how many times the encoder halves the picture; height and width must be divisible by 2**depth.
    width: channels at full size; they double at each halving. filter_size: odd, of every convolution.
    The decoder adds the encoder's features of the same size, so that edges stay sharp.

    `head`, made for `width` features, maps a pixel's to its outputs (2 for regression, one per colour for
    classification). It is not part of `forward`, because the classification loss computes it together with the
    softmax, chunk by chunk.
    """

    def __init__(
        self, make_head: Callable[[int], nn.Module], *, filter_size: int, width: int, depth: int, classes: int = 0
    ) -> None:
        super().__init__()
        channels = [width * 2**level for level in range(depth + 1)]
        # Without normalisation at full size, where it would cost as much time as the convolutions and gains nothing.
        self.stem = _block(1, width, filter_size, normalised=False)
        _start_as_cosines(self.stem.get_parameter("0.weight"))
        self.encoder = nn.ModuleList(
            nn.Sequential(_block(smaller, larger, filter_size, stride=2), _block(larger, larger, filter_size))
            for smaller, larger in pairwise(channels)
        )
        self.narrow = nn.ModuleList(
            nn.Conv2d(larger, smaller, 1) for smaller, larger in reversed(list(pairwise(channels)))
        )
        self.decoder = nn.ModuleList(_block(c, c, filter_size, normalised=c > width) for c in reversed(channels[:-1]))
        self.classify = nn.Linear(channels[-1], classes) if classes else None
        self.head = make_head(width)

    def forward(self, lightness: Tensor) -> Tensor:
        x = self.stem((lightness - 50) / 50)
        skipped = []
        for encode in self.encoder:
            skipped.append(x)
            x = encode(x)
        deepest = x
        for narrow, decode in zip(self.narrow, self.decoder, strict=True):
            x = decode(functional.interpolate(narrow(x), scale_factor=2, mode="nearest") + skipped.pop())
        features: Tensor = x
        if self.classify is not None:
            classes = self.classify(deepest.mean((2, 3)))[:, :, None, None].expand(-1, -1, *x.shape[2:])
            features = torch.cat((x, classes, places(lightness[:, 0])[:, None].to(x.dtype)), dim=1)
        return features


# The standard deviation of each 3×3 cosine's coefficient (vertical by horizontal frequency) in CIFAR-10's training
# pictures, of lightness in [-1, 1]; the two directions averaged.
_COSINE_SPREADS = ((1.33, 0.34, 0.14), (0.34, 0.16, 0.08), (0.14, 0.08, 0.04))


def _start_as_cosines(weight: Tensor) -> None:
    """Overwrite the first 18 filters of a stem's `weight` (width, 1, size, size) by the 3×3 cosine transform's: each
    pattern with both signs, those that vary most first, divided by about its standard deviation in photographs.

    So the network starts from whitened lightness (a whitening layer, as in Jordan 2024, "94% on CIFAR-10 in 3.29
    seconds on a single GPU"), in which neighbouring pixels no longer say the same, without a look at the data.
    """
    place = torch.arange(3) + 0.5
    waves = torch.stack([torch.cos(torch.pi * frequency * place / 3) for frequency in range(3)])
    waves = functional.normalize(waves)
    patterns = torch.einsum("ai,bj->abij", waves, waves).flatten(0, 1)
    spreads = torch.tensor(_COSINE_SPREADS).flatten()
    order = spreads.argsort(descending=True, stable=True)[: weight.shape[0] // 2]
    filters = (patterns / (spreads.square() + 0.01).sqrt()[:, None, None])[order]
    filters = torch.cat((filters, -filters))[:, None]
    rim = (weight.shape[2] - 3) // 2
    weight.data[: len(filters)] = functional.pad(filters, (rim, rim, rim, rim))


def _block(inputs: int, outputs: int, filter_size: int, stride: int = 1, normalised: bool = True) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, filter_size, stride=stride, padding=filter_size // 2, bias=not normalised),
        *([nn.BatchNorm2d(outputs)] if normalised else []),
        nn.ReLU(inplace=True),
    )


def pixel_rows(features: Tensor) -> Tensor:
    """Return features (n, channels, height, width) as rows (n * height * width, channels), one a pixel."""
    return features.permute(0, 2, 3, 1).reshape(-1, features.shape[1])
