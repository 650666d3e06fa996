"""``samgate distill`` as a command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from pycocotools import mask as coco_mask

from samgate.cli.main import main
from samgate.domain import Rle
from samgate.evaluation.dataset import Instance, LabelledImage
from samgate.training.evaluation import box_filling
from samgate.variants import VARIANTS
from samgate.variants.spec import VariantSpec
from samgate.weights.pull import pull
from samgate.weights.store import load
from training_support import STUDENT, draw_teacher, images, pair  # noqa: F401


def command(photographs: Path, out: Path, *more: str) -> list[str]:
    names = ["--teacher", "teacher", "--student", "student", "--batch", "2", "--epochs", "1"]
    return ["distill", *names, "--images", str(photographs), "--out", str(out), *more]


def test_a_run_leaves_a_student_that_can_be_pulled(
    pair: tuple[VariantSpec, VariantSpec],  # noqa: F811
    images: Path,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "deep" / "out"
    assert main(command(images, out)) == 0
    told = capsys.readouterr()
    assert "student learns from teacher on 5 images: 1 epochs of 2 batches of 2" in told.err
    assert "epoch 1: loss 0." in told.err
    assert f"samgate pull student --from {out / 'student.safetensors'} --force" in told.out
    figures = json.loads((out / "result.json").read_text())
    assert figures["recipe"]["student"] == "student"
    assert len(figures["loss"]) == 1
    assert (out / "loss.png").read_bytes().startswith(b"\x89PNG")
    pull(STUDENT, from_file=out / "student.safetensors")
    assert (
        load(STUDENT)["mask_decoder.iou_token.weight"].tolist()
        == draw_teacher()["mask_decoder.iou_token.weight"].tolist()
    )
    assert not list(out.rglob("*.tmp"))
    # The same command again has nothing left to do; a longer one goes on.
    assert main(command(images, out)) == 0
    assert "epoch" not in capsys.readouterr().err.replace("epochs", "")
    assert main([*command(images, out), "--epochs", "2"]) == 0
    assert "epoch 2:" in capsys.readouterr().err
    assert len(json.loads((out / "result.json").read_text())["loss"]) == 2


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        (["--teacher", "nobody"], "variant 'nobody' is unknown; known: "),
        (["--student", "teacher"], "has the weights of its teacher"),
        (["--student", "nanosam"], "nanosam has embeddings (256, 64, 64), teacher (256, 8, 8)"),
        (["--teacher", "absent"], "the weights of absent are not installed: run `samgate pull absent`"),
        (["--batch", "6"], "batch: is 6, more than the 5 images"),
        (["--size", "96000"], "size: has to be a multiple of 32 of at most 128"),
        (["--eval", "none.json"], "none.json can't be read"),
        (["--init", "none.pth"], "init: none.pth can't be read"),
    ],
)
def test_what_can_not_work_is_refused_before_it_begins(
    more: list[str],
    problem: str,
    pair: tuple[VariantSpec, VariantSpec],  # noqa: F811
    images: Path,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(VARIANTS, "absent", replace(pair[0], name="absent"))
    assert main([*command(images, tmp_path / "out"), *more]) == 1
    assert problem in capsys.readouterr().err
    assert not (tmp_path / "out" / "checkpoint.pt").exists()


def test_folders_that_do_not_do_are_refused(
    pair: tuple[VariantSpec, VariantSpec],  # noqa: F811
    images: Path,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").write_text("")
    assert main(command(images, tmp_path / "file")) == 1
    assert "can't be made: File exists" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main(command(tmp_path / "empty", tmp_path / "out")) == 1
    assert "images: there is no image" in capsys.readouterr().err
    (images / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    assert main([*command(images, tmp_path / "out"), "--epochs", "3"]) == 1
    assert "broken.jpg" in capsys.readouterr().err


def test_box_filling_is_the_share_of_the_box_that_is_the_object() -> None:
    (part,) = coco_mask.frPyObjects([[10.0, 10.0, 20.0, 10.0, 20.0, 20.0, 10.0, 20.0]], 40, 50)
    rle = Rle((40, 50), part["counts"])
    image = LabelledImage(Path("a"), (40, 50), "all", (Instance(rle, (10, 10, 30, 20), 100),))
    assert box_filling([image])["box"] == {"miou": 0.5, "ci95": [0.5, 0.5], "n": 1}
