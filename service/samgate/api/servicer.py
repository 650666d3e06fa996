"""The Segmentation service: proto in, gateway, proto out. No logic of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from samgate.api import answers, validation
from samgate.api.calls import CURRENT
from samgate.api.v1 import segmentation_pb2 as pb
from samgate.api.v1 import segmentation_pb2_grpc as rpc
from samgate.serving.everything import EverythingDone
from samgate.serving.gateway import Gateway
from samgate.variants import VARIANTS


class Segmentation(rpc.SegmentationServicer):
    """Serves ``gateway``. The gate (``api/gate.py``) has let the call in, and tells who asks and until when."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._limits = gateway.settings.limits

    async def Segment(self, request: pb.SegmentRequest, _: Any) -> pb.SegmentResponse:
        """See the proto."""
        call = CURRENT.get()
        wanted = validation.segment_call(request, self._limits, call)
        call.priority = wanted.wish.priority
        results, call.trace = await self._gateway.segment(wanted)
        return answers.segment_response(results, wanted.format, call.trace, call)

    async def SegmentEverything(
        self, request: pb.SegmentEverythingRequest, _: Any
    ) -> AsyncIterator[pb.SegmentEverythingResponse]:
        """See the proto."""
        call = CURRENT.get()
        wanted = validation.everything_call(request, self._limits, call)
        async with aclosing(self._gateway.everything(wanted)) as events:
            async for event in events:
                if isinstance(event, EverythingDone):
                    call.trace = event.trace
                yield answers.everything_response(event, wanted.format, call)

    async def Embed(self, request: pb.EmbedRequest, _: Any) -> pb.EmbedResponse:
        """See the proto."""
        call = CURRENT.get()
        image, wish = validation.image_of(request.image), validation.wish_of(request, call)
        call.priority = wish.priority
        call.trace = await self._gateway.embed(image, wish)
        width, height = call.trace.size
        return pb.EmbedResponse(
            handle=call.trace.handle,
            width=width,
            height=height,
            expires_in_s=self._gateway.settings.cache.ttl_s,
            info=answers.info_message(call.trace, call),
        )

    async def ListVariants(self, _: pb.ListVariantsRequest, __: Any) -> pb.ListVariantsResponse:
        """See the proto."""
        return pb.ListVariantsResponse(
            variants=[
                answers.variant_message(spec, self._gateway.models.values(), self._gateway.profile)
                for spec in VARIANTS.values()
            ]
        )
