"""SegmentEverything against upstream's automatic mask generator: what is found of labelled objects, and how fast."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from samgate.bench.context import Context
from samgate.bench.errors import BenchmarkError
from samgate.bench.images import photographs, unique_jpegs
from samgate.bench.report import Result
from samgate.bench.segevery_report import COLUMNS, Contender, row, verdicts
from samgate.bench.server import serving
from samgate.bench.upstream_everything import MaskCache, ask_upstream, parameters
from samgate.bench.upstream_process import described, upstream_worker
from samgate.bench.worker import Worker
from samgate.client import AnswerInfo, Client
from samgate.evaluation.dataset import LabelledImage, load_dataset, spread
from samgate.evaluation.everything import Answer, Strategy, check_size, chosen_strategies, segment_everything
from samgate.evaluation.recall import Proposals, score
from samgate.variants import get_variant
from samgate.weights.store import installed

_MIN_SIDE = 640
_PAUSE_S = 0.05
"""After each answer, so that the threads of one no longer spin when the next starts."""
_SEED = 9
_UPSTREAM = "upstream"


@dataclass(frozen=True, slots=True)
class _Sample:
    path: Path
    labelled: LabelledImage | None = None


def segevery(context: Context) -> Result:
    """Upstream's generator, then each strategy, image by image; every image is new to the server."""
    strategies = chosen_strategies(context.segevery.strategies)
    samples = _samples(context)
    timed = spread(range(len(samples)), context.segevery.upstream_images or context.repetitions(len(samples), 1))
    side = context.repetitions(full=32, quick=8)
    cache = _cache(context, side) if context.segevery.reuse_upstream else None
    upstream, contenders = Contender(_UPSTREAM), [Contender(strategy.name) for strategy in strategies]
    steps = len(samples) * len(strategies) + len(timed)
    with (
        serving(context) as server,
        upstream_worker(context) as worker,
        Client(server.target) as client,
        context.progress("segevery: samgate and upstream", steps) as advance,
    ):
        _warm_up(context, client, worker, strategies)
        for number, sample in enumerate(samples):
            data = sample.path.read_bytes()
            if number in timed:
                answer = ask_upstream(worker, sample.path, parameters(side))
                _note(upstream, number, sample, answer, advance)
                if cache is not None:
                    cache.put(data, answer)
            elif cache is not None and (kept := cache.get(data)) is not None:
                _score(upstream, number, sample, kept)
            for strategy, contender in zip(strategies, contenders, strict=True):
                answer = segment_everything(client, data, strategy, context.variant)
                _note(contender, number, sample, answer, advance)
        versions = worker.ready["versions"]
    info = _info(contenders)
    everyone = [upstream, *contenders]
    return Result(
        name="segevery",
        title="SegmentEverything against upstream",
        method=_method(context, samples, upstream, side, info, versions["torch"]),
        columns=COLUMNS,
        rows=[row(one, upstream, contenders[0]) for one in everyone],
        verdicts=verdicts(contenders, upstream),
        figures={
            "contenders": {one.name: one.figures(upstream) for one in everyone},
            "images": len(samples),
            "upstream_points_per_side": side,
            "precision": info.precision,
            "engine": info.engine,
            "upstream_versions": versions,
        },
    )


def _samples(context: Context) -> list[_Sample]:
    """Labelled images, then others; without either, those of ``context.images``, or drawn ones."""
    asked = context.segevery
    count = asked.images or context.repetitions(full=16, quick=2)
    samples: list[_Sample] = []
    if asked.dataset is not None:
        large = load_dataset(asked.dataset, min_area=0, min_side=_MIN_SIDE)
        samples += [_Sample(image.path, image) for image in spread(large, count)]
    if asked.media is not None:
        samples += [_Sample(path) for path in photographs(asked.media)]
    if samples:
        return samples
    if context.images is not None:
        return [_Sample(path) for path in spread(photographs(context.images), count)]
    for index, jpeg in enumerate(unique_jpegs(None, min(count, 4), _SEED)):
        path = context.scratch / f"everything-{index}.jpg"
        path.write_bytes(jpeg)
        samples.append(_Sample(path))
    return samples


def _cache(context: Context, side: int) -> MaskCache:
    weights = installed(get_variant(context.variant))
    if weights is None:
        raise BenchmarkError(f"the weights of {context.variant} are not installed: `samgate pull {context.variant}`")
    return MaskCache(weights.sha256, parameters(side))


def _warm_up(context: Context, client: Client, worker: Worker, strategies: Sequence[Strategy]) -> None:
    path = context.scratch / "warm-up.jpg"
    path.write_bytes(unique_jpegs(None, 1, _SEED + 1)[0])
    ask_upstream(worker, path, parameters(2))
    for strategy in strategies:
        segment_everything(client, path.read_bytes(), strategy, context.variant)


def _note(contender: Contender, number: int, sample: _Sample, answer: Answer, advance: Callable[[], None]) -> None:
    if sample.labelled is not None:
        check_size(sample.labelled, answer.size)
    contender.answers[number] = answer
    _score(contender, number, sample, answer.proposals)
    advance()
    time.sleep(_PAUSE_S)


def _score(contender: Contender, number: int, sample: _Sample, proposals: Proposals) -> None:
    if sample.labelled is not None:
        contender.found[number] = score(proposals, sample.labelled.instances)


def _info(contenders: Sequence[Contender]) -> AnswerInfo:
    infos = [answer.info for one in contenders for answer in one.answers.values() if answer.info is not None]
    if not infos:
        raise BenchmarkError("no strategy has answered within its deadline")
    return infos[-1]


def _method(
    context: Context, samples: Sequence[_Sample], upstream: Contender, side: int, info: AnswerInfo, torch: str
) -> str:
    labelled = sum(sample.labelled is not None for sample in samples)
    recall = (
        f"Average recall is COCO's without classes, over the {labelled} labelled images; upstream's masks are known of "
        f"{len(upstream.found)}, and “less upstream's” is over those, with the paired 95% bootstrap interval "
        "over images."
        if labelled
        else "Without labelled images (`--dataset`) recall was not measured."
    )
    return (
        f"`SegmentEverything` over gRPC, masks as RLE, on {len(samples)} images, each by every strategy in turn, "
        f"against upstream's `SamAutomaticMaskGenerator` with {side} × {side} points, 64 a batch "
        f"({described(context.upstream)}, torch {torch}, f32, in a process and environment of its own, run lengths as "
        f"output). samgate: {info.variant}, {info.precision}, {info.engine}. Both get {context.all_threads} threads "
        "and the file's bytes, samgate's with random bytes after their end, so that no embedding is cached; its "
        f"time includes gRPC. {recall} Speed is upstream's seconds over a strategy's, in sum over the "
        f"{len(upstream.answers)} images that upstream was timed on."
    )
