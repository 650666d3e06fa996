"""Upstream's predictor as a process: run as ``python -m upstream.driver`` from the folder above this one.

Reads one JSON object a line, ``{"image": path of a JPEG, "point": [x, y]}``, and answers with one: ``ms`` for
decoding the JPEG, ``SamPredictor.set_image`` and ``SamPredictor.predict``, then the parts of it, and ``mask``, the
best of the three masks as base64 of zlib of packed bits. The first line it writes tells the versions it runs.
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


def answer(predictor: Any, jpeg: bytes, point: list[float]) -> dict[str, Any]:
    """One request, timed from the file's bytes to masks at the image's size."""
    started = time.perf_counter()
    pixels = np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"))
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
        found = answer(predictor, Path(request["image"]).read_bytes(), request["point"])
        print(json.dumps(found), file=answers, flush=True)


if __name__ == "__main__":
    main()
