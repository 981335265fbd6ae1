"""Reading YAML for people: what is wrong, where, and the nearest right key."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from tdmpc_ray.errors import UserError, brief, reason, unknown

_MOST_PROBLEMS = 20  # that are told one by one
_MOST_WORDS = 800  # characters of a line
MOST_COUNTED = 2**63 - 1
_MOST_LETTERS = 10_000  # of a text
_MOST_VALUES = 100_000  # in a file, with what its aliases stand for
_KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "string": "a text"}


def read_mapping(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping.

    Raises:
        UserError: it cannot be read, is not YAML, holds a key twice, or is no mapping.
    """
    try:
        _refuse_special(path)
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise UserError(f"cannot read {path}: it is not a text file") from None
    try:
        loader = _StrictLoader(text)
        root = loader.get_single_node()
        if root is not None and _size(root, {}) > _MOST_VALUES:
            raise UserError(f"{path}: its aliases (*name) stand for more than {_MOST_VALUES:,} values")
        values = None if root is None else loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        raise UserError(f"{path}{_riddle(error)}") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that is none
        why = reason(error)
        if "integer string conversion" in why:  # which is Python's
            why = "a number in it has more than 4,300 digits"
        raise UserError(f"{path}: {why}") from None
    except RecursionError:
        raise UserError(f"{path}: its lists and mappings are nested too deeply") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} must hold 'key: value' lines, such as 'task: walker-walk'")
    return values


def refuse_huge(values: Any) -> None:
    """Refuse numbers and texts of a size that nothing here counts or stores.

    Raises:
        ValueError: names the key.
    """
    known: set[int] = set()  # an alias may hold itself

    def look(value: Any, where: str) -> None:
        if isinstance(value, int) and abs(value) > MOST_COUNTED:
            raise ValueError(f"{where}must lie within ±{MOST_COUNTED}, not {brief(value)}")
        if isinstance(value, str) and len(value) > _MOST_LETTERS:
            raise ValueError(f"{where}must have {_MOST_LETTERS:,} characters at most, not {len(value):,}")
        if not isinstance(value, Mapping | list | tuple) or id(value) in known:
            return
        known.add(id(value))
        for key, part in value.items() if isinstance(value, Mapping) else enumerate(value):
            name = key if isinstance(key, str) and len(key) <= 80 else brief(key)
            look(part, f"{where.removesuffix(': ')}{'.' if where else ''}{name}: ")

    look(values, "")


def _refuse_special(path: Path) -> None:
    """A device or a pipe that nobody writes to would never end; a shell's own pipes (/dev/fd/63) do."""
    mode = path.stat().st_mode
    is_shells = stat.S_ISFIFO(mode) and str(path).startswith("/dev/")
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or is_shells):  # a folder says so itself
        raise UserError(f"cannot read {path}: it is a device, a pipe or a socket, not a file")


def _riddle(error: yaml.MarkedYAMLError) -> str:
    """Where, and what is wrong there, in words for who does not know YAML's grammar."""
    mark, problem = error.problem_mark, error.problem or "not valid YAML"
    begun = error.context_mark.line + 1 if error.context_mark else 0
    if begun and "flow sequence" in (error.context or ""):
        return f", line {begun}: the list that begins here lacks its ']' or a comma"
    if begun and "flow mapping" in (error.context or ""):
        return f", line {begun}: what begins here with '{{' lacks its '}}' or a comma"
    if problem.startswith("mapping values are not allowed"):
        problem = (
            "a ':' that belongs to no key; indent lines of one section alike, put a text with ': ' in quotes"
        )
    elif "<stream end>" in problem:
        problem = "a list, a '{' or a quote is not closed"
    elif "'\\t'" in problem:
        problem = "a tab; indent by spaces"
    return (f", line {mark.line + 1}, column {mark.column + 1}" if mark else "") + f": {problem}"


