"""That the check of the restricted profile finds what breaks it."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from pod_security import violations

SOUND: dict[str, Any] = {
    "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
    "containers": [
        {
            "name": "one",
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        }
    ],
    "volumes": [{"name": "tmp", "emptyDir": {}}],
}


def test_a_sound_pod_passes() -> None:
    assert violations(SOUND) == []


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        ("hostNetwork", True, "hostNetwork"),
        ("hostPID", True, "hostPID"),
        ("hostIPC", True, "hostIPC"),
        ("volumes.0", {"name": "root", "hostPath": {"path": "/"}}, "volume root is a hostPath"),
        ("volumes.0", {"name": "share", "nfs": {}}, "volume share is a nfs"),
        ("securityContext.runAsUser", 0, "runAsUser is 0"),
        ("securityContext.runAsNonRoot", False, "one: runAsNonRoot is not true"),
        ("securityContext.seccompProfile", {"type": "Unconfined"}, "one: seccompProfile is neither"),
        ("securityContext.sysctls", [{"name": "kernel.msgmax", "value": "1"}], "sysctl kernel.msgmax"),
        ("containers.0.securityContext.runAsUser", 0, "one: runAsUser is 0"),
        ("containers.0.securityContext.runAsNonRoot", False, "one: runAsNonRoot is not true"),
        ("containers.0.securityContext.seccompProfile", {"type": "Unconfined"}, "one: seccompProfile is neither"),
        ("containers.0.securityContext.privileged", True, "one: privileged"),
        ("containers.0.securityContext.allowPrivilegeEscalation", True, "one: allowPrivilegeEscalation is not false"),
        ("containers.0.securityContext.procMount", "Unmasked", "one: procMount"),
        ("containers.0.securityContext.capabilities", {}, "one: doesn't drop ALL"),
        ("containers.0.securityContext.capabilities.add", ["SYS_ADMIN"], "one: adds SYS_ADMIN"),
        ("containers.0.securityContext.seLinuxOptions", {"user": "root"}, "one: seLinuxOptions"),
        ("containers.0.securityContext.appArmorProfile", {"type": "Unconfined"}, "one: appArmorProfile"),
        ("containers.0.securityContext.windowsOptions", {"hostProcess": True}, "one: hostProcess"),
        ("containers.0.ports", [{"containerPort": 1, "hostPort": 1}], "one: hostPort"),
        ("containers.0.livenessProbe", {"httpGet": {"host": "elsewhere"}}, "one: livenessProbe names a host"),
        ("containers.0.lifecycle", {"preStop": {"tcpSocket": {"host": "x"}}}, "one: preStop names a host"),
        ("initContainers", [{"name": "first"}], "first: allowPrivilegeEscalation is not false"),
        ("ephemeralContainers", [{"name": "debug"}], "debug: doesn't drop ALL"),
    ],
)
def test_what_breaks_it_is_found(path: str, value: Any, problem: str) -> None:
    pod: Any = copy.deepcopy(SOUND)
    place = pod
    *parents, last = path.split(".")
    for part in parents:
        place = place[int(part)] if isinstance(place, list) else place[part]
    place[int(last) if isinstance(place, list) else last] = value
    assert any(found.startswith(problem) for found in violations(pod)), violations(pod)
