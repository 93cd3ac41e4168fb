"""One YAML file is one typed `SweepConfig`; every mistake in it is named with its line, its key and its mend.

    file = read_config(Path("tune_configs/rebalance.yaml"), settings=["epochs=3"])  # or raises ConfigError
    config = file.configs["gpu"]  # as on hardware with a GPU: the file's profile for it laid over the rest

YAML is read by the core schema of YAML 1.2 (`1e-3` is a number, `no` a text, `010` ten), and keys are always text.
"""

import difflib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args

import pydantic
import yaml
from pydantic import BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from platform.datasets import KNOWN_NAMES

Hardware = Literal["cpu", "gpu"]
Key = tuple[str | int, ...]  # ("search", "space", "optimizer", 0)
Place = tuple[str, int | None, Key]  # the source and the line of a value, and its key there

BASELINE_ARMS = ("most frequent bin", "grey")  # in every experiment, so no arm of a config may bear their names
_SOURCES = (*KNOWN_NAMES, "folder:PATH")


class Mistake(NamedTuple):
    source: str  # the file's path, or "--set epochs=x"
    line: int | None
    key: str  # "search.space.learning_rate", or "" for the file as a whole
    message: str

    def __str__(self) -> str:
        place = self.source if self.line is None else f"{self.source}, line {self.line}"
        return f"{place}: {self.key}: {self.message}" if self.key else f"{place}: {self.message}"


class ConfigError(Exception):
    """A config cannot be used; its text has one line for each mistake."""

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        self.mistakes = sorted(dict.fromkeys(mistakes), key=lambda mistake: (mistake.source, mistake.line or 0))
        super().__init__("\n".join(str(mistake) for mistake in self.mistakes))


# The shape of a config


