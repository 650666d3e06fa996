"""A real Triton for the tests: the server of the ``nvidia-pytriton`` wheel, with MobileSAM or with models that start in
no time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tritonclient import grpc as triton_grpc

from samgate.triton.local import local_triton
from samgate.triton.server import TritonServer

ECHO = """\
import os
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            given = pb_utils.get_input_tensor_by_name(request, "given").as_numpy()
            if given.size and given[0] == 255:
                os._exit(1)
            answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("answer", given)]))
        return answers
"""
ECHO_CONFIG = """\
name: "NAME"
backend: "python"
max_batch_size: 0
input { name: "given" data_type: TYPE_UINT8 dims: [-1] }
output { name: "answer" data_type: TYPE_UINT8 dims: [-1] }
instance_group { count: 1 kind: KIND_CPU }
"""
_DATA_TYPES = {"uint8": "UINT8", "int32": "INT32", "float32": "FP32"}

Arrays = Mapping[str, NDArray[Any]]


@pytest.fixture(scope="session")
def triton(installed: None) -> Iterator[TritonServer]:
    """A server that runs all graphs of MobileSAM in f32; nobody but its own test kills or changes it."""
    with local_triton({"mobilesam": "f32"}) as server:
        yield server


@pytest.fixture
def echoes(tmp_path: Path) -> Path:
    """A repository of two models, ``echo`` and ``other``, that give back what they get and die of a 255."""
    for name in ("echo", "other"):
        version = tmp_path / "echoes" / name / "1"
        version.mkdir(parents=True)
        (version / "model.py").write_text(ECHO)
        (version.parent / "config.pbtxt").write_text(ECHO_CONFIG.replace("NAME", name))
    return tmp_path / "echoes"


def infer(address: str, model: str, inputs: Arrays) -> dict[str, NDArray[Any]]:
    """One call of ``model``; tensors travel in the messages. Raises tritonclient's InferenceServerException."""
    with triton_grpc.InferenceServerClient(address) as client:
        result = client.infer(model, [tensor(name, array) for name, array in inputs.items()])
        return {output.name: result.as_numpy(output.name) for output in result.get_response().outputs}


def tensor(name: str, array: NDArray[Any]) -> triton_grpc.InferInput:
    """``array`` as tritonclient wants it."""
    told = triton_grpc.InferInput(name, list(array.shape), _DATA_TYPES[str(array.dtype)])
    told.set_data_from_numpy(np.ascontiguousarray(array))
    return told


def statistics(address: str, model: str) -> Any:
    """Triton's own count of what ``model`` did."""
    with triton_grpc.InferenceServerClient(address) as client:
        return client.get_inference_statistics(model).model_stats[0]
