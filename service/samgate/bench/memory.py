"""Whether the server's memory stays flat."""

from __future__ import annotations

from samgate.bench.context import Context
from samgate.bench.errors import BenchmarkError
from samgate.bench.images import centre, unique_jpegs
from samgate.bench.report import Result, Verdict
from samgate.bench.server import serving
from samgate.client import Client, EmbeddedImage, prompt

FLOOR_PERCENT = 5.0
_CACHE_MIB = 64
"""Sixteen embeddings: the cache is full long before the first sample, so that what grows after it is a leak."""
_SAMPLES = 5
_SEED = 4
_GRID_SIDE = 4


def memory(context: Context) -> Result:
    """Resident memory of the server while it answers a mix of all kinds of requests."""
    try:
        import psutil
    except ImportError:
        raise BenchmarkError("the memory benchmark needs psutil: pip install 'samgate[dev]'") from None
    every = context.repetitions(full=100, quick=20)
    count = every * _SAMPLES
    settings = {"SAMGATE_CACHE_MAX_BYTES": str(_CACHE_MIB * 2**20)}
    jpegs = unique_jpegs(context.images, count, _SEED)
    samples: dict[int, float] = {}
    with (
        serving(context, settings) as server,
        Client(server.target) as client,
        context.progress("memory: mixed requests", count) as advance,
    ):
        process = psutil.Process(server.pid)
        started = process.memory_info().rss / 2**20
        image: EmbeddedImage | None = None
        for index, jpeg in enumerate(jpegs):
            image = _request(client, context.variant, jpeg, index, image)
            advance()
            if (index + 1) % every == 0:
                samples[index + 1] = process.memory_info().rss / 2**20
    first, *later = samples.values()
    growth = 100 * (max(later) / first - 1)
    method = (
        f"Resident memory of the server process over {count} requests: unseen images with a point, embedding, points "
        f"and sets of boxes on an embedded image in all mask formats, and small `SegmentEverything` calls. The "
        f"embedding cache is limited to {_CACHE_MIB} MiB, which the first requests fill. Growth is that of the "
        f"highest later sample over the first."
    )
    rows = [("ready", f"{started:.0f}", "")]
    rows += [(str(done), f"{mib:.0f}", f"{100 * (mib / first - 1):+.1f}%") for done, mib in samples.items()]
    return Result(
        name="memory",
        title="Memory over time",
        method=method,
        columns=("requests", "resident MiB", f"against {every} requests"),
        rows=rows,
        verdicts=[
            Verdict(
                f"less than {FLOOR_PERCENT:g}% growth after {every} requests", f"{growth:+.1f}%", growth < FLOOR_PERCENT
            )
        ],
        figures={
            "ready_mib": round(started, 1),
            "samples_mib": {str(done): round(mib, 1) for done, mib in samples.items()},
            "growth_percent": round(growth, 2),
        },
    )


def _request(client: Client, variant: str, jpeg: bytes, index: int, image: EmbeddedImage | None) -> EmbeddedImage:
    """The ``index``-th request of the mix; returns the image that was embedded last."""
    if image is None or index % 10 == 0:
        return client.embed(jpeg, variant=variant)
    if index % 10 <= 4:
        client.segment(jpeg, points=[centre(jpeg)], variant=variant)
        return image
    height, width = image.size
    middle = (width / 2, height / 2)
    match index % 10:
        case 5:
            client.segment(image, points=[middle], selection="multi", return_logits=True)
        case 6:
            client.segment(image, points=[middle], selection="best", format="packed_bits")
        case 7:
            boxes = [prompt(box=(0, 0, width * part / 8, height * part / 8)) for part in range(1, 9)]
            client.segment(image, prompts=boxes, format="png")
        case 8:
            client.segment(image, points=[middle], format="polygons")
        case 9:
            client.everything(image, points_per_side=_GRID_SIDE)
    return image
