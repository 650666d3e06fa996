"""How TensorRT plans for Triton are made where no GPU is: in NVIDIA's Triton container, elsewhere.

A plan runs on the very TensorRT that built it, so the image is the server's own, with samgate and the Python
module of the TensorRT that is in it.
"""

from __future__ import annotations

from samgate.variants.detectors import DetectorSpec
from samgate.variants.spec import NetworkSpec

TRITON_IMAGE = "nvcr.io/nvidia/tritonserver:25.12-py3"
"""The first choice for serving, too. Before 24.12 the containers had Python 3.10, which samgate doesn't run on."""

DOCKERFILE = "deploy/docker/triton.Dockerfile"
IMAGE = "samgate-triton-compile"
CHART = "deploy/helm/samgate"
"""Its Job does the same on Kubernetes."""


def commands(spec: NetworkSpec | DetectorSpec, precision: str) -> str:
    """The commands that compile ``spec`` in the container on a machine with a GPU, one a line."""
    calibrated = isinstance(spec, NetworkSpec) and "int8" in spec.precisions[precision].arithmetics
    options = " --calibrate /calibration" if calibrated else ""
    mounts = ' -v "$PWD/calibration:/calibration:ro"' if options else ""
    run = f"docker run --rm --gpus all -v samgate:/var/lib/samgate{mounts} {IMAGE}"
    return "\n".join(
        (
            f"docker build --file {DOCKERFILE} --target compile --tag {IMAGE} .",
            f"{run} pull {spec.name}",
            f"{run} compile {spec.name} --target tensorrt --precision {precision}{options}",
        )
    )
