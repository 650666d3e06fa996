"""That the chart's parts fit each other and the gateway: ports, selectors, volumes, settings, times and sizes."""

from __future__ import annotations

import json
import re
from dataclasses import fields, is_dataclass
from typing import Any

import pytest
import yaml

from chart_support import every_combination, gateway, objects
from helm_support import CHART, Object, containers, environment, of_kind, pods, rendered
from samgate.cli.main import build_parser
from samgate.compile.container import TRITON_IMAGE
from samgate.config import Settings, settings_from
from samgate.security.exposure import check_exposure

MIB = 2**20


def variables(tree: Any, prefix: str = "SAMGATE_") -> set[str]:
    found = set()
    for item in fields(tree):
        value, name = getattr(tree, item.name), f"{prefix}{item.name.upper()}"
        found |= variables(value, f"{name}_") if is_dataclass(value) else {name}
    return found


@every_combination
def test_the_gateway_knows_every_setting(combination: str) -> None:
    given = environment(gateway(objects(combination)))
    assert {name for name in given if not name.startswith("SAMGATE_")} == set()
    assert given.keys() - {"SAMGATE_HOME"} <= variables(Settings())
    settings = settings_from(given)
    assert (settings.host, settings.port, settings.http_port) == ("0.0.0.0", 50051, 8080)
    check_exposure(settings)  # which it starts with
    assert settings.limits.max_total_bytes >= settings.limits.max_message_bytes


