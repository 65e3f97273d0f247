#!/usr/bin/env bash
# Train in several processes, one a GPU, or on the CPU if there is no GPU.
#
#   tools/dist_train.sh CONFIG GPUS [arguments of train.py]
#
# GPUS is the number of processes on this host; for several hosts and all
# environment variables see dist_run.sh.
set -euo pipefail

if [[ $# -lt 2 || ! $2 =~ ^[1-9][0-9]*$ ]]; then
    echo "Usage: $0 CONFIG GPUS [arguments of train.py]" >&2
    exit 2
fi
TOOLS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
exec bash "$TOOLS/dist_run.sh" "$2" "$TOOLS/train.py" "$1" \
    --launcher pytorch "${@:3}"
