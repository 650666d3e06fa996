"""How near to f32 graphs in each arithmetic have to come: thresholds of :mod:`samgate.compile.gate`.

The figures are MobileSAM's, of the worst graph and kind of prompt on three sets of images: 16 with labels, 16 and 4
with a grid of points. Means over 50 masks scatter by 0.02 from set to set, since a point may mean several things and
a mask of another one counts for much. Graphs with a broken layer were all below 0.5. At inputs of 768 and 512, on the
labelled 16 alone, every plan came as near (``docs/input-sizes.md``), int8 less so: its gate has the room.
"""

from __future__ import annotations

from samgate.variants.spec import Gate

SAME = Gate(
    min_mask_iou=0.99,
    max_miou_loss=0.002,
    reason="f32 again: 1.0 on the same runtime, and kernels that add in another order move single pixels of edges",
)
LOW_FLOAT = Gate(
    min_mask_iou=0.93,
    max_miou_loss=0.015,
    reason="bf16 came to 0.969 to 0.994 and lost 0.004 of the mIoU of the gate's 50 objects, 0.0007 of that of all "
    "616; fp16, which has three more bits, came to 0.999",
)
INT8 = Gate(
    min_mask_iou=0.85,
    max_miou_loss=0.02,
    reason="int8 came to 0.955 to 0.981, other calibrations to 0.939, and one to 0.92 on ten objects alone; nothing of "
    "the mIoU of the gate's 50 objects was lost, 0.0024 of that of all 616",
)
