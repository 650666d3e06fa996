"""A model for Triton's Python backend that answers at once: what is left is the way there and back.

It runs in the place of a graph's model, with the same inputs and outputs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found]  # exists inside the backend only


class TritonPythonModel:
    """What the backend looks for."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Read what comes in and goes out."""
        config = json.loads(args["model_config"])
        self._batched = config["max_batch_size"] > 0
        self._outputs = [
            (entry["name"], pb_utils.triton_string_to_numpy(entry["data_type"]), [int(size) for size in entry["dims"]])
            for entry in config["output"]
        ]
        self._made: dict[tuple[int, ...], list[Any]] = {}

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Zeros of the right shapes, which were made before."""
        responses = []
        for request in requests:
            inputs = [tensor.as_numpy() for tensor in request.inputs()]
            arrays = self._made.setdefault(inputs[1].shape, self._zeros(inputs))
            responses.append(
                pb_utils.InferenceResponse(
                    output_tensors=[
                        pb_utils.Tensor(name, array)
                        for (name, _, _), array in zip(self._outputs, arrays)  # noqa: B905
                    ]
                )
            )
        return responses

    def _zeros(self, inputs: Sequence[np.ndarray[Any, Any]]) -> list[np.ndarray[Any, Any]]:
        prompts = inputs[1].shape[1] if inputs[1].ndim > 2 else 0
        arrays = []
        for _, dtype, dims in self._outputs:
            # Dynamic axes are the prompts'.
            sizes = [prompts if size == -1 else size for size in dims]
            arrays.append(np.zeros(([len(inputs[0])] if self._batched else []) + sizes, dtype))
        return arrays
