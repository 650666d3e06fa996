#!/bin/sh
# Compiles TensorRT plans of VARIANTS (comma-separated), in PRECISION, and of BESIDE (as well), what serves beside them, on
# the GPU that is here, into the folder STORE.
set -eu
[ ! -f "$STORE/READY" ] || exit 0
export SAMGATE_HOME="$STORE"
IFS=,
for name in $VARIANTS; do
    samgate compile "$name" --target tensorrt --precision "$PRECISION"
done
for name in $BESIDE; do
    samgate compile "$name" --target tensorrt
done
