"""NanoSAM's state dict out of what its authors publish, which is two ONNX graphs, or of what their training leaves.

The encoder is ``resnet18_image_encoder.onnx`` or a checkpoint of upstream's ``train.py``; the decoder is
``mobile_sam_mask_decoder.onnx`` or comes with any weights of MobileSAM, whose it is. What a file is shows in what it
holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors
import safetensors.numpy

from samgate.errors import WeightsError
from samgate.weights.formats import load_checkpoint
from samgate.weights.onnx_graph import (
    ANONYMOUS,
    conv_with_batchnorm,
    initializers,
    load_graph,
    module_path,
    sam_decoder,
)

if TYPE_CHECKING:
    import onnx

State = dict[str, Any]

SUFFIXES = (".onnx", ".pt", ".pth", ".safetensors")
"""Of files in a folder that are looked into."""
ENCODER = "image_encoder."
_DECODER = ("prompt_encoder.", "mask_decoder.")
_ADVICE = (
    "give a folder with resnet18_image_encoder.onnx (or a checkpoint of NanoSAM's train.py) and "
    "mobile_sam_mask_decoder.onnx (or MobileSAM's mobile_sam.pt)"
)


def read(files: Mapping[str, Path]) -> State:
    """The state dict that ``files`` make together, by the names of our network, which has both halves.

    Raises:
        WeightsError: a file can't be read or is something else, or a half is missing or there twice.
    """
    chosen = {name: path for name, path in files.items() if Path(name).suffix.lower() in SUFFIXES} or files
    halves: dict[str, tuple[str, State]] = {}
    for name, path in chosen.items():
        for half, state in _halves(name, path).items():
            if half in halves:
                raise WeightsError(f"both {halves[half][0]} and {name} hold the {half}: {_ADVICE}")
            halves[half] = name, state
    missing = [half for half in ("encoder", "decoder") if half not in halves]
    if missing:
        raise WeightsError(f"{', '.join(chosen) or 'nothing'} lacks NanoSAM's {' and '.join(missing)}: {_ADVICE}")
    return {**halves["encoder"][1], **halves["decoder"][1]}


def _halves(name: str, path: Path) -> dict[str, State]:
    """``encoder``, ``decoder`` or both, of one file."""
    with path.open("rb") as file:
        head = file.read(9)
    if head[8:] == b"{":
        try:
            return _of_state(name, safetensors.numpy.load_file(path))
        except safetensors.SafetensorError as error:
            raise WeightsError(f"{name} can't be read as safetensors: {error}") from error
    if head.startswith((b"PK\x03\x04", b"\x80")):
        return _of_state(name, load_checkpoint(path))
    graph = load_graph(path)
    outputs = {output.name for output in graph.output}
    try:
        if "image_embeddings" in outputs:
            return {"encoder": _encoder(graph)}
        if "low_res_masks" in outputs:
            return {"decoder": sam_decoder(graph)}
    except (KeyError, IndexError, ValueError) as error:
        raise WeightsError(
            f"{name} is not laid out as NanoSAM's graphs are ({type(error).__name__}: {error})"
        ) from error
    raise WeightsError(f"{name} is neither NanoSAM's encoder nor its decoder: {_ADVICE}")


def _of_state(name: str, loaded: Any) -> dict[str, State]:
    for wrapper in ("model", "state_dict"):
        if isinstance(loaded, dict) and isinstance(loaded.get(wrapper), dict):
            loaded = loaded[wrapper]
    if not isinstance(loaded, dict) or not all(hasattr(value, "shape") for value in loaded.values()):
        raise WeightsError(f"{name} is not a state dict: it should map names to tensors")
    halves = {}
    if any(key.startswith("backbone.") for key in loaded):
        halves["encoder"] = {f"{ENCODER}{key}": value for key, value in loaded.items()}
    elif any(key.startswith(f"{ENCODER}backbone.") for key in loaded):
        halves["encoder"] = {key: value for key, value in loaded.items() if key.startswith(ENCODER)}
    if decoder := {key: value for key, value in loaded.items() if key.startswith(_DECODER)}:
        halves["decoder"] = decoder
    if not halves:
        raise WeightsError(f"{name} holds neither NanoSAM's encoder nor MobileSAM's decoder: {_ADVICE}")
    return halves


def _encoder(graph: onnx.GraphProto) -> State:
    constants = initializers(graph)
    state = {name: value for name, value in constants.items() if not name.startswith(ANONYMOUS)}
    for node in graph.node:
        if node.op_type == "Conv" and node.input[1].startswith(ANONYMOUS):
            conv = module_path(node.name)
            if not conv:
                raise ValueError("its nodes have no names of modules: export it with torch 1.13 or later")
            weight, bias = (constants[name] for name in node.input[1:3])
            state |= conv_with_batchnorm(conv, _norm_of(conv), weight, bias)
    return {f"{ENCODER}{name}": np.asarray(value, order="C") for name, value in state.items()}


def _norm_of(conv: str) -> str:
    """``…conv2`` → ``…bn2``, ``…downsample.0`` → ``…downsample.1``."""
    head, _, last = conv.rpartition(".")
    norm = f"bn{last.removeprefix('conv')}" if last.startswith("conv") else "1"
    return f"{head}.{norm}" if head else norm
