"""What Triton servers have of a variant: asked once, before anything is served."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from tritonclient.grpc import InferenceServerClient
from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig
from tritonclient.grpc.service_pb2 import ModelConfigResponse
from tritonclient.utils import InferenceServerException

from samgate.engines.cpu import DECODE_PROMPTS, ENCODE_BATCH
from samgate.errors import CompileError, Unavailable
from samgate.repository.models import model_name
from samgate.variants.clip import ClipSpec
from samgate.variants.detectors import DetectorSpec, detector_graph
from samgate.variants.graphs import GraphName, GraphSpec, TensorSpec, graph_specs
from samgate.variants.spec import VariantSpec

T = TypeVar("T")

_REQUIRED: tuple[GraphName, ...] = ("encoder", "decoder", "masked_decoder", "scores")
_POLL_S = 0.25
_PATIENCE_S = 5.0
_DTYPES = {DataType.TYPE_UINT8: "uint8", DataType.TYPE_INT32: "int32", DataType.TYPE_FP32: "float32"}


@dataclass(frozen=True, slots=True)
class Served:
    """``graphs`` that are there, the ``precision`` plan they run in, the most images an encoder call may hold and how
    many images and prompts a call had best hold, and how many ``instances`` of encoder and decoder run at once, the
    fewer of the two."""

    graphs: frozenset[GraphName]
    precision: str
    max_images: int
    best_images: int
    best_prompts: int
    instances: int


def ask(spec: VariantSpec, urls: Sequence[str], timeout_s: float, report: Callable[[str], None]) -> Served:
    """What the servers at ``urls`` have of ``spec``. Waits for each of them to be ready. Blocks.

    A server that doesn't answer in time is left out as long as another does: it may come later.

    Raises Unavailable when none answers, and CompileError when one has not what it should, or something else than
    another.
    """
    answers = _answers(spec.name, urls, timeout_s, report, lambda url, until: _ask(spec, url, until))
    if len({(one.precision, one.graphs) for one in answers.values()}) > 1:
        told = "; ".join(f"{url}: {one.precision}, {', '.join(sorted(one.graphs))}" for url, one in answers.items())
        raise CompileError(f"the Triton servers differ in {spec.name}: {told}")
    return min(answers.values(), key=lambda one: (one.instances, one.max_images))


def ask_again(spec: VariantSpec, url: str, served: Served) -> None:
    """Raises CompileError unless the server at ``url``, which has turned up since, has of ``spec`` what the others had;
    Unavailable when it isn't ready. Blocks."""
    found = ask(spec, [url], _PATIENCE_S, lambda message: None)
    if (found.precision, found.graphs) != (served.precision, served.graphs):
        raise CompileError(f"it has {spec.name} at {found.precision}, the others at {served.precision}")


def ask_detector(spec: DetectorSpec, urls: Sequence[str], timeout_s: float, report: Callable[[str], None]) -> int:
    """The input size, in pixels, of the detector that the servers at ``urls`` have. Waits and raises as :func:`ask`."""
    answers = _answers(spec.name, urls, timeout_s, report, lambda url, until: _ask_detector(spec, url, until))
    if len(set(answers.values())) > 1:
        told = "; ".join(f"{url}: {side} pixels" for url, side in answers.items())
        raise CompileError(f"the Triton servers differ in the input of {spec.name}: {told}")
    return next(iter(answers.values()))


def ask_text_model(spec: ClipSpec, urls: Sequence[str], timeout_s: float, report: Callable[[str], None]) -> None:
    """Waits for the servers at ``urls`` to have ``spec``. Raises as :func:`ask`."""
    _answers(spec.name, urls, timeout_s, report, lambda url, until: _ask_text_model(spec, url, until))


def _answers(
    name: str,
    urls: Sequence[str],
    timeout_s: float,
    report: Callable[[str], None],
    ask_one: Callable[[str, float], T],
) -> dict[str, T]:
    """What the servers that answer in time say, by URL: at least one does."""
    answers: dict[str, T] = {}
    problems: dict[str, str] = {}
    until = time.monotonic() + timeout_s
    for url in urls:
        report(f"asking Triton {url} for {name}")
        try:
            answers[url] = ask_one(url, until)
        except InferenceServerException as error:
            problems[url] = str(error.message())
    if not answers:
        told = "; ".join(f"{url}: {problem}" for url, problem in problems.items())
        raise Unavailable(f"no Triton is ready after {timeout_s:g} s ({told}); start one with: samgate triton up")
    return answers


