"""``samgate distill``: a variant's image encoder taught by another's."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samgate.cli.files import write_json
from samgate.cli.output import number, whole_number
from samgate.errors import SamgateError
from samgate.variants import get_variant

if TYPE_CHECKING:
    from samgate.evaluation.dataset import LabelledImage
    from samgate.training.run import Run

_DESCRIPTION = """\
Teach one variant's image encoder to make the embeddings of another's, on images without any labels, as NanoSAM was made
of MobileSAM. The decoder is the teacher's. DIR/student.safetensors is what `samgate pull STUDENT --from` takes.
The same command again goes on where a run in DIR stopped: after every epoch there is a checkpoint. The defaults are
NanoSAM's recipe, which takes a GPU days; this runs on CPUs, where --size, --views and few epochs make small
experiments possible. docs/distill.md has what comes of that."""

_EXAMPLES = """\
examples:
  samgate distill --teacher mobilesam --student nanosam --images train2017 --out nanosam
  samgate distill --teacher mobilesam --student nanosam --images photos --out try --size 512 --views 4 --batch 4 \\
      --epochs 100 --lr 1e-3 --schedule cosine --precision bf16 --eval instances.json
  samgate pull nanosam --from nanosam/student.safetensors"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "distill",
        help="teach a variant's image encoder by another's",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--teacher", required=True, metavar="NAME", help="an installed variant")
    parser.add_argument("--student", required=True, metavar="NAME", help="a variant of equal embeddings")
    parser.add_argument("--images", required=True, metavar="DIR", type=Path, help="JPEG, PNG and WebP files, any depth")
    parser.add_argument("--out", required=True, metavar="DIR", type=Path, help="checkpoint, student and figures")
    parser.add_argument("--init", metavar="FILE", type=Path, help="weights to start from, as of an ImageNet ResNet-18")
    parser.add_argument("--epochs", type=whole_number("--epochs", least=0), default=200, help="default %(default)s")
    parser.add_argument("--batch", type=whole_number("--batch", least=1), default=16, help="default %(default)s")
    parser.add_argument("--lr", type=number("--lr", above=0), default=3e-4, help="default %(default)s")
    parser.add_argument("--schedule", choices=("constant", "cosine"), default="constant", help="default %(default)s")
    parser.add_argument("--loss", choices=("huber", "l1", "mse"), default="huber", help="default %(default)s")
    parser.add_argument("--seed", type=whole_number("--seed", least=0), default=0, help="default %(default)s")
    parser.add_argument(
        "--size", metavar="PIXELS", type=whole_number("--size", least=32), help="side of the part the student sees"
    )
    parser.add_argument(
        "--views",
        metavar="N",
        type=whole_number("--views", least=0),
        default=0,
        help="fixed crops an image, the first of them all of it, whose embeddings are kept (default: new ones always)",
    )
    parser.add_argument("--scale", metavar="SHARE", type=_share, default=0.08, help="least of an image in a crop")
    parser.add_argument(
        "--precision", choices=("f32", "bf16"), default="f32", help="while learning; default %(default)s"
    )
    parser.add_argument("--threads", type=whole_number("--threads", least=1), help="CPU threads (default all)")
    parser.add_argument(
        "--workers", type=whole_number("--workers", least=0), default=0, help="processes that decode images (default 0)"
    )
    parser.add_argument(
        "--eval", metavar="DATASET", type=Path, help="COCO JSON: mIoU as served, and of the teacher and no training"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Train, evaluate and write; the exit status is 0. Raises :class:`SamgateError`."""
    teacher, student = get_variant(options.teacher), get_variant(options.student)
    try:
        from samgate.training.recipe import Recipe, check_pair
        from samgate.training.run import Run
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise SamgateError("distilling needs torch: pip install 'samgate[compile]'") from error
    names = ("epochs", "batch", "lr", "schedule", "loss", "seed", "views", "scale", "precision")
    chosen = {name: getattr(options, name) for name in names}
    recipe = Recipe(teacher.name, student.name, window=options.size, **chosen)
    check_pair(recipe, teacher, student)
    labelled = _labelled(options.eval)
    with Run(teacher, student, recipe, options.images, options.out, options.init, options.threads) as one:
        _train(one, options.workers)
        _finish(one, labelled, options.threads)
    return 0


def _labelled(path: Path | None) -> list[LabelledImage]:
    """Looked at before hours of training, not after."""
    if path is None:
        return []
    from samgate.evaluation.dataset import load_dataset

    return load_dataset(path)


def _train(one: Run, workers: int) -> None:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True, highlight=False, markup=False)
    recipe = one.recipe
    console.print(
        f"{recipe.student} learns from {recipe.teacher} on {len(one.paths)} images: {recipe.epochs} epochs of "
        f"{one.steps} batches of {recipe.batch}"
    )
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("steps", total=recipe.epochs * one.steps)

        def on_step(done: int, loss: float) -> None:
            progress.update(task, completed=done, description=f"loss {loss:.4f}")

        def on_epoch(number: int, epoch: Any) -> None:
            told = f"epoch {number + 1}: loss {epoch.loss:.5f}, learning rate {epoch.lr:.2g}, {epoch.seconds:.1f} s"
            progress.console.print(told)

        one.train(workers, on_step, on_epoch)


def _finish(one: Run, labelled: list[LabelledImage], threads: int | None) -> None:
    from rich.console import Console

    from samgate.training.plot import can_plot, plot_loss

    console = Console(highlight=False, markup=False)
    weights = one.save()
    if one.epochs and can_plot():
        plot_loss(one.epochs, f"{one.recipe.student} from {one.recipe.teacher}", one.folder / "loss.png")
    elif one.epochs:
        console.print("for a picture of the loss: pip install 'samgate[plots]', and run this again")
    figures = one.figures()
    if labelled:
        console.print(f"evaluating {sum(len(image.instances) for image in labelled)} masks, three times")
        figures["evaluation"] = evaluation = one.evaluate(labelled, threads)
        for name, found in evaluation.items():
            point = f", point {found['point']['miou']:.4f}" if "point" in found else ""
            console.print(f"  {name}: mIoU of boxes {found['box']['miou']:.4f}{point}")
    write_json(one.folder / "result.json", figures)
    console.print(f"to serve it: samgate pull {one.recipe.student} --from {weights} --force", soft_wrap=True)


def _share(text: str) -> float:
    value = number("--scale", above=0)(text)
    if value > 1:
        raise argparse.ArgumentTypeError(f"--scale takes a share of at most 1, got {text!r}")
    return value
