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
processes=${!position} nodes=${NNODES:-1} rank=${NODE_RANK:-0} port=${PORT:-29500}
if [[ ! $nodes =~ ^[1-9][0-9]*$ || ! $rank =~ ^[0-9]+$ ]] || ((rank >= nodes)); then
    echo "NNODES=$nodes, NODE_RANK=$rank: expected the number of machines, and this one's from 0" >&2
    exit 2
fi
export PYTHONPATH="$tools/..${PYTHONPATH:+:$PYTHONPATH}"
python=("$tools/python.sh" "${PYTHON:-python}")
"${python[@]}" "$tools/startup.py"
if ((rank == 0)); then # where the processes meet
    "${python[@]}" - "$port" <<'END' || exit 2
import errno, socket, sys
try:
    socket.create_server(('', int(sys.argv[1]))).close()
except (OSError, OverflowError, ValueError) as error:
    why = 'another process uses it' if getattr(error, 'errno', 0) == errno.EADDRINUSE else error
    sys.exit(f'PORT={sys.argv[1]} cannot be used ({why}): set PORT to a free one, on every machine')
END
fi
if ((processes > 1)); then # as the launcher sets it, in three lines
    export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
fi
exec "${python[@]}" -m torch.distributed.run \
    --nnodes="$nodes" --node_rank="$rank" --nproc_per_node="$processes" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="$port" \
    "$tools/$tool" "${@:1:position-1}" --launcher pytorch "${@:position+1}"
