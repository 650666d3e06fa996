"""YOLOv8's network: upstream's names and sizes, with and without BatchNorm."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from samgate.variants.nets.yolov8 import SCALES, Detect, YoloV8, fused_state

IMAGE = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
COUNT = 144 + 36 + 9


def parameters(scale: str, classes: int, prototypes: int) -> int:
    with torch.device("meta"):
        network = YoloV8(SCALES[scale], classes, prototypes)
    return sum(value.numel() for value in network.parameters())


@pytest.mark.parametrize(
    ("scale", "prototypes", "count"),
    [
        ("n", 0, 3_157_200),
        ("s", 0, 11_166_560),
        ("m", 0, 25_902_640),
        ("l", 0, 43_691_520),
        ("x", 0, 68_229_648),
        ("n", 32, 3_409_968),
        ("s", 32, 11_821_056),
        ("x", 32, 71_827_888),
    ],
)
def test_it_is_as_large_as_upstream_s(scale: str, prototypes: int, count: int) -> None:
    """As ultralytics' summaries of YOLOv8 and YOLOv8-seg have it, for COCO's 80 classes."""
    assert parameters(scale, 80, prototypes) == count


def test_names_are_upstream_s() -> None:
    names = set(YoloV8(SCALES["n"], 80, 32).state_dict())
    assert {
        "model.0.conv.weight",
        "model.0.bn.running_mean",
        "model.4.m.1.cv2.conv.weight",
        "model.9.cv2.bn.bias",
        "model.22.cv2.0.0.conv.weight",
        "model.22.cv3.2.2.bias",
        "model.22.cv4.1.2.weight",
        "model.22.proto.upsample.weight",
        "model.22.dfl.conv.weight",
    } <= names
    assert not any(name.startswith(("model.10.", "model.11.", "model.13.")) for name in names)


@pytest.mark.parametrize("prototypes", [0, 32])
def test_the_fused_network_calculates_the_same(prototypes: int) -> None:
    torch.manual_seed(0)
    network = YoloV8(SCALES["n"], 3, prototypes)
    for name, value in network.state_dict().items():
        if name.endswith((".bn.weight", ".bn.running_var")):
            value.uniform_(0.5, 1.5)
        elif name.endswith((".bn.bias", ".bn.running_mean")):
            value.normal_(0, 0.2)
    fused = YoloV8(SCALES["n"], 3, prototypes, fused=True)
    fused.load_state_dict(fused_state(network.state_dict()), strict=True)
    with torch.inference_mode():
        expected, found = network.eval()(IMAGE), fused.eval()(IMAGE)
    for one, other in zip(as_tuple(expected), as_tuple(found), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-3)
    shapes = [tuple(one.shape) for one in as_tuple(found)]
    assert shapes == [(2, 7 + prototypes, COUNT), (2, 32, 24, 24)][: len(shapes)]


def as_tuple(found: Tensor | tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    return found if isinstance(found, tuple) else (found,)


def test_boxes_are_means_of_bins_around_the_middle_of_their_places() -> None:
    """Branches that always say the same: bins 1, 2, 3 and 4 for left, top, right and bottom, probability 0.5."""
    head = Detect(1, (16, 16, 16), fused=True).eval()
    for value in head.state_dict().values():
        if value.shape != (1, 16, 1, 1):
            value.zero_()
    for branch in head.cv2:
        assert isinstance(branch, torch.nn.Sequential)
        last = branch[2]
        assert isinstance(last, torch.nn.Conv2d)
        assert last.bias is not None
        with torch.no_grad():
            for side, distance in enumerate((1, 2, 3, 4)):
                last.bias[16 * side + distance] = 100
    levels = [torch.zeros(1, 16, side, side) for side in (12, 6, 3)]
    with torch.inference_mode():
        found = head(levels)[0].T
    # Centre (0.5 + 1, 0.5 + 1) strides from the corner of its place, 4 × 6 strides.
    torch.testing.assert_close(found[0], torch.tensor([12.0, 12, 32, 48, 0.5]))
    torch.testing.assert_close(found[13], torch.tensor([20.0, 20, 32, 48, 0.5]))
    torch.testing.assert_close(found[144], torch.tensor([24.0, 24, 64, 96, 0.5]))
    torch.testing.assert_close(found[-1], torch.tensor([112.0, 112, 128, 192, 0.5]))
