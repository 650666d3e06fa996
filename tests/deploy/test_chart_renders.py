"""The chart in every mode: linted, valid for two minor versions of Kubernetes, within the restricted profile."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import kubernetes_validate
import pytest
import yaml

from chart_support import COMBINATIONS, every_combination, objects
from helm_support import CHART, EXAMPLES, HELM_VERSION, KUBERNETES, Object, containers, helm, of_kind, pods, values_of
from pod_security import violations


def test_it_is_the_real_helm() -> None:
    assert HELM_VERSION in helm("version").stdout


@pytest.mark.parametrize("example", [None, *EXAMPLES])
def test_it_is_linted(example: str | None) -> None:
    done = helm("lint", "--strict", CHART, *values_of(example))
    assert done.returncode == 0, done.stdout + done.stderr


def test_all_modes_have_an_example() -> None:
    values = [yaml.safe_load((CHART / "examples" / f"{name}.yaml").read_text()) for name in EXAMPLES]

    def chosen(section: str, key: str) -> set[str]:
        return {value[section][key] for value in values if key in value.get(section, {})}

    assert chosen("engine", "mode") | {"embedded"} == {"embedded", "triton-sidecar", "triton"}
    assert chosen("modelStore", "mode") | {"image"} == {"image", "pvc", "objectStorage"}
    assert chosen("autoscaling", "by") == {"hpa", "keda"}
    assert chosen("monitoring", "scrape") == {"PodMonitor", "ServiceMonitor"}


def strict_errors(one: Object, kubernetes: str) -> str:
    """What the schemas of ``kubernetes`` say against ``one``."""
    return _strict_errors(json.dumps(one, sort_keys=True), kubernetes)


@cache
def _strict_errors(one: str, kubernetes: str) -> str:
    """Schemas are read anew for each object, and most are in several combinations."""
    try:
        kubernetes_validate.validate(json.loads(one), kubernetes, strict=True)
    except kubernetes_validate.ValidationError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("kubernetes", KUBERNETES)
@every_combination
def test_kubernetes_takes_it(combination: str, kubernetes: str) -> None:
    made = objects(combination, kubernetes)
    own = [one for one in made if one["apiVersion"] not in CUSTOM]
    assert len(own) > 5
    assert [error for one in own if (error := strict_errors(one, kubernetes))] == []


def test_the_schemas_notice_what_is_wrong() -> None:
    deployment = of_kind(objects("default"), "Deployment")
    deployment["spec"]["template"]["spec"]["terminationGracePeriod"] = 3
    assert "terminationGracePeriod" in strict_errors(deployment, KUBERNETES[0])


# Of custom resources there are no schemas here: what each needs, by kind, as paths of its spec.
CUSTOM: dict[str, dict[str, tuple[str, ...]]] = {
    "monitoring.coreos.com/v1": {
        "PodMonitor": ("selector.matchLabels", "podMetricsEndpoints.0.port", "podTargetLabels"),
        "ServiceMonitor": ("selector.matchLabels", "endpoints.0.port", "targetLabels"),
        "PrometheusRule": ("groups.0.name", "groups.0.rules.0.expr"),
    },
    "keda.sh/v1alpha1": {
        "ScaledObject": (
            *("scaleTargetRef.name", "minReplicaCount", "maxReplicaCount", "triggers.0.metadata.query"),
            *("triggers.0.metadata.serverAddress", "triggers.0.metadata.threshold"),
            "advanced.horizontalPodAutoscalerConfig.behavior.scaleDown.policies",
        )
    },
    "gateway.networking.k8s.io/v1": {
        "GRPCRoute": ("parentRefs.0.name", "rules.0.backendRefs.0.name", "rules.0.backendRefs.0.port"),
        "BackendTLSPolicy": (
            *("targetRefs.0.name", "validation.hostname", "validation.caCertificateRefs.0.name"),
            *("targetRefs.0.group", "validation.caCertificateRefs.0.group"),
        ),
    },
}


def at(value: Any, path: str) -> Any:
    for part in path.split("."):
        value = value[int(part)] if isinstance(value, list) else value[part]
    return value


def test_custom_resources_have_what_their_controllers_need() -> None:
    seen = set()
    for combination in COMBINATIONS:
        for one in objects(combination):
            if one["apiVersion"] not in CUSTOM:
                continue
            seen.add(one["kind"])
            for path in CUSTOM[one["apiVersion"]][one["kind"]]:
                assert at(one["spec"], path) is not None, f"{combination}: {one['kind']} {path}"
            for trigger in one["spec"].get("triggers", []):
                assert all(isinstance(value, str) for value in trigger["metadata"].values())
    assert seen == {kind for kinds in CUSTOM.values() for kind in kinds}


@every_combination
def test_every_pod_is_restricted(combination: str) -> None:
    made = list(pods(objects(combination)))
    assert made
    for name, _, pod in made:
        assert violations(pod) == [], name
        assert pod["automountServiceAccountToken"] is False
        for container in containers(pod):
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            resources = container["resources"]
            assert {"cpu", "memory"} <= resources["requests"].keys() & resources["limits"].keys()


@every_combination
def test_names_are_unique_and_in_the_release(combination: str) -> None:
    made = objects(combination)
    names = [(one["kind"], one["metadata"]["name"]) for one in made]
    assert len(set(names)) == len(names)
    for kind, name in names:
        assert "samgate" in name, kind
        assert len(name) <= 63
