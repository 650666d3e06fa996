"""``samgate eval --segevery`` with the real model, and upstream's generator as the benchmark runs it."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from conftest import ROOT
from samgate.api.local import local_gateway
from samgate.bench.context import Context, Upstream
from samgate.bench.upstream_everything import ask_upstream, parameters
from samgate.bench.upstream_process import upstream_worker
from samgate.cli.main import main
from samgate.client import Client
from samgate.config import EngineSettings, Settings
from samgate.errors import DeadlineExceeded, Infeasible
from samgate.evaluation.dataset import coco_rle
from samgate.evaluation.everything import Strategy, chosen_strategies, segment_everything

PHOTOGRAPHS = ("coco_val2017/000000037777.jpg", "ade20k/ADE_train_00016869.jpg")
UPSTREAM_CODE = "SAMGATE_TEST_UPSTREAM_CODE"


@pytest.fixture(scope="module")
def client(installed: None) -> Iterator[Client]:
    """Of a gateway that runs in upstream's precision."""
    settings = replace(Settings(), engine=EngineSettings(precision="f32"))
    with local_gateway(settings) as target, Client(target) as connected:
        yield connected


@pytest.fixture
def data_set(photo: bytes, tmp_path: Path) -> Path:
    """The picture of the fixture ``photo``, twice, with its disc and its square, a crowd and a speck."""
    y, x = np.mgrid[0:240, 0:320]
    disc, box = (x - 100) ** 2 + (y - 120) ** 2 < 60**2, (x >= 200) & (x < 290) & (y >= 60) & (y < 160)
    annotations = []
    for mask, is_crowd in ((disc, 0), (box, 0), (y > 200, 1), ((x < 9) & (y < 9), 0)):
        packed = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        shape = {"size": packed["size"], "counts": packed["counts"].decode()}
        bounds = {"bbox": coco_mask.toBbox(packed).tolist(), "area": int(mask.sum()), "iscrowd": is_crowd}
        annotations += [{"image_id": image, "segmentation": shape, **bounds} for image in (1, 2)]
    images = [{"id": number, "file_name": f"{number}.png", "width": 320, "height": 240} for number in (1, 2)]
    for image in images:
        (tmp_path / str(image["file_name"])).write_bytes(photo)
    path = tmp_path / "instances.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations}))
    return path


def test_the_command_measures_writes_and_draws(data_set: Path, client: Client, tmp_path: Path) -> None:
    figures, table, pictures = tmp_path / "figures.json", tmp_path / "table.md", tmp_path / "seen" / "here"
    command = ["eval", str(data_set), "--server", client.target, "--segevery", "grid-8", "grid-2"]
    command += ["--json", str(figures), "--markdown", str(table), "--pictures", str(pictures)]
    assert main(command) == 0
    summary = json.loads(figures.read_text())
    assert (summary["images"], summary["objects"], summary["precision"]) == (2, 6, "f32")
    eight, two = summary["strategies"]["grid-8"], summary["strategies"]["grid-2"]
    assert eight["recall"]["medium"]["ar"] >= 0.9, "the square"
    assert eight["recall"]["large"]["ar"] >= 0.9, "the disc"
    assert eight["recall"]["small"]["n"] == 2
    assert eight["recall"]["AR@1000"]["ar"] >= two["recall"]["AR@1000"]["ar"]
    assert eight["masks"] >= 2
    assert eight["late"] == 0
    assert "| grid-8 |" in table.read_text()
    names = [f"all-{image}-{strategy}.png" for image in (1, 2) for strategy in ("grid-8", "grid-2")]
    assert {path.name for path in pictures.iterdir()} == {"sheet.png", *names}
    with Image.open(pictures / "all-1-grid-8.png") as seen, Image.open(data_set.parent / "1.png") as photograph:
        changed = (np.asarray(seen) != np.asarray(photograph)).any(axis=-1)
    assert changed[120, 100], "the disc isn't painted"
    assert changed[110, 245], "the square isn't painted"


