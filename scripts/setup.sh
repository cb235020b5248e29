#!/bin/sh
# Make .venv: exactly what requirements.lock names, and this checkout installed in editable form. Run by make, from the top folder.
# Needs a Python of 3.10 to 3.13 with its venv module, and the package index that pip is set up to use; nothing else is downloaded.
set -eu

uv_version=$1

suits() {
    "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null
}

# What the caller named, and then whatever fits: python3 is too old on some machines and too new on others.
python=
for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python3.10}; do
    if suits "$candidate"; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    echo "No Python of 3.10 to 3.13 found (looked for: ${PYTHON:-python3, python3.13 to python3.10})." >&2
    echo "What to do: install one, or name it: make PYTHON=/path/to/python3.12 ..." >&2
    exit 1
fi

# A folder whose interpreter is gone or of another version than asked for is made anew.
version=$("$python" -c 'import sys; print(sys.version)')
same_python() {
    [ -x "$1/bin/python" ] && [ "$("$1/bin/python" -c 'import sys; print(sys.version)' 2>/dev/null)" = "$version" ]
}

if ! same_python .venv-tools; then
    rm -rf .venv-tools
    if ! "$python" -m venv .venv-tools; then
        rm -rf .venv-tools
        echo "What to do: install Python's venv module (on Debian and Ubuntu: apt-get install python3-venv)." >&2
        exit 1
    fi
fi
if [ "$(.venv-tools/bin/uv --version 2>/dev/null | cut -d' ' -f2)" != "$uv_version" ]; then
    .venv-tools/bin/python -m pip install --quiet --retries 8 "uv==$uv_version"
fi

# Two hundred downloads: a name server that stumbles once must not end them.
export UV_HTTP_RETRIES=8 UV_PYTHON_DOWNLOADS=never
uv=.venv-tools/bin/uv
same_python .venv || $uv venv --quiet --clear --python .venv-tools/bin/python .venv
# Byte code is compiled here once instead of by five Airflow processes at the same time on their first start.
$uv pip sync --quiet --python .venv/bin/python --require-hashes --compile-bytecode requirements.lock
$uv pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation --editable .
