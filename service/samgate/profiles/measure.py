"""Measures one operating point on a loaded engine, embedded or Triton's alike.

Sizes and kinds of calls are interleaved in an order that changes with every round, so that whatever drifts on the
machine drifts for all of them, and no call always has the same one before it. Calls are made one at a time: what
several at once do to each other is the scheduler's to add up.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal

import cv2
import numpy as np

from samgate.domain import Choose, Chosen, FloatArray, Format, Frame, UInt8Array
from samgate.engines.base import Decoded, Engine, Images
from samgate.engines.cpu import usable_cores
from samgate.imaging.decode import decode, probe
from samgate.imaging.formats import encode as encode_mask
from samgate.imaging.masks import finish
from samgate.imaging.preprocess import encoder_input
from samgate.profiles.accuracy import known_accuracy
from samgate.profiles.fit import Origin, fit_line
from samgate.profiles.pictures import grid, jpeg, picture
from samgate.scheduling.profile import Line, OperatingPoint
from samgate.serving.prompting import point_group
from samgate.variants.detections import detections_in
from samgate.variants.graphs import EVERYTHING_BLOCKS
from samgate.variants.spec import VariantSpec

Kind = Literal["encode", "decode", "survivors", "prepare", "finish"]
Call = Callable[[], Awaitable[object]]

_FRAME_MEGAPIXELS = 0.8
"""Of the picture that prompts are on: between a photograph of COCO's and a screenful."""
_MAX_PIXELS = 100_000_000
_SEED = 4
_USEFUL = 4
"""Of so many prompts of SegEvery one has its masks made."""
_QUIET_SHARE = 0.7
"""Measured: 0.85 to 1 on a machine that is idle else, 0.3 with a neighbour on each core."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How much measuring is worth: ``passes`` over all points, each of so many rounds of ``encodes`` and of all other
    ``calls`` of a point, after ``warm_up`` rounds that don't count.

    ``megapixels`` are the sizes of images to prepare. With ``ladder`` calls of 1, 2, 4 … items are measured, else the
    smallest and the largest alone.
    """

    origin: Origin
    passes: int
    encodes: int
    calls: int
    warm_up: int
    megapixels: tuple[float, ...]
    ladder: bool

    @property
    def rounds(self) -> int:
        """Of a pass, those that count."""
        return max(self.encodes, self.calls)


FULL = Effort("measured", passes=4, encodes=6, calls=10, warm_up=1, megapixels=(0.3, 1.0, 4.0, 12.0), ladder=True)
QUICK = Effort("quick", passes=1, encodes=3, calls=3, warm_up=1, megapixels=(0.3, 2.0), ladder=False)


@dataclass(frozen=True, slots=True)
class Measurement:
    """A ``point``, and how many ``processors`` this process had in the mean while it encoded images.

    On a machine that does nothing else these are nearly as many as the engine has threads. 0 with Triton, whose
    servers are other processes.
    """

    point: OperatingPoint
    processors: float

    def disturbed(self, threads: int) -> bool:
        """Whether others had much of the processors that the engine's ``threads`` wanted: times are theirs as well."""
        return 0 < self.processors < _QUIET_SHARE * threads


@dataclass(slots=True)
class Samples:
    """What calls of one point took: ``seconds`` by kind and size, and the ``processor_s`` that this process had in the
    ``encode_s`` seconds of those that encode."""

    seconds: dict[tuple[Kind, float], list[float]] = field(default_factory=dict)
    processor_s: float = 0.0
    encode_s: float = 0.0

    def line(self, kind: Kind, origin: Origin) -> Line:
        """Of the calls of ``kind``."""
        return fit_line({size: taken for (one, size), taken in self.seconds.items() if one == kind}, origin)


@dataclass(frozen=True, slots=True)
class _Probe:
    """One kind of call at one size, to be made ``repetitions`` times."""

    kind: Kind
    size: float
    call: Call
    repetitions: int

    def due(self, turn: int, rounds: int) -> bool:
        """Whether it is to be made in round ``turn``: repetitions are spread evenly over all rounds."""
        return (turn + 1) * self.repetitions // rounds > turn * self.repetitions // rounds


async def measure_point(
    spec: VariantSpec,
    engine: Engine,
    effort: Effort,
    advance: Callable[[float], None] = lambda share: None,
    samples: Samples | None = None,
) -> Measurement:
    """The lines of ``spec`` on ``engine``, which nobody else uses meanwhile, with the accuracy that is known of it.

    Args:
        advance: gets the share of the work that is done, 0 to 1, after each round.
        samples: those of earlier passes, which count as well; this one's are added.

    Raises what the engine's calls raise.
    """
    # As in the server: masks are one thread's work each.
    cv2.setNumThreads(1)
    with ThreadPoolExecutor(usable_cores() + 1, thread_name_prefix="imaging") as executor:
        probes = await _probes(spec, engine, effort, executor)
        samples = samples or Samples()
        random = np.random.default_rng(_SEED)
        for turn in range(-effort.warm_up, effort.rounds):
            for place in random.permutation(len(probes)):
                await _make(probes[place], turn, effort.rounds, samples)
            advance((turn + effort.warm_up + 1) / (effort.rounds + effort.warm_up))
    point = OperatingPoint(
        variant=spec.name,
        precision=engine.precision,
        engine=engine.name,
        encode=samples.line("encode", effort.origin),
        decode=samples.line("decode", effort.origin),
        survivors=samples.line("survivors", effort.origin),
        prepare=samples.line("prepare", effort.origin),
        finish=samples.line("finish", effort.origin),
        accuracy=known_accuracy(spec, engine.precision).miou,
        max_images=engine.capacity.max_images,
        decode_images=engine.capacity.decode_images,
        max_prompts=engine.capacity.max_prompts,
        together=engine.capacity.together,
        lanes=engine.capacity.lanes,
    )
    elsewhere = engine.name == "triton" or not samples.encode_s
    return Measurement(point, 0.0 if elsewhere else samples.processor_s / samples.encode_s)


