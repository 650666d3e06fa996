"""``samgate segment`` and ``samgate everything``: arguments, and what becomes of an answer."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from samgate.cli import everything, output, segment
from samgate.client import (
    AnswerInfo,
    Client,
    Decision,
    Everything,
    EverythingMask,
    Format,
    Mask,
    Progress,
    Prompt,
    Segmentation,
    Timings,
)
from samgate.config import Settings
from samgate.domain import Polygon
from samgate.errors import SamgateError
from samgate.imaging import formats

CHOSEN = Decision("named", 0.7, 1, 2, 0)
INFO = AnswerInfo(
    "mobilesam", "bf16", "openvino", False, None, Timings(1, 2, 3, 4, 5, 15), Decision("named", 0.7, 1, 2, 0)
)
SIZE = (6, 9)


class ScriptedClient(Client):
    """Answers one mask a prompt, or three with ``multi``; remembers what it was asked."""

    def __init__(self) -> None:
        super().__init__("nowhere")
        self.asked: dict[str, Any] = {}
        self.size = SIZE
        self.complete = True
        self.local: list[object] = []

    def segment(self, image: Any, **options: Any) -> Segmentation:
        self.asked = {"image": image, **options}
        masks = (mask(Format(options["format"]), self.size),) * (3 if options["selection"] == "multi" else 1)
        return Segmentation(tuple(masks for _ in options["prompts"]), self.size, INFO)

    def everything(self, image: Any, **options: Any) -> Everything:
        self.asked = {"image": image, **options}
        options["on_progress"](Progress(1, 4, 0))
        found = EverythingMask(mask(Format.RLE), (1.0, 2.0), (0, 0, 9, 6))
        return Everything((found,), SIZE, INFO, self.complete, options["strategy"], 3)


def pixels(size: tuple[int, int] = SIZE) -> np.ndarray:
    array = np.zeros(size, np.uint8)
    array[1:3, 2:6] = 1
    return array


def mask(form: Format, size: tuple[int, int] = SIZE) -> Mask:
    return Mask(size, form, formats.encode(pixels(size), form), (2, 1, 6, 3), 8, 0.9, 0.95, None)


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> ScriptedClient:
    scripted = ScriptedClient()

    @contextmanager
    def connected(args: argparse.Namespace, *local: object) -> Iterator[Client]:
        scripted.local.append(local)
        yield scripted

    monkeypatch.setattr(output, "connected", connected)
    return scripted


def run(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(required=True)
    segment.add_parser(commands)
    everything.add_parser(commands)
    args = parser.parse_args([str(argument) for argument in arguments])
    status: int = args.run(args)
    return status


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "give at least one --point X,Y or --box X0,Y0,X1,Y1, or a --text WORDS"),
        (["--point", "1"], "expected X,Y or X,Y:background in pixels, such as 120,80, got '1'"),
        (["--point", "1,2:sky"], "expected X,Y or X,Y:background"),
        (["--point", "1,nan"], "expected X,Y or"),
        (["--box", "1,2,3"], "expected X0,Y0,X1,Y1 in pixels"),
        (["--box", "9,2,3,4"], "with X0 < X1 and Y0 < Y1"),
        (["--box", "1,2,3,4", "--box", "1,2,3,4"], "with --separate, each is an object of its own"),
        (["--point", "1,2:background", "--separate"], "a background point is no object"),
        (["--text", " "], "expected words, such as 'a black dog', got ' '"),
        (["--text", "a dog", "--text", "a cat"], "one object has one --text, got 2: with --separate"),
        (["--text", "a dog", "--point", "1,2"], "a --text stands alone: with --separate, each"),
        (["--text", "a dog", "--box", "1,2,3,4"], "a --text stands alone: with --separate, each"),
        (["--text", "a dog", "--text-model", "clip", "--server", "nowhere"], "a --server has its own"),
        (["--point", "1,2", "-o", "mask.bmp"], "ending in .png or .json or .npy, got 'mask.bmp'"),
        (["--point", "1,2", "-o", "no/such/mask.png"], "folder 'no/such' doesn't exist"),
        (["--point", "1,2", "--timeout", "0"], "--timeout takes a number above 0, got '0'"),
    ],
)
def test_mistakes_are_told_with_what_is_expected(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        run("segment", "dog.jpg", *arguments)
    assert caught.value.code == 2
    assert told in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("arguments", "selection", "count"),
    [
        (["--point", "1,2"], "best", 1),
        (["--point", "1,2", "--point", "3,4:background"], "single", 1),
        (["--point", "1,2", "--box", "0,0,5,5"], "single", 1),
        (["--point", "1,2", "--point", "3,4", "--separate"], "best", 2),
        (["--point", "1,2", "--box", "0,0,5,5", "--box", "1,1,5,5", "--separate"], "single", 3),
        (["--point", "1,2", "--selection", "multi"], "multi", 1),
        (["--text", "a dog"], "single", 1),
        (["--text", "a dog", "--text", "a cat", "--point", "1,2", "--separate"], "single", 3),
    ],
)
def test_points_and_boxes_become_prompts(
    client: ScriptedClient, arguments: list[str], selection: str, count: int
) -> None:
    assert run("segment", "dog.jpg", *arguments) == 0
    assert client.asked["selection"] == selection
    assert len(client.asked["prompts"]) == count


def test_one_object_of_points_and_a_box(client: ScriptedClient) -> None:
    run("segment", "dog.jpg", "--point", "1,2", "--point", "3.5,4:background", "--box", "0,1,5,6", "--variant", "v")
    (one,) = client.asked["prompts"]
    assert isinstance(one, Prompt)
    assert one.points.tolist() == [[1, 2], [3.5, 4]]
    assert one.labels.tolist() == [1, 0]
    assert one.box is not None
    assert one.box.tolist() == [0, 1, 5, 6]
    assert client.asked["variant"] == "v"


def test_words_become_prompts_for_what_takes_them(client: ScriptedClient) -> None:
    run("segment", "dog.jpg", "--text", "a black dog")
    (one,) = client.asked["prompts"]
    assert (one.text, one.points.shape, one.box) == ("a black dog", (0, 2), None)
    usual = {"SAMGATE_VARIANTS": "fastsam-s", "SAMGATE_TEXT_MODEL": "clip-vit-b-32"}
    run("segment", "dog.jpg", "--text", "a cat", "--box", "0,0,5,5", "--separate", "--text-model", "another")
    box, words = client.asked["prompts"]
    assert (box.text, words.text) == ("", "a cat")
    run("segment", "dog.jpg", "--point", "1,2")
    assert client.local == [(None, usual), ("another", usual), (None, None)]


@pytest.mark.parametrize(
    ("arguments", "environment", "variants"),
    [
        ([], {}, "fastsam-s"),
        (["--variant", "fastsam-x"], {}, "fastsam-x"),
        ([], {"SAMGATE_VARIANTS": "fastsam-x:fp16"}, "fastsam-x:fp16"),
    ],
)
def test_what_runs_here_for_words_can_be_named(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], environment: dict[str, str], variants: str
) -> None:
    def gateway(settings: Settings, report: object) -> None:
        raise SamgateError(f"would serve {settings.variants}")

    monkeypatch.setattr("samgate.api.local.local_gateway", gateway)
    monkeypatch.delenv("SAMGATE_VARIANTS", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SamgateError, match=f"would serve {variants}$"):
        run("segment", "dog.jpg", "--text", "a dog", *arguments)


def test_a_mask_in_every_kind_of_file(
    client: ScriptedClient, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = [tmp_path / name for name in ("mask.png", "mask.json", "mask.npy")]
    run("segment", "dog.jpg", "--point", "1,2", *[part for path in outputs for part in ("-o", path)])
    with Image.open(outputs[0]) as image:
        assert np.array_equal(np.asarray(image), pixels() * 255)
    saved = json.loads(outputs[1].read_text())
    assert saved["size"] == [6, 9]
    (record,) = saved["masks"]
    assert record["segmentation"] == {"size": [6, 9], "counts": mask(Format.RLE).rle.counts.decode()}  # type: ignore[union-attr]
    assert (record["box"], record["area"], record["prompt"]) == ([2, 1, 6, 3], 8, 0)
    assert np.array_equal(np.load(outputs[2]), pixels()[None].astype(bool))
    told = capsys.readouterr().out
    assert "dog.jpg  9 × 6  mobilesam (bf16, openvino)" in told
    assert "8 (14.8%)" in told
    assert all(str(path) in told for path in outputs)


@pytest.mark.parametrize("name", ["seen.png", "seen.jpg"])
def test_the_overlay_shows_masks_and_prompts(client: ScriptedClient, tmp_path: Path, name: str) -> None:
    photo, overlay = tmp_path / "photo.png", tmp_path / name
    Image.fromarray(np.full((60, 90, 3), 128, np.uint8)).save(photo)
    client.size = (60, 90)
    run("segment", photo, "--point", "1,2", "--point", "80,50:background", "--box", "20,20,50,50", "--overlay", overlay)
    with Image.open(overlay) as image:
        seen = np.asarray(image).astype(int)
    assert seen.shape == (60, 90, 3)
    red, grey = seen[50, 80], seen[20, 70]
    assert red[0] > red[1] + 60
    assert np.abs(grey - 128).max() < 6


def test_several_masks_are_numbered(client: ScriptedClient, tmp_path: Path) -> None:
    run("segment", "dog.jpg", "--point", "1,2", "--selection", "multi", "-o", tmp_path / "mask.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mask-1.png", "mask-2.png", "mask-3.png"]


@pytest.mark.parametrize("form", ["png", "polygons", "packed_bits"])
def test_json_holds_masks_in_the_format_asked_for(client: ScriptedClient, tmp_path: Path, form: str) -> None:
    file = tmp_path / "masks.json"
    run("segment", "dog.jpg", "--point", "1,2", "--format", form, "-o", file)
    segmentation = json.loads(file.read_text())["masks"][0]["segmentation"]
    if form == "polygons":
        assert isinstance(segmentation, list)
        outlines = tuple(Polygon(np.array(one["points"], np.float32), one["hole"]) for one in segmentation)
        assert np.array_equal(formats.polygons_to_mask(outlines, SIZE), pixels())
    else:
        assert list(segmentation) == [form]


def test_figures_on_standard_output_are_alone_there(client: ScriptedClient, capsys: pytest.CaptureFixture[str]) -> None:
    run("segment", "dog.jpg", "--point", "1,2", "--json", "-")
    told = capsys.readouterr()
    figures = json.loads(told.out)
    assert figures["timings_ms"]["total"] == 15
    assert figures["masks"][0]["predicted_iou"] == 0.9
    assert "segmentation" not in figures["masks"][0]
    assert "dog.jpg" in told.err


def test_everything_writes_upstreams_records(
    client: ScriptedClient, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    masks, figures = tmp_path / "masks.json", tmp_path / "figures.json"
    flags = ("--points-per-side", 8, "--pred-iou-thresh", 0, "--max-masks", 3)
    assert run("everything", "dog.jpg", "-o", masks, "--json", figures, *flags) == 0
    expected = {"points_per_side": 8, "pred_iou_thresh": 0.0, "max_masks": 3, "strategy": "grid", "anytime": False}
    assert expected.items() <= client.asked.items()
    assert "box_nms_thresh" not in client.asked
    (record,) = json.loads(masks.read_text())
    assert (record["bbox"], record["crop_box"], record["point_coords"]) == ([2, 1, 3, 1], [0, 0, 9, 6], [[1.0, 2.0]])
    assert json.loads(figures.read_text())["mask_count"] == 1
    assert "1 mask\n" in capsys.readouterr().out


def test_everything_passes_on_a_strategy_and_says_what_is_missing(
    client: ScriptedClient, capsys: pytest.CaptureFixture[str]
) -> None:
    client.complete = False
    assert run("everything", "dog.jpg", "--strategy", "auto", "--anytime", "--conf", 0.3, "--json", "-") == 0
    assert {"strategy": "auto", "anytime": True, "conf": 0.3}.items() <= client.asked.items()
    told = capsys.readouterr()
    figures = json.loads(told.out)
    assert (figures["strategy"], figures["complete"], figures["prompts"]) == ("auto", False, 3)
    assert "1 mask, of the 3 prompts that there was time for" in told.err


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--strategy", "all"], "invalid choice: 'all' (choose from"),
        (["--coarse-factor", "0"], "--coarse-factor takes a whole number of at least 1, got '0'"),
        (["--points-per-side", "0"], "--points-per-side takes a whole number of at least 1, got '0'"),
        (["--max-masks", "1.5"], "--max-masks takes a whole number of at least 0, got '1.5'"),
        (["--box-nms-thresh", "-1"], "--box-nms-thresh takes a number of at least 0, got '-1'"),
        (["-o", "masks.png"], "ending in .json, got 'masks.png'"),
    ],
)
def test_wrong_grids_are_told(flags: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("everything", "dog.jpg", *flags)
    assert told in " ".join(capsys.readouterr().err.split())


def test_a_file_that_cannot_be_written_is_one_clear_error(client: ScriptedClient, tmp_path: Path) -> None:
    (tmp_path / "mask.png").mkdir()
    with pytest.raises(SamgateError, match=r"mask\.png can't be written: Is a directory"):
        run("segment", "dog.jpg", "--point", "1,2", "-o", tmp_path / "mask.png")
