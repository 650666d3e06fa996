"""Distillation: what student and teacher see, what is learnt, and that a run goes on where it stopped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from samgate.errors import InvalidArgument, SamgateError, WeightsError
from samgate.imaging.decode import decode
from samgate.imaging.preprocess import encoder_input
from samgate.training import loop
from samgate.training.checkpoint import NAME
from samgate.training.data import Item, Views, find_images, random_crop
from samgate.training.loop import train
from samgate.training.networks import ENCODER, Student, Teacher, untrained
from samgate.training.recipe import Recipe, check_pair
from samgate.variants.mobilesam import SPEC as MOBILESAM
from samgate.variants.nanosam import SPEC as NANOSAM
from samgate.variants.nets.layers import ConvNorm
from samgate.variants.spec import VariantSpec
from training_support import RECIPE, SIDE, STUDENT, TEACHER, draw_teacher, images, pair  # noqa: F401

Pair = tuple[VariantSpec, VariantSpec]


def student_of(recipe: Recipe) -> Student:
    return Student(STUDENT, untrained(STUDENT, draw_teacher(), recipe.seed, None), recipe)


def run(folder: Path, photographs: Path, recipe: Recipe) -> tuple[Student, list[float]]:
    folder.mkdir(exist_ok=True)
    student, teacher = student_of(recipe), Teacher(TEACHER, draw_teacher(), folder / "embeddings")
    epochs = train(student, teacher, find_images(photographs), folder, recipe)
    return student, [epoch.loss for epoch in epochs]


def batch(views: Views) -> Item:
    found: Item = torch.utils.data.default_collate([views[index] for index in range(len(views))])
    return found


def test_the_rate_is_constant_or_rises_and_falls() -> None:
    assert {RECIPE.rate(step, 100) for step in range(100)} == {RECIPE.lr}
    cosine = replace(RECIPE, schedule="cosine")
    rates = [cosine.rate(step, 100) for step in range(100)]
    assert rates[:5] == pytest.approx([RECIPE.lr * part / 5 for part in range(1, 6)])
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert rates[-1] == pytest.approx(RECIPE.lr * 0.01, rel=0.1)


def test_pairs_that_do_not_fit_are_refused() -> None:
    check_pair(replace(RECIPE, window=512), MOBILESAM, NANOSAM)
    with pytest.raises(InvalidArgument, match="has the weights of its teacher"):
        check_pair(RECIPE, MOBILESAM, replace(MOBILESAM, name="mobilesam-768", weights="mobilesam"))
    with pytest.raises(InvalidArgument, match=r"nanosam has embeddings \(128, 64, 64\), mobilesam \(256, 64, 64\)"):
        check_pair(RECIPE, MOBILESAM, replace(NANOSAM, embedding_shape=(128, 64, 64)))
    with pytest.raises(InvalidArgument, match="inputs of a side of 512"):
        check_pair(RECIPE, MOBILESAM, replace(NANOSAM, input_size=512))
    for window in (100, 1056):
        with pytest.raises(InvalidArgument, match=f"size: .*multiple of 32 of at most 1024, is {window}"):
            check_pair(replace(RECIPE, window=window), MOBILESAM, NANOSAM)


def test_images_are_found_at_any_depth(images: Path, tmp_path: Path) -> None:  # noqa: F811
    assert [path.name for path in find_images(images)] == ["a.jpg", "b.png", "d.JPG", "e.jpg", "c.webp"]
    (tmp_path / "none").mkdir()
    with pytest.raises(InvalidArgument, match="there is no image"):
        find_images(tmp_path / "none")
    with pytest.raises(InvalidArgument, match="is not a folder"):
        find_images(images / "a.jpg")


def test_crops_are_parts_of_the_asked_share_and_shape() -> None:
    y, x = np.mgrid[:200, :240]
    image = np.stack((y, x, x * 0), -1).astype(np.uint8)
    random, shares = np.random.default_rng(0), []
    for _ in range(200):
        crop = random_crop(image, 64, 0.2, random).astype(float)
        assert crop.shape == (64, 64, 3)
        rows, columns = (64 / 63 * (crop[-1, -1, axis] - crop[0, 0, axis]) for axis in (0, 1))
        shares.append(rows * columns / (200 * 240))
        assert 0.7 < columns / rows < 1.4
    assert 0.18 < min(shares) < 0.3
    assert max(shares) > 0.8
    # No such shape fits into a line: its middle is taken.
    assert random_crop(np.full((3, 500, 3), 7, np.uint8), 32, 0.9, random).tolist() == np.full((32, 32, 3), 7).tolist()


def test_an_epochs_views_are_the_same_every_time_and_others_in_the_next(images: Path) -> None:  # noqa: F811
    views = Views(find_images(images), STUDENT, RECIPE)
    first, again = batch(views), batch(views)
    assert torch.equal(first.pixels, again.pixels)
    assert set(first.name) == {""}
    views.epoch = 1
    assert not torch.equal(first.pixels, batch(views).pixels)


def test_of_fixed_views_the_first_is_the_image_as_it_is_served(images: Path) -> None:  # noqa: F811
    views = Views(find_images(images), STUDENT, replace(RECIPE, views=2))
    seen: dict[str, torch.Tensor] = {}
    for views.epoch in range(16):
        for index, path in enumerate(views.paths):
            item = views[index]
            name = str(item.name)
            assert torch.equal(seen.setdefault(name, item.pixels), item.pixels)
            if name.endswith("-0"):
                pixels, frame = encoder_input(decode(path.read_bytes(), 10**6, ""), STUDENT)
                assert np.array_equal(item.pixels.numpy(), pixels)
                assert tuple(item.valid.tolist()) == frame.valid
            else:
                assert item.valid.tolist() == [SIDE, SIDE]
    assert len(seen) == 2 * len(views)


def test_windows_lie_on_the_image(images: Path) -> None:  # noqa: F811
    views = Views(find_images(images), STUDENT, replace(RECIPE, views=1, window=32))
    for views.epoch in range(20):
        items = batch(views)
        assert (items.window % 32 == 0).all()
        assert (items.window < items.valid).all()
        assert (items.window + 32 <= SIDE).all()


@pytest.fixture
def two() -> Item:
    """Two images of noise, the second with padding."""
    pixels = torch.randint(0, 255, (2, SIDE, SIDE, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    valid = torch.tensor([[SIDE, SIDE], [72, SIDE]], dtype=torch.int32)
    return Item(pixels, valid, torch.zeros(2, 2, dtype=torch.int64), ["", ""])


@torch.no_grad()
def test_a_window_is_seen_as_the_whole_is(two: Item) -> None:
    whole, part = (student_of(replace(RECIPE, window=window)).eval() for window in (None, SIDE))
    embedding = whole(two)
    assert torch.linalg.norm(part(two) - embedding) <= 1e-5 * torch.linalg.norm(embedding)
    assert torch.linalg.norm(embedding[0] - embedding[1]) > 0.1 * torch.linalg.norm(embedding[0])
    # Of the lower half of what is padded from row 72 on, eight rows remain.
    lower = two._replace(window=torch.tensor([[64, 0], [64, 0]]))
    half = Item(two.pixels[:, 64:, :64], two.valid - torch.tensor([64, 64], dtype=torch.int32), two.window, two.name)
    as_whole = student_of(replace(RECIPE, window=64)).eval()
    encoder = as_whole.network.get_submodule("image_encoder")
    position = encoder.get_parameter("pos_embedding")
    position.normal_()
    found, alone = as_whole(lower), as_whole(half)
    shift = position[:, :, 4:8, :4] - position[:, :, :4, :4]
    assert torch.allclose(found - alone, shift.expand_as(found), atol=1e-5)
    wanted = torch.randn(2, 256, 8, 8)
    assert torch.equal(as_whole.target(wanted, lower), wanted[:, :, 4:8, :4])


def test_a_student_learns_and_its_decoder_stays_the_teachers(images: Path, tmp_path: Path) -> None:  # noqa: F811
    recipe = replace(RECIPE, epochs=12, views=1, batch=5, lr=1e-2)
    before = student_of(recipe).weights()
    student, losses = run(tmp_path / "out", images, recipe)
    # Twelve steps: an untrained network's is that of a constant.
    assert losses[-1] < 0.75 * losses[0]
    assert not student.training
    after, taught = student.weights(), draw_teacher()
    for name, value in after.items():
        if name.startswith(ENCODER):
            assert not np.array_equal(value, before[name]), name
        else:
            assert np.array_equal(value, taught[name]), name


@pytest.mark.parametrize("changes", [{}, {"views": 2, "window": 64, "schedule": "cosine", "precision": "bf16"}])
def test_a_run_goes_on_as_if_it_had_never_stopped(
    changes: dict[str, object],
    images: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = replace(RECIPE, **changes)  # type: ignore[arg-type]
    once, losses = run(tmp_path / "once", images, recipe)
    steps, step = [0], loop._step

    def stopping(*args: object) -> float:
        steps[0] += 1
        if steps[0] == 4:
            raise KeyboardInterrupt
        return step(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "_step", stopping)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "twice", images, recipe)
    twice, resumed = run(tmp_path / "twice", images, recipe)
    assert steps[0] == 4 + 2 * 2  # of the first epoch nothing again
    assert resumed == losses
    for name, value in once.weights().items():
        assert np.array_equal(value, twice.weights()[name]), name


def test_embeddings_of_fixed_views_are_kept_and_made_again_where_broken(
    images: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    teacher = Teacher(TEACHER, draw_teacher(), tmp_path / "kept")
    items = batch(Views(find_images(images), STUDENT, replace(RECIPE, views=1)))
    made = teacher.embeddings(items)
    files = sorted((tmp_path / "kept").iterdir())
    assert len(files) == len(items.name)
    files[0].write_bytes(b"\x93NUMPY")
    np.save(files[1], np.full((256, 8, 8), 7, np.float16))
    kept = teacher.embeddings(items)
    assert (kept == 7).all(dim=(1, 2, 3)).sum() == 1
    others = ~(kept == 7).all(dim=(1, 2, 3))
    assert torch.allclose(kept[others], made[others], rtol=2e-3, atol=1e-4)


def test_runs_that_can_not_go_on_are_refused(images: Path, tmp_path: Path) -> None:  # noqa: F811
    short = replace(RECIPE, epochs=1)
    run(tmp_path / "out", images, short)
    with pytest.raises(SamgateError, match=r"has a run with lr 0\.003: go on with the same, or choose another --out"):
        run(tmp_path / "out", images, replace(short, lr=1e-3))
    run(tmp_path / "out", images, replace(short, epochs=2))
    (tmp_path / "out" / NAME).write_bytes(b"PK\x03\x04 broken")
    with pytest.raises(WeightsError, match="checkpoint"):
        run(tmp_path / "out", images, short)
    torch.save({"model": {}}, tmp_path / "out" / NAME)
    with pytest.raises(SamgateError, match="is not a checkpoint of samgate distill"):
        run(tmp_path / "out", images, short)
    with pytest.raises(InvalidArgument, match="batch: is 6, more than the 5 images"):
        run(tmp_path / "other", images, replace(short, batch=6))
    with pytest.raises(SamgateError, match=r"the loss is (nan|inf) in epoch \d: start again with a smaller --lr"):
        run(tmp_path / "wild", images, replace(RECIPE, lr=1e30, loss="mse"))


def test_starting_weights_may_be_those_of_a_backbone(tmp_path: Path) -> None:
    own = untrained(STUDENT, draw_teacher(), 0, None).state_dict()
    start = "image_encoder.backbone."
    given = {name.removeprefix(start): torch.ones_like(value) for name, value in own.items() if name.startswith(start)}
    assert {"conv1.weight", "layer4.0.bn2.running_var"} <= given.keys()
    torch.save({"state_dict": {**given, "fc.weight": torch.ones(3)}}, tmp_path / "resnet.pth")
    network = untrained(STUDENT, draw_teacher(), 0, tmp_path / "resnet.pth")
    for name, value in network.state_dict().items():
        assert torch.equal(value, torch.ones_like(value) if name.startswith(start) else own[name]), name
    torch.save({"fc.weight": torch.ones(3)}, tmp_path / "other.pth")
    with pytest.raises(InvalidArgument, match="has nothing that is named and shaped as in the student"):
        untrained(STUDENT, draw_teacher(), 0, tmp_path / "other.pth")


def test_students_with_another_decoder_or_without_windows_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="has another decoder than its teacher"):
        untrained(replace(STUDENT, embedding_shape=(128, 8, 8)), draw_teacher(), 0, None)
    network = torch.nn.Module()
    network.image_encoder = torch.nn.Conv2d(3, 3, 1)
    with pytest.raises(InvalidArgument, match="size: student can't be trained on parts"):
        Student(STUDENT, network, replace(RECIPE, window=64))


def test_fused_layers_normalise_by_what_they_see_while_they_learn() -> None:
    layer, x = ConvNorm(3, 4, 3, padding=1), torch.rand(2, 3, 8, 8)
    expected = torch.nn.BatchNorm2d(4)(layer.c(x))
    assert torch.allclose(layer.train()(x), expected)
    assert int(layer.bn.num_batches_tracked or 0) == 1
    assert torch.allclose(layer.eval()(x), layer.bn(layer.c(x)), atol=1e-6)
