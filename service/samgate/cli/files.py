"""What commands write."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from samgate.errors import SamgateError


def write_json(target: str | Path, answer: object) -> None:
    """``answer`` as JSON to a file, or to standard output for ``-``. Raises SamgateError if it can't be written."""
    text = json.dumps(answer, indent=2, ensure_ascii=False) + "\n"
    if str(target) == "-":
        sys.stdout.write(text)
    else:
        write_bytes(Path(target), text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Raises SamgateError if ``path`` can't be written."""
    try:
        path.write_bytes(data)
    except OSError as error:
        raise SamgateError(f"{path} can't be written: {error.strerror}") from error
