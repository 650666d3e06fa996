"""The engine alone as a process: no gateway, no gRPC, no masks. Run as ``python -m samgate.bench.bare``.

Reads one JSON object a line and answers with one: ``{"image": path, "point": [x, y]}`` encodes the image (decoded and
resized before the clock starts) and decodes the point: ``encode_ms``, ``decode_ms`` and their sum ``ms``.
``{"point": [x, y]}`` decodes a point on the image before: ``ms``. The first line tells the precision and engine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from samgate.config import EngineSettings, Settings
from samgate.domain import FloatArray, Frame, Prompt
from samgate.engines.base import Engine, Images, Prompts
from samgate.engines.load import load_engine
from samgate.imaging.decode import decode
from samgate.imaging.preprocess import encoder_input
from samgate.serving.prompting import group_prompts
from samgate.variants import get_variant
from samgate.variants.spec import VariantSpec

_MAX_PIXELS = 50_000_000


@dataclass(frozen=True, slots=True)
class _Encoded:
    values: FloatArray
    frame: Frame


async def _cold(engine: Engine, spec: VariantSpec, path: Path, point: list[float]) -> tuple[_Encoded, dict[str, Any]]:
    pixels, frame = encoder_input(decode(path.read_bytes(), _MAX_PIXELS, "image"), spec)
    images = Images(pixels[None], np.array([frame.valid], np.int32))
    prompts = _prompts(point, frame, spec)
    started = time.perf_counter()
    (values,) = await engine.encode(images, math.inf)
    encoded = time.perf_counter()
    await engine.decode([values], prompts, math.inf)
    done = time.perf_counter()
    figures = {"encode_ms": encoded - started, "decode_ms": done - encoded, "ms": done - started}
    return _Encoded(values, frame), {name: 1000 * seconds for name, seconds in figures.items()}


async def _warm(engine: Engine, spec: VariantSpec, image: _Encoded, point: list[float]) -> dict[str, Any]:
    prompts = _prompts(point, image.frame, spec)
    started = time.perf_counter()
    await engine.decode([image.values], prompts, math.inf)
    return {"ms": 1000 * (time.perf_counter() - started)}


def _prompts(point: list[float], frame: Frame, spec: VariantSpec) -> Prompts:
    prompt = Prompt(np.array([point], np.float32), np.ones(1, np.int32))
    return group_prompts([prompt], frame, spec, 1)[0].prompts


async def _serve(engine: Engine, spec: VariantSpec, answers: Any) -> None:
    print(json.dumps({"precision": engine.precision, "engine": engine.name}), file=answers, flush=True)
    image: _Encoded | None = None
    for line in sys.stdin:
        request = json.loads(line)
        if "image" in request:
            image, found = await _cold(engine, spec, Path(request["image"]), request["point"])
        elif image is not None:
            found = await _warm(engine, spec, image, request["point"])
        else:
            raise SystemExit("a point needs an image before it")
        print(json.dumps(found), file=answers, flush=True)
    await engine.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", required=True)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--compile", default="auto", help="for the engine torch: auto, on or off")
    args = parser.parse_args()
    # What libraries print must not get between the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    spec = get_variant(args.variant)
    chosen = EngineSettings(name=args.engine, precision=args.precision, threads=args.threads, compile=args.compile)
    asyncio.run(_serve(load_engine(spec, Settings(engine=chosen)), spec, answers))


if __name__ == "__main__":
    main()
