#!/bin/sh
# Copies the models in rclone's folder REMOTE to DESTINATION, once they are complete, for which it waits WAIT_SECONDS.
set -eu
deadline=$(($(date +%s) + WAIT_SECONDS))
until [ -n "$(rclone lsf "$REMOTE/READY" --contimeout 10s --timeout 30s --retries 1)" ]; do
    if [ "$(date +%s)" -ge "$deadline" ]; then
        echo "$REMOTE/READY isn't there after $WAIT_SECONDS s: look at the log of the Job that fills it" >&2
        exit 1
    fi
    sleep 5
done
rclone copy "$REMOTE" "$DESTINATION" --contimeout 10s --timeout 60s
echo "copied $REMOTE"
