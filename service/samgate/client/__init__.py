"""Python clients of a samgate server, and drop-ins for segment_anything's predictor and mask generator.

    with Client("127.0.0.1:50051") as client:
        mask = client.segment("dog.jpg", points=[[500, 375]], selection="best").masks[0].to_numpy()

Calls raise :class:`samgate.errors.SamgateError` and its subclasses.
"""

from __future__ import annotations

from samgate.client.aio import AsyncClient
from samgate.client.generator import SamAutomaticMaskGenerator
from samgate.client.images import ImageLike
from samgate.client.predictor import SamPredictor
from samgate.client.prompts import prompt
from samgate.client.requests import EverythingOptions, GridOptions, Priority, Strategy
from samgate.client.results import (
    AnswerInfo,
    Decision,
    EmbeddedImage,
    Everything,
    EverythingEvent,
    EverythingMask,
    EverythingSummary,
    Handle,
    Mask,
    OperatingPointInfo,
    Progress,
    Retraction,
    Segmentation,
    Timings,
    VariantInfo,
)
from samgate.client.sync import Client
from samgate.domain import Format, Prompt, Selection

__all__ = [
    "AnswerInfo",
    "AsyncClient",
    "Client",
    "Decision",
    "EmbeddedImage",
    "Everything",
    "EverythingEvent",
    "EverythingMask",
    "EverythingOptions",
    "EverythingSummary",
    "Format",
    "GridOptions",
    "Handle",
    "ImageLike",
    "Mask",
    "OperatingPointInfo",
    "Priority",
    "Progress",
    "Prompt",
    "Retraction",
    "SamAutomaticMaskGenerator",
    "SamPredictor",
    "Segmentation",
    "Selection",
    "Strategy",
    "Timings",
    "VariantInfo",
    "prompt",
]
