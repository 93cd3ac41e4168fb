"""An arm's choices are composed here, and nowhere else, into what is trained and how its colours are read.

Adding an idea: one file of pure functions, one option of `ArmOptions`, one line of `compose`; docs/add-an-idea.md.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, get_args

import torch
from torch import Tensor, nn

from platform.arms.critic import Adversary
from platform.arms.losses import SoftLabels, dense_cross_entropy, l2_loss, soft_label_cross_entropy
from platform.arms.options import (
    ArmOptions,
    KMeans,
    SegmentPrior,
    TablePrior,
    Trained,
    renderings,
)
from platform.arms.segments import SegmentHead, first_colours, segment_pngs
from platform.arms.table_prior import TableHead, class_loss, entries_at_places
from platform.color.counts import ColourCounts, kmeans_centers, rarity_weights
from platform.color.palettes import CELL, Palette, ab_to_bin, decode, grid_palette, likeliest, nearest_palette

SMALLEST_SHARE = 1e-6  # of a colour that no training pixel has, in the first distribution over colours


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a reading makes of some pixels."""

    ab: Tensor  # float32 (pixels, 2), Lab units
    bins: Tensor  # int64 (pixels,): the bin of the 20x20 grid, of the likeliest entry where there is a distribution
    log_probability: Tensor | None  # float32 (pixels,), nats: of the true bin; None without a distribution over bins


Centers = Sequence[Sequence[float]]
"""Of a palette, (Q, 2) in ab."""

Read = Callable[[Tensor, Tensor | None], Prediction]
Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Reading:
    """How an arm's colours are read off what the network's head gives: (pixels, outputs), and the true ab (pixels, 2)
    or None. A baseline is given each pixel's image class (-1 where it is not known) and place instead, int64 (pixels,
    2)."""

    read: Read
    offset: Tensor | None = None  # float32 (outputs,), that `read` adds to logits: of the tilt


@dataclass(frozen=True, eq=False)
class Task:
    """All that a training, its evaluation and its pictures need to know of an arm."""

    options: dict[str, Any]  # of the arm that is trained, plain values: a checkpoint holds them
    outputs: int  # of the network's head; 0 where nothing is trained
    make_head: Callable[[int], nn.Module]  # of as many features per pixel, to outputs
    # Of (head, features (pixels, width), ab (n, height, width, 2)); None where nothing is trained.
    loss: Loss | None  # as defined: what trials are chosen by
    objective: Loss | None  # what is descended: the loss, to scale and with whatever the arm adds
    readings: dict[str, Reading]  # of the arm, and of those that render it, by name
    palette: Palette | None  # None where the head gives ab
    bin_rarity: Tensor  # float64 (400,), w_0 of the training pixels: weights of the rebalanced AuC
    bin_entropy: float  # nats, of the training pixels' bins
    device: torch.device
    # A reading with another tilt, temperature or decoding; None where the head gives ab.
    reread: Callable[[ArmOptions], Reading] | None = None
    make_adversary: Callable[..., Adversary] | None = None  # with seed=…: a critic that is trained beside it
    classes: int = 0  # that the network predicts beside colours; they and the place then follow each pixel's features
    class_loss: Callable[[Tensor, Tensor], Tensor] | None = None  # of (features, labels), descended as well
    # Of (head, features (pixels, width), (height, width)): PNGs of what the arm divides pictures into, see `segments`.
    segment_pngs: Callable[[Any, Tensor, tuple[int, int]], list[bytes]] | None = None


