"""Tensors of a call to Triton: through shared memory where there is some, else inside the message."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import InferInput, InferRequestedOutput, InferResult
from tritonclient.utils import np_to_triton_dtype

from samgate.engines.triton.region import Region

Found = dict[str, list[NDArray[Any]]]
"""Outputs by name: one array, or for those asked for apart one for each entry of the first axis."""

_INLINE_BYTES = 32 * 1024
"""Tensors up to this size travel in the message: less work than a place in shared memory."""


@dataclass(frozen=True, slots=True)
class Output:
    """One output of a call: its dtype and the largest shape it may have; ``apart`` asks for an array of its own for
    each entry of the first axis."""

    dtype: Any
    shape: tuple[int, ...]
    apart: bool = False

    @property
    def nbytes(self) -> int:
        """At its largest."""
        return int(np.prod(self.shape, dtype=np.int64)) * int(np.dtype(self.dtype).itemsize)


@dataclass(frozen=True, slots=True)
class Call:
    """One request to one model."""

    model: str
    inputs: Mapping[str, NDArray[Any]]
    outputs: Mapping[str, Output]


def as_input(name: str, array: NDArray[Any], region: Region | None) -> tuple[InferInput, NDArray[Any] | None]:
    """``array`` as an input, by shared memory if there is room, and the array that lies there."""
    item = InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
    placed = region.place(array) if region is not None and array.nbytes > _INLINE_BYTES else None
    if region is None or placed is None:
        item.set_data_from_numpy(array)
        return item, None
    item.set_shared_memory(region.name, placed.nbytes, offset=region.offset_of(placed) or 0)
    return item, placed


def lend(output: Output, region: Region | None) -> list[NDArray[Any]] | None:
    """Where the server is to write ``output``; None: into its answer."""
    if region is None or output.nbytes <= _INLINE_BYTES:
        return None
    if output.apart:
        return region.lend(output.shape[1:], output.dtype, output.shape[0])
    return region.lend(output.shape, output.dtype)


def requested(name: str, lent: list[NDArray[Any]] | None, region: Region | None) -> InferRequestedOutput:
    """Asks for an output, into ``lent`` if that is given."""
    item = InferRequestedOutput(name)
    if lent is not None and region is not None:
        item.set_shared_memory(region.name, sum(one.nbytes for one in lent), offset=region.offset_of(lent[0]) or 0)
    return item


def as_output(result: InferResult, name: str, output: Output, lent: list[NDArray[Any]] | None) -> list[NDArray[Any]]:
    """What came of an output: from ``lent``, or from the answer itself."""
    if lent is None:
        array: NDArray[Any] = result.as_numpy(name)
        # Copies, where there are several: a slice would keep all of them in memory for as long as one is cached.
        return [array] if not output.apart else [array[0]] if len(array) == 1 else [one.copy() for one in array]
    if output.apart:
        return lent
    shape = list(result.get_output(name).shape)
    return [lent[0].reshape(-1)[: int(np.prod(shape, dtype=np.int64))].reshape(shape)]
