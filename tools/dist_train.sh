#!/usr/bin/env bash
# Train on several GPUs, or on several CPU processes where there is no GPU:
#   tools/dist_train.sh CONFIG PROCESSES [options of tools/train.py]
# On several machines, set NNODES, NODE_RANK, MASTER_ADDR and PORT on each.
exec "$(dirname "$(readlink -f "$0")")/torchrun.sh" train.py 2 "$@"
