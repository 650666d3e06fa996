"""What FastSAM chooses by words with: github.com/openai/CLIP at d05afc4, with ftfy 6.3.1, regex 2026.11.19, torchvision
0.29.1 and Pillow 13.0.0, and around it FastSAM with all that :mod:`parity.upstream.fastsam` says.

    PYTHONPATH=service:tests python -m parity.upstream.clip CHECKOUT_OF_FASTSAM FOLDER_OF_CLIP

FOLDER_OF_CLIP is what the package ``clip`` is in. FastSAM's ``text_prompt`` fails as it is, because its module doesn't
import ``clip``; it gets it here.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from parity import rules
from parity.recording import GOLDEN
from parity.rules import Size
from parity.upstream.fastsam import PROMPT_SIZES, _package, _predictor, crafted_candidates, crafted_prototypes
from parity.weights import FloatArray, draw, draw_pixels, draw_state
from samgate.variants.clip import VIT_B_32, ClipSpec

FIRST, LAST = 49406, 49407
"""Tokens that a text begins and ends with."""
LENGTHS = (0, 1, 5, 30, 75)
"""Of drawn texts, without these."""


def images(spec: ClipSpec) -> NDArray[np.uint8]:
    """``[4, S, S, 3]``: noise, dark noise, noise in blocks, rows."""
    side = spec.input_size
    noise, dark = draw_pixels("clip/images", (2, side, side, 3))
    blocks = draw_pixels("clip/blocks", (side // 16, side // 16, 3)).repeat(16, 0).repeat(16, 1)
    rows = draw_pixels("clip/rows", (side, 1, 3)).repeat(side, 1)
    return np.stack((noise, dark // 4, blocks, rows))


def tokens(spec: ClipSpec) -> NDArray[np.int32]:
    """``[6, context]``: texts of :data:`LENGTHS`, and the fourth again with an end in the middle."""
    high, low = draw_pixels("clip/tokens", (2, len(LENGTHS) + 1, spec.context)).astype(np.int32)
    rows: NDArray[np.int32] = (256 * high + low) % FIRST
    rows[-1] = rows[3]
    for row, length in zip(rows, (*LENGTHS, LENGTHS[3]), strict=True):
        row[0], row[length + 1] = FIRST, LAST
        row[length + 2 :] = 0
    rows[-1, 12] = LAST
    return rows


def golden_file(small: bool) -> Path:
    """The file of the whole network, or of the reduced one."""
    return GOLDEN / f"{VIT_B_32.name}{'-small' if small else ''}.npz"


def load(spec: ClipSpec) -> Any:
    """Upstream's network, by the sizes of ``spec``."""
    wide = spec.architecture
    return importlib.import_module("clip.model").CLIP(
        spec.width,
        spec.input_size,
        wide["image_depth"],
        wide["image_width"],
        wide["patch"],
        spec.context,
        spec.vocabulary,
        wide["text_width"],
        wide["text_width"] // wide["head"],
        wide["text_depth"],
    )


def record(network: Any, spec: ClipSpec) -> dict[str, NDArray[Any]]:
    """Names and shapes of upstream's parameters, and the features of :func:`images` and :func:`tokens` that it has with
    drawn ones, brought to the length 1 as ``CLIP.forward`` does."""
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    network.load_state_dict({name: torch.tensor(value) for name, value in draw_state(shapes).items()}, strict=True)
    *_, to_tensor, normalise = importlib.import_module("clip.clip")._transform(spec.input_size).transforms
    pixels = torch.stack([normalise(to_tensor(image)) for image in images(spec)])
    found = network.eval().encode_image(pixels), network.encode_text(torch.tensor(tokens(spec)))
    image_features, text_features = ((one / one.norm(dim=1, keepdim=True)).numpy() for one in found)
    return {
        "state": np.array(json.dumps(shapes)),
        "image_features": image_features,
        "text_features": text_features,
    }


