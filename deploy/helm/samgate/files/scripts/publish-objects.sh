#!/bin/sh
# Copies the folder STORE to rclone's folder REMOTE, and declares it complete.
set -eu
rclone copy "$STORE" "$REMOTE" --exclude READY --contimeout 10s --timeout 60s
date | rclone rcat "$REMOTE/READY" --contimeout 10s --timeout 60s
echo "published $REMOTE"
