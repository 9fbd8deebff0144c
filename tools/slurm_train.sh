#!/usr/bin/env bash
# Train with Slurm: tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [options]
# GPUS, GPUS_PER_NODE, CPUS_PER_TASK and SRUN_ARGS are read from the environment.
set -eu
if (($# < 4)) || [[ $4 == -* ]]; then
    echo "usage: tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [options of tools/train.py]" >&2
    exit 2
fi
exec "$(dirname "$(readlink -f "$0")")/srun.sh" "$1" "$2" train.py "$3" --work-dir "$4" "${@:5}"
