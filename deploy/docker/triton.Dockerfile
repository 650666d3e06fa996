# Triton that serves, and the same with samgate in it, which compiles TensorRT plans on a GPU of the kind that serves:
#
#   docker build --file deploy/docker/triton.Dockerfile --target serve --tag samgate-triton:0.1.0 .
#   docker build --file deploy/docker/triton.Dockerfile --target compile --tag samgate-triton-compile:0.1.0 .
#   docker run --rm --gpus all -v samgate:/var/lib/samgate samgate-triton-compile:0.1.0 pull mobilesam
#   docker run --rm --gpus all -v samgate:/var/lib/samgate samgate-triton-compile:0.1.0 compile mobilesam --target tensorrt
#
# A plan runs on the TensorRT that built it and no other: both stages are of one image.
ARG TRITON_IMAGE=nvcr.io/nvidia/tritonserver:25.12-py3

FROM ${TRITON_IMAGE} AS serve
USER 1000:1000
EXPOSE 8001 8002
ENTRYPOINT ["tritonserver"]

FROM ${TRITON_IMAGE} AS compile
COPY . /tmp/samgate
# The Python module of the very TensorRT that the server has, which Debian knows as something like 10.13.3.9-1+cuda13.0.
# --target leaves the container's own packages as they are. The secret is pip's configuration.
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    set -eu; \
    package="$(dpkg-query --show --showformat='${Version}' libnvinfer10)"; \
    version="${package%%-*}"; \
    cuda="${package##*+cuda}"; \
    python3 -m pip install --no-cache-dir --target /opt/samgate --constraint /tmp/samgate/deploy/constraints.txt \
        '/tmp/samgate[compile]' "tensorrt-cu${cuda%%.*}==${version}"; \
    rm -rf /tmp/samgate; \
    install --directory --owner 1000 --group 1000 /var/lib/samgate
ENV PATH=/opt/samgate/bin:$PATH \
    PYTHONPATH=/opt/samgate \
    SAMGATE_HOME=/var/lib/samgate
USER 1000:1000
ENTRYPOINT ["samgate"]
