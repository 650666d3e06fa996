"""Q-TinySAM's file, a network pickled whole, is read without its classes; each kind of its layers answers as upstream's
does with the same weights and steps."""

from __future__ import annotations

import io
import sys
import types
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from parity.levels import LEVELLED, Levelled
from parity.recording import GOLDEN
from parity.weights import draw_state
from samgate.compile.export import OPSET, fold_constants, load_network
from samgate.engines import onnxruntime, openvino
from samgate.errors import WeightsError
from samgate.variants import get_variant
from samgate.variants.nets.layers import ConvNorm
from samgate.variants.nets.levels import with_levels
from samgate.variants.spec import resolve
from samgate.weights.formats import network_shapes
from samgate.weights.pull import pull
from samgate.weights.store import load
from samgate.weights.tinysam_file import read
from weights_support import home

__all__ = ["home"]

SPEC = get_variant("q-tinysam").reduced()
TOLERANCE = 1e-6
"""|Δ| / |upstream's| of one layer: its inputs' levels are the same to the bit, the sums may be in another order."""
PLAIN = {"InferQuantLinear": nn.Linear, "InferQuantLinearPost": nn.Linear, "InferQuantConv2d": nn.Conv2d}
PLAIN["InferQuantConvTranspose2d"] = nn.ConvTranspose2d


def plain(layer: Levelled) -> Any:
    return PLAIN[layer.kind](*layer.arguments, **layer.options)


def upstreams(layer: Levelled) -> nn.Module:
    """A layer as it lies in upstream's file: attributes and buffers that its class registers."""
    made, arrays = plain(layer), {name: torch.tensor(value) for name, value in layer.arrays().items()}
    made.mode, made.w_bit, made.a_bit = "quant_forward", 8, 8
    made.weight.data, made.bias.data = arrays["weight"], arrays["bias"]
    for name in ("w_interval", "a_interval", "a_bias"):
        if name in arrays:
            made.register_buffer(name, arrays[name])
    for name, count in zip(("n_V", "n_H", "n_a"), layer.counts, strict=True):
        made.register_buffer(name, torch.tensor(count, dtype=torch.int32))
    if layer.kind.endswith("Post"):
        made.register_buffer("a_neg_interval", torch.tensor(0.16997124254703522 / 128))
    return made  # type: ignore[no-any-return]


def pickled(folder: Path, network: nn.Module) -> Path:
    """A file of ``network``, whose layers' classes are gone when it is read."""
    path = folder / "tinysam_w8a8.pth"
    gone = types.ModuleType("quantization_layer")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, gone.__name__, gone)
        for layer in network.modules():
            if hasattr(layer, "mode"):
                name = f"Infer{type(layer).__name__}"
                made = gone.__dict__.setdefault(name, type(name, (type(layer),), {"__module__": gone.__name__}))
                layer.__class__ = made
        torch.save(network, path)
    return path


def ours(layer: Levelled, folder: Path) -> nn.Module:
    """Our layer with what the reader makes of upstream's."""
    state = read({"one": pickled(folder, nn.Sequential(upstreams(layer)))})
    made = plain(layer)
    with_levels(made)
    made.load_state_dict({name.removeprefix("0."): value for name, value in state.items()}, strict=True)
    return made.eval()  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def golden() -> Mapping[str, NDArray[Any]]:
    with np.load(GOLDEN / "rules_q_tinysam.npz") as arrays:
        return dict(arrays)


@torch.inference_mode()
@pytest.mark.parametrize("layer", LEVELLED, ids=lambda layer: layer.name)
def test_a_layer_answers_as_upstreams(layer: Levelled, golden: Mapping[str, NDArray[Any]], tmp_path: Path) -> None:
    found = ours(layer, tmp_path)(torch.tensor(layer.arrays()["x"])).numpy()
    expected = golden[layer.name]
    assert np.linalg.norm(found - expected) <= TOLERANCE * np.linalg.norm(expected)


