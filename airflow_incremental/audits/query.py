"""Statements over the audited rows, with errors that say what went wrong and quote no value of a row.

DuckDB's messages quote values (``Could not convert string 'Jane Doe' to INT32``), file paths hold partition values,
and an exception keeps the one it was raised under. So only messages about the SQL text itself are passed on, and only
from before any row is read; our errors are raised outside the ``except`` block that caught DuckDB's.
"""

from __future__ import annotations

import datetime as dt
import math
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, TypeVar

import attrs
import duckdb

from airflow_incremental.audits.checks import SqlCheck
from airflow_incremental.core.audit import AuditIncomplete
from airflow_incremental.core.errors import AuditFailed, IncrementalError, PlanExpired, TransformError
from airflow_incremental.core.ranges import format_time
from airflow_incremental.core.reads import SourceRead
from airflow_incremental.engines.relations import bind
from airflow_incremental.engines.worker import Worker

T = TypeVar("T")

_CHECK_VIEW = '"audit check"'
_TEXT_LIMIT = 200
#: What can go wrong with a right query over right rows; everything else in a query of the author's is the query's
#: fault.
ENVIRONMENT = (
    duckdb.IOException,
    duckdb.HTTPException,
    duckdb.OutOfMemoryException,
    duckdb.InterruptException,
    duckdb.InternalException,
    duckdb.FatalException,
    duckdb.ConnectionException,
    OSError,
    MemoryError,
)
#: Raised while a statement is parsed and bound; they speak of its text.
_ABOUT_SQL = (duckdb.ParserException, duckdb.BinderException, duckdb.CatalogException)


