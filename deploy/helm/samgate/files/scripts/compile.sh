#!/bin/sh
# Compiles TensorRT plans of MODELS in PRECISION on the GPU that is here, into the folder STORE.
set -eu
[ ! -f "$STORE/READY" ] || exit 0
export SAMGATE_HOME="$STORE"
for name in $(echo "$VARIANTS" | tr , ' '); do
    samgate compile "$name" --target tensorrt --precision "$PRECISION"
done
[ -z "$DETECTOR" ] || samgate compile "$DETECTOR" --target tensorrt
