"""The JSON schema of a study file, by which editors complete keys and mark wrong ones."""

from __future__ import annotations

from typing import Any

from tdmpc_ray.core.agents import NAMES, find_settings
from tdmpc_ray.studies.file.points import RESOURCE_KEYS
from tdmpc_ray.studies.file.sections import LOGGERS, SCHEDULERS, SEARCHES
from tdmpc_ray.studies.file.spec import Study


def study_schema() -> dict[str, Any]:
    """JSON schema (2020-12) of `Study`, with the names of all settings, sizes, searches and schedulers."""
    schema = Study.model_json_schema(by_alias=True)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    agents = [find_settings(name) for name in NAMES]
    settings, sizes, presets = (
        list(dict.fromkeys(name for agent in agents for name in names(agent)))
        for names in (lambda agent: agent.keys, lambda agent: agent.sizes, lambda agent: agent.presets)
    )
    parts, properties = schema["$defs"], schema["properties"]
    properties["set"] |= {"properties": {key: {} for key in settings}, "additionalProperties": False}
    properties["space"] |= {
        "properties": {key: {"$ref": "#/$defs/Draw"} for key in (*settings, *RESOURCE_KEYS)},
        "additionalProperties": False,
    }
    parts["Draw"] |= {"minProperties": 1, "maxProperties": 1}
    numbers = (int(s) if s.isdigit() else float(s) for s in sizes if s[0].isdigit())
    properties["model_sizes"]["items"] = {"enum": [*sizes, *numbers]}
    properties["preset"]["enum"] = presets
    one = {"type": ["string", "array"], "items": {"type": "string"}}
    properties["task"] = {"description": properties["task"]["description"], **one}
    properties["tasks"] |= {"items": one}
    schema["required"].remove("steps")
    either = (("task", "tasks"), ("steps", "updates"))
    schema["allOf"] = [{"oneOf": [{"required": [key]} for key in keys]} for keys in either]
    for key, part, names in (("search", "Search", SEARCHES), ("scheduler", "Scheduling", SCHEDULERS)):
        parts[part]["properties"]["method"]["enum"] = list(names)
        properties[key] = {"anyOf": [{"$ref": f"#/$defs/{part}"}, {"enum": list(names)}]}
    parts["Tracking"]["properties"]["also"]["items"] = {"enum": [*LOGGERS]}
    _accept_strings(schema)
    return schema


def _accept_strings(part: Any) -> None:
    """YAML reads `1e6` as a string; what is read as a number may be written so."""
    if isinstance(part, dict):
        if part.get("type") in ("integer", "number"):
            part["type"] = [part["type"], "string"]
            part["pattern"] = r"^[+-]?[\d.]+([eE][+-]?\d+)?$"
        for value in part.values():
            _accept_strings(value)
    elif isinstance(part, list):
        for value in part:
            _accept_strings(value)
