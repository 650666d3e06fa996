"""SlimSAM (Chen et al., 2023): SAM ViT-B pruned to narrower widths, the same in all blocks, and distilled again.

The checkpoints whose blocks differ in width ("global") are pickled modules and aren't read.
"""

from __future__ import annotations

from samgate.variants import sam
from samgate.variants.spec import PublishedAccuracy, UrlSource, VariantSpec


def _variant(
    pruned: int, parameters: int, dim: int, hidden: int, sha256: str, accuracy: PublishedAccuracy
) -> VariantSpec:
    return VariantSpec(
        name=f"slimsam-{pruned}",
        title=f"SlimSAM-{pruned} uniform",
        paper="arXiv 2312.05284",
        licence="Apache-2.0",
        parameters=parameters,
        network="samgate.variants.nets.vit:build",
        architecture={"dim": dim, "depth": 12, "heads": 12, "hidden": hidden, "global_blocks": (2, 5, 8, 11)},
        small={"dim": 36, "depth": 2, "heads": 2, "hidden": 60, "global_blocks": (1,)},
        sources=(
            UrlSource(f"https://huggingface.co/Zigeng/SlimSAM-uniform-{pruned}/resolve/main/model.safetensors", sha256),
        ),
        reader="samgate.weights.transformers_file:read",
        accuracy=accuracy,
        precisions=sam.PLANS,
        islands=sam.VIT_B.islands,
    )


# Parameters: of the authors' files, 112 and 38.9 MB of four bytes each; papers count networks of other widths.
SPECS = (
    _variant(
        50,
        28_000_000,
        384,
        1536,
        "c6146291d993f315ae1951e1209555d6c9dea1404546dc54edbc3f15fb1d8e69",
        PublishedAccuracy(None, None, ""),
    ),
    _variant(
        77,
        9_725_000,
        168,
        696,
        "b0ee221e3d33935807a820c157fec81a537b3b9979edc88b148a8dae8bbdd5d2",
        PublishedAccuracy(box_miou=74.4, point_miou=None, origin="arXiv 2410.04960, table 6"),
    ),
)
