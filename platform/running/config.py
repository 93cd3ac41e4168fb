"""One YAML file is one typed `SweepConfig`; every mistake in it is named with its line and its key.

    config, text = read_config(Path("tune_configs/rebalance.yaml"), settings=["epochs=3"])  # or raises ConfigError

What arms and trainings can be told, and what they are where nothing is said, stands in
`platform.arms.options.ArmOptions` and `platform.model.hyperparameters.Hyperparameters`. YAML is version 1.2 (`1e-3` is
a number, `no` a text); keys are texts.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_type_hints

import pydantic
from pydantic import BeforeValidator, ConfigDict, Field, ValidationInfo
from pydantic_core import PydanticCustomError, to_json

from db.errors import nearest
from platform.arms.options import BASELINES, ArmOptions, Share, Trained, trained_arms
from platform.data.datasets import KNOWN_NAMES
from platform.model.hyperparameters import Hyperparameters
from platform.running.yaml_input import (
    ConfigError,
    Key,
    Mistake,
    Place,
    explain_errors,
    place_mistake,
    read_text,
    read_yaml,
    shown,
)

__all__ = ["ConfigError"]

_STRICT = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class _Section(pydantic.BaseModel):
    model_config = _STRICT


def _mistake(message: str) -> PydanticCustomError:
    return PydanticCustomError("mistake", "{message}", {"message": message})


class Range(_Section):
    """A range to draw from: `{loguniform: [low, high]}` or `{uniform: [low, high]}`."""

    loguniform: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None
    uniform: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None

    @pydantic.model_validator(mode="after")
    def _makes_sense(self) -> "Range":
        if (self.loguniform is None) == (self.uniform is None):
            raise _mistake("expected either `loguniform: [low, high]` or `uniform: [low, high]`")
        if not self.low < self.high:
            raise _mistake(f"expected [low, high] with low below high, found [{self.low}, {self.high}]")
        if self.low < 0 or (self.loguniform and self.low == 0):
            raise _mistake(f"expected a low end {'above 0' if self.loguniform else 'of at least 0'}, found {self.low}")
        return self

    @property
    def low(self) -> float:
        return (self.loguniform or self.uniform or [])[0]

    @property
    def high(self) -> float:
        return (self.loguniform or self.uniform or [])[1]

    def at(self, quantile: float) -> float:
        """The value with the share `quantile` (0 to 1) of the range's probability below it."""
        if self.loguniform:
            return self.low * math.exp(quantile * math.log(self.high / self.low))
        return self.low + quantile * (self.high - self.low)


_Count = Annotated[int, Field(ge=1)]

EPOCHS_OF_MINUTES = 2  # into which a budget of minutes is cut: different images teach more than the same again

# What `training` may say for all trials, and `search.space` try: all but what is said elsewhere, and in the space but
# the precision, in which trials of one arm would have losses that do not compare.
_TRAINING: dict[str, Any] = {
    name: hint
    for name, hint in get_type_hints(Hyperparameters, include_extras=True).items()
    if name not in ("epochs", "seed")
}
_DEFAULTS = {
    field.name: field.default
    for field in fields(Hyperparameters)
    if field.name in _TRAINING and field.default is not MISSING
}
_SEARCHABLE = {name: hint for name, hint in _TRAINING.items() if name != "precision"}


def _searched(hint: Any) -> Any:
    """The type of what is searched: a list of values or, for a float, a range."""
    choices = Annotated[list[hint], Field(min_length=1)]
    return choices | Range | None if get_args(hint)[0] is float else choices | None


def _section(name: str, hints: Mapping[str, Any]) -> Any:
    keys: dict[str, Any] = {key: (hint, None) for key, hint in hints.items()}
    return pydantic.create_model(name, __base__=_Section, **keys)


_Training: Any = _section("_Training", {name: hint | None for name, hint in _TRAINING.items()})
_Space: Any = _section("_Space", {name: _searched(hint) for name, hint in _SEARCHABLE.items()})