TEXTS = (
    "",
    "a photo of a dog",
    "The black dog",
    "  spaces \t tabs\n\nand\r\nlines  ",
    "no-break\u00a0space, ideographic\u3000space, thin\u2009space, zero\u200bwidth",
    "A DIAGRAM OF Straße, İstanbul, ΣΊΣΥΦΟΣ and ǅ",
    "naïve café in Zürich, Ærøskøbing; e\u0301 as two",
    "don't I'll we've they're he'd I'm dog's DON'T 'tis",
    "3D glasses, 2nd floor, 1984, ½ cup, x² and Ⅷ",
    "hello!!! ... what?! foo_bar (baz) [qux] {a} #1 @home 50% $5 a/b\\c",
    "🐕 chases 🐈\u200d⬛ by the 👩🏽\u200d🚒",
    "日本の犬 黑狗 검은 개",
    "чёрная собака, כלב שחור, كلب أسود, काला कुत्ता, สุนัขสีดำ",
    "Tom &amp; Jerry &lt;b&gt; &#39;quoted&#39; &eacute; &copy",
    "twice &amp;amp; escaped, thrice &amp;amp;lt;",
    "Ｆｕｌｌ－ｗｉｄｔｈ\u3000ＡＢＣ１２３！ and ｶﾀｶﾅ",
    "mojibake: donâ€™t, cafÃ©, â€œquotedâ€\x9d",
    "“curly” ‘quotes’ — dashes – and…",
    "ﬁsh, ﬂour, oﬃce, ĳs",
    "control\x00\x07\x1b[31mred\x1b[0m and \ufeffmark",
    "<|startoftext|>a cat<|endoftext|> and more",
    "<|StartOfText|> <|endoftext|>",
    "supercalifragilisticexpialidocious pneumonoultramicroscopicsilicovolcanoconiosis",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa zzzzzzzz qxqxqxqx",
    " ".join(["dog"] * 75),
    "!" * 600 + " the end",
    "犬" * 25,
)
"""The last ones are as long as a text may be, or nearly."""
TOO_LONG = " ".join(["dog"] * 76)

CROP_SIZES = ((427, 640), (640, 427), (512, 512), (37, 53), (97, 1001))
"""(height, width) of images."""
CROP_BOXES = (
    (0.0, 0.0, 1.0, 1.0),
    (0.1, 0.1, 0.45, 0.8),
    (0.3, 0.2, 0.9, 0.95),
    (0.47, 0.36, 0.52, 0.55),
    (0.0, 0.4, 0.2, 0.6),
)
"""x0, y0, x1, y1 in parts of the image; of the second and the last nothing is left in long images."""
KEPT = 151
"""Every so many numbers of a crop are kept, from all rows, columns and channels."""
CROPPED = 4
"""So many of the crops that masks give are kept."""


def crop_box(box: Sequence[float], size: Size) -> tuple[int, int, int, int]:
    """One of :data:`CROP_BOXES` in whole pixels."""
    height, width = size
    x0, y0, x1, y1 = box
    return int(x0 * width), int(y0 * height), int(x1 * width), int(y1 * height)