def _ask_detector(spec: DetectorSpec, url: str, until: float) -> int:
    model = model_name(spec.name, "detector")
    with InferenceServerClient(url) as client:
        _wait_until_ready(client, model, until)
        config = _config(client, model)
    if config is None:
        raise CompileError(f"Triton {url} has no {model}; see: samgate repository build --help")
    # The side of the image, [1, S, S, 3]; any other shape fails the check.
    side = next((int(tensor.dims[1]) for tensor in config.input if len(tensor.dims) > 1), 0)
    _check(detector_graph(spec.sized(side)), config, url)
    return side


def _ask_text_model(spec: ClipSpec, url: str, until: float) -> None:
    with InferenceServerClient(url) as client:
        for graph in graph_specs(spec).values():
            model = model_name(spec.name, graph.name)
            _wait_until_ready(client, model, until)
            config = _config(client, model)
            if config is None:
                raise CompileError(f"Triton {url} has no {model}; see: samgate repository build --help")
            _check(graph, config, url)


def _ask(spec: VariantSpec, url: str, until: float) -> Served:
    with InferenceServerClient(url) as client:
        _wait_until_ready(client, model_name(spec.name, "encoder"), until)
        configs = {graph: _config(client, model_name(spec.name, graph)) for graph in graph_specs(spec)}
    return served_by(spec, {graph: config for graph, config in configs.items() if config is not None}, url)


def served_by(spec: VariantSpec, configs: Mapping[GraphName, ModelConfig], url: str) -> Served:
    """What ``configs`` of the models on the server at ``url`` say. Raises CompileError where they don't fit it."""
    graphs = graph_specs(spec)
    missing = [model_name(spec.name, graph) for graph in _REQUIRED if graph in graphs and graph not in configs]
    if missing:
        raise CompileError(f"Triton {url} has no {', '.join(missing)}; see: samgate repository build --help")
    for graph, config in configs.items():
        _check(graphs[graph], config, url)
    precisions = {config.parameters["plan"].string_value for config in configs.values()}
    if len(precisions) != 1 or "" in precisions:
        told = ", ".join(sorted(precisions - {""})) or "none"
        raise CompileError(f"the models of {spec.name} on Triton {url} name not one precision plan, but {told}")
    most_prompts = max(one["P"].largest for one in spec.shapes.decoder)
    instances = [sum(max(1, group.count) for group in configs[graph].instance_group) or 1 for graph in _REQUIRED[:2]]
    return Served(
        graphs=frozenset(configs),
        precision=precisions.pop(),
        max_images=configs["encoder"].max_batch_size or max(one["N"].largest for one in spec.shapes.encoder),
        best_images=_number(configs["encoder"], "best_batch", ENCODE_BATCH),
        best_prompts=min(_number(configs["decoder"], "best_prompts", DECODE_PROMPTS), most_prompts),
        instances=min(instances),
    )


def _wait_until_ready(client: InferenceServerClient, model: str, until: float) -> None:
    """Raises InferenceServerException when the time is over."""
    while True:
        try:
            if client.is_model_ready(model, client_timeout=2.0):
                return
            problem = InferenceServerException(f"{model} is not ready")
        except InferenceServerException as error:
            problem = error
        if time.monotonic() >= until:
            raise problem
        time.sleep(_POLL_S)


def _config(client: InferenceServerClient, model: str) -> ModelConfig | None:
    """None when the server doesn't have ``model``."""
    try:
        answer: ModelConfigResponse = client.get_model_config(model, client_timeout=10.0)
    except InferenceServerException as error:
        if "unknown model" in (error.message() or ""):
            return None
        raise
    return answer.config


def _number(config: ModelConfig, parameter: str, default: int) -> int:
    text = config.parameters[parameter].string_value
    return max(1, int(text)) if text.isdigit() else default


def _check(graph: GraphSpec, config: ModelConfig, url: str) -> None:
    """Raises CompileError unless the model takes and gives what the graph does."""
    for ours, theirs in ((graph.inputs, config.input), (graph.outputs, config.output)):
        expected = {tensor.name: (tensor.dtype, _dims(tensor, graph, config.max_batch_size > 0)) for tensor in ours}
        found = {tensor.name: (_DTYPES.get(tensor.data_type, "?"), list(tensor.dims)) for tensor in theirs}
        if expected != found:
            raise CompileError(f"{config.name} on Triton {url} has tensors {found}, not {expected}: build it anew")


def _dims(tensor: TensorSpec, graph: GraphSpec, batched: bool) -> list[int]:
    axes = tensor.shape[1:] if graph.batch and batched else tensor.shape
    return [size if isinstance(size, int) else -1 for size in axes]
