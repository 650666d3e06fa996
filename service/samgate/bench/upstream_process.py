"""Sets up upstream's environment and starts its predictor and mask generator in it."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from samgate.bench.context import Context, Upstream
from samgate.bench.errors import BenchmarkError
from samgate.bench.worker import Worker, working
from samgate.variants import get_variant
from samgate.weights import store

TORCH = "torch==2.13.0"
CODE = "mobilesam-mirror==1.0.0"
"""Upstream's package ``mobile_sam``, unchanged; without its dependencies, for which stand-ins are enough."""
VARIANT = "mobilesam"


@contextmanager
def upstream_worker(context: Context) -> Iterator[Worker]:
    """Upstream's predictor and mask generator (``upstream/driver.py`` says what it can be asked), with the installed
    weights and as many threads as samgate's engine gets.

    Raises:
        BenchmarkError: another variant is measured, or the environment can't be made.
        NotInstalled: the variant's weights aren't there.
    """
    if context.variant != VARIANT:
        raise BenchmarkError(f"upstream's code is known for {VARIANT} only, not for {context.variant}")
    python = context.upstream.python or _environment(context)
    weights = context.scratch / "upstream.npz"
    state: dict[str, Any] = {**store.load(get_variant(context.variant))}
    np.savez(weights, **state)
    command = [str(python.absolute()), "-m", "upstream.driver"]
    command += ["--weights", str(weights), "--threads", str(context.all_threads)]
    if context.upstream.code is not None:
        command += ["--code", str(context.upstream.code.absolute())]
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    log = context.scratch / "upstream.log"
    with working(command, log, environment, Path(__file__).resolve().parent) as worker:
        yield worker


def described(upstream: Upstream) -> str:
    """Which code runs, for people."""
    return f"its code in `{upstream.code}`" if upstream.code is not None else f"its code from {CODE}"


def _environment(context: Context) -> Path:
    """The Python of the environment in ``context.upstream.folder``, made now if it isn't complete."""
    folder = context.upstream.folder
    python, complete = folder / "bin" / "python", folder / ".complete"
    versions = [f"{name}=={importlib.metadata.version(name)}" for name in ("numpy", "pillow")]
    content = " ".join([TORCH, CODE, *versions])
    if complete.exists() and complete.read_text(encoding="utf-8") == content:
        return python
    context.console.print(f"making upstream's environment in {folder} (once) …")
    shutil.rmtree(folder, ignore_errors=True)
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
    _run([sys.executable, "-m", "venv", str(folder)])
    _run([*pip, TORCH, *versions])
    _run([*pip, "--no-deps", CODE])
    complete.write_text(content, encoding="utf-8")
    return python


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        output = "\n".join((done.stdout + done.stderr).splitlines()[-12:])
        raise BenchmarkError(f"`{' '.join(command)}` has failed:\n{output}")
