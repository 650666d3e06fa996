"""Records what upstream's MobileSAM answers with drawn weights: ``golden/mobilesam.npz`` and ``mobilesam_state.json``.

    python tests/parity/make_golden.py <checkout of github.com/ChaoningZhang/MobileSAM>

Run it where upstream runs: upstream needs torch, torchvision and timm (<1.0). samgate itself isn't needed. The tests
need neither upstream nor this script; run it again only when weights.py or cases.py changes.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from parity.cases import CASES, EMBEDDING_STRIDE, MASK_STRIDE, VALID, Case, image
from parity.weights import draw_state

GOLDEN = Path(__file__).resolve().parent / "golden"


def main(checkout: str) -> None:
    """Writes both files."""
    sys.path.insert(0, checkout)
    sam = importlib.import_module("mobile_sam").sam_model_registry["vit_t"](None)
    shapes = {name: tuple(value.shape) for name, value in sam.state_dict().items()}
    sam.train()  # upstream expands attention biases when it enters evaluation mode, so load before that
    sam.load_state_dict({name: torch.tensor(value) for name, value in draw_state(shapes).items()}, strict=True)
    sam.eval()
    with torch.inference_mode():
        arrays = _encoder(sam)
        for case in CASES:
            arrays |= _decoder(sam, case)
    np.savez_compressed(GOLDEN / "mobilesam.npz", **arrays)
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(shape)}" for name, shape in shapes.items())
    (GOLDEN / "mobilesam_state.json").write_text(f"{{\n{lines}\n}}\n")


def _encoder(sam: Any) -> dict[str, Any]:
    height, width = VALID
    pixels = torch.tensor(image())[:, :height, :width].permute(0, 3, 1, 2).float()
    embedding = sam.image_encoder(sam.preprocess(pixels)).numpy()
    return {"embedding": embedding.ravel()[::EMBEDDING_STRIDE]}


def _decoder(sam: Any, case: Case) -> dict[str, Any]:
    masks, ious = [], []
    for index in range(case.images):
        points = (torch.tensor(case.coords[index]), torch.tensor(case.labels[index])) if case.points else None
        sparse, dense = sam.prompt_encoder(
            points=points,
            boxes=torch.tensor(case.boxes[index]) if case.box else None,
            masks=torch.tensor(case.masks[index]) if case.mask else None,
        )
        mask, iou = sam.mask_decoder.predict_masks(
            image_embeddings=torch.tensor(case.embedding[index : index + 1]),
            image_pe=sam.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
        )
        masks.append(mask.numpy())
        ious.append(iou.numpy())
    return {
        f"{case.name}/masks": np.stack(masks).ravel()[::MASK_STRIDE],
        f"{case.name}/ious": np.stack(ious),
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
