"""Measures variants and text models as published, with drawn weights, and writes what was found to ``measured.json``.

    PYTHONPATH=service:tests python tests/parity/measure.py [NAME …] [--only network onnx]

Everything but the answers' quality: parameters, operations, errors against upstream's recorded answers and against
torch, times on this machine's CPU, and what TensorRT for RTX makes of the graphs. ``docs/variants.md`` is made of it by
page.py.
Takes minutes a variant, for the largest a quarter of an hour and 14 GiB.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress
from torch.utils.flop_counter import FlopCounterMode

from parity.answers import answer
from parity.cases import Case, cases_of, image, valid
from parity.recording import difference, golden_path, parted, read, shapes_in
from parity.upstream import clip
from parity.weights import draw_state
from samgate.bench.machine import this_machine
from samgate.compile.export import export_graph, graph_module, load_network
from samgate.compile.prepare import prepare
from samgate.compile.targets import TARGETS
from samgate.compile.tensorrt import build_plan, load_module
from samgate.engines import onnxruntime, openvino
from samgate.engines.cpu import has_native_bf16, usable_cores
from samgate.errors import CompileError
from samgate.variants import VARIANTS, get_variant
from samgate.variants.clip import TEXT_MODELS, ClipSpec
from samgate.variants.graphs import GraphSpec, graph_specs
from samgate.variants.spec import TEXT_GRAPHS, GraphName, NetworkSpec, VariantSpec
from samgate.weights.home import sha256_file

MEASURED = Path(__file__).resolve().parent / "measured.json"
CAPABILITIES = ("7.5", "8.0", "8.6", "8.9", "12.0")
"""Of GPUs, from Turing to Blackwell: those of docs/tensorrt.md."""
PARTS = ("network", "onnx", "tensorrt")
_CALLS = 5

Inputs = Mapping[str, NDArray[Any]]
Record = dict[str, Any]


def own() -> list[VariantSpec]:
    """Variants with weights of their own."""
    return [spec for spec in VARIANTS.values() if not spec.weights]


def stored() -> dict[str, Record]:
    """What was measured so far, by variant."""
    found: dict[str, Record] = json.loads(MEASURED.read_text()) if MEASURED.exists() else {}
    return found


def inputs_of(spec: NetworkSpec, name: GraphName) -> Inputs:
    """An image, or a box on one, or a text."""
    if isinstance(spec, ClipSpec):
        # The last but one of the texts is long.
        return {"image": clip.images(spec)[:1]} if name == "image_features" else {"tokens": clip.tokens(spec)[-2:-1]}
    assert isinstance(spec, VariantSpec)
    if name == "encoder":
        return {"image": image(spec), "valid": np.array([valid(spec)], np.int32)}
    case = Case("box", spec, images=1, prompts=1, box=True)
    coords, labels = case.tokens()
    return {"image_embedding": case.embedding, "point_coords": coords, "point_labels": labels}


def timed_graphs(spec: NetworkSpec) -> list[GraphName]:
    """What an image and a prompt take; of text models a part of an image, and a text."""
    return [name for name in ("encoder", "decoder", *TEXT_GRAPHS) if name in spec.graphs]


@torch.inference_mode()
def of_network(spec: VariantSpec, network: Any) -> Record:
    """Parameters, operations, and errors against upstream."""
    golden = read(golden_path(spec, small=False))
    errors = {}
    with FlopCounterMode(display=False) as counter:
        (embedding,) = answer(spec, network, "encoder", tuple(inputs_of(spec, "encoder").values()))
    macs: dict[str, float] = {"encoder": counter.get_total_flops() / 2}
    maps = parted(embedding)[0] if spec.finds_everything else embedding
    errors["embedding"] = difference("embedding", maps, golden)
    if "decoder" in spec.graphs:
        with FlopCounterMode(display=False) as counter:
            answer(spec, network, "decoder", tuple(inputs_of(spec, "decoder").values()))
        macs["decoder"] = counter.get_total_flops() / 2
        for case in cases_of(spec) if not spec.finds_everything else ():
            inputs: list[NDArray[Any]] = [case.embedding, *case.tokens()]
            name: GraphName = "decoder"
            if case.mask:
                name, inputs = "masked_decoder", [*inputs, case.masks, np.ones(case.masks.shape[:2], np.float32)]
            for kind, ours in zip(("masks", "ious"), answer(spec, network, name, inputs), strict=True):
                errors[f"{case.name}/{kind}"] = difference(f"{case.name}/{kind}", ours, golden)
    return {
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "gmacs": {name: round(count / 1e9, 2) for name, count in macs.items()},
        "parity": max(errors.values()),
    }


@torch.inference_mode()
def of_text_model(spec: ClipSpec, network: Any) -> Record:
    """The same of a text model."""
    golden = read(clip.golden_file(small=False))
    macs, errors = {}, []
    for name in timed_graphs(spec):
        module = graph_module(spec, network, name)
        with FlopCounterMode(display=False) as counter:
            module(*map(torch.tensor, inputs_of(spec, name).values()))
        macs[name] = round(counter.get_total_flops() / 2e9, 2)
        given = clip.images(spec) if name == "image_features" else clip.tokens(spec)
        theirs = golden[name]
        errors.append(float(np.linalg.norm(module(torch.tensor(given)).numpy() - theirs) / np.linalg.norm(theirs)))
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return {"parameters": parameters, "gmacs": macs, "parity": max(errors)}


def of_onnx(spec: NetworkSpec, network: Any, folder: Path) -> Record:
    """Errors of ONNX Runtime and OpenVINO against torch of the graphs in ``folder``, and OpenVINO's times in
    milliseconds."""
    record: Record = {"onnxruntime": 0.0, "openvino": 0.0, "ms": {}}
    threads = usable_cores()
    for name in timed_graphs(spec):
        inputs, file = inputs_of(spec, name), folder / f"{name}.onnx"
        with torch.inference_mode():
            found = graph_module(spec, network, name)(*map(torch.tensor, inputs.values()))
        expected = [one.numpy() for one in (found if isinstance(found, tuple) else (found,))]
        for runtime in (onnxruntime, openvino):
            graph = runtime.load_graph(file, "f32", threads, _fixed(name))
            for ours, theirs in zip(graph(inputs), expected, strict=True):
                if isinstance(spec, VariantSpec) and spec.finds_everything and name == "encoder":
                    ours, theirs = parted(ours)[0], parted(theirs)[0]
                error = float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))
                record[runtime.NAME] = max(record[runtime.NAME], error)
            del graph
        for precision in ("f32", "bf16") if has_native_bf16() and "bf16" in spec.precisions else ("f32",):
            graph = openvino.load_graph(file, precision, threads, _fixed(name))
            record["ms"].setdefault(precision, {})[name] = round(_milliseconds(partial(graph, inputs)), 1)
            del graph
    return record


def _fixed(name: GraphName) -> int | None:
    """The number of images, where engines fix it."""
    return 1 if name == "encoder" else None


def of_tensorrt(spec: NetworkSpec, folder: Path, known: dict[tuple[str, str], Record]) -> Record:
    """Seconds and bytes of each plan in fp16, by compute capability. Graphs of the same bytes are compiled once:
    ``known`` by checksum and capability."""
    module = load_module("tensorrt_rtx")
    if module is None:
        raise SystemExit("tensorrt_rtx is missing: pip install 'samgate[tensorrt]'")
    record: Record = {capability: {} for capability in CAPABILITIES}
    for name in timed_graphs(spec):
        source, prepared_in, plan = folder / f"{name}.onnx", folder / "prepared", folder / f"{name}.plan"
        prepared_in.mkdir(exist_ok=True)
        one = prepare(spec, TARGETS["tensorrt-rtx"], spec.precisions["fp16"], name, source, prepared_in, (), print)
        checksum = sha256_file(one.path)
        for capability in CAPABILITIES:
            if (checksum, capability) not in known:
                known[checksum, capability] = _built(module, graph_specs(spec)[name], one.path, plan, capability)
            record[capability][name] = {
                **known[checksum, capability],
                "nodes": one.typing.nodes,
                "f32_nodes": sum(one.typing.f32_nodes.values()),
            }
    return record


def _built(module: Any, graph: GraphSpec, source: Path, plan: Path, capability: str) -> Record:
    """What became of ``source``; or, in ``refused``, what TensorRT has against it."""
    try:
        built = build_plan(module, graph, source, plan, capability, plan.with_suffix(".timings"))
    except CompileError as error:
        return {"refused": str(error)}
    plan.unlink()
    return {"seconds": round(built.seconds, 1), "bytes": built.size, "layers": built.layers}


MEASURES: Mapping[type[NetworkSpec], Callable[[Any, Any], Record]] = {
    VariantSpec: of_network,
    ClipSpec: of_text_model,
}


def _milliseconds(call: Callable[[], object]) -> float:
    """The median, after a call to warm up."""
    seconds = []
    for _ in range(1 + _CALLS):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return 1000 * statistics.median(seconds[1:])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("variant", nargs="*", help="also a text model; by default all with weights of their own")
    parser.add_argument("--only", choices=PARTS, nargs="+", default=PARTS, help="what to measure (default: all)")
    args = parser.parse_args()
    specs: list[NetworkSpec] = [TEXT_MODELS.get(name) or get_variant(name) for name in args.variant]
    specs = specs or [*own(), *TEXT_MODELS.values()]
    plans: dict[tuple[str, str], Record] = {}
    with Progress() as progress:
        task = progress.add_task("variants", total=len(specs))
        for spec in specs:
            progress.update(task, description=spec.name)
            path = golden_path(spec, small=False) if isinstance(spec, VariantSpec) else clip.golden_file(small=False)
            network = load_network(spec, draw_state(shapes_in(read(path))))
            network.requires_grad_(requires_grad=False)  # else what counts operations looks for gradients
            record = stored().get(spec.name, {}) | {"machine": this_machine().cpu}
            with tempfile.TemporaryDirectory() as folder:
                if "network" in args.only:
                    record |= MEASURES[type(spec)](spec, network)
                if "onnx" in args.only or "tensorrt" in args.only:
                    for name in timed_graphs(spec):
                        export_graph(spec, network, name, Path(folder) / f"{name}.onnx")
                if "onnx" in args.only:
                    record |= of_onnx(spec, network, Path(folder))
                del network
                if "tensorrt" in args.only:
                    record["tensorrt"] = of_tensorrt(spec, Path(folder), plans)
            MEASURED.write_text(json.dumps(dict(sorted((stored() | {spec.name: record}).items())), indent=1) + "\n")
            progress.advance(task)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
