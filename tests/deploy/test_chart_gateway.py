"""The gateway with the very environment that the chart gives it, asked by the very program that `helm test` runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from chart_support import gateway
from helm_support import CHART, environment, of_kind, rendered
from support import READY, SERVE

CHECK = CHART / "files" / "test" / "check.py"
PORTS = {"SAMGATE_PORT": "0", "SAMGATE_HTTP_PORT": "0", "SAMGATE_ADMIN_PORT": "0"}
HERE = {"SAMGATE_HOST": "127.0.0.1", "SAMGATE_HTTP_HOST": "127.0.0.1", "SAMGATE_ADMIN_HOST": "127.0.0.1"}


@pytest.fixture(scope="module")
def target(installed: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a gateway as the chart's defaults have it, but on free ports of this machine, with one variant."""
    given = environment(gateway(rendered('variants=["mobilesam"]')))
    del given["SAMGATE_HOME"]
    log = tmp_path_factory.mktemp("gateway") / "log"
    with (
        log.open("w") as errors,
        subprocess.Popen(
            SERVE[:4], stdout=subprocess.PIPE, stderr=errors, text=True, env={**os.environ, **given, **PORTS, **HERE}
        ) as process,
    ):
        try:
            assert process.stdout is not None
            ready = READY.match(process.stdout.readline())
            assert ready, log.read_text()
            yield ready["target"]
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=60) == 0
        finally:
            process.kill()


def check(tmp_path: Path, server: str, program: str = CHECK.read_text()) -> subprocess.CompletedProcess[str]:
    """As in the pod: program and picture in a folder, `samgate` on the path."""
    (tmp_path / "check.py").write_text(program)
    (tmp_path / "photo.jpg").write_bytes((CHART / "files" / "test" / "photo.jpg").read_bytes())
    (tmp_path / "samgate").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m samgate.cli.main "$@"\n')
    (tmp_path / "samgate").chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        [sys.executable, str(tmp_path / "check.py")],
        env={**os.environ, "PATH": path, "SERVER": server},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_it_finds_the_mask(tmp_path: Path, target: str) -> None:
    done = check(tmp_path, target)
    assert done.returncode == 0, done.stderr
    assert "mobilesam found a mask of" in done.stdout


def test_it_fails_for_another_mask(tmp_path: Path, target: str) -> None:
    elsewhere = CHECK.read_text().replace("(100, 120), 60", "(245, 110), 60")
    done = check(tmp_path, target, elsewhere)
    assert done.returncode == 1
    assert "that is more than 10% off" in done.stderr


def test_it_fails_without_a_server(tmp_path: Path) -> None:
    done = check(tmp_path, "127.0.0.1:1", CHECK.read_text().replace('"--json"', '"--timeout", "1", "--json"'))
    assert done.returncode == 1
    assert "failed" in done.stderr


def test_the_picture_is_the_drawn_one(photo: bytes) -> None:
    drawn = cv2.imdecode(np.frombuffer(photo, np.uint8), cv2.IMREAD_COLOR)
    kept = cv2.imread(str(CHART / "files" / "test" / "photo.jpg"))
    assert drawn is not None
    assert kept is not None
    assert cv2.PSNR(drawn, kept) > 25


def test_the_pod_has_what_it_runs() -> None:
    made = rendered()
    files = of_kind(made, "ConfigMap", "samgate-test")
    assert files["data"]["check.py"] == CHECK.read_text()
    assert set(files["binaryData"]) == {"photo.jpg"}
    pod = of_kind(made, "Pod")
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    assert environment(pod["spec"]["containers"][0])["SERVER"] == "samgate.masks.svc:50051"


def test_the_pod_is_there_only_with_what_the_server_asks_for() -> None:
    assert of_kind(rendered(example="secured"), "Pod")
    for missing in ("tests.tokenSecret.name=", "tests.clientSecretName="):
        assert "Pod" not in {one["kind"] for one in rendered(missing, example="secured")}
