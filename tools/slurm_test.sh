#!/usr/bin/env bash
# Test as a job of Slurm; for the environment variables see slurm_run.sh.
#
#   tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [arguments of test.py]
set -euo pipefail

if [[ $# -lt 4 ]]; then
    echo "Usage: $0 PARTITION JOB_NAME CONFIG CHECKPOINT [arguments of test.py]" >&2
    exit 2
fi
TOOLS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
exec bash "$TOOLS/slurm_run.sh" "$1" "$2" "$TOOLS/test.py" "$3" "$4" \
    --launcher slurm "${@:5}"
