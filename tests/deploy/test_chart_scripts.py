"""The chart's scripts, run by a real shell; those for object storage with the real rclone on a real S3 API."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from helm_support import CHART, Object, containers, environment, of_kind, pods, rendered

SCRIPTS = CHART / "files" / "scripts"
SAMGATE = """#!/bin/sh
echo "$SAMGATE_HOME: $@" >> "$LOG"
[ "$1 $FAILING" != "$1 $1" ]
"""


PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
"""With what is installed beside Python: rclone."""


def run(script: str, **variables: str | Path) -> subprocess.CompletedProcess[str]:
    command = ["sh", str(SCRIPTS / f"{script}.sh")]
    given = {name: str(value) for name, value in variables.items()}
    path = {"PATH": PATH, "HOME": "/nonexistent"}
    return subprocess.run(command, env=path | given, capture_output=True, text=True, timeout=60, check=False)


def models(store: Path, name: str, *, ready: bool = True) -> Path:
    folder = store / name
    (folder / "graphs" / "mobilesam-1").mkdir(parents=True)
    (folder / "graphs" / "mobilesam-1" / "encoder.onnx").write_text(name)
    if ready:
        (folder / "READY").touch()
    return folder


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def commands(tmp_path: Path) -> Path:
    """A folder with a `samgate` that writes down how it was called, in the file `log`; fails as FAILING says."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "samgate").write_text(SAMGATE)
    (tmp_path / "bin" / "samgate").chmod(0o755)
    return tmp_path / "bin"


def path_with(commands: Path) -> str:
    return f"{commands}{os.pathsep}{PATH}"


def encoder(home: Path) -> str:
    return (home / "graphs" / "mobilesam-1" / "encoder.onnx").read_text()


def test_models_that_are_ready_are_copied(tmp_path: Path, home: Path) -> None:
    done = run("fetch-files", STORE=models(tmp_path, "one"), DESTINATION=home, WAIT_SECONDS="0")
    assert done.returncode == 0, done.stderr
    assert encoder(home) == "one"
    # As after a restart of the pod's sandbox: what is there is no obstacle.
    assert run("fetch-files", STORE=tmp_path / "one", DESTINATION=home, WAIT_SECONDS="0").returncode == 0


def test_models_that_are_being_made_are_waited_for(tmp_path: Path, home: Path) -> None:
    store = models(tmp_path, "one", ready=False)
    variables = {"PATH": os.environ["PATH"], "STORE": str(store), "DESTINATION": str(home), "WAIT_SECONDS": "30"}
    with subprocess.Popen(["sh", str(SCRIPTS / "fetch-files.sh")], env=variables) as waiting:
        time.sleep(0.5)
        assert waiting.poll() is None
        assert not list(home.iterdir())
        (store / "READY").touch()
        assert waiting.wait(timeout=20) == 0
    assert encoder(home) == "one"


def test_waiting_for_models_ends(tmp_path: Path, home: Path) -> None:
    done = run("fetch-files", STORE=models(tmp_path, "one", ready=False), DESTINATION=home, WAIT_SECONDS="1")
    assert done.returncode == 1
    assert "look at the log of the Job" in done.stderr
    assert not list(home.iterdir())


def test_the_job_pulls_and_exports(tmp_path: Path, commands: Path) -> None:
    store, log = tmp_path / "key", tmp_path / "log"
    variables: dict[str, str | Path] = {"STORE": store, "MODELS": "mobilesam,yolox-nano", "LOG": log}
    variables["PATH"] = path_with(commands)
    assert run("export", **variables).returncode == 0
    pulled, detector, exported = log.read_text().splitlines()
    assert (pulled, detector) == (f"{store}: pull mobilesam", f"{store}: pull yolox-nano")
    assert "repository build --profile onnxruntime --models --variants mobilesam,yolox-nano" in exported
    (store / "READY").touch()
    assert run("export", **variables).returncode == 0
    assert len(log.read_text().splitlines()) == 3, "it did again what was ready"


def test_the_job_compiles_plans_and_stops_at_an_error(tmp_path: Path, commands: Path) -> None:
    log = tmp_path / "log"
    variables: dict[str, str | Path] = {"STORE": tmp_path, "VARIANTS": "a,b", "PRECISION": "fp16", "LOG": log}
    variables["PATH"] = path_with(commands)
    assert run("compile", BESIDE="yolox-nano,clip-vit-b-32", **variables).returncode == 0
    flags = "--target tensorrt --precision fp16"
    assert log.read_text().splitlines() == [
        f"{tmp_path}: compile a {flags}",
        f"{tmp_path}: compile b {flags}",
        f"{tmp_path}: compile yolox-nano --target tensorrt",
        f"{tmp_path}: compile clip-vit-b-32 --target tensorrt",
    ]
    log.unlink()
    assert run("compile", BESIDE="", FAILING="compile", **variables).returncode != 0
    assert len(log.read_text().splitlines()) == 1


