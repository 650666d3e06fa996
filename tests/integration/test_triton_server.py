"""The server as a process: what is left when it ends, in whichever way, and how it comes back."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from samgate.triton.errors import TritonError
from samgate.triton.install import ensure_installed, find_installation, triton_home
from samgate.triton.runs import SHARED_MEMORY, Run, new_run
from samgate.triton.server import ServerOptions, TritonServer
from triton_support import echoes, infer

__all__ = ["echoes"]

GIVEN = {"given": np.array([1, 2, 3], np.uint8)}
DEADLY = {"given": np.array([255], np.uint8)}
SMALL = ServerOptions(shm_bytes=2**20, shm_growth_bytes=2**20, drain_s=2, ready_timeout_s=60)
READY = re.compile(r"triton ready: \S+ on (\S+), http://\S+, metrics on \S+ – now try: samgate serve --engine triton ")


@contextmanager
def echoing(repository: Path, options: ServerOptions = SMALL) -> Iterator[tuple[TritonServer, Run]]:
    """A server over ``repository``, and its run."""
    installation = ensure_installed()
    with new_run() as run:
        server = TritonServer(installation, repository, run, options)
        try:
            server.start()
            yield server, run
        finally:
            server.stop()


def eventually(holds: Callable[[], bool], seconds: float = 30) -> bool:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def nothing_left(run: Run) -> bool:
    return not (run.processes() or run.regions())


def test_it_answers_and_stops_with_all_that_it_started(echoes: Path) -> None:
    with echoing(echoes) as (server, run):
        assert np.array_equal(infer(server.grpc, "echo", GIVEN)["answer"], GIVEN["given"])
        assert server.ready()
        assert server.models() == {"echo", "other"}
        assert len(server.stub_pids()) == 2
        assert len(run.processes()) == 3
        assert server.process.pid in {process.pid for process in run.processes()}
        assert len(server.shared_memory()) == 2
        assert server.stop() == 0
        assert nothing_left(run)
        assert not server.ready()
        with pytest.raises(TritonError, match="start it first"):
            _ = server.process
    assert not run.folder.exists()


def test_a_killed_server_leaves_nothing_once_it_is_started_again(echoes: Path) -> None:
    with echoing(echoes) as (server, _):
        address, regions = server.grpc, set(server.shared_memory())
        server.process.kill()
        server.process.wait()
        assert not server.running()
        server.restart()
        assert server.grpc == address
        assert np.array_equal(infer(address, "other", GIVEN)["answer"], GIVEN["given"])
        assert regions.isdisjoint(server.shared_memory())
        assert not any(region.exists() for region in regions)


def test_a_dead_model_counts_as_ready_until_it_is_loaded_again(echoes: Path) -> None:
    with echoing(echoes) as (server, _):
        with pytest.raises(InferenceServerException, match="not healthy"):
            infer(server.grpc, "echo", DEADLY)
        assert server.models() == {"other"}
        assert server.ready()
        server.load("echo")
        assert np.array_equal(infer(server.grpc, "echo", GIVEN)["answer"], GIVEN["given"])


def test_a_server_that_dies_early_says_why_and_leaves_nothing(echoes: Path) -> None:
    (echoes / "echo" / "1" / "model.py").write_text("raise ValueError('the model says so')\n")
    with new_run() as run:
        server = TritonServer(ensure_installed(), echoes, run, SMALL)
        with pytest.raises(TritonError, match=r"ended with status 1 before it was ready:[\s\S]*the model says so"):
            server.start()
        assert nothing_left(run)


def test_a_server_that_isn_t_ready_in_time_is_stopped(echoes: Path) -> None:
    (echoes / "echo" / "1" / "model.py").write_text("import time\ntime.sleep(60)\n")
    with new_run() as run:
        server = TritonServer(ensure_installed(), echoes, run, ServerOptions(ready_timeout_s=2))
        started = time.monotonic()
        with pytest.raises(TritonError, match="not ready within 2 s"):
            server.start()
        assert time.monotonic() - started < 20
        assert nothing_left(run)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_taken_port_is_an_error_though_the_other_server_answers_there(echoes: Path, protocol: str) -> None:
    with echoing(echoes) as (server, _), new_run() as run:
        port = int(getattr(server, protocol).rpartition(":")[2])
        options = replace(SMALL, grpc_port=port) if protocol == "grpc" else replace(SMALL, http_port=port)
        other = TritonServer(ensure_installed(), echoes, run, options)
        with pytest.raises(TritonError, match=r"ended with status 1 before it was ready") as error:
            other.start()
        assert re.search(r"already in use|unavailable", str(error.value))
        assert server.ready()


HOLDER = """\
import sys, time
from pathlib import Path
from samgate.triton.install import ensure_installed
from samgate.triton.runs import new_run
from samgate.triton.server import TritonServer, ServerOptions