@every_combination
def test_selectors_find_pods_and_ports_are_theirs(combination: str) -> None:
    made = objects(combination)
    running = list(pods(made))

    def found(selector: Object) -> list[Object]:
        return [pod for _, labels, pod in running if selector.items() <= labels.items()]

    for one in made:
        match one["kind"]:
            case "Service":
                selected = found(one["spec"]["selector"])
                assert len(selected) == 1, one["metadata"]["name"]
                names = {port["name"] for container in containers(selected[0]) for port in container.get("ports", [])}
                assert {port["targetPort"] for port in one["spec"]["ports"]} <= names
            case "Deployment":
                assert len(found(one["spec"]["selector"]["matchLabels"])) == 1
            case "PodDisruptionBudget":
                assert len(found(one["spec"]["selector"]["matchLabels"])) == 1
            case "NetworkPolicy":
                assert len(found(one["spec"]["podSelector"]["matchLabels"])) == 1
            case "PodMonitor":
                assert len(found(one["spec"]["selector"]["matchLabels"])) == 1
            case "ServiceMonitor":
                services = [
                    service
                    for service in made
                    if service["kind"] == "Service"
                    and one["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
                ]
                assert len(services) == 1
                ports = {port["name"] for port in services[0]["spec"]["ports"]}
                assert {endpoint["port"] for endpoint in one["spec"]["endpoints"]} <= ports
            case "HorizontalPodAutoscaler" | "ScaledObject":
                target = of_kind(made, "Deployment", one["spec"]["scaleTargetRef"]["name"])
                assert "replicas" not in target["spec"]


@every_combination
def test_probes_and_volumes_are_there(combination: str) -> None:
    for name, _, pod in pods(objects(combination)):
        volumes = {volume["name"] for volume in pod["volumes"]}
        mounted = {mount["name"] for container in containers(pod) for mount in container["volumeMounts"]}
        assert mounted == volumes, name
        for container in containers(pod):
            ports = {port["containerPort"] for port in container.get("ports", [])}
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                assert (probe in container) == bool(ports)
                assert not ports or container[probe]["grpc"]["port"] in ports
            # No service links: SAMGATE_PORT would be tcp://…
            assert pod["enableServiceLinks"] is False
            # The user that made the shared region is the only one that may open it.
            assert "runAsUser" not in container["securityContext"]


@every_combination
def test_pods_have_the_time_that_draining_takes(combination: str) -> None:
    for _, labels, pod in pods(objects(combination)):
        if labels["app.kubernetes.io/component"] == "gateway":
            (container,) = (one for one in pod["containers"] if one["name"] == "gateway")
            stop = container["lifecycle"]["preStop"]["sleep"]["seconds"]
            drain = float(environment(container)["SAMGATE_DRAIN_S"])
            assert pod["terminationGracePeriodSeconds"] > stop + drain + 5
        elif labels["app.kubernetes.io/component"] == "triton":
            (container,) = pod["containers"]
            (exit_timeout,) = (
                int(flag.rpartition("=")[2]) for flag in container["args"] if flag.startswith("--exit-timeout-secs=")
            )
            stop = container["lifecycle"]["preStop"]["sleep"]["seconds"]
            assert pod["terminationGracePeriodSeconds"] > stop + exit_timeout


@every_combination
def test_what_init_containers_run_is_known_to_the_command_line(combination: str) -> None:
    parser = build_parser()
    for _, _, pod in pods(objects(combination)):
        for container in containers(pod):
            if container["name"] in ("repository", "gateway"):
                parser.parse_args(container["args"])


def test_the_admin_port_is_in_no_rule() -> None:
    for combination in ("default", "gpu", "gpu-split", "secured"):
        for one in objects(combination):
            if one["kind"] == "NetworkPolicy":
                assert one["spec"]["policyTypes"] == ["Ingress", "Egress"]
                admitted = [port["port"] for rule in one["spec"].get("ingress", []) for port in rule["ports"]]
                assert 50052 not in admitted
                assert all(rule["from"] for rule in one["spec"].get("ingress", []))


def test_by_default_only_the_namespace_may_call() -> None:
    made = rendered()
    rules = of_kind(made, "NetworkPolicy")["spec"]["ingress"]
    assert [rule["from"] for rule in rules if rule["ports"][0]["port"] == 50051] == [[{"podSelector": {}}]]
    assert environment(gateway(made))["SAMGATE_AUTH_ANONYMOUS"] == "true"
    secured = environment(gateway(objects("secured")))
    assert "SAMGATE_AUTH_ANONYMOUS" not in secured
    assert "SAMGATE_METRICS_OPEN" not in secured


def test_only_gateways_may_call_a_triton_of_its_own() -> None:
    made = objects("gpu-split")
    rules = of_kind(made, "NetworkPolicy", "samgate-triton")["spec"]["ingress"]
    (rule,) = (rule for rule in rules if rule["ports"][0]["port"] == 8001)
    selected = rule["from"][0]["podSelector"]["matchLabels"]
    assert selected == of_kind(made, "Deployment", "samgate")["spec"]["selector"]["matchLabels"]
    given = environment(gateway(made))
    assert given["SAMGATE_TRITON_ENDPOINTS"] == "dns:///samgate-triton:8001"
    assert given["SAMGATE_TRITON_SHARED_MEMORY_BYTES"] == "0"
    assert of_kind(made, "Service", "samgate-triton")["spec"]["clusterIP"] == "None"


def test_a_sidecar_shares_memory_that_holds_the_region() -> None:
    made = rendered("cache.maxBytes=1Gi", example="gpu")
    pod = of_kind(made, "Deployment")["spec"]["template"]["spec"]
    (triton,) = (one for one in pod["initContainers"] if one["name"] == "triton")
    assert triton["restartPolicy"] == "Always"
    assert pod["initContainers"][-1] is triton
    for container in (triton, gateway(made)):
        assert {"name": "shm", "mountPath": "/dev/shm"} in container["volumeMounts"]
    (volume,) = (volume["emptyDir"] for volume in pod["volumes"] if volume["name"] == "shm")
    region = int(environment(gateway(made))["SAMGATE_TRITON_SHARED_MEMORY_BYTES"])
    assert volume == {"medium": "Memory", "sizeLimit": f"{1024 + 128 + 64}Mi"}
    assert region == (1024 + 128) * MIB
    assert environment(gateway(made))["SAMGATE_TRITON_ENDPOINTS"] == "127.0.0.1:8001"


@pytest.mark.parametrize(
    ("example", "sets", "request_mib", "limit_mib"),
    [
        # base + points + cache; with 24 bytes for each of the pixels, and messages
        (None, (), 384 + 3 * 1024 + 512, 384 + 3 * 1024 + 512 + 1145 + 512),
        (None, ("limits.maxPixels=0x100000", 'variants=["mobilesam"]'), 384 + 1024 + 512, 384 + 1024 + 512 + 24 + 512),
        (None, ("textModel=clip-vit-b-32",), 384 + 3 * 1024 + 1536 + 512, 384 + 3 * 1024 + 1536 + 512 + 1145 + 512),
        ("gpu-split", ("textModel=clip-vit-b-32",), 384 + 512, 384 + 512 + 1145 + 512),
        ("gpu", (), 384 + 2048 + 128 + 64, 384 + 2048 + 128 + 64 + 1145 + 512),
        ("gpu-split", (), 384 + 512, 384 + 512 + 1145 + 512),
    ],
)
def test_memory_is_reckoned(example: str | None, sets: tuple[str, ...], request_mib: int, limit_mib: int) -> None:
    sets = tuple(one.replace("0x100000", str(2**20)) for one in sets)
    resources = gateway(rendered(*sets, example=example))["resources"]
    assert resources["requests"]["memory"] == f"{request_mib}Mi"
    assert resources["limits"]["memory"] == f"{limit_mib}Mi"


def test_memory_may_be_given() -> None:
    resources = gateway(rendered("resources.limits.memory=9Gi"))["resources"]
    assert resources["limits"]["memory"] == "9Gi"
    assert resources["requests"]["memory"] == "3968Mi"


@pytest.mark.parametrize(
    ("sets", "threads"),
    [
        ((), "2"),
        (("resources.limits.cpu=500m",), "1"),
        (("resources.limits.cpu=3500m",), "3"),
        (("resources.limits.cpu=8",), "8"),
        (("resources.limits=null", "resources.requests.cpu=4"), "4"),
        (("engine.threads=5",), "5"),
    ],
)
def test_threads_follow_the_cpus(sets: tuple[str, ...], threads: str) -> None:
    assert environment(gateway(rendered(*sets)))["SAMGATE_ENGINE_THREADS"] == threads


def test_triton_is_that_of_the_compiled_plans() -> None:
    pod = of_kind(rendered(example="gpu"), "Deployment")["spec"]["template"]["spec"]
    assert next(one["image"] for one in pod["initContainers"] if one["name"] == "triton") == TRITON_IMAGE


def test_images_may_be_elsewhere() -> None:
    made = objects("pinned")
    images = {container["image"] for _, _, pod in pods(made) for container in containers(pod)}
    assert f"registry.example.org/masks/samgate-gateway@sha256:{'0' * 64}" in images
    assert "registry.example.org/masks/samgate-compile:0.1.0" in images
    assert TRITON_IMAGE in images


def test_rules_and_dashboard_come_through_as_they_are() -> None:
    made = objects("monitored")
    rules = (CHART / "files" / "rules.yaml").read_text()
    assert of_kind(made, "PrometheusRule")["spec"] == yaml.safe_load(rules)
    assert "{{ $labels" in rules, "nothing here that a template could spoil"
    dashboard = of_kind(made, "ConfigMap", "samgate-dashboard")["data"]["samgate.json"]
    assert json.loads(dashboard) == json.loads((CHART / "files" / "dashboard.json").read_text())


def test_keda_asks_of_this_releases_gateways() -> None:
    (trigger, _) = of_kind(objects("keda"), "ScaledObject")["spec"]["triggers"]
    query = re.fullmatch(
        r'sum\(samgate_queued_work_seconds\{namespace="masks",pod=~"(.+)"\}\)', trigger["metadata"]["query"]
    )
    assert query
    assert re.fullmatch(query[1], "samgate-7d9c9b5c6d-x2x4z")
    for other in ("samgate-triton-7d9c9b5c6d-x2x4z", "other-7d9c9b5c6d-x2x4z", "samgate-models-d42d834d58-abcde"):
        assert not re.fullmatch(query[1], other)


def test_each_deployment_scales_by_what_it_is_short_of() -> None:
    made = objects("split, scaled by hpa")
    by_calls = of_kind(made, "HorizontalPodAutoscaler", "samgate")["spec"]["metrics"]
    assert [metric["pods"]["metric"]["name"] for metric in by_calls] == ["samgate_requests_in_flight"]
    by_queue = of_kind(made, "HorizontalPodAutoscaler", "samgate-triton")["spec"]["metrics"]
    assert [metric["external"]["metric"]["name"] for metric in by_queue] == ["samgate_queued_work_seconds"]
    behavior = of_kind(objects("hpa"), "HorizontalPodAutoscaler")["spec"]["behavior"]
    assert behavior["scaleUp"]["stabilizationWindowSeconds"] < behavior["scaleDown"]["stabilizationWindowSeconds"]


def test_alerts_link_to_the_runbook_that_values_name() -> None:
    made = rendered("monitoring.rules=true", "monitoring.runbook=https://git.example.org/samgate/operations.md")
    rule = of_kind(made, "PrometheusRule")
    links = [
        alert["annotations"]["runbook_url"]
        for group in rule["spec"]["groups"]
        for alert in group["rules"]
        if "alert" in alert
    ]
    assert len(links) > 10
    assert all(link.startswith("https://git.example.org/samgate/operations.md#samgate") for link in links)
