"""What every benchmark gets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from samgate.engines.cpu import usable_cores


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where upstream's code runs: ``python`` (None: an environment in ``folder``, made when it isn't there) and the
    folder ``code`` that holds the package ``mobile_sam`` (None: it is installed in that environment)."""

    python: Path | None = None
    code: Path | None = None
    folder: Path = Path(".venv-upstream")


@dataclass(frozen=True, slots=True)
class SegEvery:
    """What SegmentEverything is measured on, and against.

    Attributes:
        dataset: COCO instances, for recall; its images of at least 640 pixels on a side are used.
        media: a folder of further images without labels, for speed alone.
        images: how many of the data set's; None for a number that takes an hour or so.
        upstream_images: how many images upstream is timed on; None for all.
        reuse_upstream: whether masks that upstream gave in earlier runs serve for recall on the others.
        strategies: names; none for all.
    """

    dataset: Path | None = None
    media: Path | None = None
    images: int | None = None
    upstream_images: int | None = None
    reuse_upstream: bool = False
    strategies: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Context:
    """A run's options.

    ``images`` is a folder of photographs, None for drawn ones; ``scratch`` a folder that is removed after the run;
    ``quick`` asks for just enough repetitions to see that a benchmark works.
    """

    scratch: Path
    variant: str
    precision: str = "auto"
    engine: str = "auto"
    threads: int = 0
    quick: bool = False
    images: Path | None = None
    upstream: Upstream = field(default_factory=Upstream)
    segevery: SegEvery = field(default_factory=SegEvery)
    console: Console = field(default_factory=lambda: Console(stderr=True))

    @property
    def all_threads(self) -> int:
        """The number of CPU threads that everything measured gets."""
        return self.threads or usable_cores()

    def inside(self, name: str) -> Context:
        """The same with a new folder ``name`` inside ``scratch``, for a server beside others."""
        scratch = self.scratch / name
        scratch.mkdir()
        return replace(self, scratch=scratch)

    def repetitions(self, full: int, quick: int) -> int:
        """One of the two."""
        return quick if self.quick else full

    @contextmanager
    def progress(self, label: str, total: int) -> Iterator[Callable[[], None]]:
        """A bar for ``total`` steps; yields what to call after each."""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self.console) as bar:
            task = bar.add_task(label, total=total)
            yield lambda: bar.advance(task)
