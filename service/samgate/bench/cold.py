"""Cold requests: an image that the server has never seen, and one point, against upstream's own predictor."""

from __future__ import annotations

import base64
import time
import zlib
from typing import Any

import numpy as np

from samgate.bench.context import Context
from samgate.bench.images import centre, size, unique_jpegs
from samgate.bench.report import Result, Verdict
from samgate.bench.server import serving
from samgate.bench.stats import Latency
from samgate.bench.upstream_process import described, upstream_predictor
from samgate.bench.worker import Worker
from samgate.client import Client, Segmentation

FLOOR = 4.5
_WARM_UP = 2
_PAUSE_S = 0.05
"""Between the two, so that neither's threads still spin when the other starts."""
_SEED = 1


def cold(context: Context) -> Result:
    """Latency of a cold ``Segment`` call over gRPC and of upstream's ``set_image`` + ``predict``, in turns."""
    pairs = context.repetitions(full=25, quick=3)
    jpegs = unique_jpegs(context.images, pairs + _WARM_UP, _SEED)
    ours: list[float] = []
    theirs: list[float] = []
    parts: dict[str, list[float]] = {"set_image_ms": [], "predict_ms": []}
    agreement: list[float] = []
    with (
        serving(context) as server,
        upstream_predictor(context) as upstream,
        Client(server.target) as client,
        context.progress("cold: samgate and upstream", pairs + _WARM_UP) as advance,
    ):
        for index, jpeg in enumerate(jpegs):
            ours_ms, mask, theirs_answer = _pair(context, client, upstream, jpeg, ours_first=index % 2 == 0)
            if index >= _WARM_UP:
                ours.append(ours_ms)
                theirs.append(theirs_answer["ms"])
                for name, values in parts.items():
                    values.append(theirs_answer[name])
                agreement.append(_mask_iou(mask, theirs_answer["mask"], size(jpeg)))
            advance()
        info, versions = mask.info, upstream.ready["versions"]
    gateway, reference = Latency.of(ours), Latency.of(theirs)
    ratio = reference.p50 / gateway.p50
    set_image, predict = (Latency.of(values).p50 for values in parts.values())
    iou = float(np.median(agreement))
    method = (
        f"One `Segment` call over gRPC with an image that no cache has seen and one point, three masks as RLE, against "
        f"upstream's `SamPredictor.set_image` and `predict` ({described(context.upstream)}, torch {versions['torch']}, "
        f"f32, in a process and environment of its own). Both decode the same JPEG, get {context.all_threads} threads "
        f"and take turns, {pairs} pairs after {_WARM_UP} to warm up; samgate's time includes gRPC. Of upstream's time "
        f"{set_image:.0f} ms are `set_image` and {predict:.0f} ms `predict`. The median IoU of both answers' best "
        f"masks is {iou:.3f}."
    )
    rows = [
        (f"samgate, {info.precision}, {info.engine}", *_cells(gateway), f"{ratio:.2f}×"),
        ("upstream", *_cells(reference), "1×"),
    ]
    return Result(
        name="cold",
        title="A cold request against upstream",
        method=method,
        columns=("", "p50 ms", "p95 ms", "p99 ms", "speed at p50"),
        rows=rows,
        verdicts=[Verdict(f"at least {FLOOR}× upstream's speed at p50", f"{ratio:.2f}×", ratio >= FLOOR)],
        figures={
            **gateway.figures("samgate"),
            **reference.figures("upstream"),
            "ratio_p50": round(ratio, 3),
            "pairs": pairs,
            "median_mask_iou": round(iou, 4),
            "precision": info.precision,
            "engine": info.engine,
            "upstream_versions": versions,
        },
    )


def _pair(
    context: Context, client: Client, upstream: Worker, jpeg: bytes, ours_first: bool
) -> tuple[float, Segmentation, dict[str, Any]]:
    """Both on one image: samgate's milliseconds and answer, upstream's answer."""
    path = context.scratch / "cold.jpg"
    path.write_bytes(jpeg)
    point = centre(jpeg)
    if not ours_first:
        theirs = upstream.ask(image=str(path), point=point)
        time.sleep(_PAUSE_S)
    started = time.perf_counter()
    answer = client.segment(jpeg, points=[point], selection="multi", variant=context.variant)
    elapsed_ms = 1000 * (time.perf_counter() - started)
    time.sleep(_PAUSE_S)
    if ours_first:
        theirs = upstream.ask(image=str(path), point=point)
        time.sleep(_PAUSE_S)
    return elapsed_ms, answer, theirs


def _mask_iou(ours: Segmentation, packed: str, image_size: tuple[int, int]) -> float:
    height, width = image_size
    bits = np.frombuffer(zlib.decompress(base64.b64decode(packed)), np.uint8)
    theirs = np.unpackbits(bits, count=height * width).reshape(height, width).astype(bool)
    best = max(ours.masks, key=lambda mask: mask.predicted_iou).to_numpy()
    union = int((best | theirs).sum())
    return int((best & theirs).sum()) / union if union else 1.0


def _cells(latency: Latency) -> tuple[str, str, str]:
    return f"{latency.p50:.0f}", f"{latency.p95:.0f}", f"{latency.p99:.0f}"
