"""NanoSAM's weights out of files that are laid out as upstream's are, with drawn numbers in a small network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, save_model

from parity.weights import draw_state
from samgate.compile.export import load_network
from samgate.errors import WeightsError
from samgate.variants.mobilesam import SPEC as MOBILESAM
from samgate.variants.nanosam import SPEC
from samgate.weights.formats import network_shapes
from samgate.weights.pull import pull
from samgate.weights.store import load, save
from weights_support import checkpoint, home  # noqa: F401

SMALL = SPEC.reduced()
ENCODER, DECODER = "resnet18_image_encoder.onnx", "mobile_sam_mask_decoder.onnx"
EPS = 1e-5

State = dict[str, NDArray[np.float32]]
Node = tuple[str, str, list[str]]


@pytest.fixture(scope="module")
def state() -> State:
    return draw_state(network_shapes(SMALL))


def half(state: State, *prefixes: str) -> State:
    return {name: value for name, value in state.items() if name.startswith(prefixes)}


def encoder_state(state: State) -> State:
    """By the names that upstream's encoder has by itself."""
    return {name.removeprefix("image_encoder."): value for name, value in half(state, "image_encoder.").items()}


def write_graph(path: Path, output: str, nodes: list[Node], tensors: State) -> None:
    made = [helper.make_node(kind, inputs, [f"{name}_output"], name=name) for kind, name, inputs in nodes]
    outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)]
    given = [numpy_helper.from_array(value, name) for name, value in tensors.items()]
    save_model(helper.make_model(helper.make_graph(made, "main_graph", [], outputs, given)), str(path))


def scope(module: str, item: str) -> str:
    """``layer1.0.conv1`` → ``/layer1/layer1.0/conv1/Conv``, as torch names a node: ``item`` is the operator."""
    path: list[str] = []
    for part in module.split("."):
        if part.isdigit() and path:
            path.append(f"{path[-1]}.{part}" if not path[-1].startswith("layers") else f"{path.pop()}.{part}")
        else:
            path.append(part)
    return "/" + "/".join([*path, item])


def write_encoder(path: Path, state: State, *, named: bool = True) -> None:
    """Upstream's export: BatchNorms folded into convolutions under made-up names, all else under its own."""
    own = encoder_state(state)
    nodes: list[Node] = []
    tensors = {name: value for name, value in own.items() if not name.startswith("backbone.")}
    for name, weight in own.items():
        if not name.startswith("backbone.") or weight.ndim != 4:
            continue
        conv = name.removesuffix(".weight")
        norm = conv.replace("conv", "bn") if "conv" in conv else f"{conv[:-1]}1"
        scale = own[f"{norm}.weight"] / np.sqrt(own[f"{norm}.running_var"] + EPS)
        fused = f"onnx::Conv_{2 * len(nodes)}", f"onnx::Conv_{2 * len(nodes) + 1}"
        tensors[fused[0]] = weight * scale[:, None, None, None]
        tensors[fused[1]] = own[f"{norm}.bias"] - own[f"{norm}.running_mean"] * scale
        nodes.append(("Conv", scope(conv, "Conv") if named else f"Conv_{len(nodes)}", ["x", *fused]))
    nodes += [("Conv", "/proj/proj.0/Conv", ["x", "proj.0.weight", "proj.0.bias"])]
    write_graph(path, "image_embeddings", nodes, tensors)


def write_decoder(path: Path, state: State) -> None:
    """Upstream's export: transposed weights of the transformer, LayerNorm2d's and tokens under made-up names."""
    nodes: list[Node] = []
    tensors: State = {}

    def anonymous(kind: str, node: str, value: NDArray[np.float32]) -> None:
        name = f"onnx::{kind}_{len(nodes)}"
        tensors[name] = value
        nodes.append((kind, node, ["x", name] if kind != "Expand" else [name, "x"]))

    for name, value in half(state, "prompt_encoder.", "mask_decoder.").items():
        owner, _, rest = name.partition(".")
        module, _, kind = rest.rpartition(".")
        if rest in ("iou_token.weight", "no_mask_embed.weight"):
            continue
        if rest == "mask_tokens.weight":
            tokens = np.concatenate((state["mask_decoder.iou_token.weight"], value))
            anonymous("Expand", "/Expand_1", tokens[None])
        elif module in ("mask_downscaling.1", "mask_downscaling.4", "output_upscaling.1"):
            operator = {"weight": "Mul", "bias": "Add"}[kind]
            anonymous(operator, scope(module, operator), value[:, None, None])
        elif module.startswith("transformer.") and value.ndim == 2:
            anonymous("MatMul", scope(module, "MatMul"), np.ascontiguousarray(value.T))
        else:
            tensors[f"model.{name}" if owner == "prompt_encoder" else name] = value
    anonymous("Mul", "/Mul_9", state["prompt_encoder.no_mask_embed.weight"].reshape(1, -1, 1, 1))
    write_graph(path, "low_res_masks", nodes, tensors)


def same_decoder(found: State, state: State) -> bool:
    decoder = half(state, "prompt_encoder.", "mask_decoder.")
    return all(np.array_equal(found[name], value) for name, value in decoder.items())


