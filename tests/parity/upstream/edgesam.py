"""EdgeSAM: github.com/chongzhou96/EdgeSAM at b53372c, with torch 2.13.0, timm 0.9.16, torchvision and yacs.

It imports mmdet, mmengine, loralib and a detector of mmdetection's projects, which nothing here runs: empty modules
stand in.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from unittest.mock import MagicMock

import torch

from parity.cases import Case
from parity.recording import Upstream
from parity.upstream.repvit_sam import rows
from parity.upstream.sam_like import SamLike
from parity.weights import FloatArray
from samgate.variants.spec import VariantSpec

VARIANTS = ("edgesam", "edgesam-3x")
_ABSENT = ("loralib", "mmdet", "mmdet.models", "mmdet.models.dense_heads", "mmdet.models.necks", "mmengine", "projects")


class _Absent(ModuleType):
    def __getattr__(self, name: str) -> MagicMock:
        return MagicMock(name=name)


class _EdgeSam(SamLike):
    def decode(self, case: Case, index: int) -> tuple[FloatArray, FloatArray]:
        """Ranked as ``predict_torch`` does by default."""
        masks, _ = super().decode(case, index)
        amg = importlib.import_module("edge_sam.utils.amg")
        scores = amg.calculate_stability_score(torch.tensor(masks), self.sam.mask_threshold, 1.0)
        return masks, scores.numpy()


def load(checkout: str, spec: VariantSpec) -> Upstream:
    """Upstream's network of the spec's numbers."""
    for name in (*_ABSENT, "projects.EfficientDet"):
        sys.modules.setdefault(name, _Absent(name))
    build = importlib.import_module("edge_sam.build_sam")
    encoder = importlib.import_module("edge_sam.modeling.rep_vit").RepViT
    encoder.arch_settings["of the spec"] = list(rows(spec))
    network = encoder(arch="of the spec", img_size=spec.input_size, upsample_mode="bicubic", fuse=True)
    return _EdgeSam(build._build_sam(network, None, rpn_head="none"))
