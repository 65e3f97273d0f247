#!/usr/bin/env bash
# Run one of the tools as a job of Slurm; what slurm_train.sh and slurm_test.sh
# have in common, and where their environment is described.
#
#   tools/slurm_run.sh PARTITION JOB_NAME SCRIPT [arguments]
#
# Environment variables:
#   GPUS (8): number of processes of the job, one a GPU.
#   GPUS_PER_NODE (8, or GPUS if fewer): how many of them a host runs.
#   CPUS_PER_TASK (5): cores of each process.
#   SRUN_ARGS: more arguments of srun, separated by white space; with
#     SRUN_ARGS=--gres=none the processes run on CPUs.
#   PYTHON (python): the interpreter.
set -euo pipefail

GPUS=${GPUS:-8}
GPUS_PER_NODE=${GPUS_PER_NODE:-$((GPUS < 8 ? GPUS : 8))}
TOOLS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

export PYTHONPATH="$TOOLS/..${PYTHONPATH:+:$PYTHONPATH}"
set -x
# shellcheck disable=SC2086 (SRUN_ARGS are several)
exec srun -p "$1" \
    --job-name="$2" \
    --gres="gpu:$GPUS_PER_NODE" \
    --ntasks="$GPUS" \
    --ntasks-per-node="$GPUS_PER_NODE" \
    --cpus-per-task="${CPUS_PER_TASK:-5}" \
    --kill-on-bad-exit=1 \
    ${SRUN_ARGS:-} \
    "${PYTHON:-python}" -u "${@:3}"
