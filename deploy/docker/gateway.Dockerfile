# The gateway for CPUs and in front of Triton, and the image that exports its models.
#
#   docker build --file deploy/docker/gateway.Dockerfile --target gateway --tag samgate-gateway:0.1.0 .
#   docker build --file deploy/docker/gateway.Dockerfile --target compile --tag samgate-compile:0.1.0 .
#
# docs/deploy.md has the rest: digests, package indexes, weights that you have, software bills of materials.
ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm

# Weights that you have: --build-context weights=DIR puts DIR, with files such as mobilesam.pt, in the place of this stage.
FROM scratch AS weights
COPY LICENSE /

FROM ${PYTHON_IMAGE} AS base
ENV PATH=/opt/samgate/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    SAMGATE_HOME=/var/lib/samgate
RUN groupadd --gid 1000 samgate && \
    useradd --uid 1000 --gid 1000 --home-dir /tmp --no-create-home --shell /usr/sbin/nologin samgate && \
    install --directory --owner 1000 --group 1000 /var/lib/samgate

# What the gateway runs on: no compiler, no torch.
FROM base AS venv
COPY deploy/constraints.txt /build/constraints.txt
COPY . /build/samgate
ENV PIP_CONSTRAINT=/build/constraints.txt \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1
# The secret is pip's configuration, where packages come from an index of yours.
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python3 -m venv --without-pip /opt/samgate && \
    pip --python /opt/samgate/bin/python install '/build/samgate[text,tracing,triton]'

FROM venv AS sbom
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python3 -m venv /opt/sbom && \
    /opt/sbom/bin/pip install cyclonedx-bom && \
    /opt/sbom/bin/cyclonedx-py environment --output-reproducible --output-file /build/sbom.cdx.json /opt/samgate

# Exports graphs, here and in the chart's Job. torch goes first and alone, in the one version that exports were checked
# with; for a CPU build name a CPU index in the secret.
FROM venv AS exporter
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    pip --python /opt/samgate/bin/python install torch==2.13.0 && \
    pip --python /opt/samgate/bin/python install '/build/samgate[compile,text,tracing,triton]'

FROM exporter AS models
ARG MODELS=mobilesam,mobilesam-768,mobilesam-512
USER 1000:1000
# READY is last: who copies the folder takes it for complete then.
RUN --mount=type=bind,from=weights,target=/weights \
    set -eu; \
    IFS=,; \
    for name in $MODELS; do \
        given="$(find /weights -name "$name.*")"; \
        if [ -n "$given" ]; then samgate pull "$name" --from "$given"; else samgate pull "$name"; fi; \
    done; \
    samgate repository build --profile onnxruntime --models --variants "$MODELS" --output /tmp/exported; \
    rm -r /tmp/exported "$SAMGATE_HOME/downloads"; \
    touch "$SAMGATE_HOME/READY"

FROM exporter AS compile
COPY --from=models --chown=1000:1000 /var/lib/samgate /var/lib/samgate
USER 1000:1000
ENTRYPOINT ["samgate"]

FROM base AS gateway
COPY --from=venv /opt/samgate /opt/samgate
COPY --from=sbom /build/sbom.cdx.json /usr/share/doc/samgate/sbom.cdx.json
COPY --from=models --chown=1000:1000 /var/lib/samgate /var/lib/samgate
USER 1000:1000
EXPOSE 50051 50052 8080
ENTRYPOINT ["samgate"]
CMD ["serve"]