async def _make(probe: _Probe, turn: int, rounds: int, samples: Samples) -> None:
    if turn >= 0 and not probe.due(turn, rounds):
        return
    started, processor = time.perf_counter(), time.process_time()
    await probe.call()
    if turn < 0:
        return
    seconds = time.perf_counter() - started
    samples.seconds.setdefault((probe.kind, probe.size), []).append(seconds)
    if probe.kind == "encode":
        samples.encode_s += seconds
        samples.processor_s += time.process_time() - processor


async def _probes(spec: VariantSpec, engine: Engine, effort: Effort, executor: Executor) -> list[_Probe]:
    pixels, frame = encoder_input(picture(_FRAME_MEGAPIXELS), spec)
    (embedding,) = await engine.encode(_images(pixels, frame, 1), math.inf)
    points = grid(engine.capacity.max_prompts, frame.original)
    decoded = await engine.decode([embedding], point_group(points, frame, spec), math.inf)
    # Copies: what an engine lends is its own again while others are measured.
    decoded = Decoded(decoded.low_res_masks.copy(), decoded.iou_predictions.copy())
    found = [
        _Probe("encode", images, _encode(engine, _images(pixels, frame, images)), effort.encodes)
        for images in sizes(engine.capacity.max_images, effort.ladder)
    ]
    # All lanes are busy while SegEvery is.
    together = min(engine.capacity.together * engine.capacity.lanes, engine.capacity.max_prompts)
    for prompts in sorted({*sizes(engine.capacity.max_prompts, effort.ladder), together}):
        some = points[_spread(prompts, len(points))]
        found.append(_Probe("decode", prompts, _decode(spec, engine, embedding, some, frame), effort.calls))
        if prompts >= together:
            found.append(_Probe("survivors", prompts, _survivors(spec, engine, embedding, some, frame), effort.calls))
        found.append(_Probe("finish", prompts, _finish(spec, decoded, prompts, frame, executor), effort.calls))
    for megapixels in effort.megapixels:
        image = picture(megapixels)
        size = image.shape[0] * image.shape[1] / 1e6
        found.append(_Probe("prepare", size, _prepare(spec, jpeg(image), executor), effort.calls))
    return found


def sizes(limit: int, ladder: bool) -> list[int]:
    """1 and ``limit``, with ``ladder`` also the powers of two in between."""
    steps: Iterator[int] = (2**power for power in range(limit.bit_length()))
    return sorted({*(steps if ladder else (1,)), limit})


def _spread(count: int, of: int) -> list[int]:
    return [index * of // count for index in range(count)]


def _images(pixels: UInt8Array, frame: Frame, count: int) -> Images:
    return Images(np.stack([pixels] * count), np.array([frame.valid] * count, np.int32))


def _encode(engine: Engine, images: Images) -> Call:
    return lambda: engine.encode(images, math.inf)


def _decode(spec: VariantSpec, engine: Engine, embedding: FloatArray, points: FloatArray, frame: Frame) -> Call:
    prompts = point_group(points, frame, spec)
    return lambda: engine.decode([embedding], prompts, math.inf)


def _survivors(spec: VariantSpec, engine: Engine, embedding: FloatArray, points: FloatArray, frame: Frame) -> Call:
    if spec.finds_everything:

        async def call() -> None:
            found = detections_in(embedding)
            found.logits(slice(len(points)))

        return call
    prompts, choose = point_group(points, frame, spec), as_on_photographs(spec)
    return lambda: engine.survivors(embedding, prompts, choose, math.inf)


def as_on_photographs(spec: VariantSpec) -> Choose:
    """As many masks as there are of use among a grid's prompts on photographs, with outlines as long as most there."""

    def choose(ious: FloatArray, coarse: FloatArray) -> Chosen:
        kept = np.array([(prompt, spec.multimask_tokens[0]) for prompt in range(0, len(ious), _USEFUL)], np.int32)
        blocks = np.zeros((len(kept), *coarse.shape[2:]), np.bool_)
        blocks.reshape(len(kept), -1)[:, : 2 * EVERYTHING_BLOCKS] = True
        return Chosen(kept, blocks)

    return choose


def _prepare(spec: VariantSpec, data: bytes, executor: Executor) -> Call:
    def identify() -> None:
        probe(data, _MAX_PIXELS, "image")
        hashlib.sha256(data).hexdigest()

    def prepare() -> None:
        encoder_input(decode(data, _MAX_PIXELS, "image"), spec)

    async def call() -> None:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(executor, identify)
        await loop.run_in_executor(executor, prepare)

    return call


def _finish(spec: VariantSpec, decoded: Decoded, prompts: int, frame: Frame, executor: Executor) -> Call:
    """All of a call's prompts are finished at once, as in the gateway, on as many threads as there."""

    def mask(place: int) -> None:
        low_res = decoded.low_res_masks[0, place, spec.single_mask_token]
        encode_mask(finish(low_res, frame, spec.mask_threshold).mask, Format.RLE)

    async def call() -> None:
        loop = asyncio.get_running_loop()
        await asyncio.gather(*(loop.run_in_executor(executor, mask, place) for place in range(prompts)))

    return call
