"""What an arm is: a sum of choices, composed here and nowhere else into what is trained and how its colours are read.

Adding an idea: one file of pure functions, one option of `ArmOptions`, one line of `compose`; docs/add-an-idea.md.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from platform.losses import l2_loss, soft_label_cross_entropy
from platform.palettes import (
    CELL,
    GRID,
    ColourCounts,
    Decoding,
    Palette,
    ab_to_bin,
    decode,
    grid_palette,
    kmeans_centers,
    nearest_palette,
)

Kind = Literal["regression", "classification", "most frequent bin", "grey"]
Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class KMeans:
    kmeans: Annotated[int, Field(ge=16, le=512)]  # centres, of the training colours


@dataclass(frozen=True)
class ArmOptions:
    """An arm as it is configured. What its kind has no use for stays at its default: see `mistakes`."""

    kind: Kind | None = None  # what is trained; None where another arm's training is rendered
    rebalancing: Share = 1.0  # λ of the loss (Zhang et al. 2016); 1 is plain classification
    palette: Literal["reachable", "grid"] | KMeans = "reachable"  # the colours that a classifier can name
    soft_label_sigma: Annotated[float, Field(gt=0)] = 5.0  # Lab units
    decoding: Decoding = "annealed_mean"  # from a distribution over colours to one
    renders: str | None = None  # the arm whose every trial is decoded anew, without a training of its own
    tilt: Share = 1.0  # λ of the decoding: logits + log w_λ


BASELINES = {"most frequent bin": ArmOptions(kind="most frequent bin"), "grey": ArmOptions(kind="grey")}
"""In every experiment, beside the arms of its config; nothing of them is trained."""


def trained_arms(arms: Mapping[str, ArmOptions]) -> list[str]:
    """The names of the arms that train, in their order."""
    return [name for name, options in arms.items() if options.kind in ("regression", "classification")]


def renderings(arms: Mapping[str, ArmOptions], name: str) -> list[str]:
    """The names of the arms that render this one, in their order."""
    return [other for other, options in arms.items() if options.renders == name]


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a reading makes of some pixels."""

    ab: Tensor  # float32 (pixels, 2), Lab units
    bins: Tensor  # int64 (pixels,): the bin of the 20x20 grid, of the likeliest entry where there is a distribution
    log_probability: Tensor | None  # float32 (pixels,), nats: of the true bin; None without a distribution over bins


