"""The chart's modes with every add-on that each can have."""

from __future__ import annotations

import pytest

from helm_support import EXAMPLES, KUBERNETES, Object, of_kind, rendered

COMBINATIONS: dict[str, tuple[str | None, tuple[str, ...]]] = {
    "default": (None, ()),
    **{name: (name, ()) for name in EXAMPLES},
    "gpu, scaled and scraped": ("gpu", ("autoscaling.by=hpa", "monitoring.scrape=PodMonitor")),
    "split, scaled by hpa": ("gpu-split", ("autoscaling.by=hpa", "monitoring.scrape=ServiceMonitor")),
    "split, scaled by keda": (
        "gpu-split",
        ("autoscaling.by=keda", "autoscaling.keda.serverAddress=http://prometheus:9090", "priorityClass.create=true"),
    ),
    "split, secured, with a detector": (
        "gpu-split",
        ("tls.secretName=t", "auth.clients.secretName=c", "metrics.token.secretName=m", "detector=yolox-nano"),
    ),
    "with a text model": ("cpu", ('variants=["fastsam-s"]', "textModel=clip-vit-b-32")),
    "pinned": (
        "gpu",
        (
            f"images.gateway.digest=sha256:{'0' * 64}",
            "images.registry=registry.example.org/masks",
            'images.pullSecrets=[{"name":"registry"}]',
            "triton.runtimeClassName=nvidia",
            'affinity={"nodeAffinity":{}}',
            'podLabels={"team":"masks"}',
            'podAnnotations={"note":"x"}',
            "serviceAccount.create=false",
            'settings={"LIMITS_MAX_PROMPTS":64,"TRITON_FALLBACK":false}',
        ),
    ),
}
every_combination = pytest.mark.parametrize("combination", COMBINATIONS)


def objects(combination: str, kubernetes: str = KUBERNETES[1]) -> list[Object]:
    """What the chart makes of it, the caller's own."""
    example, sets = COMBINATIONS[combination]
    return rendered(*sets, example=example, kubernetes=kubernetes)


def gateway(made: list[Object]) -> Object:
    """Its container."""
    pod: Object = of_kind(made, "Deployment", "samgate")["spec"]["template"]["spec"]
    return next(one for one in pod["containers"] if one["name"] == "gateway")
