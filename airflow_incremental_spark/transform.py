"""The author's transform, SQL or a function, and what it is allowed to be and to return."""

from __future__ import annotations

import importlib
import re
from contextlib import contextmanager
from typing import Any, Callable, Iterator, Mapping

from airflow_incremental_spark.errors import DriverError, during, first_lines
from airflow_incremental_spark.output import is_frame
from airflow_incremental_spark.sources import Sources, Views

#: A transform: ``transform(spark, sources, plan) -> DataFrame``.
Function = Callable[[Any, Mapping[str, Any], Mapping[str, Any]], Any]

_COMMENT = re.compile(r"\A(?:\s+|--[^\n]*(?:\n|\Z)|/\*.*?\*/|\()+", re.DOTALL)
_WORD = re.compile(r"\A[A-Za-z_]+")
_QUERIES = frozenset({"SELECT", "WITH", "FROM", "VALUES", "TABLE"})
_GUARD = "incremental_transform"
#: Stands for the target among the names of sources.
TARGET = "the target"


@contextmanager
def produced(
    spark: Any,
    transform: Mapping[str, Any],
    sources: Sources,
    plan: Mapping[str, Any],
    *,
    function: Function | None = None,
    tables: Mapping[str, str] | None = None,
) -> Iterator[Any]:
    """Run a transform and give its DataFrame, which may be used while the context is open.

    :param transform: what the job document says of it.
    :param function: the function itself, for a driver that has it; else it is imported by its name.
    :param tables: name of a source (or ``the target``) -> its table with its catalog, which SQL may not read past the plan.
    :raises DriverError: it is no query, names such a table, cannot be imported, or returned no DataFrame.
    """
    if transform["kind"] == "sql":
        text = transform["text"]
        with Views(spark, sources, text), during("transform"):
            yield _query(spark, text, sources, tables or {})
        return
    with during("transform"):
        found = function if function is not None else _imported(transform["module"], transform["name"])
        yield _returned(found(spark, sources, plan), getattr(found, "__name__", repr(found)))


def _query(spark: Any, text: str, sources: Sources, tables: Mapping[str, str]) -> Any:
    """Return the rows of a query.

    Spark runs a command as soon as it is given one, so the text is first made a view, which only a query can be.
    """
    word = _WORD.match(_COMMENT.sub("", text))
    kind = word.group().upper() if word else "no statement"
    if kind not in _QUERIES:
        raise _no_query(f"the transform's SQL is {kind}")
    try:
        spark.sql(f"CREATE OR REPLACE TEMPORARY VIEW {_GUARD} AS {text}")
        spark.catalog.dropTempView(_GUARD)
    except Exception as error:
        if type(error).__name__ == "ParseException":
            raise _no_query(first_lines(error)) from error
        raise _unfit(error, sources) from error
    _check_tables(text, tables)
    return spark.sql(text)


def _check_tables(text: str, tables: Mapping[str, str]) -> None:
    """Refuse SQL that reads a table of the session by its own name: all of it, as it is now, whatever the plan says."""
    for name, table in tables.items():
        parts = r"\s*\.\s*".join(f"`?{re.escape(part)}`?" for part in table.split("."))
        if re.search(rf"(?<![\w`.]){parts}(?![\w`])", text, re.IGNORECASE):
            raise DriverError(
                f"the transform's SQL names the table {table} itself",
                expected="the names in sources, which stand for exactly the rows that the session reads",
                hint="read the session's own rows of it as state (state=...)"
                if name == TARGET
                else f"write {name} instead",
                where="transform",
            )


def _no_query(found: str) -> DriverError:
    return DriverError(
        found,
        expected="one SELECT (or WITH ... SELECT) statement in Spark's SQL",
        hint="return the rows; the session writes them",
        where="transform",
    )


def _unfit(error: Exception, sources: Sources) -> Exception:
    text = first_lines(error)
    names = ", ".join(sources)
    if "TABLE_OR_VIEW_NOT_FOUND" not in text:
        return (
            error
            if isinstance(error, DriverError)
            else DriverError(text, hint=f"correct the transform; it can read {names}")
        )
    return DriverError(
        text.splitlines()[0],
        expected=f"one of the names this transform can read: {names}",
        hint="declare the table in sources, or correct the name",
        where="transform",
    )


def _imported(module: str, name: str) -> Any:
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise DriverError(
            f"the module {module!r} of the transform cannot be imported on the driver: {error}",
            expected="a module that is on the driver's Python path, with all that it imports",
            hint="ship it with the job (py_files), or install it where the driver runs; a function of a DAG file belongs into a "
            "module of its own",
            where="transform",
        ) from error
    for part in name.split("."):
        found = getattr(found, part, None)
        if found is None:
            raise DriverError(
                f"the module {module!r} on the driver has no {name!r}",
                expected="the function that the DAG names",
                hint="ship the same version of the module as Airflow has (py_files)",
                where="transform",
            )
    return found


def _returned(value: Any, name: str) -> Any:
    if is_frame(value):
        return value
    kind = "None" if value is None else f"{type(value).__module__}.{type(value).__qualname__}"
    raise DriverError(
        f"the transform {name} returned {kind}",
        expected="a Spark DataFrame: the rows, which the session writes",
        hint="return the DataFrame and write nothing in the function"
        if value is None
        else "return spark.createDataFrame(...) for rows of Python or pandas",
        where="transform",
    )
