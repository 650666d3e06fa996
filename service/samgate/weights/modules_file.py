"""What is in a file of ``torch.save(module)``: a whole network, pickled with its classes, of which none is needed.
``torch.jit.save`` writes the same of a network that was made a program, which stands beside it.

``torch.load`` would import and call what such a file names. Here it is read as data, by
:mod:`samgate.weights.inert_pickle`: modules are recognised by what every ``torch.nn.Module`` keeps, tensors by the
functions that torch has for them.
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samgate.errors import WeightsError
from samgate.weights.inert_pickle import Made, Name, Stored, read_pickle

if TYPE_CHECKING:
    import torch

Value = Any
"""A tensor, or text, a number, or a tuple of these."""

MAX_VALUES = 1_000_000
MAX_DEPTH = 64
MAX_NAME = 1_000
"""Bounds on what is looked at in a file, where parts may occur many times without being there more than once."""
_MAX_AXES = 8

_REBUILT = {f"torch._utils._rebuild_tensor{version}" for version in ("", "_v2")}
_WRAPPED = {f"torch._utils._rebuild_parameter{more}" for more in ("", "_with_state")}
_DTYPES = {
    "DoubleStorage": ("float64", 8),
    "FloatStorage": ("float32", 4),
    "HalfStorage": ("float16", 2),
    "BFloat16Storage": ("bfloat16", 2),
    "LongStorage": ("int64", 8),
    "IntStorage": ("int32", 4),
    "ShortStorage": ("int16", 2),
    "CharStorage": ("int8", 1),
    "ByteStorage": ("uint8", 1),
}
"""Names and sizes in bytes."""
_LEGACY = (0x1950A86A20F9469CFC6C, 1001)
"""First numbers of a file from before torch 1.6."""
_MODULE_PARTS = ("_parameters", "_buffers", "_modules")


def read_module(path: Path) -> Mapping[str, Value]:
    """Everything plain in the network that ``path`` holds, by dotted names, as ``state_dict`` has them.

    Beside parameters and persistent buffers that is what modules have as attributes: text, numbers, tuples of these and
    tensors. A file that holds a dict has what is in it by its keys: ``model.0.weight``. Everything else is left out:
    functions, hooks, objects of other classes.

    Args:
        path: of a file that ``torch.save`` wrote, as an archive or in the format before torch 1.6, or
            ``torch.jit.save``.

    Raises:
        WeightsError: torch is not installed, or the file is damaged or no such file. Nothing in it is ever run.
    """
    try:
        import torch  # noqa: F401
    except ModuleNotFoundError as error:
        raise WeightsError("reading torch's files needs torch: pip install 'samgate[compile]'") from error
    try:
        with _read_archive(path) if zipfile.is_zipfile(path) else _read_legacy(path) as (content, storages):
            return _flat(content, storages)
    except (OSError, zipfile.BadZipFile, struct.error, KeyError, NotImplementedError, WeightsError) as error:
        raise WeightsError(f"{path.name} can't be read as a file of torch: {error}") from error


def _flat(content: Any, storages: _Storages) -> dict[str, Value]:
    return {
        name: _tensor(name, value, storages) if isinstance(value, Made) else value
        for name, value in _Walk().leaves("", content, 0)
    }


class _Walk:
    """Through all that a pickle describes, as far as it is plain; shared parts are there under many names."""

    def __init__(self) -> None:
        self._left = MAX_VALUES

    def leaves(self, name: str, value: Any, depth: int) -> Iterator[tuple[str, Any]]:
        """Names and values, tensors as they were pickled."""
        self._left -= 1 + (len(value) if isinstance(value, list | tuple) else 0)
        if self._left < 0 or depth > MAX_DEPTH or len(name) > MAX_NAME:
            raise WeightsError(
                f"it has more than {MAX_VALUES:,} values, in more than {MAX_DEPTH} levels, or names of more than "
                f"{MAX_NAME:,} letters"
            )
        if _is_plain(value):
            yield name, tuple(value) if isinstance(value, list) else value
        elif isinstance(value, Made) and value.what in _REBUILT | _WRAPPED:
            yield name, value
        else:
            for key, part in _parts(value):
                yield from self.leaves(f"{name}.{key}" if name else str(key), part, depth + 1)


def _parts(value: Any) -> Iterator[tuple[str | int, Any]]:
    match value:
        case dict():
            yield from value.items()
        case list() | tuple():
            yield from enumerate(value)
        case Made(state=dict() as state):
            passing = state.get("_non_persistent_buffers_set", ())
            for key, part in state.items():
                if key in _MODULE_PARTS and isinstance(part, dict):
                    yield from ((one, of) for one, of in part.items() if key != "_buffers" or one not in passing)
                elif not str(key).startswith("_"):
                    yield key, part


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple) and value:
        return all(isinstance(one, bool | int | float | str) for one in value)
    return isinstance(value, bool | int | float | str)


def _tensor(name: str, made: Made, storages: _Storages) -> torch.Tensor:
    """The tensor that ``made`` describes, a view of its storage."""
    match made:
        case Made(what=what, arguments=(Made() as data, *_)) if what in _WRAPPED and data.what in _REBUILT:
            return _tensor(name, data, storages)
        case Made(what=what, arguments=(Stored(id=key), offset, tuple(size), tuple(stride), *_)) if (
            what in _REBUILT
            and len(size) == len(stride) <= _MAX_AXES
            and all(type(n) is int and 0 <= n < 1 << 48 for n in (offset, *size, *stride))
        ):
            flat = storages.flat(*_storage(key))
            last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
            if math.prod(size) > flat.numel() or (math.prod(size) and last >= flat.numel()):
                raise WeightsError(f"{name} is larger than what is stored of it")
            return flat.as_strided(size, stride, offset) if math.prod(size) else flat[:0].reshape(size)
    raise WeightsError(f"{name} is a tensor of no plain kind")


def _storage(key: Any) -> tuple[str, str, int]:
    """A storage's key, and the name and size of its dtype, of the id that the pickle has for it."""
    match key:
        case ("storage", Name(text=kind), str(name), str(), int(), *more) if more in ([], [None]):
            module, _, kind = kind.rpartition(".")
            if module == "torch" and kind in _DTYPES:
                return name, *_DTYPES[kind]
    raise WeightsError("it has a storage of no plain kind")