def problems(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """Say each problem in one line that begins with the key's path."""
    lines = []
    found = error.errors(include_url=False)
    for item in found[:_MOST_PROBLEMS]:
        path = [text if len(text) <= 80 else f"{text[:77]}..." for text in map(str, item["loc"])]
        where = ".".join(path)
        value = item["input"]
        if item["type"] == "extra_forbidden":
            inside = f"{'.'.join(path[:-1])}: " if path[:-1] else ""
            lines.append(inside + str(unknown("key", path[-1], _keys(model, path[:-1]))))
        elif item["type"] == "missing":
            lines.append(f"'{where}' is missing")
        elif item["type"] == "value_error":
            text = str(item["ctx"]["error"])
            lines.append(f"{where}: {text}" if where else text)
        elif item["type"] in ("model_type", "dict_type"):
            lines.append(f"{where}: must hold 'key: value' pairs, not {brief(value)}")
        elif item["type"] == "list_type":
            lines.append(f"{where}: must be a list, such as [{_plain(value)}]")
        elif item["type"] in ("too_short", "string_too_short"):
            lines.append(f"{where}: must not be empty")
        elif item["type"] == "string_too_long":
            most = item["ctx"]["max_length"]
            lines.append(f"{where}: must have {most} characters at most, not {len(value):,}")
        elif item["type"] == "string_pattern_mismatch" and where == "metric":
            lines.append(f"{where}: must begin with eval/, such as eval/return, not {brief(value)}")
        elif item["type"] == "string_pattern_mismatch":
            lines.append(f"{where}: {brief(value)} has characters that file names should not have")
        elif path[-1:] == ["[key]"] or item["type"] == "invalid_key":
            inside = ".".join(path[:-2])
            lines.append(
                f"{inside}{': ' if inside else ''}a key must be a word, not {path[0 if not inside else -2]}"
            )
        else:
            lines.append(
                f"{where}: {_wanted(item)}, {'but is empty' if value is None else f'not {brief(value)}'}"
            )
    if len(found) > _MOST_PROBLEMS:
        lines.append(f"and {len(found) - _MOST_PROBLEMS:,} problems more")
    return [line if len(line) <= _MOST_WORDS else f"{line[:200]} ... {line[-200:]}" for line in lines]


def _wanted(item: Mapping[str, Any]) -> str:
    """What a value must be; pydantic's words where they are plain."""
    kind = str(item["type"]).partition("_")[0]
    if kind in _KINDS:
        return f"must be {_KINDS[kind]}"
    return str(item["msg"]).replace("Input should", "must")


def _plain(value: Any) -> str:
    return str(value) if isinstance(value, str | int | float) and len(str(value)) <= 80 else "..."


def _keys(model: type[BaseModel], path: list[str]) -> list[str]:
    """The keys that the section at `path` knows."""
    for part in path:
        found = next((f for n, f in model.model_fields.items() if (f.alias or n) == part), None)
        nested = _model_in(found.annotation) if found else None
        if nested is None:
            break
        model = nested
    return [field.alias or name for name, field in model.model_fields.items()]


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (Union, UnionType):
        return next((model for part in get_args(annotation) if (model := _model_in(part))), None)
    return None


def _size(node: yaml.Node, known: dict[int, int]) -> int:
    """Values below a node, each alias with all that it stands for."""
    if id(node) not in known:
        known[id(node)] = 1  # where an alias holds itself, too
        parts = node.value if isinstance(node, yaml.CollectionNode) else []
        inner = [part for pair in parts for part in (pair if isinstance(pair, tuple) else (pair,))]
        known[id(node)] = 1 + sum(_size(part, known) for part in inner)
    return known[id(node)]


class _StrictLoader(yaml.SafeLoader):
    """YAML takes the last of two equal keys silently."""


def _mapping(loader: _StrictLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen = set()
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue
        if not isinstance(key_node, yaml.ScalarNode):
            raise yaml.MarkedYAMLError(problem="a key must be a word", problem_mark=key_node.start_mark)
        key = loader.construct_object(key_node)
        if key in seen:
            raise yaml.MarkedYAMLError(problem=f"'{key}' is there twice", problem_mark=key_node.start_mark)
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
