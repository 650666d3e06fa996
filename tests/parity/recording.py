"""What upstream's code answers with drawn weights, as files hold it: a few thousand numbers of each kind of output."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from parity.cases import Case, cases_of, image, valid
from parity.weights import FloatArray, draw_state
from samgate.variants.detections import BLOCK, MOST, PROTOTYPES, ROW
from samgate.variants.spec import VariantSpec

GOLDEN = Path(__file__).resolve().parent / "golden"
NEAR = 1e-3
"""Between numbers of one detection; boxes are in parts of the input, coefficients of order 1."""
_VALUES = 1024
"""About so many are kept of each array."""

Golden = Mapping[str, NDArray[Any]]
Shapes = dict[str, tuple[int, ...]]


class Upstream(Protocol):
    """A system as its authors wrote it, for one spec."""

    def shapes(self) -> Shapes:
        """Of all tensors that its published weights have, by name."""

    def load(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take these weights, and be in evaluation mode."""

    def encode(self, pixels: NDArray[np.uint8], valid: tuple[int, int]) -> FloatArray:
        """The embedding ``[1, *embedding_shape]`` of an image that was resized: ``pixels`` ``[1, S, S, 3]``, of which
        ``valid`` (height, width) from the top left corner aren't padding."""

    def decode(self, case: Case, index: int) -> tuple[FloatArray, FloatArray]:
        """All masks ``[P, M, 4H, 4W]`` of image ``index`` of a case and their predicted IoUs ``[P, M]``."""


def record(upstream: Upstream, spec: VariantSpec) -> dict[str, NDArray[Any]]:
    """Everything that the tests compare with."""
    shapes = upstream.shapes()
    upstream.load(draw_state(shapes))
    arrays: dict[str, NDArray[Any]] = {"state": np.array(json.dumps(shapes))}
    embedding = upstream.encode(image(spec), valid(spec))
    if spec.finds_everything:
        embedding, arrays["detections"] = parted(embedding)
    arrays |= sampled("embedding", embedding)
    if "decoder" in spec.graphs and not spec.finds_everything:
        for case in cases_of(spec):
            answers = [upstream.decode(case, index) for index in range(case.images)]
            arrays |= sampled(f"{case.name}/masks", np.stack([masks for masks, _ in answers]))
            arrays |= sampled(f"{case.name}/ious", np.stack([ious for _, ious in answers]))
    return arrays


def golden_path(spec: VariantSpec, small: bool) -> Path:
    """The file of ``spec``, or of its :meth:`~samgate.variants.spec.VariantSpec.reduced`."""
    return GOLDEN / f"{spec.name}{'-small' if small else ''}.npz"


def read(path: Path) -> Golden:
    """What :func:`record` made."""
    with np.load(path) as arrays:
        return dict(arrays)


def shapes_in(golden: Golden) -> Shapes:
    """Upstream's state dict: shapes by name."""
    return {name: tuple(shape) for name, shape in json.loads(str(golden["state"])).items()}


def difference(name: str, ours: NDArray[Any], golden: Golden) -> float:
    """|Δ| / |upstream's| of what the file has of ``name``."""
    theirs = golden[name]
    kept = ours.ravel()[:: int(golden[f"{name}/stride"])]
    if kept.shape != theirs.shape:
        raise AssertionError(f"{name}: {kept.size} numbers where upstream has {theirs.size}")
    return float(np.linalg.norm(kept - theirs) / np.linalg.norm(theirs))


def parted(embedding: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Of an embedding with detections (:mod:`samgate.variants.detections`) the maps, and of each detection the box, the
    confidence and three coefficients: ``[300, 8]``."""
    maps, table = np.split(embedding[0], [PROTOTYPES * BLOCK**2])
    return maps, np.ascontiguousarray(table.ravel()[: MOST * ROW].reshape(MOST, ROW)[:, :8])


def strays(ours: FloatArray, theirs: FloatArray) -> float:
    """The share of detections on either side that the other hasn't. Where confidences agree to f32's last digits, as
    many do of a network whose weights were drawn, these digits decide which is first, and which is a duplicate."""
    near = np.abs(ours[:, None] - theirs).max(2) <= NEAR
    return float(max(1 - near.any(axis).mean() for axis in (0, 1)))


def outputs(golden: Golden) -> Iterator[str]:
    """The names of all outputs in the file."""
    yield from (name.removesuffix("/stride") for name in golden if name.endswith("/stride"))


def sampled(name: str, values: FloatArray) -> dict[str, NDArray[Any]]:
    """About a thousand of ``values``, as files have them under ``name``."""
    # Odd: no power of two, so that the samples come from all rows and columns.
    stride = max(1, values.size // _VALUES) | 1
    return {name: values.ravel()[::stride], f"{name}/stride": np.array(stride)}