def kept(crop: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Of ``crop`` ``[224, 224, 3]`` what the file has."""
    return np.ascontiguousarray(crop).ravel()[::KEPT]


def features() -> tuple[FloatArray, FloatArray]:
    """Of twelve images ``[12, 512]`` and of a text ``[1, 512]``, of any length."""
    return draw("clip/image features", (12, 512)), draw("clip/text features", (1, 512))


def _crops(crops: Sequence[Any]) -> NDArray[np.uint8]:
    """``[n, …]``: what CLIP's network sees of ``crops``, before it is normalised."""
    *steps, _, _ = importlib.import_module("clip.clip")._transform(VIT_B_32.input_size).transforms
    made = []
    for crop in crops:
        one = crop
        for step in steps:
            one = step(one)
        made.append(kept(np.asarray(one)))
    return np.stack(made)


def _record_tokens() -> dict[str, NDArray[Any]]:
    clip = importlib.import_module("clip")
    fix_text = importlib.import_module("ftfy").fix_text
    arrays = {
        "tokens": clip.tokenize(list(TEXTS)).numpy().astype(np.int32),
        "repaired": np.array([fix_text(text) != text for text in TEXTS]),
    }
    try:
        clip.tokenize([TOO_LONG])
    except RuntimeError as error:
        arrays["too long"] = np.array(str(error).replace(TOO_LONG, "…"))
    return arrays


def _record_masks(size: Size) -> dict[str, NDArray[Any]]:
    """What upstream makes of the crafted answer to an image of ``size``, which is given to it as its script does."""
    package = _package()
    with _predictor(size) as postprocess:
        results = postprocess(torch.tensor(crafted_candidates())[None], torch.tensor(crafted_prototypes())[None])
    prompt = package.FastSAMPrompt(Image.fromarray(rules.image_of(size)), results, device="cpu")
    crops, boxes, _, dropped, annotations = prompt._crop_image(prompt._format_results(results[0], 0))
    masks = np.stack([one["segmentation"] for one in annotations])
    # In masks' place their numbers, since many masks are empty, and so the same.
    numbered = [{"segmentation": number} for number in range(len(masks))]
    chosen = []
    for index in range(len(crops)):
        with (
            patch.object(prompt, "_crop_image", return_value=(crops, boxes, [], dropped, numbered)),
            patch.object(prompt, "retrieve", return_value=torch.eye(len(crops))[index]),
            patch.object(importlib.import_module("clip"), "load", return_value=(None, None)),
        ):
            chosen += prompt.text_prompt("anything").tolist()
    return {
        f"{size}/areas": masks.sum((1, 2)),
        f"{size}/bounds": np.array([prompt._get_bbox_from_mask(one) if one.any() else [0] * 4 for one in masks]),
        f"{size}/dropped": np.array(dropped, np.int64),
        f"{size}/chosen": np.array(chosen),
        f"{size}/cropped": _crops(crops[:CROPPED]),
    }


def _record_probabilities() -> NDArray[Any]:
    image, text = (torch.tensor(one) for one in features())
    model = SimpleNamespace(encode_image=lambda _: image, encode_text=lambda _: text)
    prompt = _package().FastSAMPrompt(None, None, device="cpu")
    found: NDArray[Any] = prompt.retrieve(model, torch.tensor, [0.0] * len(image), "anything", "cpu").numpy()
    return found


def record_rules() -> dict[str, NDArray[Any]]:
    """What upstream's functions around the network answer.

    Of all :data:`TEXTS`: ``tokens``, and whether ftfy ``repaired`` the text; ``too long`` is how :data:`TOO_LONG` is
    refused. Of each of :data:`CROP_SIZES` ``crops``, what the network sees of its image for :data:`CROP_BOXES`. Of the
    crafted masks for each of :data:`PROMPT_SIZES` ``areas`` in pixels, ``bounds`` as x0, y0, x1, y1, numbers of those
    that are ``dropped`` as too small, and ``cropped``, what the network sees of the first :data:`CROPPED` others;
    ``chosen`` are numbers of the masks that are the answers if the text fits best to the first, second … of these
    others. ``probabilities`` of :func:`features`.
    """
    package = _package()
    arrays = _record_tokens() | {"probabilities": _record_probabilities()}
    for size in CROP_SIZES:
        image = Image.fromarray(rules.image_of(size))
        prompt = package.FastSAMPrompt(image, None, device="cpu")
        arrays[f"{size}/crops"] = _crops([prompt._segment_image(image, crop_box(box, size)) for box in CROP_BOXES])
    with patch.object(importlib.import_module("fastsam.prompt"), "clip", importlib.import_module("clip"), create=True):
        for size in PROMPT_SIZES:
            arrays |= _record_masks(size)
    return arrays


def main() -> None:
    sys.path[:0] = sys.argv[1:3]
    with torch.inference_mode():
        for small in (True, False):
            spec = VIT_B_32.reduced() if small else VIT_B_32
            path = golden_file(small)
            np.savez_compressed(path, allow_pickle=False, **record(load(spec), spec))
            print(f"{path}: {path.stat().st_size:,} bytes")
        rules.write("clip", record_rules())


if __name__ == "__main__":
    main()
