#!/bin/sh
# What a GPU does with this project, in at most twelve minutes. Each part prints its line as it ends.
cd "$(dirname "$0")/.." || exit 1
python=${PYTHON:-.venv/bin/python}
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null
exec "$python" -m benchmarks.gpu "$@"
