"""What an arm is: a sum of choices, and what one asks of them. `platform.arms.compose` makes of it what is trained.

Nothing here needs torch: a config, the database and its readers ask these questions, too.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, TypeAdapter

Trained = Literal["regression", "classification"]
Baseline = Literal["most frequent bin", "most frequent bin at a place", "grey"]
Decoding = Literal["mode", "mean", "annealed_mean"]  # from a distribution over colours to one
Share = Annotated[float, Field(ge=0, le=1)]

ANNEALED_MEAN_TEMPERATURE = 0.38  # Zhang et al. 2016, section 2.3


@dataclass(frozen=True)
class KMeans:
    kmeans: Annotated[int, Field(ge=16, le=512)]  # centres, of the training colours


@dataclass(frozen=True)
class SegmentPrior:
    segments: Annotated[int, Field(ge=2, le=64)]  # how many are learned, each with colours of its own


@dataclass(frozen=True)
class TablePrior:
    """Colours by image class and place."""

    table: Annotated[float, Field(ge=0, le=1)]  # weight of the cross-entropy by which the network learns the class


@dataclass(frozen=True)
class CriticOptions:
    depth: Annotated[int, Field(ge=0, le=5)] = 3  # how many times it halves a picture; 0: it sees the colours of pixels
    acuity: Annotated[int, Field(ge=1)] = 1  # pixels: chroma is averaged over squares of this side before it is seen


@dataclass(frozen=True)
class ArmOptions:
    """An arm as it is configured. What its kind has no use for stays at its default: see `platform.running.config`."""

    kind: Trained | Baseline | None = None  # what is trained; None where another arm's training is rendered
    rebalancing: Share = 1.0  # λ of the loss (Zhang et al. 2016); 1 is plain classification
    palette: Literal["reachable", "grid"] | KMeans = "reachable"  # the colours that a classifier can name
    soft_label_sigma: Annotated[float, Field(gt=0)] = 5.0  # Lab units
    prior: SegmentPrior | TablePrior | None = None  # what is known of colours
    adversarial: Annotated[float, Field(ge=0)] = 0.0  # weight of a critic's term in what is descended
    critic: CriticOptions = field(default_factory=CriticOptions)
    decoding: Decoding = "annealed_mean"
    temperature: Annotated[float, Field(ge=0.05, le=2)] = ANNEALED_MEAN_TEMPERATURE  # of the annealed mean
    renders: str | None = None  # the arm whose every trial is decoded anew, without a training of its own
    tilt: Share = 1.0  # λ of the decoding: logits + log w_λ

    @property
    def decoding_temperature(self) -> float:
        """At which the mean of a distribution over colours is taken; 0 is the mode."""
        return {"mode": 0.0, "mean": 1.0, "annealed_mean": self.temperature}[self.decoding]


BASELINES = {
    "most frequent bin": ArmOptions(kind="most frequent bin"),
    "by class and place": ArmOptions(kind="most frequent bin at a place"),
    "grey": ArmOptions(kind="grey"),
}
"""In every experiment, beside the arms of its config; nothing of them is trained."""


def trained_arms(arms: Mapping[str, ArmOptions]) -> list[str]:
    """The names of the arms that train, in their order."""
    return [name for name, options in arms.items() if options.kind in get_args(Trained)]


def renderings(arms: Mapping[str, ArmOptions], name: str) -> list[str]:
    """The names of the arms that render this one, in their order."""
    return [other for other, options in arms.items() if options.renders == name]


def rebalancing_of(arms: Mapping[str, ArmOptions], name: str) -> float | None:
    """λ of an arm: of its training, or of its decoding where it renders a training without (λ = 1).

    None where λ means nothing, and where there are two: a tilt of what was trained with another λ is neither.
    """
    options = arms[name]
    trained = arms[options.renders or name]
    if trained.kind != "classification" or (trained.rebalancing != 1 and options.tilt != 1):
        return None
    return trained.rebalancing if options.tilt == 1 else options.tilt


def describe_decoding(options: ArmOptions, trained: ArmOptions) -> str | None:
    """How colours are read off the model of an arm, in words; None where it gives ab. trained: the options of the arm
    whose weights it is."""
    if trained.kind != "classification":
        return None
    words: str = options.decoding.replace("_", " ")
    if options.temperature != ANNEALED_MEAN_TEMPERATURE:
        words += f" at T = {options.temperature:g}"
    if options.tilt == 1:
        return words
    words += f", tilted by λ = {options.tilt:g}"
    return words if trained.rebalancing == 1 else f"{words} beside λ = {trained.rebalancing:g} in training"


def read_options(recorded: Mapping[str, Any]) -> ArmOptions:
    """An arm as it was recorded, in plain values."""
    return _reader().validate_python(dict(recorded))


@cache
def _reader() -> TypeAdapter[ArmOptions]:
    return TypeAdapter(ArmOptions)  # 5 MB, which participants' server does without


def as_configured(options: ArmOptions) -> dict[str, Any]:
    """What a config says of an arm: the options that are not at their defaults, in plain values."""
    return {name: value for name, value in asdict(options).items() if value != _DEFAULTS[name]}


_DEFAULTS = asdict(ArmOptions())
