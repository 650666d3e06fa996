"""OpenVINO's telemetry, which would report from a fork of the server, is never loaded."""

from __future__ import annotations

import subprocess
import sys

_SCRIPT = """
import importlib.util, multiprocessing.process, sys
assert importlib.util.find_spec("openvino_telemetry") is not None
multiprocessing.process.BaseProcess.start = lambda self: sys.exit("a process was started")
import samgate.engines.openvino, samgate.triton.staging
assert "openvino_telemetry.main" not in sys.modules
"""


def test_importing_the_engine_starts_no_process_and_no_telemetry() -> None:
    done = subprocess.run([sys.executable, "-c", _SCRIPT], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
