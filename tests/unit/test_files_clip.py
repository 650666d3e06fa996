"""Files as CLIP's authors offer them, programs of ``torch.jit``, are read as data, and so are files of a state dict."""

from __future__ import annotations

import os
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from parity.weights import draw_state
from samgate.errors import WeightsError
from samgate.variants.clip import VIT_B_32, ClipSpec
from samgate.variants.nets.clip import Clip, graph_module
from samgate.weights.clip_file import read
from samgate.weights.formats import network_shapes, read_files

SPEC = replace(
    VIT_B_32,
    architecture={"patch": 8, "image_width": 32, "image_depth": 2, "text_width": 16, "text_depth": 2, "head": 16},
    context=5,
    vocabulary=9,
    width=8,
    input_size=16,
)
DROPPED = {"input_resolution": 16, "context_length": 5, "vocab_size": 9}
"""What upstream's archives have beside parameters."""


class Official(Clip):
    """A network that can be made a program, with all that upstream's has."""

    def __init__(self, spec: ClipSpec) -> None:
        super().__init__(spec)
        for name, value in DROPPED.items():
            self.register_buffer(name, torch.tensor(value))

    def forward(self, image: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        return (
            graph_module(SPEC, self, "image_features")(image),
            graph_module(SPEC, self, "text_features")(tokens),
        )


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    """In half precision."""
    return {name: torch.tensor(value).half() for name, value in draw_state(network_shapes(SPEC)).items()}


@pytest.fixture(scope="module")
def archive(state: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Written by torch itself."""
    network = Official(SPEC).eval()
    network.load_state_dict(state, strict=False)
    path = tmp_path_factory.mktemp("official") / "ViT-B-32.pt"
    save_program(network, (torch.zeros(1, 16, 16, 3), torch.ones(1, 5, dtype=torch.int32)), path)
    return path


def save_program(network: nn.Module, inputs: tuple[Tensor, ...], path: Path) -> None:
    trace: Any = torch.jit.trace
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, but this is how the files were written
        trace(network, inputs).half().save(path)


def check(found: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    assert found.keys() == state.keys()
    for name, value in found.items():
        assert value.dtype == torch.float32
        assert torch.equal(value, state[name].float()), name


def rewritten(archive: Path, folder: Path, changes: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    """``archive`` with other members of these names, and others as they were."""
    path = folder / archive.name
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(path, "w", compression) as new:
        for item in old.infolist():
            new.writestr(item.filename, changes.get(item.filename.partition("/")[2], old.read(item)))
    return path


class Runs:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_the_parameters_in_a_program_are_read(archive: Path, state: dict[str, Tensor]) -> None:
    with zipfile.ZipFile(archive) as file:
        assert sum(item.file_size for item in file.infolist()) > archive.stat().st_size  # the code is compressed
    check(read({archive.name: archive}), state)
    assert read_files(SPEC, {archive.name: archive}, network_shapes(SPEC)).keys() == state.keys()


@pytest.mark.parametrize("kind", ["archive", "legacy", "safetensors"])
def test_a_state_dict_is_read(kind: str, tmp_path: Path, state: dict[str, Tensor]) -> None:
    path = tmp_path / "clip"
    content = state | {name: torch.tensor(value) for name, value in DROPPED.items()}
    if kind == "safetensors":
        save_file(content, path)
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "archive")
    check(read({path.name: path}), state)


def test_other_files_are_refused(archive: Path, state: dict[str, Tensor], tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"CLIP's weights are one file, not 2: a, b"):
        read({"b": archive, "a": archive})
    path = tmp_path / "other.pt"
    for content in ({"weight": torch.zeros(2)}, {name: one for name, one in state.items() if "token" not in name}):
        torch.save(content, path)
        with pytest.raises(WeightsError, match=r"other\.pt is no checkpoint of CLIP"):
            read({path.name: path})
    save_program(nn.Linear(2, 1), (torch.zeros(1, 2),), path)
    with pytest.raises(WeightsError, match=r"other\.pt is no checkpoint of CLIP"):
        read({path.name: path})


def test_another_clip_is_refused_by_names_and_shapes(archive: Path) -> None:
    with pytest.raises(WeightsError, match="token_embedding"):
        read_files(SPEC, {archive.name: archive}, network_shapes(replace(SPEC, vocabulary=10)))


def test_damaged_files_are_refused(archive: Path, state: dict[str, Tensor], tmp_path: Path) -> None:
    path, content = tmp_path / "ViT-B-32.pt", archive.read_bytes()
    save_file(state, tmp_path / "safe")
    for damaged in (b"", content[:-100], content[: len(content) // 2], (tmp_path / "safe").read_bytes()[:-10]):
        path.write_bytes(damaged)
        with pytest.raises(WeightsError, match=r"ViT-B-32\.pt"):
            read({path.name: path})
    for changes in ({"data.pkl": b"\x80\x02}"}, {"data/5": b"\x00"}):
        path = rewritten(archive, tmp_path, changes)
        with pytest.raises(WeightsError, match=r"ViT-B-32\.pt can't be read as a file of torch"):
            read({path.name: path})


def test_data_that_unpacks_to_more_is_refused(archive: Path, tmp_path: Path) -> None:
    path = rewritten(archive, tmp_path, {"data/5": bytes(1 << 22)}, zipfile.ZIP_DEFLATED)
    with pytest.raises(WeightsError, match="it would unpack to more than it is"):
        read({path.name: path})


def test_nothing_in_a_file_is_run(archive: Path, state: dict[str, Tensor], tmp_path: Path) -> None:
    made = tmp_path / "made"
    hostile = pickle.dumps({"visual": Runs(made)}, 2)
    legacy = tmp_path / "legacy.pt"
    torch.save(state | {"more": Runs(made)}, legacy, _use_new_zipfile_serialization=False)
    for path in (rewritten(archive, tmp_path, {"data.pkl": hostile}), legacy):
        with pytest.raises(WeightsError):
            read({path.name: path})
    path = rewritten(archive, tmp_path, {"constants.pkl": hostile})
    check(read({path.name: path}), state)
    assert not made.exists()
    pickle.loads(hostile)
    assert made.exists()  # as it would have been
