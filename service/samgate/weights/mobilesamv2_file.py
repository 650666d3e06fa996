"""MobileSAMv2's weights, which come in two files: upstream's script puts the network together of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from samgate.errors import WeightsError
from samgate.weights.formats import load_checkpoint

_ENCODER = "image_encoder."
_DECODER = {"PromtEncoder": "prompt_encoder.", "MaskDecoder": "mask_decoder."}
"""Upstream's names for its parts, and what they are called in one network."""


def read(files: Mapping[str, Path]) -> dict[str, Any]:
    """The state dict of the whole out of the encoder's file (``l2.pt``) and the decoder's
    (``Prompt_guided_Mask_Decoder.pt``); which is which shows in what they hold.

    What else lies beside them, such as the detector's file, is left alone: also one that isn't safe to read.

    Raises:
        WeightsError: torch is not installed, or one of both is missing, damaged or unsafe.
    """
    state: dict[str, Any] = {}
    refused = []
    for path in files.values():
        try:
            state |= _weights(load_checkpoint(path))
        except WeightsError as error:
            refused.append(str(error))
    parts = {"the encoder's (upstream's l2.pt)": [_ENCODER]}
    parts["the decoder's (upstream's Prompt_guided_Mask_Decoder.pt)"] = list(_DECODER.values())
    missing = [
        name
        for name, prefixes in parts.items()
        if not all(any(key.startswith(prefix) for key in state) for prefix in prefixes)
    ]
    if missing:
        reasons = "".join(f"; {reason}" for reason in refused)
        raise WeightsError(
            f"MobileSAMv2's weights are two files, to be given as the folder that both are in; "
            f"missing: {' and '.join(missing)}{reasons}"
        )
    return state


def _weights(content: Any) -> dict[str, Any]:
    """What a file holds of the network, by the network's names."""
    if not isinstance(content, dict):
        return {}
    if all(isinstance(content.get(part), dict) for part in _DECODER):
        return {f"{prefix}{name}": value for part, prefix in _DECODER.items() for name, value in content[part].items()}
    state = content.get("state_dict", content)
    if not isinstance(state, dict):
        return {}
    # The encoder was trained as part of something larger, whose name stands before.
    found = {name: name.find(_ENCODER) for name in state if isinstance(name, str)}
    return {name[at:]: state[name] for name, at in found.items() if at >= 0}
