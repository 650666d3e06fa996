"""The ways to run a variant on Triton, as data: which backend, which graphs, how many instances of each.

``tensorrt``, ``openvino`` and ``onnxruntime`` are backends of NVIDIA's container; ``python-cpu`` needs no more than the
Python backend, which is all that the server in the ``nvidia-pytriton`` wheel has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from samgate.engines.cpu import DECODE_PROMPTS, ENCODE_BATCH
from samgate.errors import NotFound
from samgate.repository.config import Kind
from samgate.variants.graphs import AnyGraph, GraphName
from samgate.variants.spec import TEXT_GRAPHS

ProfileName = Literal["tensorrt", "openvino", "onnxruntime", "python-cpu"]

_GRAPHS: tuple[GraphName, ...] = ("encoder", "decoder", "masked_decoder", "scores", *TEXT_GRAPHS)


@dataclass(frozen=True, slots=True)
class Profile:
    """One way. ``model_file`` is the compiled graph's name in a version's folder, ``entry_file`` what Triton opens.

    ``plan`` is the precision plan that the graphs run in, ``best_batch`` and ``best_prompts`` are how many images and
    prompts a call had best hold: the gateway asks for these. ``batch_axis``: whether Triton knows of the first axis;
    where not, requests look the same, but Triton can't merge or count them. ``optimisation_profiles``: whether an
    instance names the shapes that it is for.
    """

    name: ProfileName
    summary: str
    backend: str
    platform: str
    entry_file: str
    model_file: str
    graphs: tuple[GraphName, ...]
    kind: Kind
    plan: str
    best_batch: int = ENCODE_BATCH
    best_prompts: int = DECODE_PROMPTS
    instances: Mapping[AnyGraph, int] = field(default_factory=dict)
    """One where a graph isn't named."""
    parameters: Mapping[str, str] = field(default_factory=dict)
    """The backend's own."""
    warm_up_limit: int = 64
    """The longest dynamic axis of a warm-up call."""
    batch_axis: bool = True
    optimisation_profiles: bool = False


PROFILES: dict[ProfileName, Profile] = {
    profile.name: profile
    for profile in (
        Profile(
            name="tensorrt",
            summary="TensorRT plans on NVIDIA GPUs, one plan a graph, precision and GPU",
            backend="tensorrt",
            platform="tensorrt_plan",
            entry_file="model.plan",
            model_file="model.plan",
            graphs=_GRAPHS,
            kind=Kind.GPU,
            plan="fp16",
            # Of a GPU's size; not measured on one.
            best_batch=8,
            best_prompts=64,
            # Two: while one computes, the other's tensors are copied.
            instances={"encoder": 2, "decoder": 2},
            optimisation_profiles=True,
        ),
        Profile(
            name="openvino",
            summary="ONNX graphs on CPUs, in bf16 where the CPU has it, else f32: OpenVINO chooses",
            backend="openvino",
            platform="",
            entry_file="model.onnx",
            model_file="model.onnx",
            graphs=_GRAPHS,
            kind=Kind.CPU,
            plan="auto",
            warm_up_limit=DECODE_PROMPTS,
            parameters={"NUM_STREAMS": "1", "PERFORMANCE_HINT": "LATENCY"},
            # The backend fixes a batch axis that it knows of to its largest size, and refuses or pads what is smaller.
            batch_axis=False,
        ),
        Profile(
            name="onnxruntime",
            summary="f32 ONNX graphs on a GPU where there is one, else on the CPU: nothing to compile",
            backend="onnxruntime",
            platform="onnxruntime_onnx",
            entry_file="model.onnx",
            model_file="model.onnx",
            graphs=_GRAPHS,
            kind=Kind.AUTO,
            plan="f32",
            # Prompt counts change from call to call: one call's memory plan is of no use to the next.
            parameters={"enable_mem_pattern": "0"},
        ),
        Profile(
            name="python-cpu",
            summary="OpenVINO inside Triton's Python backend: the embedded engine's bits, but for SegEvery's rounding",
            backend="python",
            platform="",
            entry_file="model.py",
            model_file="model.onnx",
            graphs=_GRAPHS,
            kind=Kind.CPU,
            plan="f32",
            warm_up_limit=DECODE_PROMPTS,
        ),
    )
}


def get_profile(name: str) -> Profile:
    """The profile called ``name``. Raises :class:`NotFound` that lists the names there are."""
    for profile in PROFILES.values():
        if profile.name == name:
            return profile
    raise NotFound(f"profile {name!r} is unknown; known: {', '.join(PROFILES)}")
