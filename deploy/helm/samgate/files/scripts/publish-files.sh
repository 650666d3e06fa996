#!/bin/sh
# Declares the folder STORE complete, and keeps the newest KEEP of its siblings.
set -eu
touch "$STORE/READY"
cd "$(dirname "$STORE")"
# Oldest last; only folders that a Job has filled.
ls -dt -- */READY | tail -n "+$((KEEP + 1))" | while read -r ready; do
    echo "removing ${ready%/READY}"
    rm -rf -- "${ready%/READY}"
done
