"""Upstream's code as a process: run as ``python -m upstream.driver`` from the folder above this one.

The first line it writes tells the versions it runs. Then it reads one JSON object a line and answers with one, in
which ``ms`` is the time from the file's bytes to masks at the image's size:

- ``{"image": path, "point": [x, y]}``: ``SamPredictor.set_image`` and ``predict``; ``set_image_ms`` and
  ``predict_ms`` are parts of ``ms``, and ``mask`` is the best of the three masks as base64 of zlib of packed bits.
- ``{"image": path, "everything": {"points_per_side": 32, …}}``: ``SamAutomaticMaskGenerator`` with these parameters;
  ``size`` is [height, width], and ``masks`` are in upstream's order, each with its ``counts`` (COCO's run lengths, not
  compressed), ``predicted_iou`` and ``stability_score``.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import platform
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from PIL import Image

from . import model as upstream


def decode(data: bytes) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """uint8 ``[H, W, 3]`` RGB."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def answer_point(predictor: Any, data: bytes, point: list[float]) -> dict[str, Any]:
    """The masks of one point."""
    started = time.perf_counter()
    pixels = decode(data)
    decoded = time.perf_counter()
    predictor.set_image(pixels)
    encoded = time.perf_counter()
    masks, ious, _ = predictor.predict(np.array([point]), np.array([1]), multimask_output=True)
    done = time.perf_counter()
    best = masks[int(np.argmax(ious))]
    return {
        "ms": 1000 * (done - started),
        "set_image_ms": 1000 * (encoded - decoded),
        "predict_ms": 1000 * (done - encoded),
        "mask": base64.b64encode(zlib.compress(np.packbits(best).tobytes())).decode(),
    }


def answer_everything(generator: Any, data: bytes) -> dict[str, Any]:
    """All masks that ``generator``, whose output is run lengths, finds."""
    started = time.perf_counter()
    pixels = decode(data)
    records = generator.generate(pixels)
    done = time.perf_counter()
    kept = ("predicted_iou", "stability_score")
    masks = [{"counts": one["segmentation"]["counts"], **{name: one[name] for name in kept}} for one in records]
    return {"ms": 1000 * (done - started), "size": list(pixels.shape[:2]), "masks": masks}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--code", type=Path, help="folder that holds mobile_sam, unless it is installed")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--threads", type=int, required=True)
    args = parser.parse_args()
    # What libraries print must not get between the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    torch.set_num_threads(args.threads)
    package, model = upstream.load(args.code, args.weights)
    predictor = package.SamPredictor(model)
    versions = {"Python": platform.python_version(), "torch": torch.__version__, "Pillow": PIL.__version__}
    print(json.dumps({"versions": versions}), file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        data = Path(request["image"]).read_bytes()
        if "everything" in request:
            # Run lengths are what the generator works with, so that this is the output that costs it least.
            options = {**request["everything"], "output_mode": "uncompressed_rle"}
            found = answer_everything(package.SamAutomaticMaskGenerator(model, **options), data)
        else:
            found = answer_point(predictor, data, request["point"])
        print(json.dumps(found), file=answers, flush=True)


if __name__ == "__main__":
    main()