def compose(
    arms: Mapping[str, ArmOptions],
    name: str,
    colours: ColourCounts,
    *,
    seed: int = 0,
    centers: Mapping[str, Centers | None] | None = None,
    device: torch.device | str = "cpu",
) -> Task:
    """Compose an arm that is trained, or a baseline, and all that render it.

    colours: of the training pixels. seed: of K-means; centers: what it found before, by arm.
    """
    options, device = arms[name], torch.device(device)
    grid = grid_palette(reachable=False)
    share = colours.share(grid)
    compose_kind = partial(
        Task,
        options=asdict(options),
        bin_rarity=colours.rarity_weights(grid, 0.0).to(device),
        bin_entropy=float(torch.special.entr(share).sum()),
        device=device,
    )
    if options.kind not in get_args(Trained):
        read = _reader_of(options.kind, grid, colours, device)
        return compose_kind(
            outputs=0,
            make_head=nn.Identity,
            loss=None,
            objective=None,
            readings={name: Reading(read)},
            palette=None,
        )
    if options.kind == "regression":
        return compose_kind(
            outputs=2,
            make_head=partial(_linear_head, 2, None),
            loss=_regression_loss,
            objective=_regression_objective,
            readings={other: Reading(_read_ab) for other in (name, *renderings(arms, name))},
            palette=None,
            make_adversary=_adversary_of(options, _to_ab, device),
        )
    palette = _palette_of(options, colours, seed, (centers or {}).get(name)).to(device)
    weights = colours.rarity_weights(palette, options.rebalancing)
    rarity = None if options.rebalancing == 1 else weights.float().to(device)
    loss = partial(_classification_loss, palette, rarity)
    reread = partial(_reading_of, palette, colours.mean_soft_label(palette))
    colour = partial(decode, centers=palette.centers, temperature=options.decoding_temperature)
    return compose_kind(
        outputs=len(palette.centers),
        loss=loss,
        objective=loss,
        readings={other: reread(arms[other]) for other in (name, *renderings(arms, name))},
        reread=reread,
        palette=palette,
        make_adversary=_adversary_of(options, colour, device),
        **_head_of(options, palette, colours, weights, seed),
    )


def _palette_of(options: ArmOptions, colours: ColourCounts, seed: int, centers: Centers | None) -> Palette:
    if isinstance(options.palette, KMeans):
        found = kmeans_centers(colours, options.palette.kmeans, seed) if centers is None else torch.tensor(centers)
        return nearest_palette(found, sigma=options.soft_label_sigma)
    return grid_palette(reachable=options.palette == "reachable", sigma=options.soft_label_sigma)


def _head_of(
    options: ArmOptions, palette: Palette, colours: ColourCounts, weights: Tensor, seed: int
) -> dict[str, Any]:
    """A classifier's head, and whatever else of a task comes with it. weights: w_λ, (Q,)."""
    prior = options.prior
    if isinstance(prior, SegmentPrior):
        first = first_colours(palette, colours, prior.segments, seed)
        return {
            "make_head": partial(SegmentHead, first=first),
            "segment_pngs": partial(segment_pngs, palette),
        }
    if isinstance(prior, TablePrior):
        classes = len(colours.at_places)
        return {
            "make_head": partial(TableHead, table=entries_at_places(palette, colours)),
            "classes": classes,
            "class_loss": partial(class_loss, prior.table, classes),
        }
    # What minimises the loss where nothing is known of a pixel: steps would be spent on learning it.
    known = colours.mean_soft_label(palette) * weights
    first_bias = known.clamp_min(SMALLEST_SHARE).log().float()
    return {"make_head": partial(_linear_head, len(palette.centers), first_bias)}


def _reading_of(palette: Palette, mean_soft_label: Tensor, options: ArmOptions) -> Reading:
    """How an arm's options have colours read off logits. mean_soft_label: p̄ of the training pixels."""
    offset = None
    if options.tilt != 1:
        weights = rarity_weights(mean_soft_label, options.tilt, palette.size)
        offset = weights.log().float().to(palette.centers.device)
    read = partial(_read_distribution, palette, options.decoding_temperature, offset)
    return Reading(read, offset)


