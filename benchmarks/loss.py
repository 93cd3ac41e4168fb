"""The loss with the head: time and memory, forward and backward."""

from statistics import median

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.harness import Contenders, alternate, figure, goal, peak_tensor_megabytes, ratios, spread, table
from benchmarks.usual import dense_loss
from platform.arms import losses
from platform.arms.losses import SoftLabels, soft_label_cross_entropy
from platform.color.lab import rgb_to_lab
from platform.color.palettes import Palette, grid_palette
from platform.data.datasets import load_dataset

TEXT = """\
## The loss

Head, soft-label cross-entropy weighted by rarity, and the gradients of features, weights and bias; 32×32 images,
float32.

- *ours*: `soft_label_cross_entropy`, with all nine entries of each label.
- *dense, channel order*: soft targets scattered into a tensor as large as the logits, `log_softmax`; the head is a 1×1
  convolution and bins are the second of four dimensions.
- *dense, pixel rows*: the same with a pixel a row, the head a matrix product.
- *hard labels*: `F.cross_entropy` on pixel rows with the one right bin and no weights: less work than ours.
- *products alone*: the three matrix products of *ours*, the head and its two gradients, on one chunk of pixels again
  and again, which stays in the cache: a floor for whoever computes in float32.

Checked: loss and gradients of *ours* and both dense ones agree to 1e-5 of their norms, but the bias's gradient to 1e-3,
as PyTorch's convolution loses digits of it; so do *ours* and `F.cross_entropy` when *ours* is given the hard label as a
label of one entry. Memory is the most that is held at a time beyond the inputs, the gradients that are the result
included; "own" leaves out the gradient of the features, which every contender returns.
"""

OURS = "ours"
FLOOR = "products alone"
GOALS = {"dense, channel order": 8.0, "dense, pixel rows": 4.0, "hard labels": 1.0}


def section(tiny: bool) -> list[str]:
    head = ["width, batch, bins", "contender", "ms per image", "× ours", "MB", "MB × ours", "own MB × ours"]
    rows = []
    faster: dict[str, list[float]] = {name: [] for name in GOALS}
    smaller: dict[str, list[float]] = {"": [], "own ": []}
    for palette, width, batch, rounds in _sizes(tiny):
        contenders, features_megabytes = _contenders(palette, width, batch)
        memory = {name: peak_tensor_megabytes(run) for name, run in contenders.items()}
        seconds = alternate(contenders, rounds)
        own = {name: megabytes - features_megabytes for name, megabytes in memory.items()}
        for name, all_ratios in faster.items():
            all_ratios.append(median(ratios(seconds[OURS], seconds[name])))
        smaller[""].append(memory["dense, pixel rows"] / memory[OURS])
        smaller["own "].append(own["dense, pixel rows"] / own[OURS])
        for name, times in seconds.items():
            rows.append(
                [
                    f"{width}, {batch}, {len(palette.centers)}",
                    name,
                    spread([1e3 * time / batch for time in times]),
                    spread(ratios(seconds[OURS], times)),
                    *(
                        (figure(memory[name]), figure(memory[name] / memory[OURS]), figure(own[name] / own[OURS]))
                        if name != FLOOR
                        else ("", "", "")
                    ),
                ]
            )
    goals = [goal(f"time of *{name}* over ours", faster[name], at_least=wanted) for name, wanted in GOALS.items()]
    goals += [goal(f"{name}memory of the dense ones over ours", smaller[name], at_least=20) for name in smaller]
    return [TEXT, *table(head, rows), "", *goals]


def _sizes(tiny: bool) -> list[tuple[Palette, int, int, int]]:
    """Palettes, widths, images in a batch, and rounds."""
    reachable, grid = grid_palette(), grid_palette(reachable=False)
    if tiny:
        return [(reachable, 8, 4, 2)]
    return [
        (reachable, 32, 64, 9),
        (reachable, 32, 256, 5),
        (reachable, 64, 64, 9),
        (reachable, 64, 256, 5),
        (grid, 32, 64, 5),
        (grid, 64, 64, 5),
        (grid, 32, 256, 3),
        (grid, 64, 256, 3),
    ]


def _contenders(palette: Palette, width: int, batch: int) -> tuple[Contenders, float]:
    """Return the contenders on one problem, and the megabytes of the features' gradient."""
    images = load_dataset(["photos"], train_images=batch, say=lambda _: None).train_images
    heads = len(palette.centers)
    ab = rgb_to_lab(torch.tensor(images))[..., 1:]
    entries, label_weights = palette.soft_labels(ab)
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randn(batch, width, *ab.shape[1:3], generator=generator).requires_grad_()
    features = pictures.detach().permute(0, 2, 3, 1).reshape(-1, width).requires_grad_()
    weight = (0.2 * torch.randn(heads, width, generator=generator)).requires_grad_()
    bias = torch.randn(heads, generator=generator).requires_grad_()
    rarity = 3 * torch.rand(heads, generator=generator)
    own = entries[:, 0].contiguous()
    pixel_weights = rarity[own]
    # Where there is no neighbour, `scatter_` would write its 0 over the own weight: it goes to an entry far away.
    scattered = entries.where(label_weights > 0, (own[:, None] + heads // 2) % heads)
    channel_entries, channel_weights = (
        x.view(*ab.shape[:3], -1).permute(0, 3, 1, 2).contiguous() for x in (scattered, label_weights)
    )
    channel_pixel_weights = pixel_weights.view(ab.shape[:3])

    def gradients(loss: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        return loss.detach(), *torch.autograd.grad(loss, (x, weight, bias))

    def ours() -> tuple[Tensor, ...]:
        loss = soft_label_cross_entropy(features, weight, bias, SoftLabels(entries, label_weights, pixel_weights))
        return gradients(loss, features)

    def channel_order() -> tuple[Tensor, ...]:
        logits = functional.conv2d(pictures, weight[:, :, None, None], bias)
        return gradients(dense_loss(logits, channel_entries, channel_weights, channel_pixel_weights), pictures)

    def pixel_rows() -> tuple[Tensor, ...]:
        logits = functional.linear(features, weight, bias)
        return gradients(dense_loss(logits, scattered, label_weights, pixel_weights), features)

    def hard_labels() -> tuple[Tensor, ...]:
        return gradients(functional.cross_entropy(functional.linear(features, weight, bias), own), features)

    chunk = losses.cpu_chunk_pixels(heads)
    x, gradient = features.detach()[:chunk], torch.randn(chunk, heads, generator=generator)

    def products() -> None:
        for _ in range(len(features) // len(x)):
            losses._head(x, weight.detach(), bias.detach())
            losses._head_gradients(gradient[: len(x)], x, weight.detach())

    expected = pixel_rows()
    _assert_agree(ours(), expected)
    loss, pictures_grad, *head_grads = channel_order()
    _assert_agree((loss, pictures_grad.permute(0, 2, 3, 1).reshape(-1, width), *head_grads), expected)
    one_entry = soft_label_cross_entropy(features, weight, bias, SoftLabels(own[:, None], torch.ones(len(own), 1)))
    _assert_agree(gradients(one_entry, features), hard_labels())
    contenders: Contenders = {
        OURS: ours,
        "dense, channel order": channel_order,
        "dense, pixel rows": pixel_rows,
        "hard labels": hard_labels,
        FLOOR: products,
    }
    return contenders, features.nbytes / 1e6


def _assert_agree(got: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    for one, other, tolerance in zip(got, expected, (1e-5, 1e-5, 1e-5, 1e-3), strict=True):
        assert (one - other).norm() <= tolerance * other.norm()
