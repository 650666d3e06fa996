"""One request of a workload."""

from __future__ import annotations

from dataclasses import dataclass

from samgate.scheduling.profile import PromptKind

MAX_MEGAPIXELS = 1000.0
MAX_PROMPTS = 100_000
MAX_DEADLINE_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request: ``at_s`` seconds after the start, about the image numbered ``image``, to be answered within
    ``deadline_s``. ``everything`` asks for all masks (SegEvery), by ``prompts`` points; ``points`` are the operating
    points that may answer (None: any), ``tier`` is the name of the sort of requests that it is one of."""

    at_s: float
    image: int
    megapixels: float
    kind: PromptKind
    prompts: int
    deadline_s: float
    client: str = "client"
    min_accuracy: float = 0.0
    everything: bool = False
    points: tuple[str, ...] | None = None
    tier: str = "requests"
