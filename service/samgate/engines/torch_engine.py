"""Variants in torch itself, on a GPU if there is one: for people who have one and no TensorRT.

What segment_anything_fast (PyTorch's "Segment Anything Fast") does to SAM, for any variant: bf16, the encoder compiled
with its shapes fixed, fused attention, and the prompts of several images decoded in one call. Without a GPU this works
as well, and gives OpenVINO's answers in 1.7 to 3 times the time (docs/benchmarks.md); on a GPU it was never run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from samgate.compile.export import graph_module, load_network
from samgate.config import EngineSettings
from samgate.engines.base import Capacity
from samgate.engines.cpu import DECODE_PROMPTS, ENCODE_BATCH, usable_cores
from samgate.engines.embedded import Decoder, EmbeddedEngine, Graph, LoadedGraphs, WholeLane
from samgate.engines.graphs import choose_precision
from samgate.errors import InvalidArgument, NotInstalled
from samgate.variants.graphs import EVERYTHING_PROMPTS, graph_specs
from samgate.variants.spec import Arithmetic, GraphName, NetworkSpec, VariantSpec
from samgate.weights import store

NAME: Final = "torch"
_GPU_IMAGES, _GPU_PROMPTS = 8, 64
"""Of a call on a GPU, as segment_anything_fast has them; not measured on one here."""
_COMPILING = {"auto", "on", "off"}


def load_torch(spec: VariantSpec, settings: EngineSettings, report: Callable[[str], None]) -> EmbeddedEngine:
    """An engine that runs ``spec``'s network in this process. Raises NotInstalled, WeightsError and InvalidArgument."""
    if settings.compile not in _COMPILING:
        raise InvalidArgument("engine.compile", f"{settings.compile!r} is none of {', '.join(sorted(_COMPILING))}")
    if store.installed(spec) is None:
        raise NotInstalled(f"{spec.name} is not installed; install it with: samgate pull {spec.name}")
    name = choose_precision(spec, settings.precision, NAME)
    plan = spec.precisions[name]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    on_gpu = device.type == "cuda"
    torch.set_num_threads(settings.threads or usable_cores())
    report(f"loading {spec.name} on {device.type}")
    network = load_network(spec, store.load(spec)).to(device)
    compiled = settings.compile == "on" or (settings.compile == "auto" and on_gpu)
    images = settings.max_encode_batch or (_GPU_IMAGES if on_gpu else ENCODE_BATCH)
    prompts = settings.max_decode_prompts or (_GPU_PROMPTS if on_gpu else DECODE_PROMPTS)

    def graph(which: GraphName, arithmetic: Arithmetic) -> Graph:
        names = [tensor.name for tensor in graph_specs(spec)[which].inputs]
        module = graph_module(spec, network, which).to(device).eval()
        if which == "encoder" and compiled:
            module.compile(dynamic=False, mode="max-autotune" if on_gpu else "default")
            return _Padded(_TorchGraph(module, names, device, arithmetic), images)
        return _TorchGraph(module, names, device, arithmetic)

    decoder = Decoder(graph("decoder", plan.decoder))
    loaded = LoadedGraphs(
        encoder=graph("encoder", plan.encoder),
        decoder=decoder,
        masked_decoder=Decoder(graph("masked_decoder", plan.decoder)) if "masked_decoder" in spec.graphs else None,
        terms=None,
        lanes=(WholeLane(decoder.whole),),
    )
    together = prompts if on_gpu else EVERYTHING_PROMPTS
    capacity = Capacity(images, images, prompts, parallel_calls=1, together=together, lanes=1)
    return EmbeddedEngine(NAME, name, loaded, capacity)


def load_graphs(spec: NetworkSpec, report: Callable[[str], None]) -> dict[GraphName, Graph]:
    """All graphs of ``spec``, in f32. Raises NotInstalled and WeightsError."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    report(f"loading {spec.name} on {device.type}")
    network = load_network(spec, store.load(spec)).to(device)
    return {
        name: _TorchGraph(
            graph_module(spec, network, name).to(device).eval(), [one.name for one in graph.inputs], device, "f32"
        )
        for name, graph in graph_specs(spec).items()
    }


class _TorchGraph:
    """A module called with arrays by name."""

    def __init__(self, module: Any, names: list[str], device: torch.device, arithmetic: Arithmetic) -> None:
        self._module, self._names, self._device = module, names, device
        self._low = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(arithmetic)

    @torch.inference_mode()
    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        given = [torch.from_numpy(np.ascontiguousarray(inputs[name])).to(self._device) for name in self._names]
        # It leaves norms, softmax and positions in f32, as our islands do.
        with torch.autocast(self._device.type, self._low, enabled=self._low is not None):
            outputs = self._module(*given)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        return [one.float().cpu().numpy() for one in outputs]


class _Padded:
    """An encoder that is compiled for a batch of ``images``: fewer are filled up, lest it be compiled anew."""

    def __init__(self, graph: Graph, images: int) -> None:
        self._graph, self._images = graph, images

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        count = len(inputs["image"])
        filled = {name: _filled(array, self._images) for name, array in inputs.items()}
        return [output[:count] for output in self._graph(filled)]


def _filled(array: NDArray[Any], count: int) -> NDArray[Any]:
    missing = count - len(array)
    return np.concatenate([array, np.repeat(array[-1:], missing, axis=0)]) if missing > 0 else array
