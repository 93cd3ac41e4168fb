"""Reads YAML 1.2 with the line of every key, and says what is wrong with it: where in ruamel's lines, what in
pydantic's words."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pydantic
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from db.errors import UserError, nearest

Key = tuple[str | int, ...]  # ("search", "space", "optimizer", 0)


class Place(NamedTuple):
    source: str  # the file's path, or "--set epochs=x"
    line: int | None = None


class Mistake(NamedTuple):
    place: Place
    key: Key  # () for the file as a whole
    message: str

    def __str__(self) -> str:
        source, line = self.place
        sentence = f"{dotted(self.key)}: {self.message}" if self.key else self.message
        return f"{source}: {sentence}" if line is None else f"{source}, line {line}: {sentence}"


class ConfigError(UserError):
    """A config cannot be used; its text has one line for each mistake."""

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        in_order = sorted(mistakes, key=lambda mistake: (mistake.place.source, mistake.place.line or 0))
        super().__init__("\n".join(map(str, in_order)))


def read_text(path: Path) -> str:
    """The text of a UTF-8 file. Raises ConfigError if there is none."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        message = f"cannot be read ({error.strerror}): give the path of a YAML file"
    except UnicodeDecodeError:
        message = "is not UTF-8 text: save it as UTF-8"
    raise ConfigError([Mistake(Place(str(path)), (), message)])


def read_yaml(text: str, source: str) -> tuple[Any, dict[Key, Place]]:
    """The data, and the place of each key in it. Raises ConfigError for what is no YAML, for a key that stands there
    twice, and for anchors, by which a short text can make an endless one."""
    yaml: Any = YAML(typ="safe", pure=True)
    line: int | None = None
    try:
        places = {key: Place(source, line) for key, line in _find_lines(yaml.compose(text))}
        return yaml.load(text), places
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        problem = str(error.problem).replace(r"character '\t'", "a tab instead of spaces, a character")
    except (YAMLError, ValueError, RecursionError) as error:
        problem = str(error).splitlines()[0]
    raise ConfigError([Mistake(Place(source, line), (), f"is not valid YAML: {problem}")])


def _find_lines(node: Node | None, key: Key = ()) -> Iterator[tuple[Key, int]]:
    """Every key of a node, and its line."""
    if node is not None and node.anchor:
        problem = "anchors and aliases (&name, *name) are not used in configs: write it out"
        raise MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
    if isinstance(node, SequenceNode):
        for index, item in enumerate(node.value):
            yield (*key, index), item.start_mark.line + 1
            yield from _find_lines(item, (*key, index))
    elif isinstance(node, MappingNode):
        for name, value in node.value:
            inner = (*key, str(name.value) if isinstance(name, ScalarNode) else "?")
            yield inner, name.start_mark.line + 1
            yield from _find_lines(value, inner)


def place_mistake(key: Key, message: str, places: Mapping[Key, Place]) -> Mistake:
    """The mistake where the longest part of its key stands in the file or in a --set."""
    known = next((key[:length] for length in range(len(key), 0, -1) if key[:length] in places), ())
    return Mistake(places.get(known, Place(next(iter(places.values())).source)), key, message)


def explain_errors(error: pydantic.ValidationError, data: Any, known: Sequence[str]) -> Iterator[tuple[Key, str]]:
    """A key and a sentence for each thing that pydantic found wrong with `data`. known: all keys there are."""
    for key, details in _choose_branches(error, data):
        words, found = details["msg"], details["input"]
        match details["type"]:
            case "extra_forbidden" | "unexpected_keyword_argument":
                yield key, f"unknown key{nearest(key[-1], known)}"
            case "missing":
                yield key, "is missing"
            case "mistake":  # in our own words
                yield key, words
            case "model_type" | "dataclass_type" | "dict_type":
                yield key, f"expected keys and values, found {shown(found)}"
            case _:
                choices = re.findall("'([^']*)'", words)
                yield key, f"{words.removeprefix('Input ')}, found {shown(found)}{nearest(found, choices)}"


def _choose_branches(error: pydantic.ValidationError, data: Any) -> Iterator[tuple[Key, Any]]:
    """The errors with their keys. Pydantic says what is wrong with every branch of a union: of those this is the one of
    which the value has the form, and the fewest errors."""
    unions: dict[Key, dict[Key, list[tuple[Key, Any]]]] = {}
    for details in error.errors():
        key, branch = _split_location(data, details)
        unions.setdefault(branch[:-1], {}).setdefault(branch, []).append((key, details))
    for branches in unions.values():
        misfits = {
            branch: any(details["type"] != "mistake" and details["loc"] == branch for _, details in found)
            for branch, found in branches.items()
        }
        yield from branches[min(branches, key=lambda branch: (misfits[branch], len(branches[branch])))]


def _split_location(data: Any, details: Any) -> tuple[Key, Key]:
    """Pydantic's location without the names of unions' branches, and its beginning up to the last of these names."""
    location, key, branch = details["loc"], [], ()
    for position, element in enumerate(location):
        items = data if isinstance(data, dict) else dict(enumerate(data)) if isinstance(data, list) else {}
        if element in items or (details["type"] == "missing" and position == len(location) - 1):
            data = items.get(element)
            key.append(element)
        else:
            branch = location[: position + 1]
    return tuple(key), branch


def dotted(key: Key) -> str:
    """As it is written: `arms."rebalanced 0.25".rebalancing`, `search.space.optimizer[1]`."""
    quoted = (
        f'."{part}"' if "." in str(part) else f"[{part}]" if isinstance(part, int) else f".{part}" for part in key
    )
    return "".join(quoted).removeprefix(".")


def shown(value: object) -> str:
    text = "nothing" if value is None else json.dumps(value, ensure_ascii=False, default=str, skipkeys=True)
    return text if len(text) <= 60 else f"{text[:57]}..."
