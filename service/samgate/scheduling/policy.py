"""Ways to choose who answers: ours, and those it is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Policy:
    """``rule`` says how a point is chosen, ``admits`` whether what can't be on time is refused, ``priced`` whether
    device time costs more under load. Queues, batches and the dropping of hopeless work are the same for all."""

    name: str
    rule: Literal["predicted", "fastest", "accurate", "profiled", "unloaded"]
    admits: bool
    priced: bool
    text: str


POLICIES: dict[str, Policy] = {
    policy.name: policy
    for policy in (
        Policy("samgate", "predicted", True, True, "predicted finish with queues, admission, load price"),
        Policy("samgate-mu0", "predicted", True, False, "the same without a load price"),
        Policy("static-fast", "fastest", False, False, "always the fastest point"),
        Policy("static-accurate", "accurate", False, False, "always the most accurate point"),
        Policy(
            "infaas",
            "unloaded",
            False,
            False,
            "most accurate point whose profile meets the deadline, the fastest when its device is overloaded (INFaaS)",
        ),
        Policy(
            "greedy", "profiled", False, False, "most accurate point whose profile meets the deadline; blind to queues"
        ),
    )
}
