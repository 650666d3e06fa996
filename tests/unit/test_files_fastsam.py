"""Files as FastSAM's authors offer them, networks pickled by ultralytics, are read; none of their classes is needed."""

from __future__ import annotations

import copy
import os
import pickle
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from parity.weights import draw_state
from samgate.compile.export import load_network
from samgate.errors import WeightsError
from samgate.variants import get_variant
from samgate.variants.nets.yolov8 import YoloV8
from samgate.weights.fastsam_file import read
from samgate.weights.formats import network_shapes
from samgate.weights.pull import pull
from samgate.weights.store import load
from weights_support import home

__all__ = ["home"]

SPEC = get_variant("fastsam-s").reduced()
UPSTREAMS = ("ultralytics", "ultralytics.nn", "ultralytics.nn.tasks")


class SegmentationModel(nn.Module):
    """What ultralytics pickles: the network, and things beside it that are no weights."""

    def __init__(self, network: YoloV8) -> None:
        super().__init__()
        self.model = network.model
        self.stride = torch.tensor([8.0, 16.0, 32.0])
        self.names = {0: "object"}
        self.model["22"].anchors = torch.zeros(2, 5)


def network(seed: str = "") -> SegmentationModel:
    state = {name: value * np.float32(1 + len(seed)) for name, value in draw_state(network_shapes(SPEC)).items()}
    return SegmentationModel(load_network(SPEC, state)).half()


@pytest.fixture
def upstreams(monkeypatch: pytest.MonkeyPatch) -> None:
    """While files are written, the class is one of ultralytics', which isn't there when they are read."""
    for name in UPSTREAMS:
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setattr(sys.modules[UPSTREAMS[-1]], "SegmentationModel", SegmentationModel, raising=False)
    monkeypatch.setattr(SegmentationModel, "__module__", UPSTREAMS[-1])


def written(folder: Path, content: object, legacy: bool = False) -> Path:
    path = folder / "FastSAM-s.pt"
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    for name in UPSTREAMS:
        del sys.modules[name]
    return path


def check(state: dict[str, Any], like: SegmentationModel) -> None:
    expected = like.state_dict()
    assert state.keys() == expected.keys()
    for name, value in state.items():
        assert np.array_equal(np.asarray(value), expected[name].float().numpy()), name


@pytest.mark.usefixtures("upstreams", "home")
def test_a_checkpoint_is_installed(tmp_path: Path) -> None:
    one = network()
    path = written(tmp_path, {"epoch": -1, "model": one, "ema": None, "train_args": {"imgsz": 1024}})
    with pytest.raises(WeightsError, match=r"AGPL-3\.0.*--accept-license"):
        pull(SPEC, from_file=path)
    pull(SPEC, from_file=path, accept_licence=True)
    check(load(SPEC), one)


@pytest.mark.usefixtures("upstreams")
@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
@pytest.mark.parametrize("legacy", [False, True])
def test_the_mean_over_training_is_preferred(legacy: bool, tmp_path: Path) -> None:
    one, mean = network(), network("mean")
    path = written(tmp_path, {"model": one, "ema": mean, "updates": 7}, legacy)
    found = read({path.name: path})
    assert all(value.dtype in (torch.float32, torch.int64) for value in found.values())
    check(found, mean)


@pytest.mark.usefixtures("upstreams")
def test_a_state_dict_is_read_as_it_is(tmp_path: Path) -> None:
    one = network()
    check(read({"a.pt": written(tmp_path, copy.deepcopy(one.state_dict()))}), one)


@pytest.mark.usefixtures("upstreams")
def test_other_networks_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, {"model": nn.Conv2d(3, 8, 3), "ema": None})
    with pytest.raises(WeightsError, match='is no checkpoint of FastSAM: neither "ema" nor "model"'):
        read({path.name: path})
    with pytest.raises(WeightsError, match="one file, not 2: a, b"):
        read({"b": path, "a": path})


class Runs:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.usefixtures("upstreams")
def test_nothing_in_a_file_is_run(tmp_path: Path) -> None:
    one = network()
    made = tmp_path / "made"
    path = written(tmp_path, {"model": one, "ema": None, "more": Runs(made)})
    check(read({path.name: path}), one)
    assert not made.exists()
    pickle.loads(pickle.dumps(Runs(made)))
    assert made.exists()  # as it would have been
