#!/bin/sh
# Copies the models in the folder STORE to DESTINATION, once they are complete, for which it waits WAIT_SECONDS.
set -eu
deadline=$(($(date +%s) + WAIT_SECONDS))
until [ -f "$STORE/READY" ]; do
    if [ "$(date +%s)" -ge "$deadline" ]; then
        echo "$STORE/READY isn't there after $WAIT_SECONDS s: look at the log of the Job that fills it" >&2
        exit 1
    fi
    sleep 2
done
cp -R "$STORE/." "$DESTINATION/"
echo "copied $STORE"
