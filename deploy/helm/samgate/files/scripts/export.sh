#!/bin/sh
# Fills the folder STORE with weights and ONNX graphs of MODELS (comma-separated): what is in the image, else pulled.
set -eu
[ ! -f "$STORE/READY" ] || exit 0
mkdir -p "$STORE"
if [ -f /var/lib/samgate/READY ]; then
    cp -R /var/lib/samgate/. "$STORE/"
    rm "$STORE/READY"
fi
export SAMGATE_HOME="$STORE"
IFS=,
for name in $MODELS; do
    samgate pull "$name"
done
# Exports what isn't yet; the repository that it writes goes with the container.
samgate repository build --profile onnxruntime --models --variants "$MODELS" --output "$(mktemp -d)"
