#!/usr/bin/env bash
# Run one of the tools in several processes; what dist_train.sh and
# dist_test.sh have in common, and where their environment is described.
#
#   tools/dist_run.sh GPUS SCRIPT [arguments]
#
# GPUS is the number of processes on this host, one a GPU; with no GPU they
# run on the CPU. Environment variables:
#   NNODES (1), NODE_RANK, MASTER_ADDR: for several hosts, start the command on
#     each with its NODE_RANK, from 0; MASTER_ADDR is the address of the host
#     with NODE_RANK=0.
#   PORT (29500; on one host any free one): port on that host.
#   OMP_NUM_THREADS (cores / GPUS): CPU threads of each process.
#   PYTHON (python): the interpreter.
set -euo pipefail

GPUS=$1
NNODES=${NNODES:-1}
TOOLS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

if [[ $NNODES -gt 1 && (-z ${NODE_RANK:-} || -z ${MASTER_ADDR:-}) ]]; then
    # With defaults, each host would wait for the others at its own address.
    echo "NNODES=$NNODES needs NODE_RANK, from 0 to $((NNODES - 1)) and" \
        "another on each host, and MASTER_ADDR, the address of the host with" \
        "NODE_RANK=0." >&2
    exit 2
fi

if [[ $NNODES -eq 1 && -z ${PORT:-} ]]; then
    # Several jobs on one host must not meet on one port.
    RENDEZVOUS=(--standalone --local_addr=127.0.0.1)
else
    RENDEZVOUS=(
        --nnodes="$NNODES"
        --node_rank="${NODE_RANK:-0}"
        --master_addr="${MASTER_ADDR:-127.0.0.1}"
        --master_port="${PORT:-29500}")
fi

if [[ -z ${OMP_NUM_THREADS:-} ]]; then
    # The default of torch.distributed.run, one thread, would leave cores idle
    # where there is no GPU.
    CORES=$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)
    export OMP_NUM_THREADS=$((CORES > GPUS ? CORES / GPUS : 1))
fi

export PYTHONPATH="$TOOLS/..${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python}" "$TOOLS/dist_run.py" \
    "${RENDEZVOUS[@]}" --nproc_per_node="$GPUS" "${@:2}"
