"""What a simulation comes to, in figures."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from samgate.simulation.outcome import End, Outcome, Run

_ADMITTED = (End.ON_TIME, End.LATE, End.DROPPED, End.LOST)
_ANSWERED = (End.ON_TIME, End.LATE)


@dataclass(frozen=True, slots=True)
class Summary:
    """Figures of the requests that arrived after the warm-up. Shares are of all sent, 0 to 1, unless it says otherwise.

    ``rate`` is the mean rate that was aimed at, in requests a second, ``load`` what it is of the workload's own.
    ``attainment`` is the share answered on time, ``goodput`` how many were a second, ``accuracy`` their mean mIoU, and
    ``value`` attainment × accuracy. ``on_time_of_admitted`` is of those that were ever admitted. Latencies are from the
    scheduled arrival to the answer, in seconds, of the answered; None when nothing was. ``skipped`` requests, which a
    load generator didn't send, count as sent and not answered on time. ``points`` are shares of the
    answered, ``cached`` and ``joined`` of the admitted. ``utilisation`` is the share of time that a device's
    processor runs an encoder or decoder call, the mean over devices.
    """

    policy: str
    load: float
    rate: float
    sent: int
    attainment: float
    goodput: float
    accuracy: float | None
    value: float
    refused: dict[str, float]
    dropped: float
    lost: float
    late: float
    skipped: float
    on_time_of_admitted: float | None
    p50_s: float | None
    p90_s: float | None
    p95_s: float | None
    p99_s: float | None
    points: dict[str, float]
    utilisation: float
    cached: float
    joined: float
    attempts: float
    attainment_interactive: float | None
    attainment_everything: float | None


def summarise(run: Run, load: float) -> Summary:
    """``run`` in figures."""
    sent = [one for one in run.outcomes if one.arrival.at_s >= run.warmup_s]
    ends = Counter(one.end for one in sent)
    on_time = [one for one in sent if one.end is End.ON_TIME]
    answered = [one for one in sent if one.end in _ANSWERED]
    admitted = [one for one in sent if one.end in _ADMITTED]
    latencies = sorted(one.ended_s - one.arrival.at_s for one in answered)
    total = max(1, len(sent))
    accuracies = sum(one.accuracy for one in on_time)
    return Summary(
        policy=run.policy,
        load=load,
        rate=run.rate,
        sent=len(sent),
        attainment=len(on_time) / total,
        goodput=len(on_time) / (run.duration_s - run.warmup_s),
        accuracy=accuracies / len(on_time) if on_time else None,
        value=accuracies / total,
        refused=_shares(Counter(one.reason for one in sent if one.end is End.REFUSED), total),
        dropped=ends[End.DROPPED] / total,
        lost=ends[End.LOST] / total,
        late=ends[End.LATE] / total,
        skipped=ends[End.SKIPPED] / total,
        on_time_of_admitted=len(on_time) / len(admitted) if admitted else None,
        p50_s=percentile(latencies, 0.5),
        p90_s=percentile(latencies, 0.9),
        p95_s=percentile(latencies, 0.95),
        p99_s=percentile(latencies, 0.99),
        points=_shares(Counter(one.point for one in answered), max(1, len(answered))),
        utilisation=run.utilisation,
        cached=sum(one.cached for one in admitted) / max(1, len(admitted)),
        joined=sum(one.joined for one in admitted) / max(1, len(admitted)),
        attempts=sum(one.attempts for one in sent) / total,
        attainment_interactive=_attainment([one for one in sent if not one.arrival.everything]),
        attainment_everything=_attainment([one for one in sent if one.arrival.everything]),
    )


def percentile(ascending: Sequence[float], share: float) -> float | None:
    """The nearest-rank percentile; None of nothing."""
    return ascending[max(0, math.ceil(share * len(ascending)) - 1)] if ascending else None


def _attainment(sent: Sequence[Outcome]) -> float | None:
    return sum(one.end is End.ON_TIME for one in sent) / len(sent) if sent else None


def _shares(counts: Counter[str], total: int) -> dict[str, float]:
    return {name: count / total for name, count in counts.most_common()}