def _adversary_of(
    options: ArmOptions, colour: Callable[[Tensor], Tensor], device: torch.device
) -> Callable[..., Adversary] | None:
    if options.adversarial == 0:
        return None
    return partial(Adversary, options.adversarial, options.critic, colour, device)


def _linear_head(outputs: int, first_bias: Tensor | None, width: int) -> nn.Module:
    head = nn.Linear(width, outputs)
    if first_bias is not None:
        with torch.no_grad():
            head.bias.copy_(first_bias)
    return head


def _to_ab(outputs: Tensor) -> Tensor:
    return outputs * CELL  # the head's unit is a cell of the grid, so that its outputs are of order 1


def _regression_loss(head: nn.Module, rows: Tensor, ab: Tensor) -> Tensor:
    return l2_loss(_to_ab(head(rows.to(ab.dtype))).view(ab.shape), ab)


def _regression_objective(head: nn.Module, rows: Tensor, ab: Tensor) -> Tensor:
    """The defined sum over a picture's pixels, in squared Lab units, is divided by a constant, pixels times squared
    cell size: the same minimum, with gradients of the cross-entropy's size, so that one range of learning rates suits
    every arm."""
    return _regression_loss(head, rows, ab) / (ab.shape[1] * ab.shape[2] * CELL**2)


def _classification_loss(palette: Palette, rarity: Tensor | None, head: nn.Module, rows: Tensor, ab: Tensor) -> Tensor:
    entries, weights = palette.soft_labels(ab)
    labels = SoftLabels(entries, weights, None if rarity is None else rarity[entries[:, 0]])
    if isinstance(head, nn.Linear):
        return soft_label_cross_entropy(rows, head.weight, head.bias, labels)
    return dense_cross_entropy(head, rows.to(ab.dtype), labels)


def _reader_of(kind: str | None, grid: Palette, colours: ColourCounts, device: torch.device) -> Read:
    """How a baseline reads colours off a pixel's class and place. grid: of all bins."""
    if kind == "most frequent bin at a place":
        log_share = colours.share_at_places().log().float().to(device)
        grid = grid.to(device)
        there = _read_distribution(grid, 0, None, log_share.flatten(0, 1), None)
        return partial(_read_place, log_share, grid, there)
    ab = grid.centers[colours.share(grid).argmax()] if kind == "most frequent bin" else torch.zeros(2)
    return partial(_read_constant, ab.to(device))


def _read_constant(ab: Tensor, known: Tensor, truth: Tensor | None) -> Prediction:
    return _of_ab(ab.expand(len(known), 2))


def _read_place(log_share: Tensor, grid: Palette, there: Prediction, known: Tensor, truth: Tensor | None) -> Prediction:
    """log_share: (classes + 1, PLACES, BINS). there: what is read at each class and place, in the same order."""
    classes, places, _ = log_share.shape
    row = known[:, 0] % classes * places + known[:, 1]  # -1 is the last, of all classes
    log_probability = None if truth is None else log_share.flatten(0, 1)[row, grid.own_entry(truth)]
    return Prediction(there.ab[row], there.bins[row], log_probability)


def _read_ab(outputs: Tensor, truth: Tensor | None) -> Prediction:
    return _of_ab(_to_ab(outputs))


def _of_ab(ab: Tensor) -> Prediction:
    return Prediction(ab, ab_to_bin(ab), None)


def _read_distribution(
    palette: Palette,
    temperature: float,
    offset: Tensor | None,
    outputs: Tensor,
    truth: Tensor | None,
) -> Prediction:
    logits = outputs if offset is None else outputs + offset
    logits = logits - logits.amax(-1, keepdim=True)
    log_probability = None
    if truth is not None and palette.is_grid:
        own = logits.gather(1, palette.own_entry(truth)[:, None])[:, 0]
        log_probability = own - logits.exp().sum(-1).log()
    ab = decode(logits, palette.centers, temperature)
    return Prediction(ab, palette.bins[likeliest(logits)], log_probability)
