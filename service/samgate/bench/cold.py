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
from samgate.bench.turns import in_turns
from samgate.bench.upstream_process import described, upstream_worker
from samgate.client import Client, Segmentation

FLOOR = 4.5
_WARM_UP = 2
_PAUSE_S = 0.05
_SEED = 1


def cold(context: Context) -> Result:
    """Latency of a cold ``Segment`` call over gRPC and of upstream's ``set_image`` + ``predict``, in turns."""
    pairs = context.repetitions(full=25, quick=3)
    jpegs = unique_jpegs(context.images, pairs + _WARM_UP, _SEED)
    paths = [context.scratch / f"cold-{index}.jpg" for index in range(len(jpegs))]
    for path, jpeg in zip(paths, jpegs, strict=True):
        path.write_bytes(jpeg)
    ours: list[float] = []
    theirs: list[float] = []
    parts: dict[str, list[float]] = {"set_image_ms": [], "predict_ms": []}
    agreement: list[float] = []
    with (
        serving(context) as server,
        upstream_worker(context) as upstream,
        Client(server.target) as client,
        context.progress("cold: samgate and upstream", len(jpegs)) as advance,
    ):

        def ask_samgate(index: int) -> tuple[float, Segmentation]:
            started = time.perf_counter()
            answer = client.segment(jpegs[index], points=[centres[index]], selection="multi", variant=context.variant)
            return 1000 * (time.perf_counter() - started), answer

        def ask_upstream(index: int) -> dict[str, Any]:
            return upstream.ask(image=str(paths[index]), point=centres[index])

        centres = [centre(jpeg) for jpeg in jpegs]
        for index, pair in enumerate(in_turns(ask_samgate, ask_upstream, len(jpegs), _PAUSE_S, _WARM_UP)):
            advance()
            if pair is not None:
                (elapsed_ms, answer), other = pair
                info = answer.info
                ours.append(elapsed_ms)
                theirs.append(other["ms"])
                for name, values in parts.items():
                    values.append(other[name])
                agreement.append(_mask_iou(answer, other["mask"], size(jpegs[index])))
        versions = upstream.ready["versions"]
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


def _mask_iou(ours: Segmentation, packed: str, image_size: tuple[int, int]) -> float:
    height, width = image_size
    bits = np.frombuffer(zlib.decompress(base64.b64decode(packed)), np.uint8)
    theirs = np.unpackbits(bits, count=height * width).reshape(height, width).astype(bool)
    best = max(ours.masks, key=lambda mask: mask.predicted_iou).to_numpy()
    union = int((best | theirs).sum())
    return int((best & theirs).sum()) / union if union else 1.0


def _cells(latency: Latency) -> tuple[str, str, str]:
    return f"{latency.p50:.0f}", f"{latency.p95:.0f}", f"{latency.p99:.0f}"
