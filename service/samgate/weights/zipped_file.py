"""A torch checkpoint inside a zip archive, which is how upstream keeps one that is too large for its repository."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from samgate.errors import WeightsError
from samgate.weights.formats import load_state_dict

MOST_BYTES = 1 << 29
"""That a checkpoint may unpack to: five times EfficientSAM-S."""
_MAC = "__MACOSX/"
"""Where archives that a Mac made have notes about their files."""


def read(files: Mapping[str, Path]) -> Mapping[str, Any]:
    """The state dict in the one of ``files``, a checkpoint or an archive of nothing but one.

    Raises:
        WeightsError: as :func:`~samgate.weights.formats.load_state_dict`, and for several files, an archive of
            something else, or one that is damaged or unpacks to more than :data:`MOST_BYTES`.
    """
    if len(files) != 1:
        raise WeightsError(
            f"one file is needed, a .pt or the .zip of one, not {len(files)}: {', '.join(sorted(files))}"
        )
    (path,) = files.values()
    # The tensors lie in what is unpacked; they keep it when its name is gone.
    with tempfile.TemporaryDirectory() as folder:
        return load_state_dict(_unpacked(path, Path(folder)))


def _unpacked(path: Path, folder: Path) -> Path:
    """``path``, or the checkpoint in it, in ``folder``. Checkpoints are archives themselves, with a member for every
    tensor and one for how they belong together."""
    if not zipfile.is_zipfile(path):
        return path
    try:
        with zipfile.ZipFile(path) as archive:
            members = [item for item in archive.infolist() if not item.is_dir() and not item.filename.startswith(_MAC)]
            if any(item.filename.endswith("/data.pkl") for item in members):
                return path
            if len(members) != 1:
                raise WeightsError(f"{path.name} holds {len(members)} files instead of one checkpoint")
            (member,) = members
            if member.file_size > MOST_BYTES:
                raise WeightsError(
                    f"{path.name} is refused: it unpacks to {member.file_size:,} bytes; the limit is {MOST_BYTES:,}"
                )
            # Not by the member's name, which may point anywhere. No more is read than it says it holds.
            target = folder / "checkpoint.pt"
            with archive.open(member) as packed, target.open("wb") as file:
                shutil.copyfileobj(packed, file)
            return target
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise WeightsError(f"{path.name} can't be unpacked: {error}") from error
