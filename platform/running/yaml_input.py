"""Reads YAML 1.2 with the line of every key, and says what is wrong with it: where in ruamel's lines, what in
pydantic's words."""

import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pydantic
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from db.errors import UserError

Key = tuple[str | int, ...]  # ("search", "space", "optimizer", 0)

# What nobody sees, and web pages put where a space was: it is read as a space or, without a width, not at all.
UNSEEN = dict.fromkeys([0xA0, *range(0x2000, 0x200B), 0x202F, 0x3000], " ") | dict.fromkeys([0x200B, 0x2060, 0xFEFF])


class Place(NamedTuple):
    source: str  # the file's path, or "--set epochs=x"
    line: int | None = None


class Mistake(NamedTuple):
    place: Place
    key: Key  # () for the file as a whole
    message: str

    def __str__(self) -> str:
        source, line = self.place
        said = f"{dotted(self.key)}: {self.message}" if self.key else self.message
        return f"{source}: {said}" if line is None else f"{source}, line {line}: {said}"


class ConfigError(UserError):
    """A config cannot be used; its text has one line for each mistake."""

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        self.mistakes = sorted(mistakes, key=lambda mistake: (mistake.place.source, mistake.place.line or 0))
        super().__init__("\n".join(str(mistake) for mistake in self.mistakes))


def read_text(path: Path) -> str:
    """The text of a UTF-8 file. Raises ConfigError if there is none."""
    try:
        return path.read_text(encoding="utf-8-sig").translate(UNSEEN)
    except OSError as error:
        message = f"cannot be read ({error.strerror}): give the path of a YAML file"
    except UnicodeDecodeError:
        message = "is not UTF-8 text: save it as UTF-8"
    raise ConfigError([Mistake(Place(str(path)), (), message)])


def read_yaml(text: str, source: str) -> tuple[Any, dict[Key, Place]]:
    """The data, and the place of each key in it. Raises ConfigError for what is no YAML, for a key that stands there
    twice, and for aliases, of which a short text can make an endless one."""
    yaml: Any = YAML(typ="safe", pure=True)
    line: int | None = None
    yaml.allow_duplicate_keys = True  # they are all named, below
    try:
        for event in yaml.parse(text):
            if isinstance(event, AliasEvent):
                problem = "aliases (*name) are not used in configs: write it out"
                raise MarkedYAMLError(problem=problem, problem_mark=event.start_mark)
        places: dict[Key, Place] = {}
        twice = []
        for key, line in _lines(yaml.compose(text)):
            if key in places:
                twice.append(Mistake(Place(source, line), key, f"stands here twice, first in line {places[key].line}"))
            places.setdefault(key, Place(source, line))
        if twice:
            raise ConfigError(twice)
        return yaml.load(text), places
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        problem = str(error.problem).replace(r"character '\t'", "a tab instead of spaces, a character")
    except ReaderError as error:
        line, problem = text.count("\n", 0, error.position) + 1, f"it holds U+{error.character:04X}"
    except (YAMLError, ValueError, RecursionError) as error:
        problem = str(error).splitlines()[0]
    raise ConfigError([Mistake(Place(source, line), (), f"is not valid YAML: {problem}")])


def _lines(node: Node | None, key: Key = ()) -> Iterator[tuple[Key, int]]:
    """Every key of a node, and its line."""
    if isinstance(node, SequenceNode):
        for index, item in enumerate(node.value):
            yield (*key, index), item.start_mark.line + 1
            yield from _lines(item, (*key, index))
    elif isinstance(node, MappingNode):
        for name, value in node.value:
            inner = (*key, str(name.value) if isinstance(name, ScalarNode) else "?")
            yield inner, name.start_mark.line + 1
            yield from _lines(value, inner)


def placed(key: Key, message: str, places: Mapping[Key, Place]) -> Mistake:
    """The mistake, placed by the longest part of its key that stands in the file or in a --set."""
    known = next((key[:length] for length in range(len(key), 0, -1) if key[:length] in places), ())
    return Mistake(places.get(known, Place(next(iter(places.values())).source)), key, message)


# What pydantic found

_OF_OTHER_BRANCHES = ("missing", "extra_forbidden", "unexpected_keyword_argument")


def messages(error: pydantic.ValidationError, data: Any, known: Sequence[str]) -> Iterator[tuple[Key, str]]:
    """A key and a sentence for each thing that pydantic found wrong with `data`. known: all keys there are."""
    for key, details in _of_one_branch(error.errors(), data):
        said, found = details["msg"], details["input"]
        if details["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            yield key, f"unknown key{nearest(key[-1], known)}"
        elif details["type"] == "missing":
            yield key, "is missing"
        elif details["type"] == "mistake":  # in our own words
            yield key, said
        elif details["type"] in ("model_type", "dataclass_type", "dict_type"):
            yield key, f"expected keys and values, found {shown(found)}"
        else:
            choices = re.findall("'([^']*)'", said)
            yield key, f"{said.removeprefix('Input ')}, found {shown(found)}{nearest(found, choices)}"


def _of_one_branch(errors: Sequence[Any], data: Any) -> Iterator[tuple[Key, Any]]:
    """The errors with their keys; of a union's, those of the one branch that was meant, by the keys that fit it."""
    unions: dict[Key, dict[Key, list[tuple[Key, Any]]]] = {}
    for details in errors:
        key, branch = _key_and_branch(data, details)
        unions.setdefault(branch[:-1], {}).setdefault(branch, []).append((key, details))

    def misfits(of_branch: tuple[Key, list[tuple[Key, Any]]]) -> tuple[bool, int]:
        branch, found = of_branch
        return (
            any(details["type"] != "mistake" and len(details["loc"]) == len(branch) for _, details in found),
            sum(details["type"] in _OF_OTHER_BRANCHES for _, details in found),
        )

    for branches in unions.values():
        yield from min(branches.items(), key=misfits)[1]


def _key_and_branch(data: Any, details: Any) -> tuple[Key, Key]:
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


def nearest(found: object, choices: Sequence[str]) -> str:
    close = difflib.get_close_matches(found, choices, n=1) if isinstance(found, str) else []
    return f"; did you mean `{close[0]}`?" if close else ""


def dotted(key: Key) -> str:
    """As it is written: `arms."rebalanced 0.25".rebalancing`, `search.space.optimizer[1]`."""
    quoted = (
        f'."{part}"' if "." in str(part) else f"[{part}]" if isinstance(part, int) else f".{part}" for part in key
    )
    return "".join(quoted).removeprefix(".")


def shown(value: object) -> str:
    text = "nothing" if value is None else json.dumps(value, ensure_ascii=False, default=str, skipkeys=True)
    return text if len(text) <= 60 else f"{text[:57]}..."
