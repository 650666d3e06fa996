"""Prompts in image pixels → the decoder's arrays, grouped so that every group is one rectangular call. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from samgate.domain import FloatArray, Frame, IntArray, Prompt, Selection
from samgate.engines.base import Prompts
from samgate.errors import InvalidArgument
from samgate.variants.spec import PaddingPoint, SingleMask, VariantSpec

PAD_LABEL = -1
BACKGROUND_LABEL = 0
BOX_LABELS = (2, 3)
STABLE_OFFSET, STABLE = 0.05, 0.98


@dataclass(frozen=True, slots=True)
class PromptGroup:
    """Prompts that fit one decoder call: equally many points each, and all or none with a mask.

    ``indices`` are their places in the request; ``prompts`` has I = 1.
    """

    indices: tuple[int, ...]
    prompts: Prompts

    @property
    def key(self) -> tuple[int, int, bool]:
        """Groups of equal key, of whatever requests, can be stacked along I into one call; those of one image whose
        keys differ in P alone can be joined along P."""
        _, p, k, _ = self.prompts.coords.shape
        return (p, k, self.prompts.masks is not None)


def unsupported(prompts: Sequence[Prompt], spec: VariantSpec) -> InvalidArgument | None:
    """What is the matter with the first of a request's ``prompts`` that ``spec``'s system wasn't made for; None when it
    was made for all."""
    support, name = spec.prompts, spec.name
    for index, prompt in enumerate(prompts):
        field = f"prompts[{index}]"
        if prompt.text and not support.text:
            return InvalidArgument(f"{field}.text", f"is given; {name} takes no words")
        if prompt.mask_logits is not None and not support.mask:
            return InvalidArgument(f"{field}.mask_logits", f"is given; {name} takes no masks")
        background = np.flatnonzero(prompt.labels == BACKGROUND_LABEL)
        if background.size and not support.background:
            return InvalidArgument(
                f"{field}.points[{background[0]}].label", f"is BACKGROUND; {name} takes foreground points alone"
            )
        given, box = len(prompt.labels), prompt.box is not None
        if support.most_points is not None and given + 2 * box > support.most_points:
            counted = f"{given}, and the box counts as two" if box else f"{given}"
            return InvalidArgument(f"{field}.points", f"has {counted}; the limit of {name} is {support.most_points}")
    return None


def group_prompts(prompts: Sequence[Prompt], frame: Frame, spec: VariantSpec, max_prompts: int) -> list[PromptGroup]:
    """``prompts`` but those in words, in groups of at most ``max_prompts``. Points are never padded beyond upstream's
    own padding point, because a further one would change the masks."""
    tokens = [_tokens(prompt, frame, spec) for prompt in prompts]
    by_shape: dict[tuple[int, bool], list[int]] = {}
    for index, (prompt, (_, labels)) in enumerate(zip(prompts, tokens, strict=True)):
        if prompt.text:
            continue
        by_shape.setdefault((len(labels), prompt.mask_logits is not None), []).append(index)
    groups = []
    for (_, masked), members in by_shape.items():
        for start in range(0, len(members), max_prompts):
            chunk = members[start : start + max_prompts]
            masks = has_mask = None
            if masked:
                masks = np.stack([_mask(prompts[index]) for index in chunk])[None]
                has_mask = np.ones((1, len(chunk)), np.float32)
            coords = np.stack([tokens[index][0] for index in chunk])[None]
            labels = np.stack([tokens[index][1] for index in chunk])[None]
            groups.append(PromptGroup(tuple(chunk), Prompts(coords, labels, masks, has_mask)))
    return groups


def point_group(points: FloatArray, frame: Frame, spec: VariantSpec) -> Prompts:
    """One foreground point a prompt, as SegEvery asks: ``points`` float32 ``[P, 2]`` in the frame's image pixels.

    Where graphs are made for SegEvery, they are SAM's, whose generator has a padding point even in NanoSAM.
    """
    prompts = [Prompt(point[None], np.ones(1, np.int32)) for point in points]
    asked = replace(spec, padding_point=PaddingPoint.WITHOUT_BOX) if "scores" in spec.graphs else spec
    return group_prompts(prompts, frame, asked, len(prompts))[0].prompts


def box_group(boxes: FloatArray, frame: Frame, spec: VariantSpec) -> Prompts:
    """One box a prompt, as its two corners: ``boxes`` float32 ``[P, 4]`` (x0, y0, x1, y1) in the frame's image
    pixels."""
    nothing = np.zeros((0, 2), np.float32), np.zeros(0, np.int32)
    prompts = [Prompt(*nothing, box=box) for box in boxes]
    return group_prompts(prompts, frame, spec, len(prompts))[0].prompts


def stack(groups: Sequence[Prompts]) -> Prompts:
    """Groups of one key as one call: I is the number of groups."""
    return _together(groups, axis=0)


def join(groups: Sequence[Prompts]) -> Prompts:
    """Groups of prompts on the same image, of equally many points each, as one call: P is the sum of theirs."""
    return _together(groups, axis=1)


def _together(groups: Sequence[Prompts], axis: int) -> Prompts:
    if len(groups) == 1:
        return groups[0]
    masks = [group.masks for group in groups if group.masks is not None]
    has_mask = [group.has_mask for group in groups if group.has_mask is not None]
    return Prompts(
        np.concatenate([group.coords for group in groups], axis),
        np.concatenate([group.labels for group in groups], axis),
        np.concatenate(masks, axis) if masks else None,
        np.concatenate(has_mask, axis) if has_mask else None,
    )


def select(masks: FloatArray, ious: FloatArray, selection: Selection, spec: VariantSpec) -> tuple[int, ...]:
    """Which of a prompt's mask tokens are answered: low-res logits ``masks`` float32 ``[M, 256, 256]``, predicted
    ``ious`` float32 ``[M]``."""
    if selection is Selection.MULTI:
        return spec.multimask_tokens
    if selection is Selection.SINGLE:
        stable = spec.single_mask is SingleMask.STABLE_OR_BEST and _is_stable(masks[spec.single_mask_token])
        if stable or spec.single_mask is SingleMask.TOKEN:
            return (spec.single_mask_token,)
    return (max(spec.best_tokens, key=lambda token: float(ious[token])),)


def _is_stable(logits: FloatArray) -> bool:
    """SAM 2's ``dynamic_multimask_via_stability``, with the constants that all of its configurations have."""
    inner, outer = (int(np.count_nonzero(logits > offset)) for offset in (STABLE_OFFSET, -STABLE_OFFSET))
    return outer == 0 or bool(np.float32(inner) / np.float32(outer) >= STABLE)