class _Section(pydantic.BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def _mistake(message: str) -> PydanticCustomError:
    return PydanticCustomError("mistake", "{message}", {"message": message})


class Arm(_Section):
    """What people compare: the kind of model and its rebalancing (the paper's lambda; 1 is plain classification)."""

    kind: Literal["regression", "classification"]
    rebalancing: Annotated[float, Field(ge=0, le=1)] | None = None

    @pydantic.model_validator(mode="after")
    def _regression_is_not_rebalanced(self) -> "Arm":
        if self.kind == "regression" and self.rebalancing is not None:
            raise _mistake("regression has no bins to rebalance: remove `rebalancing`, or set `kind: classification`")
        return self


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
        if self.low < 0 or (self.log and self.low == 0):
            raise _mistake(f"expected a low end {'above 0' if self.log else 'of at least 0'}, found {self.low}")
        return self

    @property
    def log(self) -> bool:
        return self.loguniform is not None

    @property
    def low(self) -> float:
        return (self.loguniform or self.uniform or [])[0]

    @property
    def high(self) -> float:
        return (self.loguniform or self.uniform or [])[1]

    def at(self, quantile: float) -> float:
        """The value with the share `quantile` (0 to 1) of the range's probability below it."""
        if self.log:
            return self.low * math.exp(quantile * math.log(self.high / self.low))
        return self.low + quantile * (self.high - self.low)


_Positive = Annotated[float, Field(gt=0)]
_Count = Annotated[int, Field(ge=1)]

# The fields of `training.Run` that are the same for every arm, or searched within each arm.
_SEARCHABLE: dict[str, Any] = {
    "learning_rate": _Positive,
    "optimizer": Literal["sgd", "adam", "adamw", "rmsprop"],
    "weight_decay": Annotated[float, Field(ge=0)],
    "schedule": Literal["cosine", "one_cycle"],
    "batch_size": _Count,
    "filter_size": Literal[3, 5, 7],
    "width": _Count,
    "depth": Annotated[int, Field(ge=1, le=5)],  # each level halves pictures of 32 pixels
}
# These say what the loss and the scores mean, so trials that differ in them could not be compared by validation loss.
_FIXED: dict[str, Any] = {
    "soft_label_sigma": _Positive,
    "bins": Literal["reachable", "grid"],
    "decoding": Literal["mode", "mean", "annealed_mean"],
    "precision": Literal["auto", "float32", "bfloat16"],
}


def _searched(value_type: Any) -> Any:
    """The type of what is searched: a list of values or, for a float, a range."""
    choices = Annotated[list[value_type], Field(min_length=1)]
    if get_args(value_type)[0] is not float:
        return choices
    return Annotated[
        Annotated[choices, pydantic.Tag("choices")] | Annotated[Range, pydantic.Tag("range")],
        pydantic.Discriminator(lambda value: "range" if isinstance(value, dict | Range) else "choices"),
    ]


_Training: Any = pydantic.create_model(
    "_Training",
    __base__=_Section,
    **{name: (kind | None, None) for name, kind in _SEARCHABLE.items()},
    **{name: (kind, ...) for name, kind in _FIXED.items()},  # type: ignore[call-overload]
)
_Space: Any = pydantic.create_model(
    "_Space",
    __base__=_Section,
    **{name: (_searched(kind) | None, None) for name, kind in _SEARCHABLE.items()},  # type: ignore[call-overload]
)


class Search(_Section):
    """What is tuned inside an arm, by validation loss."""

    method: Literal["random", "quasirandom", "grid", "optuna"]
    trials_per_arm: _Count | None = None  # null for a grid, whose product says it
    space: _Space

    def values(self) -> dict[str, list[Any] | Range]:
        """What is tried for each searched hyperparameter."""
        return {name: value for name in _SEARCHABLE if (value := getattr(self.space, name)) is not None}


class EarlyStopping(_Section):
    """ASHA within each arm: at each rung only the best 1/reduction_factor of an arm's trials go on."""

    grace_epochs: _Count
    reduction_factor: Annotated[float, Field(gt=1)]


def _gpus(value: object) -> object:
    if value == "auto":
        return value
    if isinstance(value, int | float) and not isinstance(value, bool) and (0 <= value <= 1 or value == value // 1 > 0):
        return float(value)
    raise _mistake(f"expected auto, or GPUs a trial (a share from 0 to 1, or a whole number), found {_shown(value)}")


class Resources(_Section):
    """What one trial may use. `gpu: auto` is a share of a GPU where there are any, and none elsewhere."""

    cpu: _Count = 1
    gpu: Annotated[Any, BeforeValidator(_gpus)] = "auto"
    max_concurrent: _Count | None = None


class Samples(_Section):
    images: Annotated[int, Field(ge=0)] = 60  # validation pictures stored for each finished trial; a study asks 50


class Failures(_Section):
    max_retries: Annotated[int, Field(ge=0)] = 1


def _sources(value: object) -> object:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise _mistake(f"expected one or more of {', '.join(_SOURCES)}, found {_shown(value)}")
    for name in names:
        if name not in _SOURCES[:-1] and not re.fullmatch("folder:.+", name):
            expected = f"expected one or more of {', '.join(_SOURCES)}"
            raise _mistake(f"{expected}, found {_shown(name)}{_nearest(name, _SOURCES)}")
    return names


class SweepConfig(_Section):
    experiment: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,79}$")]  # also a folder's name
    dataset: Annotated[list[str], BeforeValidator(_sources)]  # the first that can be had is used
    train_images: _Count | None = None  # null: all
    validation_images: _Count | None = None
    epochs: _Count
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    arms: Annotated[dict[str, Arm], Field(min_length=1)]
    training: _Training
    search: Search
    early_stopping: EarlyStopping | None = None
    resources: Resources = Resources()
    samples: Samples = Samples()
    failures: Failures = Failures()

    def fixed(self) -> dict[str, Any]:
        """The hyperparameters that are the same for every trial."""
        return self.training.model_dump(exclude_none=True)  # type: ignore[no-any-return]


class ConfigFile(NamedTuple):
    text: str
    configs: dict[Hardware, SweepConfig]  # as on a machine without a GPU and as on one with
    profiles: tuple[Hardware, ...]  # those that the file has


def _disagreements(config: SweepConfig) -> Iterator[tuple[Key, str]]:
    """What is wrong between sections that are each right."""
    for name in config.arms:
        if name in BASELINE_ARMS:
            yield ("arms", name), "is the name of a baseline, which every experiment has: choose another"
    fixed, searched = config.fixed(), config.search.values()
    for name in _SEARCHABLE:
        if name in fixed and name in searched:
            yield ("search", "space", name), "has a value under `training` too: keep one of the two"
        if name not in fixed and name not in searched:
            yield ("training", name), "is missing: give its value here, or values to try under `search.space`"
        if config.search.method == "grid" and isinstance(searched.get(name), Range):
            yield ("search", "space", name), "expected a list of values, as every one of a grid is tried; found a range"
    if config.search.method == "grid" and config.search.trials_per_arm is not None:
        yield ("search", "trials_per_arm"), "does not go with `method: grid`, whose lists say how many: remove it"
    if config.search.method != "grid" and config.search.trials_per_arm is None:
        yield ("search", "trials_per_arm"), "is missing: say how many trials each arm gets"
    if config.search.method == "optuna" and not searched:
        yield ("search", "space"), "is empty, so Optuna has nothing to search: name a hyperparameter, or use `random`"
    if config.early_stopping and config.early_stopping.grace_epochs > config.epochs:
        message = f"expected at most the {config.epochs} epochs of a trial, found {config.early_stopping.grace_epochs}"
        yield ("early_stopping", "grace_epochs"), message


# From a file to a config

_PROFILES = pydantic.TypeAdapter(dict[Hardware, dict[str, Any]], config=ConfigDict(strict=True))


def read_config(path: Path, settings: Sequence[str] = ()) -> ConfigFile:
    """The sweep that `path` describes. All the mistakes of all its profiles are raised together as one ConfigError.

    `settings` are "key=value" with YAML values (`training.batch_size=32`, `arms."rebalanced 0.25".rebalancing=0.3`),
    laid over the file and its profiles.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        mistake = Mistake(str(path), None, "", f"cannot be read ({error.strerror}): give the path of a YAML file")
        raise ConfigError([mistake]) from None
    except UnicodeDecodeError as error:
        raise ConfigError([Mistake(str(path), None, "", f"is not UTF-8 text (byte {error.start})")]) from None
    data, lines, mistakes = _read_yaml(text, str(path))
    if not isinstance(data, dict):
        raise ConfigError(mistakes or [Mistake(str(path), None, "", f"expected keys and values, found {_shown(data)}")])
    changes = []
    for setting in settings:
        change, found = _read_setting(setting)
        mistakes += found
        changes += [change] if change else []

    profiles = data.pop("profiles", None) or {}
    places: dict[Key, Place] = {key: (str(path), line, key) for key, line in lines.items()}
    try:
        _PROFILES.validate_python(profiles)
    except pydantic.ValidationError as error:
        mistakes += [_at(("profiles", *key), message, places) for key, message in _messages(error, profiles)]
        raise ConfigError(mistakes) from None
    configs: dict[Hardware, SweepConfig] = {}
    for hardware in get_args(Hardware):
        merged = _merged(data, profiles.get(hardware, {}))
        merged_places = places | {
            key[2:]: place for key, place in places.items() if key[:2] == ("profiles", hardware) and key[2:]
        }
        for key, value, setting in changes:
            merged = _changed(merged, key, value)
            merged_places = {known: place for known, place in merged_places.items() if known[: len(key)] != key}
            for length in range(1, len(key) + 1):
                merged_places.setdefault(key[:length], (f"--set {setting}", None, key[:length]))
        try:
            configs[hardware] = SweepConfig.model_validate(merged)
            found_here = list(_disagreements(configs[hardware]))
        except pydantic.ValidationError as error:
            found_here = list(_messages(error, merged))
        mistakes += [_at(key, message, merged_places) for key, message in found_here]
    if mistakes:
        raise ConfigError(mistakes)
    return ConfigFile(text, configs, tuple(profiles))


def _merged(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid over `base`: sections are merged, values and lists replaced."""
    result = dict(base)
    for key, value in over.items():
        old = base.get(key)
        result[key] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


def _changed(data: Mapping[str, Any], key: Key, value: Any) -> dict[str, Any]:
    if len(key) == 1:
        return {**data, str(key[0]): value}
    inner = data.get(str(key[0]))
    return {**data, str(key[0]): _changed(inner if isinstance(inner, dict) else {}, key[1:], value)}


def _read_setting(setting: str) -> tuple[tuple[Key, Any, str] | None, list[Mistake]]:
    place = f"--set {setting}"
    match = re.fullmatch(r"""((?:"[^"]+"|[^".=]+)(?:\.(?:"[^"]+"|[^".=]+))*)=(.*)""", setting, re.DOTALL)
    if match is None:
        return None, [Mistake(place, None, "", "expected key=value, as in --set training.batch_size=32")]
    key = tuple(part.strip('"') for part in re.findall(r'"[^"]+"|[^".]+', match[1]))
    if key[0] == "profiles":
        message = "a setting goes over every profile: give the key without its profile"
        return None, [Mistake(place, None, "profiles", message)]
    value, _, mistakes = _read_yaml(match[2], place)
    return None if mistakes else (key, value, setting), mistakes


# Reading YAML with line numbers


class _Loader(yaml.SafeLoader):
    """YAML 1.2's idea of numbers, truth values and texts, and no aliases (a config spells everything out)."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  (PyYAML's own way)

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "aliases (*name) are not used in configs: write it out", mark)
        return super().compose_node(parent, index)


_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^(?:~|null|)$"), ["~", "n", ""])
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|false)$"), ["t", "f"])
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?[0-9]+$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$"),
    list("-+.0123456789"),
)
_Loader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(node.value))


def _read_yaml(text: str, source: str) -> tuple[Any, dict[Key, int], list[Mistake]]:
    """The data, the line of each key, and what is wrong with it as YAML (the data is None where that is everything)."""
    lines: dict[Key, int] = {}
    mistakes: list[Mistake] = []

    def build(loader: _Loader, node: yaml.Node, key: Key) -> Any:
        line = node.start_mark.line + 1
        lines.setdefault(key, line)
        if isinstance(node, yaml.MappingNode):
            result: dict[str, Any] = {}
            for key_node, value_node in node.value:
                name = str(key_node.value)
                key_line = key_node.start_mark.line + 1
                if not isinstance(key_node, yaml.ScalarNode):
                    mistakes.append(Mistake(source, key_line, _dotted(key), "expected keys that are texts"))
                elif name in result:
                    message = f"stands here twice (first in line {lines[(*key, name)]}): keep one"
                    mistakes.append(Mistake(source, key_line, _dotted((*key, name)), message))
                else:
                    lines[(*key, name)] = key_line
                    result[name] = build(loader, value_node, (*key, name))
            return result
        if isinstance(node, yaml.SequenceNode):
            return [build(loader, item, (*key, index)) for index, item in enumerate(node.value)]
        return loader.construct_object(node)

    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        data = build(loader, node, ()) if node is not None else None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        mistakes.append(Mistake(source, line, "", f"is not valid YAML: {error.problem}"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mistakes.append(Mistake(source, None, "", f"is not valid YAML: {str(error).splitlines()[0]}"))
    else:
        return data, lines, mistakes
    return None, lines, mistakes


# Saying what is wrong

_EXPECTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "string_type": "a text",
    "list_type": "a list",
    "dict_type": "keys and values",
    "model_type": "keys and values",
    "finite_number": "a finite number",
    "greater_than": "a number above {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "a number below {lt}",
    "less_than_equal": "at most {le}",
    "too_short": "at least {min_length} of them",
    "too_long": "at most {max_length} of them",
    "literal_error": "{expected}",
    "string_pattern_mismatch": "at most 80 letters, digits, spaces, `.`, `_` and `-`, the first a letter or digit",
}


def _messages(error: pydantic.ValidationError, data: Any) -> Iterator[tuple[Key, str]]:
    """A key and a sentence for each thing that pydantic found wrong with `data`."""
    for details in error.errors():
        kind, found, context = details["type"], details["input"], details.get("ctx", {})
        key = _key_in(data, details["loc"], kind)
        if kind == "extra_forbidden":
            known = _known_keys(key)
            message = f"unknown key{_nearest(str(key[-1]), known)} (known here: {', '.join(known)})"
        elif kind == "missing":
            message = "is missing"
        elif kind in _EXPECTED:
            choices = re.findall("'([^']*)'", str(context.get("expected", "")))
            message = f"expected {_EXPECTED[kind].format(**context)}, found {_shown(found)}{_nearest(found, choices)}"
            if kind == "int_type" and isinstance(found, float) and found.is_integer():
                message += f"; write {int(found)}"
        else:
            message = details["msg"]
        yield key, message


def _key_in(data: Any, location: Sequence[str | int], kind: str) -> Key:
    """Pydantic's location without the names of its union's branches."""
    key: list[str | int] = []
    for position, element in enumerate(location):
        items = data if isinstance(data, dict) else dict(enumerate(data)) if isinstance(data, list) else {}
        if element in items:
            data = items[element]
            key.append(element)
        elif kind == "missing" and position == len(location) - 1:
            key.append(element)
    return tuple(key)


def _known_keys(key: Key) -> list[str]:
    """The keys of the section that `key` stands in."""
    section: type[pydantic.BaseModel] = SweepConfig
    for element in key[:-1]:
        field = section.model_fields.get(str(element))
        if field is not None:  # else it is an arm's name
            section = next(_sections(field.annotation), section)
    return [*section.model_fields, *(["profiles"] if section is SweepConfig and len(key) == 1 else [])]


def _sections(annotation: Any) -> Iterator[type[pydantic.BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _sections(argument)


def _at(key: Key, message: str, places: Mapping[Key, Place]) -> Mistake:
    """The mistake, placed by the longest part of its key that stands in the file or in a --set."""
    known = next((key[:length] for length in range(len(key), 0, -1) if key[:length] in places), ())
    source, line, full_key = places[known]
    return Mistake(source, line if known else None, _dotted((*full_key, *key[len(known) :])), message)


def _nearest(found: object, choices: Sequence[str]) -> str:
    close = difflib.get_close_matches(found, choices, n=1) if isinstance(found, str) else []
    return f"; did you mean `{close[0]}`?" if close else ""


def _dotted(key: Key) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{_quoted(part)}" for part in key)
    return text.removeprefix(".")


def _quoted(part: str) -> str:
    return f'"{part}"' if "." in part else part


def _shown(value: object) -> str:
    text = "nothing" if value is None else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."


def changes_between(old: dict[str, Any], config: SweepConfig) -> list[str]:
    """What a recorded config and this one disagree about, but for what may change: where it runs, and the name of the
    data, which are known by their fingerprint."""
    before, now = _flat(old), _flat(config.model_dump(mode="json"))
    keys = sorted(key for key in before.keys() | now.keys() if key.split(".")[0] not in ("resources", "dataset"))
    return [f"{key} was {before.get(key)} and is {now.get(key)}" for key in keys if before.get(key) != now.get(key)]


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in values.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value})
    return flat
