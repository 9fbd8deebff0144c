#!/usr/bin/env bash
# Evaluate on several GPUs, or on several CPU processes where there is no GPU:
#   tools/dist_test.sh CONFIG CHECKPOINT PROCESSES [options of tools/test.py]
# On several machines, set NNODES, NODE_RANK, MASTER_ADDR and PORT on each.
exec "$(dirname "$(readlink -f "$0")")/torchrun.sh" test.py 3 "$@"
