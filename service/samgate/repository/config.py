"""Triton's model configuration (``ModelConfig`` of ``model_config.proto``) as typed dataclasses.

Names and nesting are the protocol's own, so :mod:`samgate.repository.pbtxt` can write any of them without knowing it.
What is None or empty is left out, which is how the text format says "default". Only what samgate sets is here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class DataType(StrEnum):
    """Of a tensor's elements."""

    UINT8 = "TYPE_UINT8"
    INT32 = "TYPE_INT32"
    FP32 = "TYPE_FP32"


class Kind(StrEnum):
    """What an instance runs on."""

    CPU = "KIND_CPU"
    GPU = "KIND_GPU"
    AUTO = "KIND_AUTO"


class TimeoutAction(StrEnum):
    """What becomes of a request that has waited for too long."""

    REJECT = "REJECT"
    DELAY = "DELAY"


@dataclass(frozen=True, slots=True)
class Tensor:
    """``ModelInput`` and ``ModelOutput``. ``dims`` has no batch axis where the model has one; −1 is any size."""

    name: str
    data_type: DataType
    dims: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class InstanceGroup:
    """``ModelInstanceGroup``: ``count`` executions side by side; ``profile`` names TensorRT's optimisation profiles."""

    count: int
    kind: Kind
    profile: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class QueuePolicy:
    """``ModelQueuePolicy``. Times are microseconds."""

    timeout_action: TimeoutAction
    default_timeout_microseconds: int
    allow_timeout_override: bool
    max_queue_size: int


@dataclass(frozen=True, slots=True)
class DynamicBatching:
    """``ModelDynamicBatching``; the only scheduler of Triton's whose queue can be bounded."""

    preferred_batch_size: tuple[int, ...]
    max_queue_delay_microseconds: int
    default_queue_policy: QueuePolicy | None = None


@dataclass(frozen=True, slots=True)
class WarmupInput:
    """``ModelWarmup.Input``: zeros of a shape without batch axis."""

    data_type: DataType
    dims: tuple[int, ...]
    zero_data: bool = True


@dataclass(frozen=True, slots=True)
class ModelWarmup:
    """A call that every instance answers before the model is ready."""

    name: str
    batch_size: int
    inputs: Mapping[str, WarmupInput]
    count: int = 1


@dataclass(frozen=True, slots=True)
class Latest:
    """``ModelVersionPolicy.Latest``."""

    num_versions: int


@dataclass(frozen=True, slots=True)
class VersionPolicy:
    """``ModelVersionPolicy``."""

    latest: Latest


@dataclass(frozen=True, slots=True)
class Parameter:
    """``ModelParameter``: what a backend makes of it is its own affair."""

    string_value: str


@dataclass(frozen=True, slots=True)
class ResponseCache:
    """``ModelResponseCache``."""

    enable: bool


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """One ``config.pbtxt``."""

    name: str
    platform: str
    backend: str
    default_model_filename: str
    max_batch_size: int
    input: tuple[Tensor, ...]
    output: tuple[Tensor, ...]
    instance_group: tuple[InstanceGroup, ...]
    version_policy: VersionPolicy
    dynamic_batching: DynamicBatching | None
    model_warmup: tuple[ModelWarmup, ...]
    parameters: Mapping[str, Parameter]
    response_cache: ResponseCache
