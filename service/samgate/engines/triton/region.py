"""Shared memory that the gateway and a Triton on the same machine both map: tensors cross between them uncopied.

The region is registered with Triton once. Arrays are lent from it; an array *is* its lease: the memory is free again
once nothing refers to the array or a view of it. So an embedding stays where the encoder wrote it for as long as the
cache holds it, the decoder reads it there, and no owner can forget to give anything back.

Memory of a GPU would be lent the same way: an engine needs of a region no more than :meth:`Region.lend`,
:meth:`Region.offset_of` and a name under which it is registered.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import logging
import mmap
import os
import secrets
import time
import weakref
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from samgate.engines.triton.freelist import FreeList
from samgate.logs import log

logger = logging.getLogger("samgate.triton")

SHARED_MEMORY = Path("/dev/shm")
_PREFIX = "samgate-gateway-"
_ALIGNMENT = 4096


class Region:
    """``size`` bytes, of which the system gives pages only as far as they were ever lent.

    Arrays are lent by one thread; they may be dropped by any. :meth:`close` takes the name away; arrays that are
    still out stay valid. Raises OSError when the machine has no shared memory.
    """

    def __init__(self, size: int, folder: Path = SHARED_MEMORY) -> None:
        self.name = f"{_PREFIX}{os.getpid()}-{secrets.token_hex(6)}"
        self.size = size
        self._path = folder / self.name
        self._file = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            # Held for life: what tells a live process's region from one that a killed process left.
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._file, size)
            self._map = mmap.mmap(self._file, size)
        except OSError:
            self.close()
            raise
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        self._list = FreeList(size)
        self._committed = 0
        self._returned: deque[tuple[int, int]] = deque()
        self._resting: deque[tuple[float, Sequence[NDArray[Any]]]] = deque()

    @property
    def lent_bytes(self) -> int:
        """Out now, what rests included."""
        self._collect()
        return self.size - self._list.free_bytes

    def lend(self, shape: Sequence[int], dtype: DTypeLike, count: int = 1) -> list[NDArray[Any]] | None:
        """``count`` arrays that lie side by side, each to be dropped on its own; None when there is no room.

        Raises ValueError when arrays of that size can't lie side by side.
        """
        length = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        taken = -(-length // _ALIGNMENT) * _ALIGNMENT
        if count > 1 and taken != length:
            raise ValueError(f"arrays of {length} bytes don't fill pages of {_ALIGNMENT}")
        self._collect()
        offset = self._list.take(count * taken)
        if offset is None:
            return None
        if not self._commit(offset + count * taken):
            self._list.give_back(offset, count * taken)
            return None
        return [self._array(offset + index * taken, taken, shape, dtype) for index in range(count)]

    def place(self, array: NDArray[Any]) -> NDArray[Any] | None:
        """``array`` itself if it lies here, else a copy that does, or None when there is no room."""
        if self.offset_of(array) is not None:
            return array
        lent = self.lend(array.shape, array.dtype)
        if lent is None:
            return None
        np.copyto(lent[0], array)
        return lent[0]

    def offset_of(self, array: NDArray[Any]) -> int | None:
        """Where ``array`` begins in the region; None when it isn't of it, or not in one piece."""
        offset: int = array.__array_interface__["data"][0] - self._address
        return offset if 0 <= offset < self.size and array.flags.c_contiguous else None

    def rest(self, arrays: Sequence[NDArray[Any]], seconds: float) -> None:
        """Keep ``arrays`` out for that long: a call that nobody waits for any more may still write to them."""
        self._resting.append((time.monotonic() + seconds, arrays))

    def close(self) -> None:
        """Remove the name, and forget what rests."""
        self._path.unlink(missing_ok=True)
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _array(self, offset: int, taken: int, shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
        buffer = (ctypes.c_char * taken).from_buffer(self._map, offset)
        # Called by whichever thread drops the last view, even in the middle of our own bookkeeping: append is atomic.
        weakref.finalize(buffer, self._returned.append, (offset, taken)).atexit = False
        count = int(np.prod(shape, dtype=np.int64))
        array: NDArray[Any] = np.frombuffer(memoryview(buffer), dtype=dtype, count=count).reshape(shape)
        return array

    def _collect(self) -> None:
        now = time.monotonic()
        while self._resting and self._resting[0][0] <= now:
            self._resting.popleft()
        while self._returned:
            self._list.give_back(*self._returned.popleft())

    def _commit(self, end: int) -> bool:
        """Have the system give the pages up to ``end``: a full /dev/shm is an answer here, and a crash on a write."""
        if end > self._committed:
            try:
                os.posix_fallocate(self._file, self._committed, end - self._committed)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.ENOMEM, errno.EBADF):
                    return False
                raise
            self._committed = end
        return True


class Regions:
    """The region that servers on this machine share with us; another one after one of them hung.

    Args:
        size: bytes of a region; 0 for none.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._region: Region | None = None
        self._refused = False

    def current(self) -> Region | None:
        """The one in use, made when it is first asked for; None on a machine that gives none."""
        if self._region is None and self._size and not self._refused:
            try:
                self._region = Region(self._size)
            except OSError as error:
                self._refused = True
                log(logger, logging.WARNING, "no shared memory here: tensors go by gRPC", error=str(error))
        return self._region

    def retire(self) -> None:
        """Lend nothing from the present region any more; what is out stays valid."""
        if self._region is not None:
            self._region.close()
            self._region = None


def remove_abandoned(folder: Path = SHARED_MEMORY, min_age_s: float = 10.0) -> int:
    """Remove regions whose process is gone; how many there were.

    Regions of live processes are locked; one that was just made, and isn't yet, is younger than ``min_age_s``.
    """
    removed = 0
    for path in folder.glob(f"{_PREFIX}*"):
        try:
            if time.time() - path.stat().st_mtime < min_age_s:
                continue
            file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
            removed += 1
        except OSError:
            pass
        finally:
            os.close(file)
    return removed
