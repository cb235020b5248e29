"""What a transform comes down to on the driver: what the job says of it, and which of the author's files are shipped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import attrs

from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.core.literals import is_template
from airflow_incremental.core.spark import SparkTransform
from airflow_incremental.core.spark_code import FunctionName, check_source
from airflow_incremental.spark.archive import digest


@attrs.frozen(kw_only=True)
class Code:
    """The author's part of a job.

    :param document: what the job says of the transform.
    :param fingerprint: a digest of what is run.
    :param modules: name of a module that is shipped -> its source.
    :param application: the author's program, where it is one: a path, or an address that Spark reads.
    """

    document: Mapping[str, Any]
    fingerprint: str
    modules: Mapping[str, bytes] = attrs.field(factory=dict, repr=False)
    application: str | None = None

    @classmethod
    def of(cls, transform: SparkTransform, folders: Sequence[str] = ()) -> Code:
        """Read the files that a rendered transform names.

        :param folders: where relative paths are looked up, as Airflow looks up template files.
        :raises ArgumentError: a file is not there, or cannot run on the driver.
        """
        helpers = [part for name in (*transform.py_files, *transform.files) for part in _content(name, folders)]
        # Code on the driver may read it.
        helpers += [f"{key}={value}" for key, value in sorted(transform.conf.items())]
        if transform.sql is not None:
            document: dict[str, Any] = {"kind": "sql", "text": transform.sql}
            return cls(document=document, fingerprint=digest(["sql", transform.sql, *helpers]))
        if transform.function is not None:
            function = FunctionName.parse(transform.function)
            modules = {}
            if function.file is not None:
                path = find_file(function.file, folders, what="function")
                source = path.read_bytes()
                check_source(source.decode(errors="replace"), file=str(path), name=function.name)
                modules[function.module] = source
            document = {"kind": "function", "module": function.module, "name": function.name}
            parts = ["function", function.module, function.name, *modules.values(), *helpers]
            return cls(document=document, fingerprint=digest(parts), modules=modules)
        return _application(cls, str(transform.application), transform.application_args, folders, helpers)


def _application(
    cls: type[Code], name: str, arguments: Sequence[str], folders: Sequence[str], helpers: Sequence[str | bytes]
) -> Code:
    document = {"kind": "application"}
    said = ["application", *arguments, *helpers]
    if not is_local(name):
        # What is behind an address is not known here: another program under the same one counts as the same.
        return cls(document=document, fingerprint=digest([*said, name]), application=name)
    path = find_file(name, folders, what="application")
    source = path.read_bytes()
    check_source(source.decode(errors="replace"), file=str(path))
    return cls(document=document, fingerprint=digest([*said, source]), application=str(path))


def check_code(transform: SparkTransform, folders: Sequence[str]) -> None:
    """Refuse a transform whose files are not there or cannot run on the driver, as far as its literals tell.

    :raises ArgumentError: with what to do.
    """
    if transform.sql is None and not is_template(transform.function or transform.application):
        Code.of(transform, folders)


def is_local(name: str) -> bool:
    """Say whether a file is one of this machine, and not an address that Spark reads (``s3://...``, ``local:///...``)."""
    return len(urlsplit(name).scheme) <= 1  # a single letter is a drive


def find_file(name: str, folders: Sequence[str], *, what: str) -> Path:
    """Return the path of a file of this machine.

    :param what: the argument that names it.
    :raises ArgumentError: it is not there.
    """
    for path in (Path(name), *(Path(folder) / name for folder in folders)):
        if path.is_file() and (path.is_absolute() or Path(name).is_absolute()):
            return path
    raise ArgumentError(
        f"{what} names the file {name!r}, which is not there",
        expected=f"a file in one of the folders {', '.join(map(str, folders))}"
        if folders
        else "a file with an absolute path",
        hint="give its path from the folder of the DAG file, or name its folder in the DAG's template_searchpath",
    )


def located(names: Sequence[str], folders: Sequence[str]) -> list[str]:
    """Return names with those that are files in one of the folders as paths; Spark looks up the others itself."""
    found = []
    for name in names:
        paths = [Path(folder) / name for folder in folders] if is_local(name) and not Path(name).is_absolute() else []
        found.append(next((str(path) for path in paths if path.is_file()), name))
    return found


def _content(name: str, folders: Sequence[str]) -> list[str | bytes]:
    path = Path(located([name], folders)[0])
    return [path.name, path.read_bytes()] if is_local(name) and path.is_file() else [name]
