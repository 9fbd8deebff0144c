#!/usr/bin/env bash
# Evaluate with Slurm: tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [options]
# GPUS, GPUS_PER_NODE, CPUS_PER_TASK and SRUN_ARGS are read from the environment.
set -eu
if (($# < 4)) || [[ $4 == -* ]]; then
    echo "usage: tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [options of tools/test.py]" >&2
    exit 2
fi
exec "$(dirname "$(readlink -f "$0")")/srun.sh" "$1" "$2" test.py "${@:3}"