with new_run() as run:
    server = TritonServer(ensure_installed(), Path(sys.argv[1]), run, ServerOptions(shm_bytes=2**20))
    server.start()
    print(run.token, flush=True)
    time.sleep(60)
"""


def test_the_next_run_clears_up_after_a_killed_holder(echoes: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(echoes)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        token = holder.stdout.readline().strip()
        holder.kill()
        holder.wait()
    orphaned = Run(token, triton_home() / "run" / token)
    assert orphaned.processes()
    assert orphaned.regions()
    with new_run() as run:
        assert run.token != token
        assert nothing_left(orphaned)
        assert not orphaned.folder.exists()


def test_living_runs_are_left_alone(echoes: Path) -> None:
    with echoing(echoes) as (server, _):
        with new_run():
            pass
        assert np.array_equal(infer(server.grpc, "echo", GIVEN)["answer"], GIVEN["given"])
        assert len(server.stub_pids()) == 2


def up_command(repository: Path) -> list[str]:
    ports = [f"--{name}-port=0" for name in ("grpc", "http", "metrics")]
    return [sys.executable, "-m", "samgate.cli.main", "triton", "up", f"--repository={repository}", *ports]


@contextmanager
def up(repository: Path, log: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """``samgate triton up`` as a process, and its gRPC address."""
    with (
        log.open("w") as said,
        subprocess.Popen(up_command(repository), stdout=subprocess.PIPE, stderr=said, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            ready = READY.match(process.stdout.readline())
            assert ready, log.read_text()
            yield process, ready[1]
        finally:
            process.kill()


def answers(address: str, model: str) -> bool:
    try:
        return np.array_equal(infer(address, model, GIVEN)["answer"], GIVEN["given"])
    except InferenceServerException:
        return False


def run_of(process: subprocess.Popen[Any]) -> Run:
    """The run that ``process`` holds: its server is the only child it has."""
    child = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    arguments = Path(f"/proc/{child[0]}/cmdline").read_text()
    token = re.search(r"samgate-triton-[0-9a-f]+", arguments)
    assert token
    return Run(token[0], triton_home() / "run" / token[0])


def test_up_brings_back_a_dead_model_and_a_dead_server_and_stops_when_told(echoes: Path, tmp_path: Path) -> None:
    log = tmp_path / "up.log"
    with up(echoes, log) as (process, address):
        run = run_of(process)
        with pytest.raises(InferenceServerException):
            infer(address, "echo", DEADLY)
        assert eventually(lambda: answers(address, "echo")), log.read_text()
        assert "the process of echo has died; loading it again" in log.read_text()
        server = next(one.pid for one in run.processes() if one.model is None)
        os.kill(server, signal.SIGKILL)
        assert eventually(lambda: "Triton is ready again" in log.read_text()), log.read_text()
        assert answers(address, "other")
        assert "Triton has died (status -9); starting it again in 0.5 s" in log.read_text()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert nothing_left(run)
        assert not run.folder.exists()


def test_up_can_be_stopped_while_it_starts(echoes: Path, tmp_path: Path) -> None:
    started = tmp_path / "started"
    slow = f"import pathlib, time\npathlib.Path({str(started)!r}).touch()\ntime.sleep(60)\n"
    (echoes / "echo" / "1" / "model.py").write_text(slow)
    with subprocess.Popen(up_command(echoes), stderr=subprocess.DEVNULL) as process:
        try:
            assert eventually(started.exists)
            run = run_of(process)
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
            assert nothing_left(run)
        finally:
            process.kill()


def test_what_pip_says_is_passed_on_and_nothing_half_installed_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAMGATE_HOME", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    assert find_installation() is None
    with pytest.raises(
        TritonError, match=r"fetching numpy==1\S+ .* failed: .*No matching distribution found for numpy"
    ):
        ensure_installed()
    assert [path.suffix for path in (tmp_path / "triton").iterdir()] == [".lock"]


def test_the_installation_is_complete_and_found_again() -> None:
    installation = ensure_installed()
    assert find_installation() == installation
    assert os.access(installation.binary, os.X_OK)
    versions = subprocess.run(
        [installation.stub / "bin" / "python3", "-c", "import numpy, openvino; print(numpy.__version__)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert versions.stdout.startswith("1."), "from 2 on, the backend would answer with empty tensors"
    assert SHARED_MEMORY.is_dir()
