"""Text models that run in this process, in turns of their own beside the encoder's and the decoder's."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from typing import cast

import numpy as np

from samgate.compile.graphs import ensure_graphs
from samgate.config import EngineSettings, Settings
from samgate.domain import FloatArray, IntArray, UInt8Array
from samgate.engines.base import TextModel
from samgate.engines.cpu import usable_cores
from samgate.engines.embedded import Graph
from samgate.engines.lane import Turns
from samgate.engines.load import Runtime, choose_runtime, wants_triton
from samgate.errors import CompileError, Unavailable
from samgate.text.tokens import load_tokenizer
from samgate.variants.clip import ClipSpec
from samgate.variants.graphs import GraphName


class EmbeddedTextModel:
    """Runs a text model's graphs, one call at a time.

    Args:
        name: of the runtime.
        graphs: both, loaded.
    """

    def __init__(self, name: str, spec: ClipSpec, graphs: Mapping[GraphName, Graph]) -> None:
        self.name = name
        self.spec = spec
        self._graphs = dict(graphs)
        self._turns = Turns(spec.name)

    async def image_features(self, crops: UInt8Array, deadline: float) -> FloatArray:
        """See :meth:`samgate.engines.base.TextModel.image_features`."""
        return await self._turns.run(lambda: self._run("image_features", "image", crops), deadline)

    async def text_features(self, tokens: IntArray, deadline: float) -> FloatArray:
        """See :meth:`samgate.engines.base.TextModel.text_features`."""
        return await self._turns.run(lambda: self._run("text_features", "tokens", tokens), deadline)

    async def healthy(self) -> bool:
        """Runs in this process: as healthy as the process, until closed."""
        return not self._turns.closed

    async def close(self) -> None:
        """See :meth:`samgate.engines.base.TextModel.close`."""
        await self._turns.close()
        self._graphs.clear()

    def _run(self, graph: GraphName, name: str, array: UInt8Array | IntArray) -> FloatArray:
        try:
            (features,) = self._graphs[graph]({name: array})
        except Exception as error:  # ONNX Runtime's have no common base
            raise Unavailable(f"{self.name} could not run {self.spec.name}: {error}") from error
        return cast("FloatArray", features)


def load_text_model(
    spec: ClipSpec, settings: Settings, report: Callable[[str], None] = lambda message: None
) -> TextModel:
    """The text model that ``settings`` ask for, in this process or on Triton. Slow: call it off the event loop.

    ``report`` gets a line for what takes long. Raises NotInstalled, CompileError, InvalidArgument, and Unavailable when
    no Triton answers.
    """
    load_tokenizer()  # what is missing is told now
    if wants_triton(settings.engine):
        from samgate.engines.triton.text import connect_text_model

        return connect_text_model(spec, settings, report)
    return load_embedded_text_model(spec, settings.engine, report)


def load_embedded_text_model(
    spec: ClipSpec, settings: EngineSettings, report: Callable[[str], None]
) -> EmbeddedTextModel:
    """A text model in this process, its graphs compiled for this machine and tried. Raises NotInstalled, CompileError
    and InvalidArgument."""
    if settings.name == "torch" and importlib.util.find_spec("torch") is not None:
        from samgate.engines.torch_engine import NAME, load_graphs

        return _tried(EmbeddedTextModel(NAME, spec, load_graphs(spec, report)))
    name = choose_runtime(settings)
    files = ensure_graphs(spec, report)
    report(f"loading {spec.name}")
    runtime = cast("Runtime", importlib.import_module(f"samgate.engines.{name}"))
    threads = settings.threads or usable_cores()
    # In f32, whatever the engine's precision: what bf16 does to the choice was never measured.
    graphs = {graph: runtime.load_graph(file, "f32", threads) for graph, file in files.items()}
    return _tried(EmbeddedTextModel(runtime.NAME, spec, graphs))


def _tried(model: EmbeddedTextModel) -> EmbeddedTextModel:
    """The first call is the slowest, and shows whether the graphs run. Raises CompileError."""
    spec = model.spec
    try:
        model._run("image_features", "image", np.zeros((1, spec.input_size, spec.input_size, 3), np.uint8))
        model._run("text_features", "tokens", np.zeros((1, spec.context), np.int32))
    except Unavailable as error:
        raise CompileError(str(error)) from error
    return model
