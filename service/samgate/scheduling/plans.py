"""The ways to answer a request, and what each takes: formulas over operating points."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from samgate.scheduling.profile import Line, OperatingPoint
from samgate.scheduling.queue import Priority
from samgate.scheduling.request import Encode, Request
from samgate.scheduling.view import DECODE, ENCODE, View

_MOST_SHAPES = 1024
"""Remembered: clients choose how many prompts they ask for."""
_new = tuple.__new__


def marginal(line: Line, count: int, limit: int, waiting: int) -> float:
    """Device seconds that ``count`` items more take, of which a call holds ``limit``: behind ``waiting`` others they
    fill up calls that run anyway, on an idle device they pay for calls of their own."""
    calls = count / limit if waiting else math.ceil(count / limit)
    return line.fixed_s * calls + line.each_s * count


def decode_limit(point: OperatingPoint, size: int, chunk: int) -> int:
    """The most prompts of an interactive decoder call that begins with a piece of ``size`` prompts, where a piece has
    at most ``chunk``: its mates are on images of their own, or all on the same where a call takes one image alone."""
    return chunk if point.decode_images == 1 else min(chunk, size * point.decode_images)


def chunk_size(point: OperatingPoint, longest_s: float) -> int:
    """Prompts of SegEvery in one call, such that those on all lanes hold the device for at most ``longest_s``; at least
    as many as are decoded together."""
    line = point.survivors
    fit = int((longest_s - line.fixed_s) / line.each_s) if line.each_s > 0 else point.max_prompts
    fit = max(1, min(point.max_prompts, fit // point.lanes))
    return max(fit - fit % point.together, min(point.together, point.max_prompts))


class Cost(NamedTuple):
    """What requests of one shape take at ``point`` by the profile: seconds for their images, for all of these but one,
    for their prompts, and, no device's, for the masks of the last call."""

    point: OperatingPoint
    accuracy: float
    finish_s: float
    encode_s: float
    rest_s: float
    decode_s: float


class Costs:
    """What requests take at the points of a device, calculated once for all that are alike.

    Args:
        points: of the device.
        chunks: the most prompts of a call of bulk work, by point.
    """

    def __init__(self, points: Iterable[OperatingPoint], chunks: Mapping[str, int]) -> None:
        self._points, self._chunks = tuple(points), chunks
        self._known: dict[tuple[object, ...], tuple[Cost, ...]] = {}

    def of(self, request: Request, waiting: tuple[int, int]) -> tuple[Cost, ...]:
        """By point, while ``waiting`` encodes and decodes are queued."""
        bulk = request.priority is Priority.BULK
        encodes, decodes = waiting
        shape = (request.kind, request.encodes, request.prompts, request.everything, bulk, encodes > 0, decodes > 0)
        known = self._known.get(shape)
        if known is None:
            if len(self._known) >= _MOST_SHAPES:
                self._known.clear()
            known = self._known[shape] = tuple(self._cost(point, request, waiting) for point in self._points)
        return known

    def _cost(self, point: OperatingPoint, request: Request, waiting: tuple[int, int]) -> Cost:
        chunk, line = point.max_prompts, point.lane if request.everything else point.decode
        limit, behind, prompts = chunk, 0, request.prompts
        if request.everything and point.most_masks is not None:
            prompts = min(prompts, point.most_masks * request.encodes)
        if request.priority is Priority.BULK:
            limit = chunk = self._chunks[point.name]
        elif point.decode_images > 1:  # others' prompts share a call
            limit, behind = decode_limit(point, prompts, chunk), waiting[DECODE]

        def encode_s(images: int) -> float:
            return marginal(point.encode, images, point.max_images, waiting[ENCODE]) if images > 0 else 0.0

        decode_s = marginal(line, prompts, limit, behind) if prompts else 0.0
        accuracy = point.accuracy[request.kind]
        # Masks of one call are made while the next is decoded.
        finish_s = point.finish(min(prompts, chunk)) if prompts else 0.0
        return Cost(point, accuracy, finish_s, encode_s(request.encodes), encode_s(request.encodes - 1), decode_s)


class Plan(NamedTuple):
    """A request at one operating point of one device, as far as it is needed to compare plans: ``encode_s`` and
    ``decode_s`` are the device's seconds as ``view`` counts them, ``cost_s`` both together, ``finish_s`` those that
    masks take after it, ``value`` is accuracy less its price.
    """

    view: View
    point: OperatingPoint
    accuracy: float
    joins: Encode | None
    encodes: int
    finish_s: float
    encode_s: float
    decode_s: float
    cost_s: float
    value: float


def plans_for(
    request: Request, view: View, costs: Iterable[Cost], coming: Mapping[str, Encode], price: float
) -> tuple[list[Plan], float | None]:
    """Every way to answer ``request`` on the device of ``view``, and the best accuracy that any has.

    ``coming`` are the encodes of its image that are under way or promised, by point, ``price`` is μ.
    """
    found: list[Plan] = []
    best: float | None = None
    wanted, least, cached, skew = request.points, request.min_accuracy, request.cached, view.skew
    for point, accuracy, finish_s, encode_s, rest_s, decode_s in costs:
        name = point.name
        if wanted is not None and name not in wanted:
            continue
        if best is None or accuracy > best:
            best = accuracy
        if accuracy < least:
            continue
        joins = coming.get(name) if coming else None
        encodes = request.encodes
        if joins is not None or name in cached:
            encodes, encode_s = encodes - 1, rest_s
        encode_s *= skew
        cost_s = encode_s + decode_s
        value = accuracy - price * cost_s
        # As Plan(…) does, in half of its time: there are as many as there are points, for every request.
        found.append(_new(Plan, (view, point, accuracy, joins, encodes, finish_s, encode_s, decode_s, cost_s, value)))
    return found, best