@attrs.frozen
class Rows:
    """The audited rows, on a connection of their own; ``bind`` comes first.

    Statements run in the worker's thread, so that an exception in the caller's, such as Airflow's timeout, stops them.
    """

    worker: Worker
    read: SourceRead

    @property
    def con(self) -> duckdb.DuckDBPyConnection:
        """The connection, for what the methods here do not do; use it between statements only."""
        return self.worker.con

    def bind(self) -> None:
        """Make the rows the relation that the read names.

        :raises AuditFailed: if their columns cannot be told apart in SQL.
        :raises AuditIncomplete: if they cannot be opened.
        """
        doing = "open the written rows"
        try:
            self.guarded(lambda: bind(self.con, self.read), doing=doing)
        except TransformError as error:
            refused: IncrementalError = AuditFailed(
                f"no audit can run over the written rows: {error.found}",
                expected=error.expected,
                hint="rename one of the columns in the target",
            )
        except PlanExpired as error:  # names the file that is gone by its path, which holds partition values
            refused = self._incomplete(error, doing)
        else:
            return
        raise refused

    def guarded(self, work: Callable[[], T], *, doing: str) -> T:
        """Do something of our own with the rows; whatever stops it says nothing about the data.

        :raises AuditIncomplete: if it fails.
        """
        outcome = self._attempt(work)
        if isinstance(outcome, Exception):
            raise self._incomplete(outcome, doing)
        return outcome

    def one_row(self, sql: str, values: Mapping[str, Any], *, audit: SqlCheck | None = None) -> list[Any]:
        """Run a statement that returns one row, and return its values.

        :param audit: the audit whose own SQL is run, if any.
        """

        def work() -> list[Any]:
            # Through Arrow, as in samples.
            table = self.con.sql(sql, params=dict(values) or None).to_arrow_table()
            return [column[0].as_py() for column in table.columns]

        return self._run(work, audit)

    def samples(
        self, sql: str, values: Mapping[str, Any], *, audit: SqlCheck | None = None
    ) -> tuple[Mapping[str, Any], ...]:
        """Run a statement that returns offending rows, as JSON values by column."""

        def work() -> tuple[Mapping[str, Any], ...]:
            # Through Arrow: DuckDB's own Python values of a time with zone need a library that may be missing.
            table = self.con.sql(sql, params=dict(values) or None).to_arrow_table()
            columns = [column.to_pylist() for column in table.columns]
            return tuple(
                {name: plain(v) for name, v in zip(table.column_names, row, strict=True)}
                for row in zip(*columns, strict=True)
            )

        return self._run(work, audit)

    def view_of(self, audit: SqlCheck) -> str:
        """Make an ``SqlCheck``'s query a view, which binds it without reading a row, and return the view's name.

        :raises AuditFailed: if it is not one SELECT that fits the rows.
        """

        def work() -> list[duckdb.Statement]:
            found = self.con.extract_statements(audit.sql)
            if len(found) == 1 and found[0].type == duckdb.StatementType.SELECT and not found[0].named_parameters:
                self.con.execute(f"CREATE OR REPLACE TEMP VIEW {_CHECK_VIEW} AS {found[0].query}")
            return found

        found = self._attempt(work)
        if isinstance(found, ENVIRONMENT):
            raise self._incomplete(found, f"prepare audit {audit.name!r}")
        if isinstance(found, Exception):
            # What follows shows the statement around the query, which the author did not write.
            said = str(found).partition("\n\nLINE ")[0]
            text = " ".join(said.split()) if isinstance(found, _ABOUT_SQL) else type(found).__name__
            raise AuditFailed(
                f"the SQL of audit {audit.name!r} is refused by DuckDB: {text}",
                expected="a SELECT over rows, which has the columns " + ", ".join(self.read.schema.names),
                hint="correct the SQL; the data stays unpublished until all audits could be run",
            )
        if len(found) != 1 or found[0].type != duckdb.StatementType.SELECT or found[0].named_parameters:
            raise AuditFailed(
                f"the SQL of audit {audit.name!r} holds {_what(found)}",
                expected="one SELECT over rows that returns offending rows",
                hint="split it into several checks, and write values into the SQL with templates instead of parameters",
            )
        return _CHECK_VIEW

    def _run(self, work: Callable[[], T], audit: SqlCheck | None) -> T:
        if audit is None:
            return self.guarded(work, doing="read the written rows")
        outcome = self._attempt(work)
        if not isinstance(outcome, Exception):
            return outcome
        if isinstance(outcome, ENVIRONMENT):
            raise self._incomplete(outcome, f"run audit {audit.name!r}")
        raise AuditFailed(
            f"the SQL of audit {audit.name!r} stopped on a row with {type(outcome).__name__} "
            "(DuckDB's message is left out because it can quote values of rows)",
            expected="a query that runs over every row",
            hint="use TRY_CAST or CASE where a value may not fit, and try the query on the audited snapshot",
        )

    def _attempt(self, work: Callable[[], T]) -> T | Exception:
        return attempt(lambda: self.worker.call(work))

    def _incomplete(self, error: Exception, doing: str) -> IncrementalError:
        found = f"could not {doing}: {origin(error)}"
        paths = [Path(p.removeprefix("file://")) for part in self.read.parts for p in part.paths or ()]
        gone = [p.name for p in paths if not p.is_file()]
        if gone:
            found += f"; {len(gone)} of {len(paths)} data files are not there, such as {gone[0]}"
        # DuckDB hides what went wrong in a stream behind an error of its own.
        streams = [attempt(part.batches) for part in self.read.parts if part.paths is None]
        broken = [s for s in streams if isinstance(s, Exception)]
        if broken:
            found += f"; {len(broken)} of {len(streams)} streams of rows cannot be opened: {origin(broken[0])}"
        hint = "retry the task; if files are gone for good, abandon the session so that the next run plans anew"
        if isinstance(error, (duckdb.OutOfMemoryException, MemoryError)):
            hint = (
                "raise memory_limit, give the worker more memory, or drop Unique from the audits of very large sessions"
            )
        return AuditIncomplete(found, expected="rows that can be read to their end", hint=hint)


def attempt(work: Callable[[], T]) -> T | Exception:
    """Return what ``work`` returns, or what it raised, to be looked at outside the ``except`` block."""
    try:
        return work()
    except IncrementalError:
        raise
    except Exception as error:  # noqa: BLE001  whatever it is, its message may quote a row
        return error


def origin(error: Exception) -> str:
    """Return the kind of an error and, if it is not DuckDB's, where it came from; never its text."""
    frames = traceback.extract_tb(error.__traceback__)
    if isinstance(error, duckdb.Error) or not frames:
        return type(error).__name__
    return f"{type(error).__name__} at {PurePath(frames[-1].filename).name}:{frames[-1].lineno}"


def _what(found: Sequence[duckdb.Statement]) -> str:
    if len(found) != 1:
        return f"{len(found) or 'no'} statements"
    if found[0].named_parameters:
        return "a parameter"
    return f"a statement of type {found[0].type.name}"


def plain(value: Any) -> Any:
    """Return a value of a sample row as JSON can hold it: text where JSON has no form, and long text is cut."""
    if value is None or isinstance(value, (bool, int)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, dt.datetime):
        text = value.isoformat() if value.tzinfo is None else format_time(value)
    else:
        text = value.hex() if isinstance(value, bytes) else str(value)
    return text if len(text) <= _TEXT_LIMIT else text[:_TEXT_LIMIT] + "..."
