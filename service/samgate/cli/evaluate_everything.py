"""``samgate eval --segevery``: what strategies of SegmentEverything find of labelled objects."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from samgate.cli import servers
from samgate.cli.files import write_bytes, write_json
from samgate.cli.output import write_image
from samgate.config import settings_from
from samgate.domain import UInt8Array
from samgate.errors import SamgateError
from samgate.evaluation.dataset import LabelledImage
from samgate.evaluation.everything import Scored, Strategy, evaluate_everything
from samgate.evaluation.everything_summary import as_markdown, as_table, summarise
from samgate.evaluation.pictures import contact_sheet, draw_proposals, fit
from samgate.imaging.decode import decode

PICTURED = 4
"""Images that ``--pictures`` draws."""
_PIPED_WIDTH = 200


def evaluate_and_show(
    options: argparse.Namespace, target: str, images: Sequence[LabelledImage], strategies: Sequence[Strategy]
) -> None:
    """Evaluate the server at ``target``; print and write what ``options`` ask for. Raises :class:`SamgateError`."""
    pictures = _Pictures(options.pictures, images[:PICTURED], strategies) if options.pictures else None
    scored: list[Scored] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with (
        servers.access(options).client(target) as client,
        Progress(*columns, console=Console(stderr=True), transient=True) as progress,
    ):
        task = progress.add_task("calls", total=len(images) * len(strategies))
        for one in evaluate_everything(client, images, strategies, options.variant):
            scored.append(one)
            if pictures is not None:
                pictures.add(one)
            progress.advance(task)
    summary = summarise(scored)
    if pictures is not None:
        pictures.write_sheet()
    if options.markdown:
        write_bytes(options.markdown, as_markdown(summary).encode())
    if options.json:
        write_json(options.json, summary)
    if options.json != "-":
        terminal = Console()
        (terminal if terminal.is_terminal else Console(width=_PIPED_WIDTH)).print(as_table(summary))


class _Pictures:
    """Writes one PNG for each of ``images`` and strategy into ``folder``, and ``sheet.png`` with all of them."""

    def __init__(self, folder: Path, images: Sequence[LabelledImage], strategies: Sequence[Strategy]) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SamgateError(f"{folder} can't be made: {error.strerror}") from error
        self._folder = folder
        self._names = [strategy.name for strategy in strategies]
        limit = settings_from().limits.max_pixels
        self._photographs = {image.path: decode(image.path.read_bytes(), limit, "image") for image in images}
        self._drawn: dict[tuple[Path, str], tuple[str, UInt8Array]] = {}

    def add(self, scored: Scored) -> None:
        """Draw and write the masks of an answer, if it is for one of the images."""
        image, name, answer = scored.image, scored.strategy.name, scored.answer
        if image.path not in self._photographs:
            return
        drawn = draw_proposals(self._photographs[image.path], answer.proposals)
        self._drawn[image.path, name] = (f"{name}: {len(answer.proposals.rles)} masks, {answer.seconds:.2f} s", drawn)
        write_image(self._folder / f"{image.source}-{image.path.stem}-{name}.png", drawn)

    def write_sheet(self) -> None:
        """All pictures: a row an image, first the photograph, then what each strategy found."""
        rows = [
            [(path.name, fit(photograph)), *(self._drawn[path, name] for name in self._names)]
            for path, photograph in self._photographs.items()
        ]
        write_image(self._folder / "sheet.png", contact_sheet(rows))
