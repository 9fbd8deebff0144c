#!/usr/bin/env bash
# Launch a tool on several processes: torchrun.sh TOOL POSITION ARGUMENTS..., where the argument
# at POSITION is the number of processes. Called by dist_train.sh and dist_test.sh.
set -eu
tools=$(cd "$(dirname "$0")" && pwd)
tool=$1 position=$2
shift 2
if (($# < position)) || [[ ! ${!position} =~ ^[1-9][0-9]*$ ]]; then
    echo "argument $position of dist_${tool%.py}.sh has to be the number of processes" >&2
    exit 2
fi
processes=${!position}
PYTHONPATH="$tools/..${PYTHONPATH:+:$PYTHONPATH}" exec "${PYTHON:-python}" -m torch.distributed.run \
    --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" --nproc_per_node="$processes" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}" \
    "$tools/$tool" "${@:1:position-1}" --launcher pytorch "${@:position+1}"