def test_the_two_published_graphs_make_the_network(tmp_path: Path, state: State) -> None:
    write_encoder(tmp_path / ENCODER, state)
    write_decoder(tmp_path / DECODER, state)
    (tmp_path / "README.md").write_text("where these are from")
    info = pull(SMALL, from_file=tmp_path)
    assert info.origin.source == f"file:{tmp_path.name}"
    assert {ENCODER, DECODER} <= info.origin.files.keys()
    found = load(SMALL)
    assert same_decoder(found, state)
    x = torch.linspace(-2, 2, 3 * 256 * 256).reshape(1, 3, 256, 256)
    with torch.inference_mode():
        theirs, ours = (load_network(SMALL, one).image_encoder.up_1[0] for one in (state, found))
        assert torch.equal(theirs.weight, ours.weight)
        theirs, ours = (load_network(SMALL, one).image_encoder.backbone(x) for one in (state, found))
    assert theirs.std() > 0.1
    # Rounding of the fused weights.
    assert torch.linalg.norm(ours - theirs) <= 1e-5 * torch.linalg.norm(theirs)


@pytest.mark.parametrize("decoder", ["onnx", "checkpoint", "safetensors"])
def test_a_checkpoint_of_upstreams_training_goes_with_any_of_mobilesams_decoders(
    decoder: str, tmp_path: Path, state: State
) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    trained = {name: torch.tensor(value) for name, value in encoder_state(state).items()}
    (folder / "checkpoint.pth").write_bytes(checkpoint({"model": trained, "optimizer": {}, "epoch": 3}))
    mobilesam = {"image_encoder.norm_head.weight": np.ones(4, np.float32)}
    mobilesam |= half(state, "prompt_encoder.", "mask_decoder.")
    if decoder == "onnx":
        write_decoder(folder / DECODER, state)
    elif decoder == "checkpoint":
        content = {name: torch.tensor(value) for name, value in mobilesam.items()}
        (folder / "mobile_sam.pt").write_bytes(checkpoint(content))
    else:
        from samgate.weights.store import Origin

        made = save(MOBILESAM, mobilesam, Origin("mobilesam", "drawn", {}))
        (folder / "mobilesam.safetensors").write_bytes(made.path.read_bytes())
    pull(SMALL, from_file=folder)
    found = load(SMALL)
    assert found.keys() == state.keys()
    assert all(np.array_equal(found[name], value) for name, value in state.items())


def test_one_file_may_hold_both_halves(tmp_path: Path, state: State) -> None:
    path = tmp_path / "whole.pt"
    path.write_bytes(checkpoint({name: torch.tensor(value) for name, value in state.items()}))
    pull(SMALL, from_file=path)
    assert all(np.array_equal(load(SMALL)[name], value) for name, value in state.items())


def test_what_is_not_both_halves_once_is_refused(tmp_path: Path, state: State) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    with pytest.raises(WeightsError, match=r"nothing lacks NanoSAM's encoder and decoder: give a folder with"):
        pull(SMALL, from_file=folder)
    write_encoder(folder / ENCODER, state)
    with pytest.raises(WeightsError, match=r"resnet18_image_encoder\.onnx lacks NanoSAM's decoder: give a folder with"):
        pull(SMALL, from_file=folder / ENCODER)
    write_encoder(folder / "again.onnx", state)
    with pytest.raises(WeightsError, match=r"both again\.onnx and resnet18_image_encoder\.onnx hold the encoder"):
        pull(SMALL, from_file=folder)


def test_other_files_are_refused(tmp_path: Path, state: State) -> None:
    write_graph(tmp_path / "other.onnx", "logits", [("Relu", "/Relu", ["x"])], {})
    with pytest.raises(WeightsError, match=r"other\.onnx is neither NanoSAM's encoder nor its decoder"):
        pull(SMALL, from_file=tmp_path / "other.onnx")
    write_encoder(tmp_path / "old.onnx", state, named=False)
    with pytest.raises(WeightsError, match="its nodes have no names of modules: export it"):
        pull(SMALL, from_file=tmp_path / "old.onnx")
    (tmp_path / "text.onnx").write_bytes(b"\xff" * 100)
    with pytest.raises(WeightsError, match=r"can't be read as ONNX"):
        pull(SMALL, from_file=tmp_path / "text.onnx")
    (tmp_path / "classes.pth").write_bytes(checkpoint({"fc.weight": torch.zeros(2, 2)}))
    with pytest.raises(WeightsError, match=r"classes\.pth holds neither NanoSAM's encoder nor MobileSAM's decoder"):
        pull(SMALL, from_file=tmp_path / "classes.pth")
    (tmp_path / "code.pth").write_bytes(checkpoint({"model": Path("/")}))
    with pytest.raises(WeightsError, match="never runs code"):
        pull(SMALL, from_file=tmp_path / "code.pth")


def test_a_network_of_other_sizes_is_refused(tmp_path: Path, state: State) -> None:
    write_encoder(tmp_path / ENCODER, state)
    write_decoder(tmp_path / DECODER, state)
    with pytest.raises(WeightsError, match="not this variant's weights"):
        pull(SPEC, from_file=tmp_path)


def test_pulling_says_where_people_get_the_files() -> None:
    with pytest.raises(WeightsError, match=r"drive\.google\.com.*checksum"):
        pull(SPEC)
