"""What stays in f32 in SAM systems, and why: data for :mod:`samgate.compile.precision`.

Everything else runs in low arithmetic, the residual streams included.
"""

from __future__ import annotations

from samgate.variants.spec import Island

PIXELS = Island(
    name="pixels",
    operators=("Div",),
    names=r"^/[^/]+$",
    origins=True,
    reason="(pixel − mean) / std, outside of the network proper: in bf16 the difference would lose the lowest bit",
)
RESIZE = Island(name="resize", operators=("Resize",), reason="ONNX has its scales in f32 alone")
SAM_ISLANDS: tuple[Island, ...] = (
    Island(
        name="normalisation",
        operators=("LayerNormalization",),
        reason="squares are summed over all channels: the first thing to overflow in fp16 transformers. LayerNorm2d is "
        "one, too: the networks here write it as a LayerNorm of tokens",
    ),
    Island(
        name="variance",
        operators=("ReduceSum", "Sqrt", "Reciprocal"),
        reason="the same in the decoder for SegEvery, which normalises without ever having the tokens themselves",
    ),
    Island(
        name="softmax",
        operators=("Softmax", "Exp"),
        reason="exponentials, and sums of up to 4,096 of them, each of which fp16 and bf16 would round",
    ),
    Island(
        name="likeness",
        operators=("TopK",),
        reason="which tokens differ least: bf16 has no TopK, and fp16 would take many differences for the same",
    ),
    Island(
        name="positions",
        operators=("Sin", "Cos"),
        origins=True,
        reason="angles are pixel coordinates times frequencies, tens of radians: fp16 rounds one at 64 by up to 1/32, "
        "bf16 by 1/4",
    ),
    PIXELS,
)
