"""Who of those that could answer does: ours by prediction, the baselines by their profiles alone. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from samgate.scheduling.plans import Plan
from samgate.scheduling.policy import Policy
from samgate.scheduling.prediction import Timing, decode_shortage, encode_shortage, finish, timing
from samgate.scheduling.profile import PROMPT_KINDS, OperatingPoint
from samgate.scheduling.request import Reason, Refusal, Refused, Request
from samgate.scheduling.view import DECODE, ENCODE

LEAST_RETRY_S = 0.01
_EPSILON = 1e-9

Margin = Callable[[Plan], float]
"""How much later than predicted a plan may be done, in seconds."""


def choose(request: Request, plans: Sequence[Plan], margin: Margin) -> tuple[Plan, Timing] | Refusal:
    """The first of ``plans`` that meets the deadline without costing anybody else's, with its timing."""
    waits, smallest = [], math.inf
    for candidate in plans:
        timed = timing(request, candidate, margin(candidate))
        # While others wait, some of the margin may be their doing.
        idle_s = timed.service_s + (0.0 if candidate.view.queued_s > 0 else timed.margin_s)
        smallest = min(smallest, idle_s)
        if request.arrival + idle_s > request.deadline + _EPSILON:
            continue  # nor could it be in time now
        late, missing = 0.0, decode_shortage(request, candidate, timed)
        if missing <= _EPSILON:
            late = finish(request, candidate, timed) - request.deadline
            if late <= _EPSILON:
                missing = encode_shortage(request, candidate, timed)
                if missing <= _EPSILON:
                    return candidate, timed
        waits.append(max(late, missing * candidate.view.pace / candidate.view.instances))
    if not waits:
        return Refusal(Refused.DEADLINE, smallest_s=smallest)
    return Refusal(Refused.BUSY, retry_after_s=max(min(waits), LEAST_RETRY_S))


def choose_as(
    policy: Policy, request: Request, plans: Sequence[Plan], margin: Margin, overloaded: float, now: float
) -> tuple[Plan, Timing]:
    """The choice of a baseline, which looks at profiles alone; ties go to the emptier device. A device whose load is
    above ``overloaded`` counts as such."""

    def backlog(plan: Plan) -> float:
        return plan.view.work[ENCODE] + plan.view.work[DECODE]

    def cold_s(plan: Plan) -> float:
        return plan.point.encode(1) + plan.point.decode(1)

    chosen = min(plans, key=lambda plan: (cold_s(plan), backlog(plan)))
    shun = policy.rule == "unloaded" and chosen.view.device.busy(now) > overloaded
    if policy.rule != "fastest" and not shun:
        fit = list(plans)
        if policy.rule != "accurate":
            time_s = request.deadline - request.arrival
            fit = [plan for plan in plans if timing(request, plan, 0.0).service_s <= time_s]
        chosen = max(fit, key=lambda plan: (plan.accuracy, -cold_s(plan), -backlog(plan)), default=chosen)
    timed = timing(request, chosen, margin(chosen))
    finish(request, chosen, timed)
    return chosen, timed


def reason_for(request: Request, chosen: Plan, plans: Sequence[Plan], best_accuracy: float) -> Reason:
    """Why ``chosen``, of ``plans`` in the order in which they were tried; ``best_accuracy`` is the best of them."""
    if request.points is not None and len(request.points) == 1:
        return Reason.NAMED
    if chosen.accuracy >= best_accuracy - _EPSILON:
        return Reason.MOST_ACCURATE
    tried = plans[: plans.index(chosen)]
    # What was tried before the chosen one had no room.
    missed = any(plan.accuracy > chosen.accuracy + _EPSILON for plan in tried)
    return Reason.DEADLINE if missed else Reason.LOAD


def price_scale(points: Sequence[OperatingPoint]) -> float:
    """The price, in mIoU a second, at which the fastest of ``points`` is worth as much as the most accurate."""
    costs = [point.encode(1) + point.decode(1) for point in points]
    accuracies = [accuracy for point in points for accuracy in point.accuracy.values()]
    spread = max(
        max(point.accuracy[kind] for point in points) - min(point.accuracy[kind] for point in points)
        for kind in PROMPT_KINDS
    )
    # Of points that are alike, any price will do.
    return (spread or max(accuracies)) / ((max(costs) - min(costs)) or max(costs) or 1.0)