class Search(_Section):
    """What is tuned inside an arm, by the loss on the tuning split."""

    method: Literal["random", "quasirandom", "grid", "optuna"]
    trials_per_arm: _Count | None = None  # null for a grid, whose product says it
    space: _Space = _Space()

    def values(self) -> dict[str, list[Any] | Range]:
        """What is tried for each searched hyperparameter."""
        return {name: value for name in _SEARCHABLE if (value := getattr(self.space, name)) is not None}


class EarlyStopping(_Section):
    """Successive halving within each arm: at each rung only the best 1/reduction_factor of its trials go on."""

    grace_epochs: _Count
    reduction_factor: Annotated[float, Field(gt=1)]


class Resources(_Section):
    """What one trial may use. `gpu: auto` is a share of a GPU where there are any, and none elsewhere."""

    cpu: _Count = 1
    gpu: Literal["auto"] | Share | Annotated[int, Field(ge=0)] = "auto"  # per trial: a share of one, or whole ones
    max_concurrent: _Count | None = None


class Samples(_Section):
    images: Annotated[int, Field(ge=0)] = 60  # validation pictures stored for each finished trial; a study asks 50


class Failures(_Section):
    max_retries: Annotated[int, Field(ge=0)] = 1


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


_Source = Annotated[str, Field(pattern=f"^({'|'.join(KNOWN_NAMES)}|folder:.+)$")]
_ARMS = pydantic.TypeAdapter(Annotated[dict[str, ArmOptions], Field(min_length=1)], config=_STRICT)


def _arms(value: object, info: ValidationInfo) -> dict[str, ArmOptions]:
    # As JSON, since from Python's objects pydantic is either lax with numbers or refuses dictionaries for dataclasses.
    plain = to_json(value, inf_nan_mode="constants", fallback=str)
    return _ARMS.validate_json(plain, extra=(info.context or {}).get("extra"))


class SweepConfig(_Section):
    experiment: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,79}$")]  # also a folder's name
    dataset: Annotated[
        list[_Source], Field(min_length=1), BeforeValidator(_as_list)
    ]  # the first that can be had is used
    train_images: _Count | None = None  # null: all
    tuning_images: _Count | None = None  # null: as many as validation has, at most a tenth of the training split
    validation_images: _Count | None = None
    epochs: _Count
    minutes: Annotated[float, Field(gt=0)] | None = None  # of the whole sweep here: it decides train_images and epochs
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    arms: Annotated[dict[str, ArmOptions], BeforeValidator(_arms)]
    training: _Training = _Training()
    search: Search
    replicates: Annotated[int, Field(ge=0)] = 0  # of each arm's best trial, after the search, with further seeds
    early_stopping: EarlyStopping | None = None
    resources: Resources = Resources()
    samples: Samples = Samples()
    failures: Failures = Failures()
    jury: bool = False  # whether a machine judges the pictures before the study opens, see `platform.jury`
    participants: _Count = 30  # planned, of the study that the finished sweep opens

    def fixed(self) -> dict[str, Any]:
        """The hyperparameters that are the same for every trial, defaults included (but epochs and seed)."""
        given = self.training.model_dump(exclude_none=True)
        return {name: value for name, value in (_DEFAULTS | given).items() if name not in self.search.values()}

    @pydantic.field_serializer("training")
    def _resolved(self, training: Any) -> dict[str, Any]:
        return self.fixed()  # a record says what a training was, whatever the defaults are by then


class ConfigFile(NamedTuple):
    config: SweepConfig
    text: str  # of the file, without what was set beside it


# Which arms have a use for an option; a rendering of a regression has none for any.
_USED_BY = {
    **dict.fromkeys(("rebalancing", "palette", "soft_label_sigma", "prior"), ("classification",)),
    **dict.fromkeys(("adversarial", "critic"), ("classification", "regression")),
    **dict.fromkeys(("decoding", "temperature"), ("classification", "rendering of a classification")),
    "tilt": ("rendering of a classification",),
}
_DEFAULT_OPTIONS = vars(ArmOptions())


