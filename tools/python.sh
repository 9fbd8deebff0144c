#!/usr/bin/env bash
# Run a Python: python.sh PYTHON ARGUMENTS... Where there is none of that name, say what to do.
# Called by torchrun.sh and, on each machine of a job, by srun.sh.
if ! command -v "$1" >/dev/null; then
    root=$(cd "$(dirname "$0")/.." && pwd)
    if [[ -e $root/.venv/installed ]]; then # as startup.py has it
        advice="activate the environment: . $root/.venv/bin/activate"
    else
        advice="make the environment: make -C $root install"
    fi
    echo "there is no program '$1'; $advice" >&2
    exit 2
fi
exec "$@"
