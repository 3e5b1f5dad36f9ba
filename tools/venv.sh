#!/bin/sh
# tools/venv.sh FOLDER REQUIREMENTS PYTHON [bare]: a virtual environment with exactly the hashed requirements, and this
# project, unless it is to be bare.
set -eu
folder=$1 requirements=$2 python=$3
uv=.tools/uv

# A checkout that was moved or a Python that went away leaves an environment that cannot run.
if ! "$folder/bin/python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    "$uv" venv --quiet --clear --no-python-downloads --python "$python" "$folder"
fi
"$uv" pip sync --quiet --python "$folder/bin/python" --require-hashes "$requirements"
[ "${4:-}" = bare ] || "$uv" pip install --quiet --python "$folder/bin/python" --no-deps --no-build-isolation --editable .
touch "$folder/ready"
