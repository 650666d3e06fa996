"""ONNX files whose weights lie in a file beside them, since protobuf ends at 2 GiB: SAM ViT-H's encoder has 2.5.

Weights that are small stay in the graph, where whatever reads shapes out of them finds them. Each of the others has its
SHA-1 in the graph: two graphs with other weights differ, and files can be told apart by the graph alone.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from io import BufferedWriter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from samgate.weights.home import sha256_file

if TYPE_CHECKING:
    import onnx

LARGE = 2**30
"""Bytes of weights from which on they get a file of their own."""
_SMALL = 2**16
_SUFFIX = ".data"


def data_file(path: Path) -> Path:
    """Where the weights of the graph ``path`` are, if they aren't in it."""
    return path.with_name(path.name + _SUFFIX)


def graph_size(path: Path) -> int:
    """Bytes of the graph ``path`` and of its weights beside it. Raises OSError."""
    data = data_file(path)
    return path.stat().st_size + (data.stat().st_size if data.exists() else 0)


def graph_sha256(path: Path) -> str:
    """The file's SHA-256; with weights beside it, that of both files' SHA-256 in hexadecimal, one after the other.
    Raises OSError."""
    data, own = data_file(path), sha256_file(path)
    return hashlib.sha256((own + sha256_file(data)).encode()).hexdigest() if data.exists() else own


def copy_graph(source: Path, target: Path) -> None:
    """Copies the graph ``source`` to ``target``, its weights beside it. Raises OSError."""
    shutil.copyfile(source, target)
    data = data_file(source)
    if data.exists():
        shutil.copyfile(data, target.with_name(data.name))  # the graph has the name of the file


def link_graph(source: Path, target: Path) -> None:
    """The graph ``source`` under the name ``target``, too, its weights beside it. These are no symbolic link: OpenVINO
    refuses weights that are elsewhere."""
    target.symlink_to(source)
    data = data_file(source)
    if data.exists():
        beside = target.with_name(data.name)
        try:
            os.link(data, beside)
        except OSError:  # another file system
            shutil.copyfile(data, beside)


def write_external(model: onnx.ModelProto, weights: Mapping[str, NDArray[Any]], path: Path) -> None:
    """Writes ``model``, which has no initializers, to ``path`` with those in ``weights``, large ones beside it.

    Arrays go to the disk one after the other: no copy of all of them is made.
    """
    with data_file(path).open("wb") as data:
        for name in sorted(weights):
            model.graph.initializer.append(_placed(name, np.asarray(weights[name], order="C"), data))
        data.flush()
        os.fsync(data.fileno())
    path.write_bytes(model.SerializeToString(deterministic=True))


def _placed(name: str, value: NDArray[Any], data: BufferedWriter) -> onnx.TensorProto:
    from onnx import TensorProto, numpy_helper

    if value.nbytes < _SMALL or value.dtype != np.float32:
        return numpy_helper.from_array(value, name)
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=value.shape)
    tensor.data_location = TensorProto.EXTERNAL
    content = value.data.cast("B")
    where = {
        "location": Path(data.name).name,
        "offset": str(data.tell()),
        "length": str(value.nbytes),
        "checksum": hashlib.sha1(content, usedforsecurity=False).hexdigest(),
    }
    for key, text in where.items():
        tensor.external_data.add(key=key, value=text)
    data.write(content)
    return tensor
