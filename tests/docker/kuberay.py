"""What KubeRay 1.5 takes: the fields of its custom resources ray.io/v1, with types and what is required.

Names and types are those of its CRDs (github.com/ray-project/kuberay, Apache-2.0:
helm-chart/kuberay-operator/crds and docs/reference/api.md). Pods, and what else is Kubernetes'
own, are checked against its schema by `kubernetes_validate`.
"""

from __future__ import annotations

from typing import Any

import jsonschema
import kubernetes_validate

KUBERNETES = "1.31"

STRING, INTEGER, BOOLEAN, NUMBER = ({"type": name} for name in ("string", "integer", "boolean", "number"))
ANY: dict[str, Any] = {}
STRINGS = {"type": "object", "additionalProperties": STRING}


def _enum(*values: str) -> dict[str, Any]:
    return {"enum": list(values)}


def _object(required: str = "", /, **fields: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": fields,
        "required": required.split(),
        "additionalProperties": False,
    }


def _list(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": item}


_AUTOSCALER = _object(
    resources=ANY, image=STRING, imagePullPolicy=STRING, env=_list(ANY), envFrom=_list(ANY),
    volumeMounts=_list(ANY), securityContext=ANY, idleTimeoutSeconds=INTEGER,
    upscalingMode=_enum("Default", "Aggressive", "Conservative"), version=_enum("v1", "v2"),
)  # fmt: skip
_HEAD = _object(
    "template",
    template=ANY,
    rayStartParams=STRINGS,
    serviceType=STRING,
    headService=ANY,
    enableIngress=BOOLEAN,
)
_WORKERS = _object(
    "groupName template minReplicas maxReplicas", groupName=STRING, template=ANY, rayStartParams=STRINGS,
    replicas=INTEGER, minReplicas=INTEGER, maxReplicas=INTEGER, numOfHosts=INTEGER, suspend=BOOLEAN,
    idleTimeoutSeconds=INTEGER, scaleStrategy=ANY,
)  # fmt: skip
_CLUSTER = _object(
    "headGroupSpec", headGroupSpec=_HEAD, workerGroupSpecs=_list(_WORKERS), rayVersion=STRING,
    authOptions=_object("mode", mode=_enum("disabled", "token")), enableInTreeAutoscaling=BOOLEAN,
    autoscalerOptions=_AUTOSCALER, headServiceAnnotations=STRINGS, suspend=BOOLEAN, managedBy=STRING,
    gcsFaultToleranceOptions=ANY,
)  # fmt: skip
_JOB = _object(
    activeDeadlineSeconds=INTEGER, backoffLimit=INTEGER, rayClusterSpec=_CLUSTER, submitterPodTemplate=ANY,
    metadata=STRINGS, clusterSelector=STRINGS, submitterConfig=ANY, managedBy=STRING, deletionStrategy=ANY,
    entrypoint=STRING, runtimeEnvYAML=STRING, jobId=STRING,
    submissionMode=_enum("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"),
    entrypointResources=STRING, entrypointNumCpus=NUMBER, entrypointNumGpus=NUMBER,
    ttlSecondsAfterFinished=INTEGER, shutdownAfterJobFinishes=BOOLEAN, suspend=BOOLEAN,
)  # fmt: skip
_SPECS = {"RayCluster": _CLUSTER, "RayJob": _JOB}


def validate(manifest: dict[str, Any]) -> None:
    """Check one manifest.

    Raises:
        jsonschema.ValidationError: a field of KubeRay's is unknown, missing or of another type.
        kubernetes_validate.ValidationError: the same, of Kubernetes' own.
    """
    if manifest["apiVersion"] != "ray.io/v1":
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
        return
    whole = _object(
        "apiVersion kind metadata spec",
        apiVersion=STRING,
        kind=STRING,
        metadata=ANY,
        spec=_SPECS[manifest["kind"]],
    )
    jsonschema.validate(manifest, whole)
    for template in pod_templates(manifest["spec"]):
        wrapped = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "x"}, "template": template}
        kubernetes_validate.validate(wrapped, KUBERNETES, strict=True)


def pod_templates(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """Of the head and each group of workers."""
    groups = [spec["headGroupSpec"], *spec.get("workerGroupSpecs", [])] if "headGroupSpec" in spec else []
    return [group["template"] for group in groups]
