"""Write docs/json.md: what `--json` prints and result.json holds, from the forms that check it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel

from tdmpc_ray.cli import forms
from tdmpc_ray.studies.file.record import LocalRun, StudyRecord, TrialRecord

FILE = Path(__file__).with_name("json.md")

# What is printed, as a heading; whether it is a list; its forms, the outermost first.
OUTPUTS: tuple[tuple[str, bool, tuple[type[BaseModel], ...]], ...] = (
    ("tdmpc-ray runs --json", True, (LocalRun,)),
    ("result.json", False, (StudyRecord, TrialRecord)),
    ("tdmpc-ray envs --json", True, (forms.TaskForm,)),
    ("tdmpc-ray demos WHERE --json", False, (forms.DemosForm, forms.EpisodeForm)),
    ("tdmpc-ray dataset info DIR --json", False, (forms.DatasetForm, forms.DatasetTaskForm)),
    ("tdmpc-ray list --json, tdmpc-ray status ID --json", False, (forms.JobForm,)),
    ("tdmpc-ray compare --json", False, (forms.CompareForm, forms.ResultForm, forms.PublishedForm)),
    (
        "tdmpc-ray plan --json, tdmpc-ray tune --dry-run --json",
        False,
        (forms.PlanForm, forms.ForecastForm, forms.TrialPlanForm),
    ),
)


def page() -> str:
    """The whole file."""
    text = (
        "# JSON\n\n"
        "What programs can read. The commands print JSON alone on standard output; what goes wrong is a\n"
        "line on standard error and an exit status of 2. No key is left out: what is not known is null. New\n"
        "versions may add keys. `python docs/json_forms.py` writes this page from the forms that check\n"
        "each output.\n\n"
        "```sh\n"
        "tdmpc-ray runs --json | jq -r '.[] | select(.last_return > 500) | .folder'\n"
        "```\n"
    )
    for heading, is_list, parts in OUTPUTS:
        text += f"\n## `{heading.replace(', ', '`, `')}`\n\n"
        text += "A list of:\n\n" if is_list else ""
        for part in parts:
            text += f"{_told(part)}\n\n| key | type | |\n|---|---|---|\n" + "".join(_rows(part)) + "\n"
    return text.replace("\n\n\n", "\n\n").rstrip("\n") + "\n"


def _told(part: type[BaseModel]) -> str:
    text = " ".join((part.__doc__ or "").split())
    return f"**{_name(part.__name__)}**: {text[0].lower()}{text[1:]}"


def _rows(part: type[BaseModel]) -> list[str]:
    schema = part.model_json_schema(mode="serialization")
    return [
        f"| `{key}` | {_type(value)} | {value.get('description', '')} |\n"
        for key, value in schema["properties"].items()
    ]


def _type(value: dict[str, Any]) -> str:
    if "$ref" in value:
        return _name(value["$ref"].rpartition("/")[2])
    if "anyOf" in value:
        return ", ".join(dict.fromkeys(_type(part) for part in value["anyOf"]))
    if "enum" in value:
        return ", ".join(f"`{word}`" for word in value["enum"])
    if "const" in value:
        return f"`{value['const']}`"
    if value["type"] == "array":
        return f"list of {_type(value['items'])}"
    if value["type"] == "object":
        return f"object of {_type(value['additionalProperties'])}"
    return str(value["type"])


def _name(form: str) -> str:
    return form.removesuffix("Form")


if __name__ == "__main__":
    FILE.write_text(page(), encoding="utf-8")
