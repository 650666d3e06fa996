"""Entry point of the ``samgate`` command."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from samgate import __version__
from samgate.cli import (
    bench,
    distill,
    evaluate,
    everything,
    load,
    profile,
    repository,
    segment,
    serve,
    simulate,
    token,
    top,
    triton,
    weights,
)
from samgate.cli import compile as compile_
from samgate.errors import SamgateError

INTERRUPTED, TERMINATED = 130, 143


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(
        prog="samgate",
        description="Serve and use the efficient variants of Segment Anything.",
        epilog="Start with: samgate serve --pull     Then: samgate segment PHOTO.jpg --point 500,375 -o mask.png",
    )
    parser.add_argument("--version", action="version", version=f"samgate {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    serve.add_parser(commands)
    segment.add_parser(commands)
    everything.add_parser(commands)
    weights.add_parsers(commands)
    evaluate.add_parser(commands)
    compile_.add_parser(commands)
    bench.add_parser(commands)
    distill.add_parser(commands)
    profile.add_parser(commands)
    simulate.add_parser(commands)
    load.add_parser(commands)
    repository.add_parser(commands)
    triton.add_parser(commands)
    token.add_parser(commands)
    top.add_parser(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status is 0, 1 for an error that is told on standard error, 2 for bad usage."""
    options = build_parser().parse_args(arguments)
    if arguments is None:
        # What runs on behalf of the command, such as servers of a benchmark, is to end with it.
        signal.signal(signal.SIGTERM, _terminated)
    try:
        status: int = options.run(options)
    except SamgateError as error:
        print(f"samgate: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone (`| head`): there is nobody left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


def _terminated(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    sys.exit(TERMINATED)


if __name__ == "__main__":
    sys.exit(main())
