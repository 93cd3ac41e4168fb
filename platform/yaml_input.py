"""Reads YAML 1.2 with the line of every key, and says what is wrong with it in sentences for who wrote it."""

import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_type_hints

import pydantic
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from db.errors import UserError

Key = tuple[str | int, ...]  # ("search", "space", "optimizer", 0)
Place = tuple[str, int | None, Key]  # the source and the line of a value, and its key there

# Spaces that are none for YAML, and what nobody sees, outside quotes and comments. Emoji and scripts need joiners
# (U+200C, U+200D): these are odd beside ASCII only.
_ODD = (
    "[\u00a0\u00ad\u1680\u180e\u2000-\u200b\u200e\u200f\u202a-\u202f\u205f-\u2069\u3000\ufeff]|(?<=[ -~])[\u200c\u200d]"
)
ODD_SPACE = re.compile(f"""^(?:"[^"\n]*"|'[^'\n]*'|(?!{_ODD})[^#"'\n])*({_ODD})""", re.MULTILINE)


class Mistake(NamedTuple):
    source: str  # the file's path, or "--set epochs=x"
    line: int | None
    key: str  # "search.space.learning_rate", or "" for the file as a whole
    message: str

    def __str__(self) -> str:
        place = self.source if self.line is None else f"{self.source}, line {self.line}"
        return f"{place}: {self.key}: {self.message}" if self.key else f"{place}: {self.message}"


class ConfigError(UserError):
    """A config cannot be used; its text has one line for each mistake."""

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        self.mistakes = sorted(dict.fromkeys(mistakes), key=lambda mistake: (mistake.source, mistake.line or 0))
        super().__init__("\n".join(str(mistake) for mistake in self.mistakes))


def read_text(path: Path) -> str:
    """The text of a UTF-8 file. Raises ConfigError if there is none."""
    line = None
    try:
        content = path.read_bytes()
        if content[:2] not in (b"\xff\xfe", b"\xfe\xff") and b"\0" not in content[:4]:
            return content.decode("utf-8-sig")
        message = "is UTF-16 or UTF-32 text: save it as UTF-8"
    except OSError as error:
        message = f"cannot be read ({error.strerror}): give the path of a YAML file"
    except UnicodeDecodeError as error:
        line, message = content[: error.start].count(b"\n") + 1, "is not UTF-8 text: save it as UTF-8"
    raise ConfigError([Mistake(str(path), line, "", message)])


def read_yaml(text: str, source: str) -> tuple[Any, dict[Key, Place], list[Mistake]]:
    """The data, the place of each key, and what is wrong with it as YAML (the data is None where that is all)."""
    places: dict[Key, Place] = {}
    found: list[Mistake] = []

    def note(line: int | None, message: str, key: Key = ()) -> None:
        found.append(Mistake(source, line, dotted(key), message))

    while odd := ODD_SPACE.search(text):
        note(text.count("\n", 0, odd.end()) + 1, f"holds an odd space (U+{ord(odd[1]):04X}): type a plain one")
        text = f"{text[: odd.start(1)]} {text[odd.end() :]}"
    yaml: Any = YAML(typ="safe", pure=True)

    def build(node: Node, key: Key) -> Any:
        places.setdefault(key, (source, node.start_mark.line + 1, key))
        if isinstance(node, SequenceNode):
            return [build(item, (*key, index)) for index, item in enumerate(node.value)]
        if not isinstance(node, MappingNode):
            return yaml.constructor.construct_object(node)
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            name, line = str(key_node.value), key_node.start_mark.line + 1
            if not isinstance(key_node, ScalarNode):
                note(line, "expected keys that are texts", key)
            elif name in result:
                note(line, f"stands here twice (first in line {places[(*key, name)][1]}): keep one", (*key, name))
            else:
                places[(*key, name)] = (source, line, (*key, name))
                result[name] = build(value_node, (*key, name))
        return result

    try:
        node = yaml.compose(text)
        for event in yaml.parse(text):
            if isinstance(event, AliasEvent):
                problem = "aliases (*name) are not used in configs: write it out"
                raise MarkedYAMLError(problem=problem, problem_mark=event.start_mark)
        return None if node is None else build(node, ()), places, found
    except MarkedYAMLError as error:
        problem = str(error.problem).replace(r"found character '\t' that", "a tab") + (
            ": type spaces instead" if r"'\t'" in str(error.problem) else ""
        )
        note(error.problem_mark.line + 1 if error.problem_mark else None, f"is not valid YAML: {problem}")
    except ReaderError as error:
        note(text.count("\n", 0, error.position) + 1, f"is not valid YAML: it holds U+{error.character:04X}")
    except (YAMLError, ValueError, RecursionError) as error:
        note(None, f"is not valid YAML: {str(error).splitlines()[0]}")
    return None, places, found


