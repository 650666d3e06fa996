"""All scenarios, in the order in which they are played."""

from __future__ import annotations

from collections.abc import Mapping

from loadtest.reliability.scenarios import certificates, clock, disk, floods, gateways, slow, triton
from loadtest.reliability.stage import Scenario

SCENARIOS: Mapping[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        triton.KILLED,
        triton.MODEL_KILLED,
        triton.HANGS,
        gateways.HANGS,
        gateways.KILLED,
        gateways.SIGTERM_BURST,
        slow.SLOW,
        disk.FULL,
        clock.JUMPS,
        certificates.ROTATED,
        floods.CANCELLED,
        floods.SCRAPED,
    )
}
