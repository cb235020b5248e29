"""The job document: what one run of the driver reads, computes and writes, as JSON from the worker that started it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Mapping, Sequence

from airflow_incremental_spark.errors import DriverError

#: Format of the document; another one is refused.
VERSION = 1
#: Argument that names the file.
ARGUMENT = "--job"


def path_in(arguments: Sequence[str]) -> str:
    """Return the document's path from a program's arguments: ``--job <path>`` or ``--job=<path>``, among any others.

    :raises DriverError: there is none.
    """
    for number, argument in enumerate(arguments):
        if argument.startswith(ARGUMENT + "="):
            return argument[len(ARGUMENT) + 1 :]
        if argument == ARGUMENT and number + 1 < len(arguments):
            return arguments[number + 1]
    raise DriverError(
        f"the application was started without {ARGUMENT}",
        expected=f"{ARGUMENT} <path of the job document> among its arguments",
        hint="let SparkLoadOperator start it, which adds the argument; it can only run as part of a session",
        where="bind",
    )


def read_document(path: str) -> Mapping[str, Any]:
    """Read the document where it is on this machine.

    In client mode that is the path itself; YARN puts the file into the driver's working directory, and elsewhere (Kubernetes) it is
    among Spark's own files.

    :raises DriverError: it is nowhere, or of another version.
    """
    found = next((p for p in (Path(path), Path(Path(path).name)) if p.is_file()), None) or _shipped(Path(path).name)
    if found is None:
        raise DriverError(
            f"the job document {Path(path).name!r} is not on the driver",
            expected="it at the path given, in the working directory, or among the files shipped with the job",
            hint="keep spark.files (or --files) as the operator sets it: add to it, do not replace it",
            where="bind",
        )
    return checked(json.loads(found.read_text(encoding="utf-8")))


def checked(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the document if this driver understands it.

    :raises DriverError: its version is another one.
    """
    if document.get("version") != VERSION:
        raise DriverError(
            f"the job document is of version {document.get('version')!r}",
            expected=f"version {VERSION}, which this airflow_incremental_spark reads",
            hint="ship the airflow_incremental_spark of the worker's own airflow-incremental; another one is found first on the "
            "driver's Python path",
            where="bind",
        )
    return document


def _shipped(name: str) -> Path | None:
    from pyspark import SparkFiles

    try:
        path = Path(SparkFiles.get(name))
    except Exception:  # noqa: BLE001 - pyspark fails in its own ways where no Spark has been started here
        return None
    return path if path.is_file() else None


def quote(name: str) -> str:
    """Return a name as a quoted identifier of Spark's SQL."""
    return "`" + name.replace("`", "``") + "`"


def identifier(catalog: str, table: str, *more: str) -> str:
    """Return the quoted name of a table, ``namespace.table`` in a catalog, or with one part more that of its branch or metadata."""
    parts: list[str] = [catalog, *table.split("."), *more]
    return ".".join(quote(part) for part in parts)
