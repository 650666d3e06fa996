"""The questions that the accuracy gate puts to graphs, and how the graphs' answers are read.

A client's questions: a box is answered by the single-mask token, a point by the best predicted of the multimask tokens,
so that graphs which rank masks otherwise are seen as well as graphs which draw them otherwise.
"""

from __future__ import annotations

import importlib
import statistics
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from samgate.domain import FloatArray, Frame, Prompt
from samgate.engines.base import Images
from samgate.engines.blocks import sketch
from samgate.engines.cpu import usable_cores
from samgate.engines.embedded import Graph
from samgate.evaluation.dataset import Instance
from samgate.evaluation.prompts import box_prompt, centre_point
from samgate.segevery.coarse import outlines
from samgate.segevery.parameters import GridParameters
from samgate.serving.prompting import group_prompts
from samgate.variants.graphs import TERMS, GraphName
from samgate.variants.spec import Arithmetic, PrecisionPlan, VariantSpec

Runtime = Literal["openvino", "onnxruntime"]
PromptKind = Literal["box", "point"]
Graphs = Mapping[GraphName, Graph]
TIMED: tuple[GraphName, ...] = ("encoder", "decoder")
"""Graphs whose speed is told."""
Question = tuple[GraphName, PromptKind]
"""Which graph makes, or ranks, the masks for prompts of which kind."""
Answers = Mapping[Question, FloatArray]
"""Logits float32 ``[P, 256, 256]``, one mask a prompt."""

_NO_POINTS, _NO_LABELS = np.zeros((0, 2), np.float32), np.zeros(0, np.int32)
_FOREGROUND = np.ones(1, np.int32)
_GRID = (0.25, 0.75)


class _Loader(Protocol):
    def load_graph(self, path: Path, precision: str, threads: int, batch: int | None = None) -> Graph: ...