Read = Callable[[Tensor, Tensor | None], Prediction]
Loss = Callable[[nn.Linear, Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Reading:
    """How an arm's colours are read off what the network's head gives: (pixels, outputs), and the true ab (pixels, 2)
    or None."""

    read: Read
    decoding: str | None  # in words, as it is recorded; None where the head gives ab


@dataclass(frozen=True, eq=False)
class Task:
    """All that a training, its evaluation and its pictures need to know of an arm."""

    options: dict[str, Any]  # of the arm that is trained, plain values: a checkpoint holds them
    outputs: int  # of the network's head; 0 where nothing is trained
    # Of (head, features (pixels, width), ab (n, height, width, 2)); None where nothing is trained.
    loss: Loss | None  # as defined: what trials are chosen by
    objective: Loss | None  # what is descended: the loss, to scale and with whatever the arm adds
    readings: dict[str, Reading]  # of the arm, and of those that render it, by name
    palette: Palette | None  # None where the head gives ab
    bin_rarity: Tensor  # float64 (400,), w_0 of the training pixels: weights of the rebalanced AuC
    bin_entropy: float  # nats, of the training pixels' bins
    device: torch.device


def compose(
    arms: Mapping[str, ArmOptions],
    name: str,
    colours: ColourCounts,
    *,
    seed: int = 0,
    centers: Sequence[Sequence[float]] | None = None,
    device: torch.device | str = "cpu",
) -> Task:
    """Compose an arm that is trained, or a baseline, and all that render it.

    colours: of the training pixels. seed: of K-means; centers: what it found before, float (Q, 2).
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
    if options.kind in ("most frequent bin", "grey"):
        ab = grid.centers[share.argmax()] if options.kind == "most frequent bin" else torch.zeros(2)
        readings = {name: Reading(partial(_read_constant, ab.to(device)), None)}
        return compose_kind(outputs=0, loss=None, objective=None, readings=readings, palette=None)
    if options.kind == "regression":
        readings = {other: Reading(_read_ab, None) for other in (name, *renderings(arms, name))}
        return compose_kind(
            outputs=2, loss=_regression_loss, objective=_regression_objective, readings=readings, palette=None
        )
    palette = _palette_of(options, colours, seed, centers).to(device)
    rarity = None
    if options.rebalancing != 1:
        rarity = colours.rarity_weights(palette, options.rebalancing).float().to(device)
    loss = partial(_classification_loss, palette, rarity)
    readings = {name: Reading(partial(_read_distribution, palette, None, options.decoding), options.decoding)}
    for other in renderings(arms, name):
        offset = colours.rarity_weights(palette, arms[other].tilt).log().float().to(device)
        words = f"{options.decoding}, tilted by λ = {arms[other].tilt:g}"
        readings[other] = Reading(partial(_read_distribution, palette, offset, options.decoding), words)
    return compose_kind(outputs=len(palette.centers), loss=loss, objective=loss, readings=readings, palette=palette)


def rebalancing_of(arms: Mapping[str, ArmOptions], name: str) -> float | None:
    """λ of an arm's decoding or loss; None where it means nothing."""
    options = arms[name]
    if options.renders is not None:
        return options.tilt if arms[options.renders].kind == "classification" else None
    return options.rebalancing if options.kind == "classification" else None


def _palette_of(
    options: ArmOptions, colours: ColourCounts, seed: int, centers: Sequence[Sequence[float]] | None
) -> Palette:
    if isinstance(options.palette, KMeans):
        found = kmeans_centers(colours, options.palette.kmeans, seed) if centers is None else torch.tensor(centers)
        return nearest_palette(found, sigma=options.soft_label_sigma)
    return grid_palette(reachable=options.palette == "reachable", sigma=options.soft_label_sigma)


def _regression_loss(head: nn.Linear, rows: Tensor, ab: Tensor) -> Tensor:
    return l2_loss((head(rows.to(head.weight.dtype)) * CELL).view(ab.shape), ab)


def _regression_objective(head: nn.Linear, rows: Tensor, ab: Tensor) -> Tensor:
    """The defined sum over a picture's pixels, in squared Lab units, is divided by a constant, pixels times squared
    cell size: the same minimum, with gradients of the cross-entropy's size, so that one range of learning rates suits
    every arm."""
    return _regression_loss(head, rows, ab) / (ab.shape[1] * ab.shape[2] * CELL**2)


def _classification_loss(palette: Palette, rarity: Tensor | None, head: nn.Linear, rows: Tensor, ab: Tensor) -> Tensor:
    entries, weights = palette.soft_labels(ab)
    pixel_weights = None if rarity is None else rarity[entries[:, 0]]
    return soft_label_cross_entropy(rows, head.weight, head.bias, entries, weights, pixel_weights)


def _read_constant(ab: Tensor, outputs: Tensor, truth: Tensor | None) -> Prediction:
    predicted = ab.expand(len(outputs), 2)
    return Prediction(predicted, ab_to_bin(predicted), None)


def _read_ab(outputs: Tensor, truth: Tensor | None) -> Prediction:
    ab = outputs * CELL  # the head's unit is a cell of the grid, so that its outputs are of order 1
    return Prediction(ab, ab_to_bin(ab), None)


def _read_distribution(
    palette: Palette, offset: Tensor | None, decoding: Decoding, outputs: Tensor, truth: Tensor | None
) -> Prediction:
    logits = outputs if offset is None else outputs + offset
    log_probability = None
    if truth is not None and palette.cells == GRID:
        own = logits.gather(1, palette.own_entry(truth)[:, None])[:, 0]
        log_probability = own - logits.logsumexp(1)
    ab = decode(logits, palette.centers, decoding)
    return Prediction(ab, palette.bins[logits.argmax(-1)], log_probability)
