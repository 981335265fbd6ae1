"""Reading YAML for people: what is wrong, where, and the nearest right key."""

from __future__ import annotations

from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from tdmpc_ray.errors import UserError, reason, unknown


def read_mapping(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping.

    Raises:
        UserError: it cannot be read, is not YAML, holds a key twice, or is no mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise UserError(f"cannot read {path}: it is not a text file") from None
    try:
        values = yaml.load(text, Loader=_StrictLoader)
    except yaml.MarkedYAMLError as error:
        raise UserError(f"{path}{_riddle(error)}") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that is none
        raise UserError(f"{path}: {reason(error)}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} must hold 'key: value' lines, such as 'task: walker-walk'")
    return values


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
    for item in error.errors(include_url=False):
        path = [str(part) for part in item["loc"]]
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
            lines.append(f"{where}: must hold 'key: value' pairs, not {value!r}")
        elif item["type"] == "list_type":
            lines.append(f"{where}: must be a list, such as [{value}]")
        elif item["type"] in ("too_short", "string_too_short"):
            lines.append(f"{where}: must not be empty")
        elif item["type"] == "string_pattern_mismatch":
            lines.append(f"{where}: {value!r} has characters that file names should not have")
        else:
            text = item["msg"].replace("Input should", "must").replace("String should", "must")
            lines.append(f"{where}: {text}, not {value!r}")
    return lines


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
