"""What an arm is: a sum of choices, composed here and nowhere else into what is trained and how its colours are read.

Adding an idea: one file of pure functions, one option of `ArmOptions`, one line of `compose`; docs/add-an-idea.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

Kind = Literal["regression", "classification", "most frequent bin", "grey"]
Decoding = Literal["mode", "mean", "annealed_mean"]
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
