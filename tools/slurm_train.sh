#!/usr/bin/env bash
# Train as a job of Slurm; for the environment variables see slurm_run.sh.
#
#   tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [arguments of train.py]
set -euo pipefail

if [[ $# -lt 4 ]]; then
    echo "Usage: $0 PARTITION JOB_NAME CONFIG WORK_DIR [arguments of train.py]" >&2
    exit 2
fi
TOOLS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
exec bash "$TOOLS/slurm_run.sh" "$1" "$2" "$TOOLS/train.py" "$3" \
    --work-dir "$4" --launcher slurm "${@:5}"