def find_arm_mistakes(arms: Mapping[str, ArmOptions]) -> Iterator[tuple[str, str | None, str]]:
    """What is wrong with arms whose options are each right: the arm, the option (None: its name, or all) and why."""
    trained = trained_arms(arms)
    for name, options in arms.items():
        if name in BASELINES:
            yield name, None, "is the name of a baseline, which every experiment has: choose another"
        elif not name.strip() or len(name) > 80 or not name.isprintable():
            yield name, None, "expected a name of 1 to 80 printable characters, without line breaks"
        if (options.kind in get_args(Trained)) == (options.renders is not None):
            yield name, None, f"expected either `kind` ({' or '.join(get_args(Trained))}) or `renders`"
        elif options.renders is not None and options.renders not in trained:
            found = f"found {shown(options.renders)}{nearest(options.renders, trained)}"
            yield name, "renders", f"expected the name of an arm that is trained, {found}"
        else:
            what = options.kind or f"rendering of a {arms[str(options.renders)].kind}"
            for option, message in _find_useless_options(options, what):
                yield name, option, message


def _find_useless_options(options: ArmOptions, what: str) -> Iterator[tuple[str, str]]:
    """Options that are set, but that such an arm has no use for."""
    for option, users in _USED_BY.items():
        if getattr(options, option) == _DEFAULT_OPTIONS[option]:
            continue
        if what not in users:
            yield option, f"means nothing for a {what}, but for a {' or a '.join(users)}: remove it"
        elif option == "temperature" and options.decoding != "annealed_mean":
            yield option, "is of the annealed mean: remove it, or the other `decoding`"
        elif option == "adversarial" and options.decoding == "mode":
            yield option, "needs a decoding that learns from the critic: annealed_mean or mean"
        elif option == "critic" and options.adversarial == 0:
            yield option, "belongs to an adversarial training: give the arm `adversarial`, or remove it"


def _find_disagreements(config: SweepConfig) -> Iterator[tuple[Key, str]]:
    """What is wrong between sections that are each right."""
    for name, option, message in find_arm_mistakes(config.arms):
        yield ("arms", name) if option is None else ("arms", name, option), message
    given, searched, search = config.training.model_dump(exclude_none=True), config.search.values(), config.search
    for name, value in searched.items():
        if name in given:
            yield ("search", "space", name), "has a value under `training` too: keep one of the two"
        if search.method == "grid" and isinstance(value, Range):
            yield ("search", "space", name), "expected a list of values, as every one of a grid is tried; found a range"
    if "learning_rate" not in given and "learning_rate" not in searched:
        yield ("training", "learning_rate"), "is missing: give its value here, or values to try under `search.space`"
    if search.method == "grid" and search.trials_per_arm is not None:
        yield ("search", "trials_per_arm"), "does not go with `method: grid`, whose lists say how many: remove it"
    if search.method != "grid" and search.trials_per_arm is None:
        yield ("search", "trials_per_arm"), "is missing: say how many trials each arm gets"
    if search.method == "optuna" and not searched:
        yield ("search", "space"), "is empty, so Optuna has nothing to search: name a hyperparameter, or use `random`"
    if config.early_stopping and config.early_stopping.grace_epochs > config.epochs:
        message = f"expected at most the {config.epochs} epochs of a trial, found {config.early_stopping.grace_epochs}"
        yield ("early_stopping", "grace_epochs"), message


# What may be told anew when a sweep goes on: where it runs, by which name its data are found (which are known by their
# fingerprint), and what holds for the next study that is opened.
MAY_CHANGE = {"resources", "failures", "dataset", "participants"}


