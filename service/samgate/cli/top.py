"""``samgate top``: what servers do right now."""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from samgate.cli.output import number, output_file
from samgate.errors import InvalidArgument, SamgateError, Unavailable

if TYPE_CHECKING:
    from rich.console import RenderableType

    from samgate.top.figures import Figures
    from samgate.top.scrape import Scrape

_DESCRIPTION = """\
Show what servers do: load, deadlines met, variants, queue, scheduler, cache and engines, from their /metrics. Figures
are of the time between two looks. Of several servers each has a line, and the tables are of all of them together. A
server that is away is asked again. Ctrl-C ends it."""

_EXAMPLES = """\
examples:
  samgate top
  samgate top --metrics http://10.0.0.1:8080/metrics --metrics http://10.0.0.2:8080/metrics --token-file token
  samgate top --once --interval 10 >> load.log"""

_URL = "http://127.0.0.1:8080/metrics"
_WIDTH = 120
"""Of pictures."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "top",
        help="show what servers do right now",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--metrics", metavar="URL", action="append", type=_url, help=f"of a server; may be repeated (default {_URL})"
    )
    parser.add_argument(
        "--interval", metavar="S", type=number("--interval", least=0.1), default=2.0, help="between looks (default 2)"
    )
    parser.add_argument("--token-file", metavar="FILE", type=Path, help="with the bearer token that /metrics wants")
    parser.add_argument("--once", action="store_true", help="look twice, print once, end; status 1 if nobody answers")
    parser.add_argument("--svg", metavar="FILE", type=output_file(".svg"), help="with --once: a picture as well")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Look until told to stop."""
    from rich.console import Console

    if options.svg and not options.once:
        raise InvalidArgument("--svg", "is for --once")
    watcher = Watcher(list(dict.fromkeys(options.metrics or [_URL])), _token(options.token_file))
    try:
        if not options.once:
            return _watch(watcher, options.interval)
        watcher.look()
        time.sleep(options.interval)
        watcher.look()
        width = _WIDTH if options.svg else None
        console = Console(record=bool(options.svg), width=width, markup=False, highlight=False)
        console.print(watcher.show(console.width))
        if options.svg:
            _picture(console.export_svg(title="samgate top"), options.svg)
        return 0 if watcher.answering() else 1
    except KeyboardInterrupt:
        return 0
    finally:
        watcher.close()


def _watch(watcher: Watcher, interval_s: float) -> int:
    from rich.console import Console
    from rich.live import Live

    console = Console(markup=False, highlight=False)
    with Live(console=console, screen=console.is_terminal, auto_refresh=False) as live:
        while True:
            watcher.look()
            live.update(watcher.show(console.width), refresh=True)
            time.sleep(interval_s)


class Watcher:
    """Keeps the last two scrapes of each server at ``urls``, which are asked side by side."""

    def __init__(self, urls: Sequence[str], token: str | None) -> None:
        self._token = token
        self._threads = ThreadPoolExecutor(len(urls))
        self._scrapes: dict[str, list[Scrape]] = {url: [] for url in urls}
        self._away: dict[str, str] = {}

    def look(self) -> None:
        """Scrape all servers; one that doesn't answer begins anew when it does."""
        for url, found in zip(self._scrapes, self._threads.map(self._scrape, self._scrapes), strict=True):
            if isinstance(found, Unavailable):
                self._away[url] = str(found)
                self._scrapes[url].clear()
            else:
                self._away.pop(url, None)
                self._scrapes[url] = [*self._scrapes[url][-1:], found]

    def answering(self) -> bool:
        """Whether any server does."""
        return len(self._away) < len(self._scrapes)

    def show(self, width: int) -> RenderableType:
        """What is known, for a terminal of ``width`` columns."""
        from samgate.top.figures import figures
        from samgate.top.view import view

        pairs = {url: (looks[0], looks[1]) for url, looks in self._scrapes.items() if len(looks) == 2}
        known: dict[str, Figures | str | None] = {
            url: figures([pairs[url]]) if url in pairs else self._away.get(url) for url in self._scrapes
        }
        named = {urlsplit(url).netloc if url not in self._away else url: found for url, found in known.items()}
        return view(figures(list(pairs.values())) if pairs else None, named, width)

    def close(self) -> None:
        """Stop asking."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _scrape(self, url: str) -> Scrape | Unavailable:
        from samgate.top.scrape import scrape

        try:
            return scrape(url, self._token)
        except Unavailable as error:
            return error


def _url(text: str) -> str:
    try:
        where = urlsplit(text)
        good = where.scheme in ("http", "https") and bool(where.hostname) and where.port != 0
    except ValueError:
        good = False
    if not good:
        raise argparse.ArgumentTypeError(f"{text!r} is not a URL such as {_URL}")
    return text


def _token(file: Path | None) -> str | None:
    if file is None:
        return None
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise SamgateError(f"{file} can't be read: {getattr(error, 'strerror', None) or error}") from error


def _picture(svg: str, file: Path) -> None:
    from samgate.cli.files import write_bytes

    # Whoever looks at it fetches no font from anywhere.
    write_bytes(file, re.sub(r"@font-face\s*\{[^}]*\}", "", svg).encode())
