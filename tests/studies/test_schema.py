"""The JSON schema of a study file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from experiments import EXPERIMENTS
from tdmpc_ray.cli import main
from tdmpc_ray.studies.file.schema import study_schema


def test_the_schema_beside_the_experiments_is_the_one_of_the_code(tmp_path: Path) -> None:
    assert main(["schema", "--out", str(tmp_path / "schema.json")]) == 0
    again = "make it with: tdmpc-ray schema --out experiments/study.schema.json"
    assert (tmp_path / "schema.json").read_text() == (EXPERIMENTS / "study.schema.json").read_text(), again


@pytest.mark.parametrize("file", sorted(EXPERIMENTS.glob("*.yaml")), ids=lambda file: file.stem)
def test_every_experiment_fits_its_schema(file: Path) -> None:
    assert file.read_text().startswith("# yaml-language-server: $schema=study.schema.json\n")
    jsonschema.validate(yaml.safe_load(file.read_text()), study_schema())


@pytest.mark.parametrize(
    "wrong",
    [
        {"stepz": 1},
        {"set": {"update.learning_rate": 1}},
        {"space": {"update.lr": {"loguniform": [1, 2], "grid": [1]}}},
        {"scheduler": "ahsa"},
        {"scheduler": {"method": "asha", "grace": 1}},
        {"model_sizes": [7]},
        {"steps": "many"},
        {"updates": 100},
        {"tasks": ["walker-walk"]},
    ],
)
def test_what_is_wrong_does_not_fit_the_schema(wrong: dict[str, Any]) -> None:
    right = {"name": "s", "task": ["walker-walk", "walker-run"], "steps": "1e6", "search": "optuna"}
    jsonschema.validate(right, study_schema())
    offline = {"name": "s", "task": "walker-walk", "updates": 10, "model_sizes": [0.05, 1, "tiny"]}
    jsonschema.validate(offline, study_schema())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**right, **wrong}, study_schema())


def test_the_schema_is_json() -> None:
    jsonschema.Draft202012Validator.check_schema(json.loads(json.dumps(study_schema())))