class _Storages:
    """The numbers of all tensors, by key, each read when it is first asked for."""

    def __init__(self, read: Callable[[str], bytes]) -> None:
        self._read = read
        self._bytes: dict[str, torch.Tensor] = {}

    def flat(self, key: str, dtype: str, size: int) -> torch.Tensor:
        """All of a storage, ``[n]``; ``size`` bytes each."""
        import torch

        if key not in self._bytes:
            content = bytearray(self._read(key))
            self._bytes[key] = (
                torch.frombuffer(content, dtype=torch.uint8) if content else torch.empty(0, dtype=torch.uint8)
            )
        if self._bytes[key].numel() % size:
            raise WeightsError(f"{key!r} breaks off")
        return self._bytes[key].view(getattr(torch, dtype))


def _data(folder: str) -> tuple[str, ...]:
    """How the names of members begin that are read. Programs and notes on them, which are compressed, aren't."""
    return f"{folder}data.pkl", f"{folder}data/", f"{folder}byteorder"


@contextmanager
def _read_archive(path: Path) -> Iterator[tuple[Any, _Storages]]:
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(names) != 1:
            raise WeightsError("an archive without data.pkl")
        folder = names[0].removesuffix("data.pkl")
        read = [item for item in archive.infolist() if item.filename.startswith(_data(folder))]
        if sum(item.file_size for item in read) > path.stat().st_size:
            raise WeightsError("it would unpack to more than it is; torch compresses no data")
        if f"{folder}byteorder" in archive.namelist() and archive.read(f"{folder}byteorder") != b"little":
            raise WeightsError("its numbers are not little-endian")
        with archive.open(names[0]) as file:
            content = read_pickle(file).content
        yield content, _Storages(lambda key: archive.read(f"{folder}data/{key}"))


@contextmanager
def _read_legacy(path: Path) -> Iterator[tuple[Any, _Storages]]:
    """A pickle each of a magic number, a version, the machine's properties, the content and the storages' keys; then
    for each key how many numbers it has, and these numbers."""
    with path.open("rb") as file:
        magic, version, machine = (read_pickle(file).content for _ in range(3))
        if (magic, version) != _LEGACY or not isinstance(machine, dict) or machine.get("little_endian") is not True:
            raise WeightsError("it is neither an archive nor its predecessor, or its numbers are not little-endian")
        pickle = read_pickle(file)
        sizes = {key: size for key, _, size in (_storage(stored.id) for stored in pickle.stored)}
        places: dict[str, tuple[int, int]] = {}
        end = path.stat().st_size
        for key in read_pickle(file).content:
            (count,) = struct.unpack("<q", file.read(8))
            places[key] = (file.tell(), count * sizes[key])
            if count < 0 or sum(places[key]) > end:
                raise WeightsError(f"{key!r} is longer than the file")
            file.seek(places[key][1], io.SEEK_CUR)

        def read(key: str) -> bytes:
            file.seek(places[key][0])
            return file.read(places[key][1])

        yield pickle.content, _Storages(read)