@torch.inference_mode()
@pytest.mark.parametrize("layer", LEVELLED, ids=lambda layer: layer.name)
def test_runtimes_answer_as_torch(layer: Levelled, tmp_path: Path, home: Path) -> None:
    module, x = ours(layer, tmp_path), torch.tensor(layer.arrays()["x"])
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, as in samgate.compile.export
        torch.onnx.export(
            module, (x,), cast("Any", buffer), dynamo=False, opset_version=OPSET, input_names=["x"], output_names=["y"]
        )
    model = onnx.load_from_string(buffer.getvalue())
    weights = fold_constants(model, {})
    model.graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in weights.items())
    onnx.checker.check_model(model, full_check=True)
    operators = {node.op_type for node in model.graph.node}
    # One step for all inputs is what ONNX has operators for.
    assert ("QuantizeLinear" in operators) == (layer.name in ("even", "convolution", "transposed"))
    path = tmp_path / "layer.onnx"
    path.write_bytes(model.SerializeToString())
    expected = module(x).numpy()
    for runtime in (onnxruntime, openvino):
        (found,) = runtime.load_graph(path, "f32", 1)({"x": x.numpy()})
        assert np.linalg.norm(found - expected) <= 10 * TOLERANCE * np.linalg.norm(expected), runtime.NAME


def published(state: Mapping[str, NDArray[Any]], *, fused: bool) -> nn.Module:
    """A network as upstream's file has it, with one step for each layer's weights and one for its inputs; ``fused``:
    with normalisations that became part of convolutions."""
    root, network = nn.Module(), resolve(SPEC.network)(SPEC)
    norms = {name for name, module in network.named_modules() if isinstance(module, ConvNorm)} if fused else set()
    layers = {name.removesuffix(".a_interval") for name in state if name.endswith(".a_interval")}

    def node(name: str) -> Any:
        found = root
        for part in name.split("."):
            if part not in found._modules:
                found.add_module(part, nn.Module())
            found = found.get_submodule(part)
        return found

    for key, value in state.items():
        name, _, last = key.rpartition(".")
        if last.startswith("a_") or (fused and name.removesuffix(".bn").removesuffix(".c") in norms):
            continue
        node(name).register_buffer(last, torch.tensor(value))
    for name in norms:
        weight, bias = (torch.tensor(state[f"{name}.{key}"]) for key in ("c.weight", "bn.bias"))
        node(name).register_buffer("weight", weight)
        node(name).register_buffer("bias", bias)
    for name in layers:
        layer = network.get_submodule(name)
        place = node(name.removesuffix(".c") if name.removesuffix(".c") in norms else name)
        place.mode, place.w_bit, place.a_bit = "quant_forward", 8, 8
        if isinstance(layer, nn.Linear):
            place.in_features = layer.in_features
        else:
            place.in_channels = layer.in_channels
            place.register_buffer("a_bias", torch.tensor([0.125]))
        place.register_buffer("w_interval", torch.full((1, 1, 1, 1), STEP))
        place.register_buffer("a_interval", torch.full((1, 1), 0.0625))
        for kind in ("n_V", "n_H", "n_a"):
            place.register_buffer(kind, torch.tensor(1, dtype=torch.int32))
        # What else upstream's attention keeps, and never calls.
        if name.endswith(".proj"):
            matmul = node(f"{name.removesuffix('.proj')}.matmul1")
            matmul.register_buffer("A_interval", torch.ones(1, 1, 2, 1, 1, 1, 1))
            matmul.register_buffer("crb_rows_A", torch.tensor(1))
    return root


STEP = 2.0**-6


@pytest.fixture(scope="module")
def state() -> dict[str, NDArray[Any]]:
    return draw_state(network_shapes(SPEC))


