#!/bin/sh
# tools/uv.sh FOLDER: put a working uv at FOLDER/uv, installing nothing outside FOLDER.
set -eu
folder=$1
mkdir -p "$folder"

link() { # a uv that runs: a version manager's shim may be on PATH and refuse
    "$1" --version >/dev/null 2>&1 || return 1
    printf '#!/bin/sh\nexec "%s" "$@"\n' "$1" >"$folder/uv.new"
    chmod +x "$folder/uv.new"
    mv "$folder/uv.new" "$folder/uv"
}

if found=$(command -v uv) && link "$found"; then exit 0; fi
here=$(cd "$folder" && pwd)
# A venv needs Debian's python3-venv; --target needs pip, but works where the system's Python is externally managed.
if python3 -m venv "$here/env" >/dev/null 2>&1 && "$here/env/bin/python" -m pip install --quiet 'uv>=0.8' \
    && link "$here/env/bin/uv"; then exit 0; fi
if python3 -m pip install --quiet --target "$here/site" 'uv>=0.8' && link "$here/site/bin/uv"; then exit 0; fi
echo "tellmeter: cannot install uv; install it by hand, or Python's venv module (Debian: python3-venv)" >&2
exit 1
