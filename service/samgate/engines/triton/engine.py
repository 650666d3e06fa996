"""Runs a variant's graphs on one or several Triton servers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from samgate.domain import Choose, FloatArray, Survivors
from samgate.engines.base import Capacity, Decoded, Engine, Images, Prompts, ServerHealth
from samgate.engines.triton.served import Served
from samgate.engines.triton.servers import Servers
from samgate.engines.triton.transfer import Call, Found, Output
from samgate.errors import Unavailable
from samgate.repository.models import model_name
from samgate.segevery.coarse import coarse_of
from samgate.variants.graphs import GraphName, graph_specs
from samgate.variants.spec import ShapeProfile, VariantSpec

T = TypeVar("T")


class TritonEngine:
    """One variant on ``servers``.

    A call goes to the server that has the fewest under way. When that one fails, the call goes to another, within the
    deadline; when none is left, to ``fallback`` if there is one; else it waits a while for one to come back. All calls
    can be repeated without harm. Arrays lie in memory that is shared with servers on this machine.

    Args:
        spec: the variant.
        served: what the servers say of it; the same for all.
        servers: see there.
        capacity: how much of which size goes into a call, and how many calls are under way on each of the servers.
        fallback: an engine with the same graphs at the same precision.
    """

    name = "triton"

    def __init__(
        self,
        spec: VariantSpec,
        served: Served,
        servers: Servers,
        capacity: Capacity,
        fallback: Engine | None = None,
    ) -> None:
        self.precision = served.precision
        self._spec = spec
        self._served = served
        self._fallback = fallback
        self._servers = servers
        self._each = capacity

    @property
    def capacity(self) -> Capacity:
        """Of all servers that there are at present."""
        return replace(self._each, parallel_calls=self._each.parallel_calls * max(1, self._servers.count))

    @property
    def lent_bytes(self) -> int:
        """Of the shared memory that is in use, in calls and by who keeps what came of them."""
        region = self._servers.region()
        return region.lent_bytes if region else 0

    async def encode(self, images: Images, deadline: float) -> list[FloatArray]:
        """See :meth:`samgate.engines.base.Engine.encode`."""
        inputs: dict[str, NDArray[Any]] = {"image": images.pixels, "valid": images.valid}
        call = self._call("encoder", inputs, {"N": len(images.pixels)}, apart=True)
        return await self._run(
            call, deadline, lambda found: found["image_embedding"], lambda engine: engine.encode(images, deadline)
        )

    async def decode(self, embeddings: Sequence[FloatArray], prompts: Prompts, deadline: float) -> Decoded:
        """See :meth:`samgate.engines.base.Engine.decode`. A call for each run of embeddings that lie side by side:
        they stay where they are."""
        runs = self._runs(embeddings, prompts)
        if len(runs) == 1:
            return await self._decode(_joined(embeddings), prompts, deadline)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._decode(_joined(embeddings[run]), _share(prompts, run), deadline))
                    for run in runs
                ]
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        decoded = [task.result() for task in tasks]
        return Decoded(
            np.concatenate([one.low_res_masks for one in decoded]),
            np.concatenate([one.iou_predictions for one in decoded]),
        )

    async def survivors(self, embedding: FloatArray, prompts: Prompts, choose: Choose, deadline: float) -> Survivors:
        """See :meth:`samgate.engines.base.Engine.survivors`. First what all masks are worth, then the prompts of
        those that are wanted."""
        if "scores" not in self._spec.graphs:
            whole = await self._decode(embedding[None], prompts, deadline)
            masks, ious = whole.low_res_masks[0], whole.iou_predictions[0]
            chosen = choose(ious, coarse_of(masks)).kept
            return Survivors(masks[chosen[:, 0], chosen[:, 1]], chosen, ious)
        call = self._call("scores", _inputs(embedding[None], prompts), {"P": prompts.coords.shape[1]})
        fallback = self._fallback

        async def nothing(_: Engine) -> tuple[FloatArray, FloatArray] | None:
            return None

        scores = await self._run(
            call, deadline, lambda found: (found["iou_predictions"][0][0], found["coarse_masks"][0][0]), nothing
        )
        if scores is None and fallback is not None:
            return await fallback.survivors(embedding, prompts, choose, deadline)
        if scores is None:
            raise Unavailable(f"no Triton has {self._model('scores')} now")
        ious, coarse = scores
        chosen = choose(ious, coarse).kept
        if not len(chosen):
            size = self._spec.low_res_size
            return Survivors(np.empty((0, size, size), np.float32), chosen, ious)
        wanted, rank = np.unique(chosen[:, 0], return_inverse=True)
        decoded = await self._decode(
            embedding[None], Prompts(prompts.coords[:, wanted], prompts.labels[:, wanted]), deadline
        )
        return Survivors(decoded.low_res_masks[0, rank, chosen[:, 1]], chosen, ious)

    async def healthy(self) -> bool:
        """Whether some server is believed to run both encoder and decoder, or there is a fallback."""
        if self._servers.closed:
            return False
        models = [self._model("encoder"), self._model("decoder")]
        return self._fallback is not None or self._servers.believed_to_run(models)

    def servers(self) -> list[ServerHealth]:
        """See :class:`samgate.engines.base.Remote`."""
        return self._servers.believed()

    async def close(self) -> None:
        """See :meth:`samgate.engines.base.Engine.close`."""
        await self._servers.close()
        if self._fallback is not None:
            await self._fallback.close()

    async def _decode(self, embeddings: FloatArray, prompts: Prompts, deadline: float) -> Decoded:
        inputs = _inputs(embeddings, prompts)
        graph: GraphName = "decoder"
        if prompts.masks is not None and prompts.has_mask is not None:
            inputs |= {"mask_input": prompts.masks, "has_mask": prompts.has_mask}
            graph = "masked_decoder"
        images, count = prompts.coords.shape[:2]
        return await self._run(
            self._call(graph, inputs, {"I": images, "P": count}),
            deadline,
            lambda found: Decoded(found["low_res_masks"][0], found["iou_predictions"][0]),
            lambda engine: engine.decode(list(embeddings), prompts, deadline),
        )

    async def _run(
        self,
        call: Call,
        deadline: float,
        result: Callable[[Found], T],
        instead: Callable[[Engine], Awaitable[T]],
    ) -> T:
        """``call`` wherever it is answered, as ``result`` reads it; ``instead`` is what the fallback does."""
        fallback = self._fallback
        return await self._servers.run(call, deadline, result, None if fallback is None else lambda: instead(fallback))

    def _runs(self, embeddings: Sequence[FloatArray], prompts: Prompts) -> list[slice]:
        """Parts of ``embeddings`` that a call can take without copying what lies in shared memory."""
        region = self._servers.region()
        most = most_images(self._spec.shapes.decoder, prompts)
        offsets = [region.offset_of(one) if region else None for one in embeddings]
        starts = [0]
        for index in range(1, len(embeddings)):
            before, here = offsets[index - 1], offsets[index]
            beside = here is None if before is None else here == before + embeddings[index].nbytes
            if not beside or index - starts[-1] >= most:
                starts.append(index)
        return [slice(start, end) for start, end in pairwise([*starts, len(embeddings)])]

    def _call(
        self, graph: GraphName, inputs: Mapping[str, NDArray[Any]], sizes: Mapping[str, int], apart: bool = False
    ) -> Call:
        outputs = {
            tensor.name: Output(
                np.dtype(tensor.dtype),
                tuple(sizes[axis] if isinstance(axis, str) else axis for axis in tensor.shape),
                apart,
            )
            for tensor in graph_specs(self._spec)[graph].outputs
        }
        return Call(self._model(graph), inputs, outputs)

    def _model(self, graph: GraphName) -> str:
        return model_name(self._spec.name, graph)


def most_images(profiles: Sequence[ShapeProfile], prompts: Prompts) -> int:
    """How many images with as many prompts and points as ``prompts`` has one call may hold."""
    _, count, points, _ = prompts.coords.shape
    return max(
        (one["I"].largest for one in profiles if one["P"].largest >= count and one["K"].largest >= points), default=1
    )


def _inputs(embeddings: FloatArray, prompts: Prompts) -> dict[str, NDArray[Any]]:
    return {"image_embedding": embeddings, "point_coords": prompts.coords, "point_labels": prompts.labels}


def _joined(embeddings: Sequence[FloatArray]) -> FloatArray:
    """As one array: a view of those that lie side by side, whose owner has to keep all of them for as long."""
    first = embeddings[0]
    if len(embeddings) == 1:
        return first[None]
    address = first.__array_interface__["data"][0]
    if all(
        one.__array_interface__["data"][0] == address + index * first.nbytes for index, one in enumerate(embeddings)
    ):
        return np.lib.stride_tricks.as_strided(
            first, (len(embeddings), *first.shape), (first.nbytes, *first.strides), writeable=False
        )
    return np.stack(embeddings)


def _share(prompts: Prompts, images: slice) -> Prompts:
    return Prompts(
        prompts.coords[images],
        prompts.labels[images],
        None if prompts.masks is None else prompts.masks[images],
        None if prompts.has_mask is None else prompts.has_mask[images],
    )
