"""Writes upstream's answer to "segment everything": what tests/integration/test_everything_parity.py compares with.

Runs upstream's ``SamAutomaticMaskGenerator`` with its default parameters in f32 on the CPU, one image at a time, and
stores each image's masks in one JSON file. Needs upstream's checkout, its weights as a torch state dict, and samgate's
``dev`` extra; torchvision and timm are used when they are there (see service/samgate/bench/upstream/standins.py for
what replaces them). Takes minutes an image:

    python tests/parity/make_everything_golden.py --upstream ../MobileSAM --weights mobile_sam.pt \\
        --images ../shared/data/eval/images --out tests/parity/golden coco_val2017/000000037777.jpg …

A file holds ``image`` (its path below ``--images``), ``sha256`` of its bytes, ``width`` and ``height``, ``weights``
(SHA-256 of the state dict's tensors), ``torch`` (version), ``parameters`` and ``masks``: upstream's records in
upstream's order, with ``segmentation`` as COCO RLE, ``bbox`` as (x, y, width, height) and ``point_coords`` in pixels.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from samgate.bench.upstream import model as upstream

DEFAULTS = (
    "points_per_batch",
    "pred_iou_thresh",
    "stability_score_thresh",
    "stability_score_offset",
    "box_nms_thresh",
    "crop_n_layers",
    "min_mask_region_area",
)


def weights_digest(model: torch.nn.Module) -> str:
    """SHA-256 over the names and bytes of all tensors, which is the same however the file was written."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def record(mask: dict[str, Any]) -> dict[str, Any]:
    """One of upstream's records without what is the same for all of them."""
    return {
        "rle": mask["segmentation"]["counts"],
        "area": mask["area"],
        "bbox": mask["bbox"],
        "point": mask["point_coords"][0],
        "predicted_iou": round(mask["predicted_iou"], 6),
        "stability_score": round(mask["stability_score"], 6),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upstream", type=Path, required=True, help="folder that holds the package mobile_sam")
    parser.add_argument("--weights", type=Path, required=True, help="upstream's state dict (.pt)")
    parser.add_argument("--images", type=Path, required=True, help="folder that the image paths are relative to")
    parser.add_argument("--out", type=Path, required=True, help="folder for the JSON files")
    parser.add_argument("--threads", type=int, default=2, help="torch's threads (default 2)")
    parser.add_argument("image", nargs="+", help="path below --images")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    package, model = upstream.load(args.upstream, args.weights)
    generator = package.SamAutomaticMaskGenerator(model, output_mode="coco_rle")
    shared = {
        "weights": weights_digest(model),
        "torch": torch.__version__,
        "parameters": {"points_per_side": 32, **{name: getattr(generator, name) for name in DEFAULTS}},
    }
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.image:
        content = (args.images / name).read_bytes()
        pixels = np.asarray(Image.open(args.images / name).convert("RGB"))
        started = time.perf_counter()
        masks = [record(mask) for mask in generator.generate(pixels)]
        image = {"image": name, "sha256": hashlib.sha256(content).hexdigest()}
        size = {"width": pixels.shape[1], "height": pixels.shape[0]}
        target = args.out / f"everything_{Path(name).stem[:16]}.json"
        lines = ",\n".join(json.dumps(mask) for mask in masks)
        head = json.dumps({**image, **size, **shared}, indent=1).removesuffix("\n}")
        target.write_text(f'{head},\n "masks": [\n{lines}\n ]\n}}\n')
        print(f"{target}: {len(masks)} masks, {time.perf_counter() - started:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
