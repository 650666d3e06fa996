"""A graph of a variant under a profile → the model configuration that Triton gets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

from samgate.repository.config import (
    DataType,
    DynamicBatching,
    InstanceGroup,
    Latest,
    ModelConfig,
    ModelWarmup,
    Parameter,
    QueuePolicy,
    ResponseCache,
    Tensor,
    TimeoutAction,
    VersionPolicy,
    WarmupInput,
)
from samgate.repository.profiles import Profile
from samgate.variants.detectors import PRECISIONS, DetectorSpec, detector_graph
from samgate.variants.graphs import AnyGraph, GraphName, GraphSpec, TensorSpec, graph_specs
from samgate.variants.spec import NetworkSpec, VariantSpec

Batching = Literal["formed", "bounded", "dynamic"]
"""``formed``: every request is a whole batch that a gateway has formed, and runs as it is; ``bounded``: the same, but
Triton limits how many wait and for how long; ``dynamic``: Triton merges requests, for several gateways at once.

``formed`` goes without Triton's batcher. With a bounded queue, up to two calls in a hundred were seen to stand still
for 500 ms (Triton 2.51, on a busy machine): so long does the batcher sleep when it misses that an instance has become
free, which it can, as it waits on another lock than it is woken under (core's ``WaitForPayloadSlotAvailable``).
"""

_DATA_TYPES = {"uint8": DataType.UINT8, "int32": DataType.INT32, "float32": DataType.FP32}
_MERGE_DELAY_US = 2_000
QUEUE = QueuePolicy(
    timeout_action=TimeoutAction.REJECT,
    # Of requests that name none.
    default_timeout_microseconds=60_000_000,
    allow_timeout_override=True,
    max_queue_size=16,
)
"""Of every model, where the queue is bounded."""


def model_name(variant: str, graph: AnyGraph) -> str:
    """What Triton calls a graph of a variant, or of a detector."""
    return f"{variant}_{graph}"


def served_graphs(spec: NetworkSpec, profile: Profile) -> list[GraphName]:
    """Those of ``spec`` that are models under ``profile``."""
    return [name for name in profile.graphs if name in spec.graphs]


def model_configs(
    spec: NetworkSpec,
    profile: Profile,
    batching: Batching = "formed",
    parameters: Mapping[GraphName, Mapping[str, str]] | None = None,
) -> dict[GraphName, ModelConfig]:
    """The models of ``spec`` under ``profile``, by graph; ``parameters`` are added to the graphs' own."""
    graphs = graph_specs(spec)
    given = parameters or {}
    best = {"best_batch": str(profile.best_batch), "best_prompts": str(profile.best_prompts)}
    hints = {"plan": plan_of(spec, profile), **best}
    return {
        name: _model(spec.name, profile, graphs[name], batching, hints | dict(given.get(name, {})))
        for name in served_graphs(spec, profile)
    }


def detector_config(
    spec: DetectorSpec, profile: Profile, batching: Batching = "formed", parameters: Mapping[str, str] | None = None
) -> ModelConfig:
    """The model of a detector whose input size is known; ``parameters`` are added to its own."""
    plan = {"plan": detector_plan(profile)}
    return _model(spec.name, profile, detector_graph(spec), batching, plan | dict(parameters or {}))


def plan_of(spec: NetworkSpec, profile: Profile) -> str:
    """The precision plan of ``spec`` under ``profile``: for a text model in plans for GPUs, which may be in a precision
    that it doesn't have, its fastest."""
    own = isinstance(spec, VariantSpec) or profile.backend != "tensorrt" or profile.plan in spec.precisions
    return profile.plan if own else tuple(spec.precisions)[-1]


def detector_plan(profile: Profile) -> str:
    """The precision of detectors under ``profile``: its own where it is one of theirs, in plans for GPUs; else f32."""
    if profile.backend != "tensorrt":
        return "f32"
    return profile.plan if profile.plan in PRECISIONS else PRECISIONS[-1]


def max_batch_size(graph: GraphSpec, profile: Profile) -> int:
    """The largest first axis in any of the graph's profiles; 0, Triton's "no batch axis", where Triton has none."""
    axis = _batch_axis(graph, profile)
    return max(shapes[axis].largest for shapes in graph.profiles) if axis else 0


def _model(
    name: str, profile: Profile, graph: GraphSpec, batching: Batching, parameters: Mapping[str, str]
) -> ModelConfig:
    own = _python_parameters(graph, batching) if profile.backend == "python" else {}
    axis = _batch_axis(graph, profile)
    return ModelConfig(
        name=model_name(name, graph.name),
        platform=profile.platform,
        backend=profile.backend,
        default_model_filename=profile.entry_file,
        max_batch_size=max_batch_size(graph, profile),
        input=tuple(_tensor(tensor, axis) for tensor in graph.inputs),
        output=tuple(_tensor(tensor, axis) for tensor in graph.outputs),
        instance_group=(
            InstanceGroup(
                count=profile.instances.get(graph.name, 1),
                kind=profile.kind,
                profile=tuple(map(str, range(len(graph.profiles)))) if profile.optimisation_profiles else (),
            ),
        ),
        version_policy=VersionPolicy(Latest(1)),
        dynamic_batching=_batching(axis, batching),
        model_warmup=tuple(_warmups(graph, axis, profile.warm_up_limit)),
        parameters={key: Parameter(value) for key, value in {**profile.parameters, **own, **parameters}.items()},
        # Tensors of megabytes that never come twice.
        response_cache=ResponseCache(enable=False),
    )


def _batch_axis(graph: GraphSpec, profile: Profile) -> str | None:
    return graph.batch if profile.batch_axis else None


def _tensor(tensor: TensorSpec, axis: str | None) -> Tensor:
    dims = tuple(size if isinstance(size, int) else -1 for size in _own_shape(tensor, axis))
    return Tensor(tensor.name, _DATA_TYPES[tensor.dtype], dims)


def _own_shape(tensor: TensorSpec, axis: str | None) -> tuple[int | str, ...]:
    return tensor.shape[1:] if axis else tensor.shape


def _batching(axis: str | None, batching: Batching) -> DynamicBatching | None:
    match batching:
        case "formed":
            return None
        case "bounded":
            # A preferred size of 1 is reached by every request alone, so none waits for another or is merged with one.
            return DynamicBatching((1,) if axis else (), 0, QUEUE)
        case "dynamic":
            return DynamicBatching((), _MERGE_DELAY_US) if axis else None


def _warmups(graph: GraphSpec, axis: str | None, limit: int) -> Iterator[ModelWarmup]:
    for number, shapes in enumerate(graph.profiles):
        inputs = {
            tensor.name: WarmupInput(
                _DATA_TYPES[tensor.dtype],
                tuple(
                    size if isinstance(size, int) else min(shapes[size].typical, limit)
                    for size in _own_shape(tensor, axis)
                ),
            )
            for tensor in graph.inputs
        }
        yield ModelWarmup(name=f"typical_{number}", batch_size=shapes[axis].typical if axis else 1, inputs=inputs)


def _python_parameters(graph: GraphSpec, batching: Batching) -> dict[str, str]:
    """What ``model.py`` reads: see :mod:`samgate.repository.python_model`."""
    # On CPUs a batch of images takes as long as its images one by one, and a known shape runs faster.
    fixed = {"batch": "1"} if graph.name == "encoder" else {}
    return {
        "precision": "f32",
        "threads": "0",
        "merge": "true" if batching == "dynamic" and graph.batch and not fixed else "false",
        "axes": " ".join(f"{tensor.name}:{','.join(map(str, tensor.shape))}" for tensor in graph.inputs),
        **fixed,
    }
