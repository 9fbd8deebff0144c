#!/usr/bin/env bash
# Launch a tool with Slurm: srun.sh PARTITION JOB_NAME TOOL ARGUMENTS... Called by slurm_train.sh
# and slurm_test.sh.
set -eu
tools=$(cd "$(dirname "$0")" && pwd)
gpus=${GPUS:-8}
per_node=${GPUS_PER_NODE:-8}
read -ra arguments <<<"${SRUN_ARGS:-}" # split at blanks; node[1-4] is no pattern of files
PYTHONPATH="$tools/..${PYTHONPATH:+:$PYTHONPATH}" exec srun --partition="$1" --job-name="$2" \
    --gres=gpu:"$per_node" --ntasks="$gpus" --ntasks-per-node="$per_node" \
    --cpus-per-task="${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 "${arguments[@]}" \
    "$tools/python.sh" "${PYTHON:-python}" -u "$tools/$3" "${@:4}" --launcher slurm
