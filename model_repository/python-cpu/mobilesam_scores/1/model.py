"""One of samgate's graphs on Triton's Python backend, run by OpenVINO: the same file for every graph of every variant.

It runs in the backend's own environment (numpy 1, openvino) and knows no samgate; ``samgate repository build`` copies
it to where Triton looks. It compiles with the options of the gateway's embedded engine and gives the same bits. The
model's parameters are strings:

- ``precision``: ``f32`` or ``bf16``; ``threads``: 0 is all cores the process may use;
- ``axes``: ``image:N,1024,1024,3 valid:N,2``; sizes under one letter have to agree;
- ``batch``: what the first axis is fixed to, if it is: a graph whose shapes are all known runs faster, and a larger
  batch goes through it piece by piece;
- ``merge``: ``true`` runs requests that Triton hands over together, and that agree in shape, as one batch;
- ``blob``: where the compiled graph is kept for the next start, if anywhere.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found]  # exists inside the backend only

# OpenVINO's telemetry reports from a fork of this process; where its module can't be imported, it does without.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

import openvino as ov  # noqa: E402

Arrays = dict[str, np.ndarray[Any, Any]]


class TritonPythonModel:
    """What the backend looks for."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Compile the graph, or load it as it was compiled before."""
        if int(np.__version__.split(".")[0]) >= 2:
            raise RuntimeError(f"numpy {np.__version__}: from 2 on, this backend would answer with empty tensors")
        config = json.loads(args["model_config"])
        parameters = {key: value["string_value"] for key, value in config["parameters"].items()}
        path = Path(args["model_repository"], args["model_version"], "model.onnx")
        self._axes = _axes(parameters["axes"])
        self._outputs = [output["name"] for output in config["output"]]
        self._merge = parameters["merge"] == "true"
        self._batch = int(parameters["batch"]) if "batch" in parameters else None
        self._request = _compile(path, parameters, self._batch).create_infer_request()

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """An answer for each request, an error for those that can't be answered."""
        responses: list[Any] = [None] * len(requests)
        readable = []
        for index, request in enumerate(requests):
            try:
                readable.append((index, self._read(request)))
            except Exception as error:
                responses[index] = _refusal(error, pb_utils.TritonError.INVALID_ARG)
        for group in self._groups(readable):
            wanted = []
            for index, inputs in group:
                if requests[index].is_cancelled():
                    responses[index] = _refusal("cancelled before it ran", pb_utils.TritonError.CANCELLED)
                else:
                    wanted.append((index, inputs))
            if wanted:
                self._answer(wanted, responses, last=len(requests) == len(wanted))
        return responses

    def _read(self, request: Any) -> Arrays:
        """The inputs as views of the backend's memory. Raises ValueError where sizes disagree."""
        inputs: Arrays = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        sizes: dict[str, int] = {}
        for name, axes in self._axes.items():
            shape = inputs[name].shape
            if len(shape) != len(axes):
                raise ValueError(f"{name} has the shape {shape}; its axes are {', '.join(axes)}")
            for axis, size in zip(axes, shape):  # noqa: B905  # strict came with Python 3.10, and lengths agree
                if sizes.setdefault(axis, int(axis) if axis.isdigit() else size) != size:
                    raise ValueError(f"{name} has the shape {shape}, but {axis} is {sizes[axis]}")
        return inputs

    def _groups(self, requests: list[tuple[int, Arrays]]) -> Iterator[list[tuple[int, Arrays]]]:
        if not self._merge:
            yield from ([request] for request in requests)
            return
        groups: dict[object, list[tuple[int, Arrays]]] = {}
        for index, inputs in requests:
            key = tuple(inputs[name].shape[1:] for name in self._axes)
            groups.setdefault(key, []).append((index, inputs))
        yield from groups.values()

    def _answer(self, group: list[tuple[int, Arrays]], responses: list[Any], last: bool) -> None:
        try:
            if len(group) == 1:
                inputs = group[0][1]
            else:
                inputs = {name: np.concatenate([given[name] for _, given in group]) for name in self._axes}
            outputs = self._run(inputs)
            start = 0
            for index, given in group:
                rows = slice(start, start + len(next(iter(given.values())))) if len(group) > 1 else slice(None)
                start = rows.stop or 0
                # OpenVINO's buffers: the next run overwrites them before the backend has read them.
                parts = [output[rows] if last else output[rows].copy() for output in outputs]
                tensors = [pb_utils.Tensor(name, part) for name, part in zip(self._outputs, parts)]  # noqa: B905
                responses[index] = pb_utils.InferenceResponse(output_tensors=tensors)
        except Exception as error:
            for index, _ in group:
                responses[index] = _refusal(error, pb_utils.TritonError.INTERNAL)

    def _run(self, inputs: Arrays) -> list[np.ndarray[Any, Any]]:
        """Outputs in the graph's order, in memory that the next run overwrites."""
        count = len(next(iter(inputs.values())))
        if self._batch is None or count == self._batch:
            return self._infer(inputs)
        if count % self._batch:
            raise ValueError(f"a batch of {count} can't be cut into batches of {self._batch}")
        starts = range(0, count, self._batch)
        pieces = []
        for start in starts:
            piece = {name: array[start : start + self._batch] for name, array in inputs.items()}
            pieces.append([output.copy() for output in self._infer(piece)])
        return [np.concatenate(parts) for parts in zip(*pieces)]  # noqa: B905

    def _infer(self, inputs: Arrays) -> list[np.ndarray[Any, Any]]:
        self._request.infer(inputs, share_inputs=True)
        return [self._request.get_output_tensor(index).data for index in range(len(self._outputs))]


def _axes(text: str) -> dict[str, list[str]]:
    pairs = (entry.split(":") for entry in text.split())
    return {name: sizes.split(",") for name, sizes in pairs}


def _refusal(problem: object, code: Any) -> Any:
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(problem), code))


def _compile(path: Path, parameters: Mapping[str, str], batch: int | None) -> Any:
    core, cores = ov.Core(), len(os.sched_getaffinity(0))
    threads = int(parameters["threads"]) or cores
    options = {
        "INFERENCE_PRECISION_HINT": parameters["precision"],
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        # OpenVINO pins to the first cores: engines that have some of the cores each would all be on the same ones.
        "ENABLE_CPU_PINNING": threads >= cores,
    }
    blob = Path(parameters["blob"]) if "blob" in parameters else None
    if blob is not None and blob.exists():
        try:
            return core.import_model(blob.read_bytes(), "CPU", options)
        except (OSError, RuntimeError) as error:
            pb_utils.Logger.log_warn(f"{blob} is of no use, compiling anew: {error}")
    graph = core.read_model(path)
    if batch is not None:
        graph.reshape({port: [batch, *list(port.partial_shape)[1:]] for port in graph.inputs})
    model = core.compile_model(graph, "CPU", options)
    if blob is not None:
        _keep(model, blob)
    return model


def _keep(model: Any, blob: Path) -> None:
    """Writes ``blob`` so that it is there complete or not at all; without it the next start only takes longer."""
    part = blob.with_name(f".{blob.name}.{os.getpid()}.tmp")
    try:
        with part.open("wb") as file:
            file.write(model.export_model().getbuffer())
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, blob)
    except (OSError, RuntimeError) as error:
        part.unlink(missing_ok=True)
        pb_utils.Logger.log_warn(f"{blob} can't be written: {error}")