def test_publishing_keeps_the_newest(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    for age, name in enumerate(("new", "old", "older", "oldest")):
        ready = models(tmp_path, name) / "READY"
        os.utime(ready, (time.time() - 100 * age,) * 2)
    made = models(tmp_path, "made", ready=False)
    done = run("publish-files", STORE=made, KEEP="3")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"lost+found", "made", "new", "old"}
    # A rollback's Job makes its folder the newest.
    assert run("publish-files", STORE=tmp_path / "old", KEEP="1").returncode == 0
    assert {path.name for path in tmp_path.iterdir()} == {"lost+found", "old"}


@pytest.fixture
def bucket(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment that a container of gpu-split gets for object storage, with a server of S3 on this machine."""
    (tmp_path / "served" / "models").mkdir(parents=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [
        str(Path(sys.executable).with_name("rclone")),
        "serve",
        "s3",
        str(tmp_path / "served"),
        "--addr",
        address,
        "--auth-key",
        "key,secret",
    ]
    made = rendered(f"modelStore.objectStorage.env.RCLONE_CONFIG_STORE_ENDPOINT=http://{address}", example="gpu-split")
    pod = of_kind(made, "Deployment", "samgate-triton")["spec"]["template"]["spec"]
    given = environment(next(one for one in containers(pod) if one["name"] == "models"))
    keys = {"RCLONE_CONFIG_STORE_ACCESS_KEY_ID": "key", "RCLONE_CONFIG_STORE_SECRET_ACCESS_KEY": "secret"}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            deadline = time.monotonic() + 20
            while True:
                try:
                    socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), timeout=1).close()
                    break
                except OSError:
                    assert time.monotonic() < deadline, "rclone serves nothing"
                    time.sleep(0.05)
            yield given | keys
        finally:
            server.terminate()


def test_models_go_through_object_storage(tmp_path: Path, home: Path, bucket: dict[str, str]) -> None:
    early = run("fetch-objects", **bucket | {"DESTINATION": str(home), "WAIT_SECONDS": "0"})
    assert early.returncode == 1
    assert "look at the log of the Job" in early.stderr
    made = models(tmp_path, "made", ready=False)
    published = run("publish-objects", **bucket | {"STORE": str(made)})
    assert published.returncode == 0, published.stderr
    fetched = run("fetch-objects", **bucket | {"DESTINATION": str(home), "WAIT_SECONDS": "0"})
    assert fetched.returncode == 0, fetched.stderr
    assert encoder(home) == "made"


def job(*sets: str, example: str) -> Object:
    return of_kind(rendered(*sets, example=example), "Job")


@pytest.mark.parametrize("example", ["cpu-pvc", "gpu", "gpu-split"])
def test_pods_wait_for_the_folder_that_the_job_fills(example: str) -> None:
    made = rendered(example=example)
    steps = {one["name"]: environment(one) for one in containers(job(example=example)["spec"]["template"]["spec"])}
    store = steps["export"]["STORE"]
    assert {step["STORE"] for step in steps.values()} == {store}
    for _, labels, pod in pods(made):
        for container in containers(pod):
            if container["name"] == "models":
                assert labels["app.kubernetes.io/component"] in ("gateway", "triton")
                given = environment(container)
                assert given.get("REMOTE", "").endswith(store.removeprefix("/store")) or given["STORE"] == store


def test_a_job_has_another_name_when_it_is_another() -> None:
    names = {
        job(*sets, example="gpu")["metadata"]["name"]
        for sets in (
            (),
            ("triton.precision=bf16",),
            ("modelStore.resources.limits.cpu=8",),
            ("detector=yolox-nano",),
            ("textModel=clip-vit-b-32",),
        )
    }
    assert len(names) == 5
    folders = {
        environment(containers(job(*sets, example="gpu")["spec"]["template"]["spec"])[0])["STORE"]
        for sets in ((), ("modelStore.resources.limits.cpu=8",))
    }
    assert len(folders) == 1, "the models are the same"


def test_a_job_that_needs_a_gpu_may_take_one_from_pods_that_wait_for_it() -> None:
    made = rendered("priorityClass.create=true", example="gpu")
    classes = {one["metadata"]["name"]: one["value"] for one in made if one["kind"] == "PriorityClass"}
    names = {labels["app.kubernetes.io/component"]: pod.get("priorityClassName") for _, labels, pod in pods(made)}
    assert classes[names["models"]] > classes[names["gateway"]]
    (compiling,) = (
        one for one in containers(of_kind(made, "Job")["spec"]["template"]["spec"]) if one["name"] == "compile"
    )
    assert compiling["resources"]["limits"]["nvidia.com/gpu"] == 1


def test_who_shares_a_claim_of_one_node_is_on_it() -> None:
    made = rendered(example="gpu-one")
    using = [(labels, pod) for _, labels, pod in pods(made) if any(one["name"] == "store" for one in pod["volumes"])]
    assert len(using) == 2
    for labels, pod in using:
        (term,) = pod["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        assert term["topologyKey"] == "kubernetes.io/hostname"
        assert all(term["labelSelector"]["matchLabels"].items() <= other.items() for other, _ in using)
        assert labels["samgate-model-store"] == "samgate-models"
