"""What can be said of docker/ without an engine."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from kuberay import pod_templates, validate

from tdmpc_ray.studies.file.load import load_study

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text())
MANIFESTS = [
    manifest
    for file in sorted(DOCKER.glob("kuberay/*.yaml"))
    for manifest in yaml.safe_load_all(file.read_text())
]
CLUSTER, JOB = (next(m for m in MANIFESTS if m["kind"] == kind) for kind in ("RayCluster", "RayJob"))


def test_hadolint_finds_nothing() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, DOCKER / "Dockerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_the_image_has_the_pinned_torch() -> None:
    pinned = re.search(r"^torch==(.*)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    assert f"ARG TORCH_VERSION={pinned[1]}\n" in (DOCKER / "Dockerfile").read_text()


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_every_service_of_the_stack(name: str) -> None:
    service = COMPOSE["services"][name]
    assert {"healthcheck", "restart", "mem_limit"} <= set(service)
    for port in service.get("ports", []):
        assert port.startswith("${BIND:-127.0.0.1}:")


def test_every_secret_has_to_be_set_and_every_variable_is_explained() -> None:
    text = (DOCKER / "compose.yaml").read_text()
    example = (DOCKER / ".env.example").read_text()
    for secret in ("POSTGRES_PASSWORD", "RAY_AUTH_TOKEN"):
        assert f"${{{secret}:?" in text
        assert re.search(rf"^{secret}=$", example, re.MULTILINE)
    offered = set(re.findall(r"^#? ?([A-Z_]+)=", example, re.MULTILINE))
    assert set(re.findall(r"(?<!\$)\$\{([A-Z_]+)", text)) == offered


def test_no_secret_is_an_argument_that_whoever_lists_processes_reads() -> None:
    containers = [*COMPOSE["services"].values()]
    for manifest in MANIFESTS:
        pods = pod_templates(manifest.get("spec", {})) or [manifest.get("spec", {}).get("template", {})]
        containers += [one for pod in pods for one in pod.get("spec", {}).get("containers", [])]
    assert len(containers) == len(COMPOSE["services"]) + 5  # the database and MLflow, head, rollout, learner
    for container in containers:
        texts = [container.get(key) or [] for key in ("command", "args", "entrypoint")]
        texts += [(container.get("healthcheck") or {}).get("test") or []]
        words = " ".join(text if isinstance(text, str) else " ".join(text) for text in texts)
        assert not re.search(r"PASSWORD|TOKEN|SECRET|://\S*@", words), words
    assert not re.search(r"PASSWORD|TOKEN|SECRET|://\S*@", JOB["spec"]["entrypoint"])


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda m: f"{m['kind']}-{m['metadata']['name']}")
def test_kubernetes_would_take_it(manifest: dict[str, Any]) -> None:
    validate(manifest)


def test_the_schema_finds_mistakes() -> None:
    wrong = copy.deepcopy(CLUSTER)
    wrong["spec"]["workerGroupSpecs"][0]["minReplica"] = 1
    with pytest.raises(jsonschema.ValidationError, match="minReplica"):
        validate(wrong)
    wrong = copy.deepcopy(CLUSTER)
    wrong["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["volumeMount"] = []
    with pytest.raises(kubernetes_validate.ValidationError, match="volumeMount"):
        validate(wrong)


def test_the_manifests_fit_together() -> None:
    assert CLUSTER["spec"]["rayVersion"].startswith(".".join(version("ray").split(".")[:2]))
    assert JOB["spec"]["clusterSelector"] == {"ray.io/cluster": CLUSTER["metadata"]["name"]}
    services = {m["metadata"]["name"]: m for m in MANIFESTS if m["kind"] == "Service"}
    claims = {m["metadata"]["name"] for m in MANIFESTS if m["kind"] == "PersistentVolumeClaim"}
    (mlflow,) = (m for m in MANIFESTS if m["kind"] == "Deployment")
    assert (
        mlflow["spec"]["template"]["metadata"]["labels"] == services["tdmpc-ray-mlflow"]["spec"]["selector"]
    )
    for template in [*pod_templates(CLUSTER["spec"]), mlflow["spec"]["template"]]:
        for volume in template["spec"]["volumes"]:
            assert volume.get("persistentVolumeClaim", {"claimName": None})["claimName"] in {None, *claims}
        for variable in template["spec"]["containers"][0]["env"]:
            if variable["name"] == "MLFLOW_TRACKING_URI":
                assert variable["value"] == "http://tdmpc-ray-mlflow:5000"
    study = re.search(r"experiments/\S+\.yaml", JOB["spec"]["entrypoint"])
    assert study is not None
    load_study(ROOT / study[0])