def test_images_and_options_are_checked_before_anything_runs(
    data_set: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for flags, problem in (
        (["--segevery", "gird"], "strategy: must be one of"),
        (["--segevery", "--min-side", "321"], "in an image of at least 321 pixels on a side"),
        (["--deadline", "2"], "deadline: is for --segevery alone"),
    ):
        assert main(["eval", str(data_set), *flags]) == 1
        assert problem in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_every_call_is_cold_and_finds_the_same(kind: str, photo: bytes, client: Client) -> None:
    encoded = io.BytesIO()
    Image.open(io.BytesIO(photo)).save(encoded, kind)
    client.embed(encoded.getvalue())
    (strategy,) = chosen_strategies(["grid-4"])
    answers = [segment_everything(client, encoded.getvalue(), strategy) for _ in range(2)]
    assert [answer.info.embedding_cached for answer in answers if answer.info] == [False, False]
    assert answers[0].proposals == answers[1].proposals
    assert answers[0].proposals.rles
    assert answers[0].size == (240, 320)
    assert 0 < (answers[0].first_s or 0) <= answers[0].seconds


def test_an_answer_that_misses_its_deadline_has_no_masks(photo: bytes, client: Client) -> None:
    late = segment_everything(client, photo, Strategy("grid", {"points_per_side": 32}, deadline_s=0.02))
    assert late.late
    assert late.proposals.rles == ()
    with pytest.raises((DeadlineExceeded, Infeasible)):
        segment_everything(client, photo, Strategy("grid", {"points_per_side": 32, "min_accuracy": 1.0}))


@pytest.fixture(scope="module")
def upstream(installed: None) -> Upstream:
    """Upstream's code in the environment that `samgate bench` makes, or where the variable says, for this Python."""
    code = os.environ.get(UPSTREAM_CODE)
    if code:
        return Upstream(Path(sys.executable), Path(code))
    folder = ROOT / ".venv-upstream"
    if not (folder / ".complete").exists():
        pytest.skip(f"needs upstream's code: {folder}, which `samgate bench cold` makes, or {UPSTREAM_CODE}=FOLDER")
    return Upstream(folder / "bin" / "python")


def test_upstreams_generator_finds_what_samgate_does(
    upstream: Upstream, client: Client, shared_data: Path, tmp_path: Path
) -> None:
    """Merged tokens move a mask's stability by some thousandths, so those next to the threshold come and go: of
    upstream's eleven here two, whose stability is 0.948 and 0.944 with us. With a hundredth less asked for all
    are there."""
    (strategy,) = chosen_strategies(["grid-4"])
    less = replace(strategy, options={**strategy.options, "pred_iou_thresh": 0.87, "stability_score_thresh": 0.94})
    found = 0, 0
    with upstream_worker(Context(tmp_path, "mobilesam", upstream=upstream)) as worker:
        for name in PHOTOGRAPHS:
            path = shared_data / "eval" / "images" / name
            theirs = ask_upstream(worker, path, parameters(4))
            ours = segment_everything(client, path.read_bytes(), strategy)
            assert theirs.size == ours.size
            packed = [[coco_rle(rle) for rle in answer.proposals.rles] for answer in (theirs, ours)]
            ious = np.asarray(coco_mask.iou(*packed, [0] * len(packed[1])))
            assert ious.max(axis=0).min() > 0.97
            expected, predicted = (np.array(answer.proposals.predicted_ious) for answer in (theirs, ours))
            np.testing.assert_allclose(predicted, expected[ious.argmax(axis=0)], atol=0.01)
            nearly = segment_everything(client, path.read_bytes(), less).proposals
            assert (
                np.asarray(coco_mask.iou(packed[0], [coco_rle(rle) for rle in nearly.rles], [0] * len(nearly.rles)))
                .max(axis=1)
                .min()
                > 0.85
            )
            found = found[0] + int((ious.max(axis=1) > 0.97).sum()), found[1] + len(expected)
    assert found[0] >= 0.8 * found[1] > 8