def changes_between(old: dict[str, Any], config: SweepConfig) -> list[str]:
    """What a recorded config and this one, as it is told, disagree about, but for what may change. What there was no
    key for then had today's default."""
    with suppress(pydantic.ValidationError):  # else it has keys that are gone: they are among the changes
        old = SweepConfig.model_validate(old).model_dump(mode="json")
    same = set(MAY_CHANGE)
    if config.minutes is not None and old.get("minutes") is not None:
        same |= {"train_images", "epochs"}  # which were worked out at the start
    before, now = _flat(old), _flat(config.model_dump(mode="json"))
    keys = sorted(key for key in before.keys() | now.keys() if key.split(".")[0] not in same)
    return [f"{key} was {before.get(key)} and is {now.get(key)}" for key in keys if before.get(key) != now.get(key)]


def recorded_config(recorded: Mapping[str, Any]) -> SweepConfig:
    """The config of an experiment's row, to be shown: keys that there are no more are left out."""
    return SweepConfig.model_validate(recorded, extra="ignore", context={"extra": "ignore"})


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in values.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value})
    return flat


# From a file to a config


def read_config(path: Path, settings: Sequence[str] = ()) -> ConfigFile:
    """The sweep that `path` describes. All mistakes are raised together, as one ConfigError.

    `settings` are "key=value" with YAML values (`training.batch_size=32`, `arms."rebalanced 0.25".rebalancing=0.3`),
    laid over the file. One of `minutes` displaces its `train_images` and `epochs`, and the other way round.
    """
    text = read_text(path)
    data, places = read_yaml(text, str(path))
    if not isinstance(data, dict):
        raise ConfigError([Mistake(Place(str(path)), (), f"expected keys and values, found {shown(data)}")])
    for setting in settings:
        key, value = _read_setting(setting)
        if value is not None:
            data = {name: old for name, old in data.items() if name not in _DISPLACED.get(key, ())}
        data = _lay_over(data, key, value)
        places = {known: place for known, place in places.items() if known[: len(key)] != key}
        for length in range(1, len(key) + 1):
            places.setdefault(key[:length], Place(f"--set {setting}"))
    if data.get("minutes") is not None:
        if doubled := [name for name in ("train_images", "epochs") if data.get(name) is not None]:
            message = "follows from `minutes`: keep one of the two"
            raise ConfigError([place_mistake((name,), message, places) for name in doubled])
        data = data | {"epochs": EPOCHS_OF_MINUTES}
    return ConfigFile(check_config(data, places), text)


def check_config(data: Mapping[str, Any], places: Mapping[Key, Place]) -> SweepConfig:
    """The config of plain values, of which some stand in these places. Raises ConfigError, of all mistakes together."""
    try:
        config = SweepConfig.model_validate(data)
        wrong = list(_find_disagreements(config))
    except pydantic.ValidationError as error:
        schema = SweepConfig.model_json_schema()
        known = [key for section in (schema, *schema["$defs"].values()) for key in section.get("properties", ())]
        wrong = list(explain_errors(error, data, known))
    if wrong:
        raise ConfigError([place_mistake(key, message, places) for key, message in wrong])
    return config


_DISPLACED: dict[Key, tuple[str, ...]] = {
    ("minutes",): ("train_images", "epochs"),
    ("train_images",): ("minutes",),
    ("epochs",): ("minutes",),
}


def _read_setting(setting: str) -> tuple[Key, Any]:
    """Its key and value."""
    place = f"--set {setting}"
    match = re.fullmatch(r"""((?:"[^"]+"|[^".=]+)(?:\.(?:"[^"]+"|[^".=]+))*)=(.*)""", setting, re.DOTALL)
    if match is None:
        message = "expected key=value, as in --set training.batch_size=32"
        raise ConfigError([Mistake(Place(place), (), message)])
    key = tuple(part.strip('"') for part in re.findall(r'"[^"]+"|[^".]+', match[1]))
    return key, read_yaml(match[2], place)[0]


def _lay_over(data: Mapping[str, Any], key: Key, value: Any) -> dict[str, Any]:
    """The data with this value at the key; of sections on the way all else stays."""
    if len(key) > 1:
        inner = data.get(str(key[0]))
        value = _lay_over(inner if isinstance(inner, dict) else {}, key[1:], value)
    return {**data, str(key[0]): value}
