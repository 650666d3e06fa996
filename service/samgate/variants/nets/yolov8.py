"""YOLOv8 and YOLOv8-seg: a detector whose boxes may prompt SAM's decoder, and the network of FastSAM.

The architecture is that of ultralytics' ``yolov8.yaml`` and ``yolov8-seg.yaml``. Names in the state dict are upstream's
(``model.0.conv.weight`` …), so the tensors of its checkpoints load as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_EPS = 1e-3
_BINS = 16
"""In which a head says how far a side of a box is from its place, in strides."""
_STRIDES = (8, 16, 32)


@dataclass(frozen=True, slots=True)
class YoloScale:
    """Multiples of the layers' number and width, and the widest before those."""

    depth: float
    width: float
    max_channels: int

    def channels(self, count: int) -> int:
        """Of a layer with ``count`` in the description: a multiple of 8."""
        return -(-int(min(count, self.max_channels) * self.width) // 8) * 8

    def repeats(self, count: int) -> int:
        """Of a block, at least one."""
        return max(1, round(count * self.depth))


SCALES = {
    "n": YoloScale(0.33, 0.25, 1024),
    "s": YoloScale(0.33, 0.50, 1024),
    "m": YoloScale(0.67, 0.75, 768),
    "l": YoloScale(1.00, 1.00, 512),
    "x": YoloScale(1.00, 1.25, 512),
}


class Conv(nn.Module):
    """Convolution, BatchNorm and SiLU; ``fused`` has no BatchNorm, but a bias."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, fused: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=fused)
        self.bn = nn.Identity() if fused else nn.BatchNorm2d(outputs, eps=_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, inputs, H, W]`` → ``[B, outputs, H / stride, W / stride]``."""
        return F.silu(self.bn(self.conv(x)))


class Bottleneck(nn.Module):
    """Two convolutions, with ``shortcut`` around them."""

    def __init__(self, channels: int, shortcut: bool, fused: bool) -> None:
        super().__init__()
        self.cv1 = Conv(channels, channels, 3, fused=fused)
        self.cv2 = Conv(channels, channels, 3, fused=fused)
        self._shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Same shape."""
        found: Tensor = self.cv2(self.cv1(x))
        return x + found if self._shortcut else found


class C2f(nn.Module):
    """Bottlenecks one after the other, the results of all of them put together."""

    def __init__(self, inputs: int, outputs: int, repeats: int, shortcut: bool, fused: bool) -> None:
        super().__init__()
        half = outputs // 2
        self.cv1 = Conv(inputs, 2 * half, fused=fused)
        self.cv2 = Conv((2 + repeats) * half, outputs, fused=fused)
        self.m = nn.ModuleList(Bottleneck(half, shortcut, fused) for _ in range(repeats))

    def forward(self, x: Tensor) -> Tensor:
        """``[B, inputs, H, W]`` → ``[B, outputs, H, W]``."""
        parts = list(self.cv1(x).chunk(2, 1))
        for block in self.m:
            parts.append(block(parts[-1]))
        found: Tensor = self.cv2(torch.cat(parts, 1))
        return found


class Sppf(nn.Module):
    """Maxima over ever larger surroundings."""

    def __init__(self, channels: int, fused: bool) -> None:
        super().__init__()
        self.cv1 = Conv(channels, channels // 2, fused=fused)
        self.cv2 = Conv(channels * 2, channels, fused=fused)

    def forward(self, x: Tensor) -> Tensor:
        """Same shape."""
        parts = [self.cv1(x)]
        for _ in range(3):
            parts.append(F.max_pool2d(parts[-1], 5, 1, 2))
        found: Tensor = self.cv2(torch.cat(parts, 1))
        return found


class Dfl(nn.Module):
    """The mean of a distribution over bins."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(_BINS, 1, 1, bias=False)
        self.conv.weight.data = torch.arange(_BINS, dtype=torch.float32).reshape(1, _BINS, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, 4 · bins, N]`` → ``[B, 4, N]``."""
        batch, _, count = x.shape
        bins = x.view(batch, 4, _BINS, count).transpose(2, 1).softmax(1)
        means: Tensor = self.conv(bins)
        return means.view(batch, 4, count)


class Proto(nn.Module):
    """The prototypes that masks are sums of."""

    def __init__(self, inputs: int, width: int, prototypes: int, fused: bool) -> None:
        super().__init__()
        self.cv1 = Conv(inputs, width, 3, fused=fused)
        self.upsample = nn.ConvTranspose2d(width, width, 2, 2)
        self.cv2 = Conv(width, width, 3, fused=fused)
        self.cv3 = Conv(width, prototypes, fused=fused)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, inputs, H, W]`` → ``[B, prototypes, 2 H, 2 W]``."""
        found: Tensor = self.cv3(self.cv2(self.upsample(self.cv1(x))))
        return found


class Detect(nn.Module):
    """Candidates: for each place of three grids a box and a probability for each class."""

    def __init__(self, classes: int, inputs: Sequence[int], fused: bool) -> None:
        super().__init__()
        boxes, scores = max(16, inputs[0] // 4, 4 * _BINS), max(inputs[0], min(classes, 100))
        self.cv2 = nn.ModuleList(_branch(one, boxes, 4 * _BINS, fused) for one in inputs)
        self.cv3 = nn.ModuleList(_branch(one, scores, classes, fused) for one in inputs)
        self.dfl = Dfl()

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Features ``[B, C, H, W]`` at each stride → ``[B, 4 + classes, N]``: centre and size of the box in pixels of
        the input, probabilities."""
        pairs = [(box(x), score(x)) for box, score, x in zip(self.cv2, self.cv3, levels, strict=True)]
        sides = self.dfl(torch.cat([box.flatten(2) for box, _ in pairs], 2))
        scores = torch.cat([score.flatten(2) for _, score in pairs], 2).sigmoid()
        places, strides = _places([(x.shape[2], x.shape[3]) for x in levels], sides)
        low, high = sides.chunk(2, 1)
        first, last = places - low, places + high
        return torch.cat([(first + last) / 2 * strides, (last - first) * strides, scores], 1)


class Segment(Detect):
    """:class:`Detect` with coefficients of a mask for each candidate, and the prototypes."""

    def __init__(self, classes: int, inputs: Sequence[int], prototypes: int, width: int, fused: bool) -> None:
        super().__init__(classes, inputs, fused)
        self.proto = Proto(inputs[0], width, prototypes, fused)
        coefficients = max(inputs[0] // 4, prototypes)
        self.cv4 = nn.ModuleList(_branch(one, coefficients, prototypes, fused) for one in inputs)

    def forward(self, levels: Sequence[Tensor]) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Candidates ``[B, 4 + classes + prototypes, N]`` and prototypes ``[B, prototypes, S / 4, S / 4]``."""
        coefficients = torch.cat([one(x).flatten(2) for one, x in zip(self.cv4, levels, strict=True)], 2)
        return torch.cat([super().forward(levels), coefficients], 1), self.proto(levels[0])


class YoloV8(nn.Module):
    """The whole network.

    Args:
        scale: see :data:`SCALES`.
        classes: how many it tells apart.
        prototypes: of masks, 32 in YOLOv8-seg; 0 for a detector.
        fused: without BatchNorm: see :func:`fused_state`.
    """

    def __init__(self, scale: YoloScale, classes: int, prototypes: int = 0, fused: bool = False) -> None:
        super().__init__()
        c2, c3, c4, c5 = (scale.channels(count) for count in (128, 256, 512, 1024))
        few, many = scale.repeats(3), scale.repeats(6)

        def down(inputs: int, outputs: int) -> Conv:
            return Conv(inputs, outputs, 3, 2, fused)

        def block(inputs: int, outputs: int, repeats: int, shortcut: bool) -> C2f:
            return C2f(inputs, outputs, repeats, shortcut, fused)

        levels = (c3, c4, c5)
        head = Segment(classes, levels, prototypes, c3, fused) if prototypes else Detect(classes, levels, fused)
        # By upstream's numbers, which count layers without weights as well.
        layers: dict[int, nn.Module] = {
            0: down(3, scale.channels(64)),
            1: down(scale.channels(64), c2),
            2: block(c2, c2, few, True),
            3: down(c2, c3),
            4: block(c3, c3, many, True),
            5: down(c3, c4),
            6: block(c4, c4, many, True),
            7: down(c4, c5),
            8: block(c5, c5, few, True),
            9: Sppf(c5, fused),
            12: block(c5 + c4, c4, few, False),
            15: block(c4 + c3, c3, few, False),
            16: down(c3, c3),
            18: block(c3 + c4, c4, few, False),
            19: down(c4, c4),
            21: block(c4 + c5, c5, few, False),
            22: head,
        }
        self.model = nn.ModuleDict({str(number): layer for number, layer in layers.items()})

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """``image`` float32 ``[B, 3, S, S]`` RGB from 0 to 1, S a multiple of 32 → what the head gives."""
        run = self.model
        third = run["4"](run["3"](run["2"](run["1"](run["0"](image)))))
        fourth = run["6"](run["5"](third))
        fifth = run["9"](run["8"](run["7"](fourth)))
        upper = run["12"](torch.cat([_doubled(fifth), fourth], 1))
        small = run["15"](torch.cat([_doubled(upper), third], 1))
        middle = run["18"](torch.cat([run["16"](small), upper], 1))
        large = run["21"](torch.cat([run["19"](middle), fifth], 1))
        found: Tensor | tuple[Tensor, Tensor] = run["22"]([small, middle, large])
        return found


def fused_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of the ``fused`` network that calculates what the one of ``state`` does."""
    fused = {name: value for name, value in state.items() if ".bn." not in name}
    for name in state:
        if not name.endswith(".bn.running_var"):
            continue
        layer = name.removesuffix(".bn.running_var")
        weight, bias, mean = (state[f"{layer}.bn.{part}"] for part in ("weight", "bias", "running_mean"))
        scale = weight / torch.sqrt(state[name] + _EPS)
        fused[f"{layer}.conv.weight"] = state[f"{layer}.conv.weight"] * scale.reshape(-1, 1, 1, 1)
        fused[f"{layer}.conv.bias"] = bias - mean * scale
    return fused


def _branch(inputs: int, width: int, outputs: int, fused: bool) -> nn.Sequential:
    return nn.Sequential(
        Conv(inputs, width, 3, fused=fused), Conv(width, width, 3, fused=fused), nn.Conv2d(width, outputs, 1)
    )


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def _places(grids: Sequence[tuple[int, int]], like: Tensor) -> tuple[Tensor, Tensor]:
    """For every cell of ``grids`` (height, width): centre ``[2, N]`` (x, y) in strides, and stride ``[1, N]``."""
    places, strides = [], []
    for (height, width), stride in zip(grids, _STRIDES, strict=True):
        y = torch.arange(height, dtype=like.dtype, device=like.device) + 0.5
        x = torch.arange(width, dtype=like.dtype, device=like.device) + 0.5
        rows, columns = torch.meshgrid(y, x, indexing="ij")
        places.append(torch.stack([columns.flatten(), rows.flatten()]))
        strides.append(torch.full((1, height * width), float(stride), dtype=like.dtype, device=like.device))
    return torch.cat(places, 1), torch.cat(strides, 1)
