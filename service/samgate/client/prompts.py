"""Plain lists and arrays → :class:`samgate.domain.Prompt`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from samgate.domain import FloatArray, Prompt
from samgate.errors import InvalidArgument

LOW_RES_SIDE = 256


def prompt(
    points: ArrayLike | None = None,
    labels: ArrayLike | None = None,
    box: ArrayLike | None = None,
    mask_logits: ArrayLike | None = None,
    *,
    text: str | None = None,
) -> Prompt:
    """One object to segment, from any mix of its arguments but none at all, or from ``text`` alone.

    Args:
        points: ``[K, 2]``, or one point ``[2]``: (x, y) in image pixels.
        labels: ``[K]``, 1 foreground and 0 background; all foreground if absent.
        box: ``[4]``: x0, y0, x1, y1 in image pixels.
        mask_logits: ``[256, 256]`` or ``[1, 256, 256]``: ``Mask.low_res_logits`` of an earlier answer.
        text: words for it, such as ``a black dog``, for variants and servers that take them.

    Raises :class:`~samgate.errors.InvalidArgument` that names the argument whose shape or value is wrong.
    """
    if text is not None:
        _check_text(text, (points, labels, box, mask_logits))
    elif points is None and box is None and mask_logits is None:
        raise InvalidArgument("prompt", "needs points, a box, mask logits or a text")
    coords = np.zeros((0, 2), np.float32) if points is None else _points(points)
    kinds = np.ones(len(coords), np.int32) if labels is None else np.asarray(labels).reshape(-1)
    if len(kinds) != len(coords):
        raise InvalidArgument("labels", f"must be one for each of {len(coords)} points, are {len(kinds)}")
    if not np.isin(kinds, (0, 1)).all():
        raise InvalidArgument("labels", f"must be 1 (foreground) or 0 (background), are {kinds.tolist()}")
    return Prompt(
        points=coords,
        labels=kinds.astype(np.int32),
        box=None if box is None else _floats("box", box, (4,)),
        mask_logits=None if mask_logits is None else _floats("mask_logits", mask_logits, (LOW_RES_SIDE, LOW_RES_SIDE)),
        text=text or "",
    )


def one_or_many(
    prompts: Sequence[Prompt] | None,
    points: ArrayLike | None,
    labels: ArrayLike | None,
    box: ArrayLike | None,
    mask_logits: ArrayLike | None,
    text: str | None = None,
) -> Sequence[Prompt]:
    """``prompts``, or the one prompt that the other arguments describe. Raises
    :class:`~samgate.errors.InvalidArgument` if both or neither are given."""
    if prompts is None:
        return [prompt(points, labels, box, mask_logits, text=text)]
    if any(argument is not None for argument in (points, labels, box, mask_logits, text)):
        raise InvalidArgument("prompts", "can't be combined with points, labels, box, mask_logits or text")
    if not prompts:
        raise InvalidArgument("prompts", "must hold at least one prompt, is empty")
    return prompts


def _check_text(text: str, others: Sequence[ArrayLike | None]) -> None:
    if any(argument is not None for argument in others):
        raise InvalidArgument("text", "stands alone: it can't be combined with points, labels, box or mask_logits")
    if not text.strip():
        raise InvalidArgument("text", f"must hold words, is {text!r}")


def _points(points: ArrayLike) -> FloatArray:
    coords = _numbers("points", points)
    if coords.shape == (2,):
        coords = coords[None]
    if coords.ndim != 2 or coords.shape[1] != 2:
        raise InvalidArgument("points", f"must be [K, 2] (x, y), has shape {list(coords.shape)}")
    return coords


def _floats(name: str, values: ArrayLike, shape: tuple[int, ...]) -> FloatArray:
    array = _numbers(name, values)
    if array.shape not in (shape, (1, *shape)):
        raise InvalidArgument(name, f"must have shape {list(shape)}, has {list(array.shape)}")
    return array.reshape(shape)


def _numbers(name: str, values: ArrayLike) -> FloatArray:
    try:
        return np.asarray(values, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise InvalidArgument(name, f"must be numbers: {error}") from error