def _tokens(prompt: Prompt, frame: Frame, spec: VariantSpec) -> tuple[FloatArray, IntArray]:
    coords, labels = [frame.to_prompt(prompt.points.reshape(-1, 2) + np.float32(spec.point_offset))], [prompt.labels]
    if prompt.box is not None:
        coords.append(frame.to_prompt(prompt.box.reshape(2, 2)))
        labels.append(np.array(BOX_LABELS, np.int32))
    missing = _padding(sum(map(len, labels)), prompt.box is not None, spec)
    coords.append(np.full((missing, 2), spec.padding_coordinate, np.float32))
    labels.append(np.full(missing, PAD_LABEL, np.int32))
    return np.concatenate(coords).astype(np.float32), np.concatenate(labels).astype(np.int32)


def _padding(points: int, box: bool, spec: VariantSpec) -> int:
    """How many padding points follow ``points``, among them the corners of a ``box``."""
    if not points:
        return 0
    match spec.padding_point:
        case PaddingPoint.WITHOUT_BOX:
            return int(not box)
        case PaddingPoint.ALWAYS:
            return 1
        case PaddingPoint.NEVER:
            return 0
        case PaddingPoint.TO_MOST:
            return max(0, (spec.prompts.most_points or points) - points)


def _mask(prompt: Prompt) -> FloatArray:
    if prompt.mask_logits is None:
        raise ValueError("a prompt without a mask in a group of prompts with masks")
    return prompt.mask_logits[None]
