"""The Pod Security Standards' profile "restricted" (and with it "baseline"), as a function of a pod's spec."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Object = dict[str, Any]

_VOLUMES = {
    *("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"),
}
_SYSCTLS = {
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
}
_SECCOMP = {"RuntimeDefault", "Localhost"}
_SELINUX = {None, "", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}


def violations(pod: Object) -> list[str]:
    """What in ``pod``, a PodSpec for Linux, the profile forbids; a phrase each."""
    containers = [
        container for kind in ("initContainers", "containers", "ephemeralContainers") for container in pod.get(kind, [])
    ]
    found = list(_of_pod(pod))
    for container in containers:
        found += [f"{container['name']}: {problem}" for problem in _of_container(container, pod)]
    return found


def _of_pod(pod: Object) -> Iterator[str]:
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(name):
            yield name
    for volume in pod.get("volumes", []):
        for kind in volume.keys() - {"name"} - _VOLUMES:
            yield f"volume {volume['name']} is a {kind}"
    security = pod.get("securityContext", {})
    for sysctl in security.get("sysctls", []):
        if sysctl["name"] not in _SYSCTLS:
            yield f"sysctl {sysctl['name']}"
    yield from _of_both(security)


def _of_both(security: Object) -> Iterator[str]:
    """What may stand in a pod's and in a container's security context."""
    if security.get("runAsUser") == 0:
        yield "runAsUser is 0"
    if security.get("runAsNonRoot") is False:
        yield "runAsNonRoot is false"
    options = security.get("seLinuxOptions", {})
    if options.get("type") not in _SELINUX or options.get("user") or options.get("role"):
        yield "seLinuxOptions"
    if security.get("windowsOptions", {}).get("hostProcess"):
        yield "hostProcess"
    if security.get("appArmorProfile", {}).get("type", "RuntimeDefault") not in _SECCOMP:
        yield "appArmorProfile"


def _of_container(container: Object, pod: Object) -> Iterator[str]:
    security, inherited = container.get("securityContext", {}), pod.get("securityContext", {})
    yield from _of_both(security)
    if security.get("privileged"):
        yield "privileged"
    if security.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation is not false"
    if security.get("procMount", "Default") != "Default":
        yield "procMount"
    capabilities = security.get("capabilities", {})
    if "ALL" not in capabilities.get("drop", []):
        yield "doesn't drop ALL capabilities"
    if added := set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
        yield f"adds {', '.join(sorted(added))}"
    if security.get("runAsNonRoot", inherited.get("runAsNonRoot")) is not True:
        yield "runAsNonRoot is not true"
    profile = security.get("seccompProfile", inherited.get("seccompProfile", {}))
    if profile.get("type") not in _SECCOMP:
        yield "seccompProfile is neither RuntimeDefault nor Localhost"
    if any(port.get("hostPort") for port in container.get("ports", [])):
        yield "hostPort"
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        yield from _of_handler(container.get(probe, {}), probe)
    for name, handler in container.get("lifecycle", {}).items():
        if isinstance(handler, dict):
            yield from _of_handler(handler, name)


def _of_handler(handler: Object, name: str) -> Iterator[str]:
    if any(handler.get(kind, {}).get("host") for kind in ("httpGet", "tcpSocket")):
        yield f"{name} names a host"