def test_the_file_is_read_and_weights_come_to_their_levels(
    home: Path, tmp_path: Path, state: dict[str, NDArray[Any]]
) -> None:
    pull(SPEC, from_file=pickled(tmp_path, published(state, fused=False)))
    loaded = load(SPEC)
    for name, value in loaded.items():
        layer, _, last = name.rpartition(".")
        expected = state[name]
        if last == "a_interval" or last == "a_neg_interval":
            expected = np.full_like(expected, 0.0625)
        elif last == "a_bias":
            expected = np.full_like(expected, 0.125)
        elif last == "weight" and f"{layer}.a_interval" in state:
            expected = (np.round(expected / STEP).clip(-128, 127) * STEP).astype(np.float32)
        np.testing.assert_array_equal(value, expected, name)


def test_normalisations_may_be_part_of_convolutions(home: Path, tmp_path: Path, state: dict[str, NDArray[Any]]) -> None:
    pull(SPEC, from_file=pickled(tmp_path, published(state, fused=True)))
    network = load_network(SPEC, load(SPEC))
    conv = network.image_encoder.layers[0].blocks[0].conv2
    weight, bias = conv.fused()
    prefix = "image_encoder.layers.0.blocks.0.conv2"
    expected = (np.round(state[f"{prefix}.c.weight"] / STEP).clip(-128, 127) * STEP).astype(np.float32)
    np.testing.assert_array_equal(weight.detach().numpy(), expected)
    np.testing.assert_array_equal(bias.detach().numpy(), state[f"{prefix}.bn.bias"])


def test_other_files_are_refused(home: Path, tmp_path: Path, state: dict[str, NDArray[Any]]) -> None:
    network: Any = published(state, fused=False)
    layer = network.get_submodule("mask_decoder.iou_prediction_head.layers.0")
    torch.save({"model": nn.Linear(2, 2)}, tmp_path / "plain.pt")
    with pytest.raises(WeightsError, match=r"plain\.pt has no quantised layers"):
        pull(SPEC, from_file=tmp_path / "plain.pt")
    layer.w_bit = 4
    with pytest.raises(WeightsError, match=r"iou_prediction_head\.layers\.0 .*: 4 and 8 bits"):
        pull(SPEC, from_file=pickled(tmp_path, network))
    layer.w_bit, layer.a_interval = 8, torch.ones(3)
    with pytest.raises(WeightsError, match=r"iou_prediction_head\.layers\.0 .*: 3 steps for 256 channels"):
        pull(SPEC, from_file=pickled(tmp_path, network))
    layer.a_interval = torch.ones(1)
    del network.mask_decoder.iou_token
    with pytest.raises(WeightsError, match=r"mask_decoder\.iou_token\.weight is missing"):
        pull(SPEC, from_file=pickled(tmp_path, network))


def test_a_layer_that_upstream_left_alone_stays_so(home: Path, tmp_path: Path, state: dict[str, NDArray[Any]]) -> None:
    network: Any = published(state, fused=False)
    name = "prompt_encoder.mask_downscaling.3"
    network.get_submodule(name).mode = "raw"
    pull(SPEC, from_file=pickled(tmp_path, network))
    loaded = load(SPEC)
    np.testing.assert_array_equal(loaded[f"{name}.weight"], state[f"{name}.weight"])
    assert not loaded[f"{name}.a_interval"].any()
    assert load_network(SPEC, loaded).get_submodule(name).form == ""


def test_tinysams_file_is_a_plain_state_dict(home: Path, tmp_path: Path) -> None:
    spec = get_variant("tinysam").reduced()
    state = draw_state(network_shapes(spec))
    torch.save({name: torch.tensor(value) for name, value in state.items()}, tmp_path / "tinysam_42.3.pth")
    pull(spec, from_file=tmp_path / "tinysam_42.3.pth")
    assert load(spec).keys() == state.keys()
    with pytest.raises(WeightsError, match=r"tinysam_42\.3\.pth: neither its authors"):
        pull(spec, force=True)
