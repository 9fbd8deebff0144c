#!/usr/bin/env bash
# Evaluate robustness on several GPUs, or on several CPU processes where there is no GPU:
#   tools/dist_test_robustness.sh CONFIG CHECKPOINT PROCESSES [options of tools/test_robustness.py]
# On several machines, set NNODES, NODE_RANK, MASTER_ADDR and PORT on each.
exec "$(dirname "$(readlink -f "$0")")/torchrun.sh" test_robustness.py 3 "$@"
