"""How near to f32 graphs in each arithmetic have to come: thresholds of :mod:`samgate.compile.gate`."""

from __future__ import annotations

from samgate.variants.spec import Gate

SAME = Gate(min_mask_iou=0.99, max_miou_loss=0.002, reason="f32 again, at most in another order")
LOW_FLOAT = Gate(min_mask_iou=0.93, max_miou_loss=0.01, reason="provisional")
INT8 = Gate(min_mask_iou=0.85, max_miou_loss=0.02, reason="provisional")
