"""What values may be: the schema, what templates refuse, and that documents and schema are of the values there are."""

from __future__ import annotations

import json
from typing import Any

import pytest

from helm_support import CHART, ROOT, default_values, described_values, of_kind, refusal, rendered, with_table

FREE = {
    *("affinity", "nodeSelector", "podAnnotations", "podLabels", "settings", "global", "resources"),
    *("triton.nodeSelector", "triton.resources", "modelStore.resources", "modelStore.objectStorage.env"),
    *("service.annotations", "serviceAccount.annotations", "ingress.annotations"),
    *("monitoring.labels", "monitoring.dashboardLabels"),
}
"""What has keys of the user's own, or Kubernetes' own."""


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ("replicaCount=2", "'replicaCount' not allowed"),
        ("engine.modes=embedded", "'modes' not allowed"),
        ("tls.clientCa.name=x", "'name' not allowed"),
        ("images.gateway.version=1", "'version' not allowed"),
        ("replicas=two", "got string, want integer"),
        ("replicas=-1", "minimum"),
        ("engine.mode=gpu", "value must be one of 'embedded', 'triton-sidecar', 'triton'"),
        ("autoscaling.by=both", "value must be one of 'none', 'hpa', 'keda'"),
        ("monitoring.scrape=true", "value must be one of"),
        ("modelStore.pvc.accessMode=ReadWriteOncePod", "value must be one of"),
        ("cache.maxBytes=half", "does not match pattern"),
        ("variants=mobilesam", "got string, want array"),
        ("variants=[]", "minItems"),
        ('variants=["../x"]', "does not match pattern"),
        ('triton={"computeCapability":8.9}', "got number, want string"),
        ("images.gateway.digest=latest", "does not match pattern"),
        ("tracing.endpoint=collector:4317", "does not match pattern"),
        ("tracing.sample=2", "maximum"),
        ("service.port=0", "minimum"),
        ('settings={"limits":1}', "does not match pattern"),
        ("modelStore.folder=../elsewhere", "does not match pattern"),
        ("timing.drainSeconds=30s", "got string, want integer"),
    ],
)
def test_the_schema_refuses(given: str, complaint: str) -> None:
    told = refusal(given)
    assert "schema" in told
    assert complaint in told


@pytest.mark.parametrize(
    ("example", "sets", "answer"),
    [
        (None, "auth.anonymous=false", "nobody could call: set auth.clients.secretName"),
        (None, "networkPolicy.enabled=false", "anybody could call"),
        (None, "service.type=LoadBalancer", "anybody outside of the cluster could call"),
        (None, "ingress.enabled=true ingress.host=x.org", "anybody outside of the cluster could call"),
        (None, "gatewayApi.enabled=true", "anybody outside of the cluster could call"),
        ("ingress", "networkPolicy.enabled=false", "anybody could read metrics"),
        (None, "tls.clientCa.secretName=ca", "tls.clientCa needs tls.secretName"),
        (None, "timing.terminationGracePeriodSeconds=34", "is 34, but preStopSeconds and drainSeconds together are 35"),
        (None, "engine.mode=triton", "TensorRT plans are compiled on the GPU"),
        (None, "engine.mode=triton-sidecar modelStore.mode=pvc", "triton.computeCapability has to say"),
        ("gpu", "triton.gpus=0", "needs triton.gpus=1"),
        ("gpu", "triton.precision=int8", "int8 is calibrated on photographs of yours"),
        (None, "modelStore.mode=objectStorage", "modelStore.objectStorage.path has to be bucket and prefix"),
        (None, "modelStore.mode=pvc modelStore.compile=false", "modelStore.folder has to name the folder"),
        (None, "modelStore.mode=pvc modelStore.folder=mine", "set modelStore.compile=false, too"),
        ("gpu-one", "replicas=2", "a ReadWriteOnce claim is for one node"),
        ("gpu-one", "autoscaling.by=hpa", "a ReadWriteOnce claim is for one node"),
        ("cpu-pvc", "modelStore.pvc.accessMode=ReadOnlyMany", "can't be filled by the Job"),
        (
            "cpu-pvc",
            "modelStore.pvc.accessMode=ReadOnlyMany modelStore.compile=false modelStore.folder=mine",
            "set modelStore.pvc.existingClaim",
        ),
        ("hpa", "autoscaling.queuedWorkSeconds=null autoscaling.requestsInFlight=null", "autoscaling looks at nothing"),
        ("gpu-split", "autoscaling.by=hpa autoscaling.requestsInFlight=null", "are needed"),
        ("hpa", "autoscaling.maxReplicas=1", "autoscaling.maxReplicas is less than autoscaling.minReplicas"),
        (None, "autoscaling.by=keda", "autoscaling.keda.serverAddress has to be"),
        ("ingress", "ingress.host=", "ingress.host has to be the name"),
        ("gateway-api", "gatewayApi.parentRefs=[]", "gatewayApi.parentRefs has to name a Gateway"),
        ("gateway-api", "gatewayApi.backendTls.hostname=", "needs gatewayApi.backendTls.hostname"),
        (None, 'settings={"DRAIN_S":3}', "settings.DRAIN_S: the chart sets SAMGATE_DRAIN_S itself"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_to_do(example: str | None, sets: str, answer: str) -> None:
    assert answer in refusal(*sets.split(), example=example)


def test_unprotected_has_to_be_said() -> None:
    made = rendered("networkPolicy.enabled=false", "service.type=LoadBalancer", "allowUnprotected=true")
    assert of_kind(made, "Service", "samgate")["spec"]["type"] == "LoadBalancer"
    assert "NetworkPolicy" not in {one["kind"] for one in made}


def paths(value: Any, prefix: str = "") -> set[str]:
    if not isinstance(value, dict) or prefix in FREE or not value:
        return {prefix}
    return {path for key, inner in value.items() for path in paths(inner, f"{prefix}.{key}".lstrip("."))}


def schema_paths(schema: dict[str, Any], definitions: dict[str, Any], prefix: str = "") -> set[str]:
    schema = definitions[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    if "properties" not in schema or prefix in FREE:
        return {prefix}
    assert schema["additionalProperties"] is False, prefix
    return {
        path
        for key, inner in schema["properties"].items()
        for path in schema_paths(inner, definitions, f"{prefix}.{key}".lstrip("."))
    }


def test_schema_and_values_have_the_same_keys() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert schema_paths(schema, schema["$defs"]) - {"global"} == paths(default_values())


def test_every_value_is_described() -> None:
    described = described_values()

    def within(path: str) -> bool:
        return any(path == one or path.startswith(f"{one}.") for one in described)

    assert [path for path in paths(default_values()) if not within(path)] == []


def test_the_documented_values_are_the_charts() -> None:
    page = (ROOT / "docs" / "deploy.md").read_text()
    assert "| `engine.mode` |" in page
    assert page == with_table(page), "bring it up to date with: python tests/helm_support.py"