def placed(key: Key, message: str, places: Mapping[Key, Place]) -> Mistake:
    """The mistake, placed by the longest part of its key that stands in the file or in a --set."""
    known = next((key[:length] for length in range(len(key), 0, -1) if key[:length] in places), ())
    source, line, full_key = places[known]
    return Mistake(source, line if known else None, dotted((*full_key, *key[len(known) :])), message)


# What pydantic found

EXPECTED = {  # where its own words are Python's
    "int_type": "a whole number",
    "float_type": "a number",
    "string_type": "a text",
    "list_type": "a list",
    "dict_type": "keys and values",
    "model_type": "keys and values",
    "dataclass_type": "keys and values",
    "greater_than": "a number above {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "a number below {lt}",
    "less_than_equal": "at most {le}",
    "too_short": "at least {min_length} of them",
    "too_long": "at most {max_length} of them",
    "string_pattern_mismatch": "at most 80 letters, digits, spaces, `.`, `_` and `-`, the first a letter or digit",
}


def messages(error: pydantic.ValidationError, data: Any, section: type) -> Iterator[tuple[Key, str]]:
    """A key and a sentence for each thing that pydantic found wrong with `data` as a `section`."""
    by_key: dict[Key, Any] = {}
    for details in _of_branches_meant(error.errors(), data):
        key = _key_in(data, details["loc"], details["type"])
        if key not in by_key or by_key[key]["type"].endswith("_type"):  # of a union's branches the one that says more
            by_key[key] = details
    for key, details in by_key.items():
        if any(other[: len(key)] == key for other in by_key if other != key):
            continue  # a branch of a union that was not meant
        kind, found = details["type"], details["input"]
        if kind in ("extra_forbidden", "unexpected_keyword_argument"):
            known = _known_keys(key, section)
            message = f"unknown key{nearest(str(key[-1]), known)} (known here: {', '.join(known)})"
        elif kind == "missing":
            message = "is missing"
        elif kind == "mistake":  # in our own words
            message = details["msg"]
        else:
            said = EXPECTED[kind].format(**details.get("ctx", {})) if kind in EXPECTED else details["msg"]
            expected = said.removeprefix("Input should be ")
            choices = re.findall("'([^']*)'", expected)
            message = f"expected {expected}, found {shown(found)}{nearest(found, choices)}"
            if kind == "int_type" and isinstance(found, float) and found.is_integer():
                message += f"; write {int(found)}"
        yield key, message


_MISFITS = ("missing", "extra_forbidden", "unexpected_keyword_argument")


def _of_branches_meant(errors: Sequence[Any], data: Any) -> Iterator[Any]:
    """Without what a union's other branches say: those whose keys are not the given ones, where some branch's are, and
    else what they miss."""
    misfits: dict[Key, dict[Key, bool]] = {}  # by the union's key, of each branch
    placed_errors = []
    for details in errors:
        key, location = _key_in(data, details["loc"], details["type"]), details["loc"]
        length = next((at for at, element in enumerate(key) if location[at] != element), len(key))
        branch = location[length : length + 1] if len(location) > len(key) else ()
        union = misfits.setdefault(key[:length], {}) if branch else {}
        elsewhere = details["type"] in _MISFITS or len(location) == length + 1
        union[branch] = union.get(branch, False) or elsewhere
        placed_errors.append((details, union, branch))
    for details, union, branch in placed_errors:
        if len(union) > 1 and union[branch] and (not all(union.values()) or details["type"] == "missing"):
            continue
        yield details


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


def _known_keys(key: Key, section: Any) -> list[str]:
    """The keys of the section that `key` stands in, or of all that it may be."""
    sections = [section]
    for element in key[:-1]:
        hints = [get_type_hints(one).get(str(element)) for one in sections]  # None: it is a name of the user's
        sections = [found for hint in hints for found in _sections(hint)] or sections
    return [name for one in sections for name in get_type_hints(one) if name != "model_config"]


def _sections(hint: Any) -> Iterator[Any]:
    if isinstance(hint, type) and (issubclass(hint, pydantic.BaseModel) or hasattr(hint, "__dataclass_fields__")):
        yield hint
    for argument in get_args(hint):
        yield from _sections(argument)


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
    text = "nothing" if value is None else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
