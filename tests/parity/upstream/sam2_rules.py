"""What SAM 2's own predictor does around its network, recorded for tests/unit/test_rules_sam2.py.

    PYTHONPATH=service:tests python tests/parity/upstream/sam2_rules.py CHECKOUT

CHECKOUT as in sam2.py. The inputs are drawn here, for the test, too; nothing of upstream is imported for them.
"""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from parity.recording import GOLDEN
from parity.upstream.sam2 import IMAGE, VARIANTS, build
from parity.weights import FloatArray, draw, draw_pixels
from samgate.variants import get_variant

FILE = GOLDEN / "rules_sam2.npz"
SIZES = ((37, 53), (300, 500), (640, 427), (1024, 1024), (1201, 1799), (1, 7))
"""(height, width) of images: odd ones, both orientations, as large as the network's input, larger, and a tiny one."""
KINDS = ("noise", "photo")
PROMPTS = ("point", "points", "box", "point and box")
STABILITIES = (0.5, 2.5, 2.8, 2.84, 2.88, 2.9, 4.0)
"""Spreads of the single mask's logits: the stability of uniform ones passes 0.98 at 4.95 / √3 = 2.86."""


def image_of(kind: str, size: tuple[int, int]) -> NDArray[np.uint8]:
    """``[H, W, 3]``: the hardest image to resize, or one as smooth as a photograph."""
    name = f"rules/{kind}/{size}"
    if kind == "noise":
        return draw_pixels(name, (*size, 3))
    rows, columns = np.mgrid[: size[0], : size[1]] / 16
    waves = [np.sin(rows * row + columns * column) for row, column in draw(name, (3, 2))]
    return np.asarray(127.5 + 127 * np.stack(waves, -1)).astype(np.uint8)


def prompt_of(kind: str, size: tuple[int, int]) -> tuple[FloatArray, NDArray[np.int32], FloatArray | None]:
    """Points ``[K, 2]``, labels ``[K]`` and a box ``[4]`` or none, in the image's pixels."""
    scale = np.array([size[1], size[0]], np.float32)
    count = {"box": 0, "points": 3}.get(kind, 1)
    points = (np.abs(draw(f"rules/{kind}", (count, 2))) / 2 * scale).astype(np.float32)
    corners = np.array([[0.1, 0.2], [0.7, 0.9]], np.float32) * scale
    labels = (1 + np.arange(count, dtype=np.int32)) % 2
    return points, labels, corners.ravel() if "box" in kind else None


def logits_of(name: str, spread: float = 12.0) -> tuple[FloatArray, FloatArray]:
    """All masks' low-res logits ``[4, 256, 256]``, beyond ±32 here and there, and their predicted IoUs ``[4]``."""
    logits = draw(f"rules/{name}/logits", (4, 256, 256))
    if spread == 12.0:
        logits = logits + 3 * np.repeat(np.repeat(draw(f"rules/{name}/blobs", (4, 8, 8)), 32, 1), 32, 2)
    return (logits * np.float32(spread)).astype(np.float32), (np.abs(draw(f"rules/{name}/ious", (4,))) / 2).astype(
        np.float32
    )


def sampled(values: NDArray[Any]) -> NDArray[Any]:
    """A few hundred of ``values``, from all rows and columns."""
    return values.ravel()[:: max(1, values.size // 320) | 1]


def record_rules() -> dict[str, NDArray[Any]]:
    """Everything that the test compares with."""
    network = build(get_variant("sam2.1-t").reduced())
    predictor = importlib.import_module("sam2.sam2_image_predictor").SAM2ImagePredictor(network)
    arrays: dict[str, NDArray[Any]] = {}
    mean, std = (
        torch.tensor(three)[:, None, None] for three in (predictor._transforms.mean, predictor._transforms.std)
    )
    for size in SIZES:
        for kind in KINDS:
            resized = (predictor._transforms(image_of(kind, size)) * std + mean) * 255
            arrays[f"input/{kind}/{size}"] = sampled(resized.permute(1, 2, 0).numpy())
        for kind in PROMPTS:
            arrays |= _tokens(predictor, kind, size)
        arrays |= _masks(predictor, size)
    for spread in STABILITIES:
        logits, ious = (torch.tensor(one)[None] for one in logits_of("stability", spread))
        chosen = network.sam_mask_decoder._dynamic_multimask_via_stability(logits, ious)[1]
        arrays[f"single/{spread}"] = np.flatnonzero(ious[0].numpy() == float(chosen))
    nothing = network.sam_mask_decoder._dynamic_multimask_via_stability(-logits.abs() - 1, ious)[1]
    arrays["single/nothing"] = np.flatnonzero(ious[0].numpy() == float(nothing))
    state = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    arrays["video"] = np.array(json.dumps({name: shape for name, shape in state.items() if not name.startswith(IMAGE)}))
    for name in VARIANTS:
        whole = build(get_variant(name))
        arrays[f"parameters/{name}"] = np.array(sum(value.numel() for value in whole.parameters()))
    return arrays


def _tokens(predictor: Any, kind: str, size: tuple[int, int]) -> dict[str, NDArray[Any]]:
    """Points and labels as the prompt encoder gets to embed them."""
    points, labels, box = prompt_of(kind, size)
    kept: list[Any] = []
    encoder = predictor.model.sam_prompt_encoder
    embed = encoder._embed_points

    def keep(points: torch.Tensor, labels: torch.Tensor, pad: bool) -> torch.Tensor:
        kept.append((points, labels, pad))
        result: torch.Tensor = embed(points, labels, pad)
        return result

    encoder._embed_points = keep
    predictor._is_image_set, predictor._orig_hw = True, [size]
    zeros = [torch.zeros(1, 32, 256, 256), torch.zeros(1, 64, 128, 128)]
    predictor._features = {"image_embed": torch.zeros(1, 256, 64, 64), "high_res_feats": zeros}
    try:
        predictor.predict(points if len(points) else None, labels if len(points) else None, box)
    finally:
        encoder._embed_points = embed
    ((coords, kinds, pad),) = kept
    tokens = np.concatenate((coords[0].numpy(), kinds[0, :, None].numpy()), 1).astype(np.float32)
    if pad:
        tokens = np.concatenate((tokens, np.array([[0, 0, -1]], np.float32)))
    return {f"tokens/{kind}/{size}": tokens}


def _masks(predictor: Any, size: tuple[int, int]) -> dict[str, NDArray[Any]]:
    """Logits at the image's size, the masks' areas, and the low-res logits that are handed out."""
    logits, ious = (torch.tensor(one)[None] for one in logits_of(str(size)))
    decoder = predictor.model.sam_mask_decoder
    predictor._orig_hw = [size]
    forward = decoder.forward
    decoder.forward = lambda **arguments: (logits[:, 1:], ious[:, 1:], None, None)
    points = torch.tensor([[[1.0, 1.0]]]), torch.tensor([[1]])
    try:
        full, _, low_res = predictor._predict(*points, return_logits=True)
        masks, _, _ = predictor._predict(*points)
    finally:
        decoder.forward = forward
    return {
        f"logits/{size}": sampled(full[0].numpy()),
        f"areas/{size}": masks[0].sum((1, 2)).numpy(),
        f"low_res/{size}": sampled(low_res[0].numpy()),
    }


if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    with torch.inference_mode():
        np.savez_compressed(FILE, allow_pickle=False, **record_rules())
    print(f"{FILE}: {FILE.stat().st_size:,} bytes")
