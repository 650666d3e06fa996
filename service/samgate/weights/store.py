"""Installed weights: one safetensors file per set of weights, which carries the origin of what is in it.

Variants may share a set (:attr:`samgate.variants.spec.NetworkSpec.weights_name`): what one installs, all have.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from samgate.errors import NotInstalled, WeightsError
from samgate.variants.spec import NetworkSpec
from samgate.weights.home import atomic_write, home_folder, remove_leftovers, sha256_file

logger = logging.getLogger(__name__)

StateDict = dict[str, npt.NDArray[Any]]

_METADATA_KEY = "samgate"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where weights are from.

    Attributes:
        variant: the name of the weights, which is that of the variant they were published as.
        source: the URL, ``npm:package@version``, or ``file:name`` for a file that no source of the variant names.
        files: SHA-256 of every file that was read, by its name.
    """

    variant: str
    source: str
    files: dict[str, str]


@dataclass(frozen=True, slots=True)
class WeightsInfo:
    """Installed weights: ``path`` of the safetensors file, ``sha256`` of its content, and their ``origin``."""

    path: Path
    sha256: str
    origin: Origin


def weights_path(spec: NetworkSpec) -> Path:
    """Where the variant's weights are once they are installed."""
    return home_folder("weights", create=False) / f"{spec.weights_name}.safetensors"


def installed(spec: NetworkSpec) -> WeightsInfo | None:
    """What is installed of ``spec``; None when nothing is, or when the file is damaged (which is logged)."""
    path = weights_path(spec)
    try:
        origin = _read_origin(path)
        return WeightsInfo(path=path, sha256=sha256_file(path), origin=origin)
    except FileNotFoundError:
        return None
    except (safetensors.SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        logger.warning("%s can't be used (%s): `samgate pull %s` replaces it", path, error, spec.name)
        return None


def load(spec: NetworkSpec) -> StateDict:
    """The installed state dict, by upstream's names.

    Raises:
        NotInstalled: nothing is installed.
        WeightsError: the file is damaged.
    """
    path = weights_path(spec)
    try:
        return safetensors.numpy.load_file(path)
    except FileNotFoundError:
        raise NotInstalled(f"the weights of {spec.name} are not installed: run `samgate pull {spec.name}`") from None
    except (safetensors.SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is damaged ({error}): run `samgate pull {spec.name} --force`") from error


def save(spec: NetworkSpec, state: Mapping[str, npt.NDArray[Any]], origin: Origin) -> WeightsInfo:
    """Installs ``state``. The same weights from the same origin always give the same file, byte for byte.

    The caller holds the lock of :func:`samgate.weights.pull.pull`.

    Raises:
        WeightsError: the file can't be written.
    """
    tensors = {name: np.asarray(value, order="C") for name, value in sorted(state.items())}
    # One key only: safetensors writes several in an order that differs from run to run.
    metadata = {_METADATA_KEY: json.dumps(asdict(origin), sort_keys=True)}
    path = home_folder("weights") / weights_path(spec).name
    try:
        remove_leftovers(path)
        # Not as bytes first: of the largest networks there would be three copies in memory.
        atomic_write(path, lambda part: safetensors.numpy.save_file(tensors, part, metadata=metadata))
        return WeightsInfo(path=path, sha256=sha256_file(path), origin=origin)
    except OSError as error:
        raise WeightsError(f"{path} can't be written: {error}") from error


def _read_origin(path: Path) -> Origin:
    with safetensors.safe_open(path, framework="np") as file:
        return Origin(**json.loads((file.metadata() or {})[_METADATA_KEY]))
