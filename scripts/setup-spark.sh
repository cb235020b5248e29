#!/bin/sh
# Make .venv-spark: exactly what tests/spark/requirements.lock names, for the same Python as .venv. Run by make after setup.sh,
# from the top folder.
set -eu

for program in java mvn; do
    if ! command -v $program >/dev/null; then
        echo "No $program found: Spark 4.1 runs on Java 17 or 21, and Maven fetches its jars." >&2
        echo "What to do: install them (on Debian: apt-get install default-jre-headless maven)." >&2
        exit 1
    fi
done

export UV_HTTP_RETRIES=8 UV_HTTP_TIMEOUT=600 UV_PYTHON_DOWNLOADS=never
uv=.venv-tools/bin/uv
lock=tests/spark/requirements.lock
$uv venv --quiet --clear --python .venv-tools/bin/python .venv-spark
# pyspark is published as source only: what builds it is what the lock file names, too.
$uv pip sync --quiet --python .venv-spark/bin/python --require-hashes --build-constraints "$lock" --compile-bytecode "$lock"
