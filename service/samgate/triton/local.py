"""A Triton of one's own for the time of a block: installed if need be, with the variants that are installed here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from samgate.repository.models import Batching
from samgate.triton.install import ensure_installed
from samgate.triton.runs import new_run
from samgate.triton.server import ServerOptions, TritonServer, silent
from samgate.triton.staging import Beside, StagingOptions, stage


@contextmanager
def local_triton(
    precisions: Mapping[str, str],
    *,
    threads: int = 0,
    batching: Batching = "formed",
    beside: Beside | None = None,
    options: ServerOptions | None = None,
    report: Callable[[str], None] = silent,
) -> Iterator[TritonServer]:
    """A running server with the graphs of some variants in the ``python-cpu`` profile, ready; gone after the block.

    ``precisions`` names the variants, each with a plan's name or ``auto``; ``beside`` them are those models.
    ``threads`` are each model's, 0 for all cores. ``report`` gets a line for what takes long. Raises TritonError, and
    what exporting the graphs raises.
    """
    installation = ensure_installed()
    with new_run() as run:
        stage(precisions, run.models, StagingOptions(threads, batching, beside or Beside()), report)
        server = TritonServer(installation, run.models, run, options or ServerOptions())
        try:
            server.start(report)
            yield server
        finally:
            server.stop()