class Stopwatch:
    """A graph that remembers how long its calls took."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._seconds: list[float] = []

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        started = time.perf_counter()
        outputs = self._graph(inputs)
        self._seconds.append(time.perf_counter() - started)
        return outputs

    @property
    def milliseconds(self) -> float:
        """The median over its calls."""
        return 1000 * statistics.median(self._seconds)


def load_graphs(
    files: Mapping[GraphName, Path], names: Iterable[GraphName], plan: PrecisionPlan, runtime: Runtime
) -> dict[GraphName, Stopwatch]:
    """The graphs ``names`` of ``files``. Raises CompileError."""
    loader = cast("_Loader", importlib.import_module(f"samgate.engines.{runtime}"))

    def load(name: GraphName) -> Stopwatch:
        precision = _hint(plan.encoder if name == "encoder" else plan.decoder, plan, runtime)
        return Stopwatch(loader.load_graph(files[name], precision, usable_cores(), 1 if name == "encoder" else None))

    return {name: load(name) for name in names}


def prompts_for(instances: Sequence[Instance], frame: Frame) -> dict[PromptKind, list[Prompt]]:
    """A box and a point for each object, or a grid of points where there are no objects: points always."""
    height, width = frame.original
    centres = [centre_point(one.mask()) for one in instances] or [(x * width, y * height) for y in _GRID for x in _GRID]
    points = [Prompt(np.array([centre], np.float32), _FOREGROUND) for centre in centres]
    boxes = [Prompt(_NO_POINTS, _NO_LABELS, np.array(box_prompt(one), np.float32)) for one in instances]
    return {"box": boxes, "point": points} if boxes else {"point": points}


def ask(
    spec: VariantSpec,
    graphs: Graphs,
    image: Images,
    frame: Frame,
    prompts: Mapping[PromptKind, Sequence[Prompt]],
    expected: Answers,
) -> Answers:
    """What ``graphs`` answer.

    Args:
        image: a batch of one, which lies in ``frame``.
        expected: f32's answers, empty for f32 itself. Second rounds start from its masks, so that only the graph
            that makes the second differs.
    """
    (embedding,) = graphs["encoder"]({"image": image.pixels, "valid": image.valid})
    inputs = {kind: _inputs(spec, embedding, frame, members) for kind, members in prompts.items()}
    answers: dict[Question, FloatArray] = {}
    for kind, feeds in inputs.items():
        tokens = spec.single_tokens if kind == "box" else spec.multimask_tokens
        masks, ious = (output[0] for output in graphs["decoder"](feeds))
        answers["decoder", kind] = best(masks[:, tokens], ious[:, tokens])
        if kind == "point":
            points = np.stack([prompt.points[0] for prompt in prompts[kind]])
            answers |= {(name, kind): one for name, one in _ranked(spec, graphs, feeds, masks, points, frame)}
    if "masked_decoder" in graphs:
        earlier = expected.get(("decoder", "point"), answers["decoder", "point"])[None, :, None]
        present = np.ones(earlier.shape[:2], np.float32)
        feeds = inputs["point"] | {"mask_input": earlier, "has_mask": present}
        masks, ious = (output[0] for output in graphs["masked_decoder"](feeds))
        answers["masked_decoder", "point"] = best(masks[:, spec.single_tokens], ious[:, spec.single_tokens])
    return answers


def _inputs(
    spec: VariantSpec, embedding: FloatArray, frame: Frame, prompts: Sequence[Prompt]
) -> dict[str, NDArray[Any]]:
    (group,) = group_prompts(prompts, frame, spec, len(prompts))
    coords, labels = group.prompts.coords, group.prompts.labels
    return {"image_embedding": embedding, "point_coords": coords, "point_labels": labels}


def _ranked(
    spec: VariantSpec,
    graphs: Graphs,
    inputs: Mapping[str, NDArray[Any]],
    masks: FloatArray,
    points: FloatArray,
    frame: Frame,
) -> Iterator[tuple[GraphName, FloatArray]]:
    """The answers of the graphs that SegEvery runs to ``points`` ``[P, 2]`` of the image. ``masks`` ``[P, M, 256,
    256]`` are the decoder's."""
    tokens = spec.multimask_tokens
    if "scores" in graphs:
        scores, _ = graphs["scores"](inputs)
        yield "scores", best(masks[:, tokens], scores[0][:, tokens])
    if "upscale" in graphs:
        terms = dict(zip(TERMS, graphs["terms"]({"image_embedding": inputs["image_embedding"]}), strict=True))
        prompts = {name: inputs[name] for name in ("point_coords", "point_labels")}
        attended = graphs["attend"]({name: terms[name] for name in TERMS[:-1]} | prompts)
        ious, coarse = (output[0] for output in attended[:2])
        every = np.arange(len(points))
        best_token = np.array(tokens, np.int32)[ious[:, tokens].argmax(axis=1)]
        offset = GridParameters().stability_score_offset
        blocks = outlines(coarse[every, best_token], points, frame, spec.mask_threshold, offset)
        made = np.empty((len(points), spec.low_res_size, spec.low_res_size), np.float32)
        for prompt in range(len(points)):
            one = slice(prompt, prompt + 1)
            drawing = sketch(terms, attended, prompt, best_token[one], blocks[one])
            drawing.finish([graphs["upscale"](part.inputs)[0] for part in drawing.parts], made[one])
        yield "upscale", made


def best(masks: FloatArray, ious: FloatArray) -> FloatArray:
    """Of ``masks`` ``[P, C, 256, 256]`` those with the highest of ``ious`` ``[P, C]``: ``[P, 256, 256]``."""
    found: FloatArray = masks[np.arange(len(masks)), ious.argmax(axis=1)]
    return found


def _hint(arithmetic: Arithmetic, plan: PrecisionPlan, runtime: Runtime) -> str:
    """What the runtime is told: int8 is in the graph, and what is beside it runs as the decoder does."""
    if runtime == "onnxruntime":
        return "f32"
    return plan.decoder if arithmetic == "int8" else arithmetic
