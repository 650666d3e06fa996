"""Writes a repository, compares one with what the specs say, and puts compiled graphs into one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from samgate.compile.external import copy_graph
from samgate.errors import SamgateError
from samgate.repository.models import Batching
from samgate.repository.profiles import Profile
from samgate.repository.readme import readme
from samgate.repository.tree import repository_files
from samgate.variants.detectors import DetectorSpec
from samgate.variants.spec import NetworkSpec

MODEL_FILES = ("*.onnx", "*.plan")
"""Compiled graphs: never checked in, so never superfluous."""


@dataclass(frozen=True, slots=True)
class Differences:
    """Paths relative to the repository: of another content, not there, and there without reason."""

    differing: tuple[str, ...]
    missing: tuple[str, ...]
    superfluous: tuple[str, ...]

    def __bool__(self) -> bool:
        return any((self.differing, self.missing, self.superfluous))


def all_files(
    profiles: Iterable[Profile],
    specs: Sequence[NetworkSpec],
    batching: Batching,
    detectors: Sequence[DetectorSpec] = (),
) -> dict[str, str]:
    """What belongs into ``model_repository/``: a folder a profile, and a README. Sizes of ``detectors`` are known."""
    files = {"README.md": readme(specs, detectors)}
    for profile in profiles:
        models = repository_files(profile, specs, batching, detectors={spec: {} for spec in detectors})
        files |= {f"{profile.name}/{path}": text for path, text in models.items()}
    return files


def write_files(folder: Path, files: Mapping[str, str]) -> None:
    """Writes ``files`` below ``folder``, which is made. Raises SamgateError when that can't be."""
    for path, text in files.items():
        place = folder / path
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text, encoding="utf-8")
        except OSError as error:
            raise SamgateError(f"{place} can't be written: {error.strerror}") from error


def place_models(folder: Path, models: Mapping[str, Path]) -> None:
    """Copies compiled graphs to where they belong in the repository ``folder``. Raises SamgateError."""
    for path, source in models.items():
        place = folder / path
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            copy_graph(source, place)
        except OSError as error:
            raise SamgateError(f"{source} can't be copied to {place}: {error.strerror}") from error


def compare(folder: Path, files: Mapping[str, str], within: str = "") -> Differences:
    """How what is in ``folder`` differs from ``files``; compiled graphs and bytecode don't count.

    Files are superfluous only in the sub-folder ``within``, if one is given.
    """
    there = {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and not any(path.match(pattern) for pattern in (*MODEL_FILES, "__pycache__/*"))
    }
    wanted = files.keys()
    return Differences(
        differing=tuple(
            sorted(path for path in wanted & there if (folder / path).read_bytes() != files[path].encode())
        ),
        missing=tuple(sorted(wanted - there)),
        superfluous=tuple(sorted(path for path in there - wanted if path.startswith(within))),
    )
