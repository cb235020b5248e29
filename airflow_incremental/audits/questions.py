"""What is asked of Spark about rows, all at once: the one pass, and what may have to follow it; and what its answers mean.

Starting an application costs more than most questions, so one that is only asked if an earlier one says so goes along with it.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import attrs

from airflow_incremental.audits.checks import SqlCheck
from airflow_incremental.audits.compile import Counts, Measure
from airflow_incremental.audits.counting import counting, counts_of, shares, sharing, taken_apart
from airflow_incremental.audits.spark_sql import SparkSql
from airflow_incremental.core.errors import AuditFailed
from airflow_incremental.core.ranges import EPOCH, MICROSECOND

_COUNTS = "counts"


@attrs.frozen(kw_only=True)
class Answered:
    """What was found in Spark over the rows of one scope.

    :param total: how many rows there are.
    :param found: what measures found, by the measure's name.
    :param returned: how many rows the queries of ``SqlCheck`` audits returned, by the audit's name.
    """

    total: int
    found: Mapping[str, Counts]
    returned: Mapping[str, int]


@attrs.frozen(kw_only=True)
class Questions:
    """What is asked of Spark about the rows of one scope.

    :param measures: in Spark's SQL.
    :param checks: queries of the author's, in Spark's SQL.
    """

    measures: tuple[Measure, ...]
    checks: tuple[SqlCheck, ...]

    def as_job(self) -> list[dict[str, Any]]:
        """Return the questions as an application is asked them."""
        rows = SparkSql.rows
        asked: list[dict[str, Any]] = [{"id": _COUNTS, "sql": counting(self.measures, rows)}]
        at = 1
        for m in self.measures:
            if m.keys:
                when = [_COUNTS, at, at + 1]
                asked.append({"id": f"shared {m.name}", "sql": sharing(m.keys, rows), "when": when})
            at += len(m.aggregates)
        for check in self.checks:
            # On lines of its own: it may end in a comment.
            sql = f"SELECT count(*) FROM (\n{check.sql}\n)"  # noqa: S608
            asked.append({"id": f"check {check.name}", "sql": sql, "own": True})
        return asked

    def read(self, answers: Mapping[str, Any], columns: Sequence[str]) -> Answered:
        """Return what the answers say.

        :param columns: names of the columns of the rows, for messages.
        :raises AuditFailed: a query of the author's is none, or stopped on a row.
        """
        total, taken = taken_apart(self.measures, [decoded(v) for v in answers[_COUNTS]])
        shared = {m.name: answers[f"shared {m.name}"][0] for m in self.measures if shares(m, taken[m.name])}
        return Answered(
            total=total,
            found=counts_of(self.measures, total, taken, shared),
            returned={c.name: _returned(c, answers[f"check {c.name}"], columns) for c in self.checks},
        )


def _returned(check: SqlCheck, answer: Any, columns: Sequence[str]) -> int:
    if isinstance(answer, Mapping) and "refused" in answer:
        raise AuditFailed(
            f"the SQL of audit {check.name!r} is refused by Spark: {answer['refused']}",
            expected="a SELECT over rows in Spark's SQL, which has the columns " + ", ".join(columns),
            hint="correct the SQL; the data stays unpublished until all audits could be run",
        )
    if isinstance(answer, Mapping):
        raise AuditFailed(
            f"the SQL of audit {check.name!r} stopped on a row with {answer['stopped']} "
            "(Spark's message is left out because it can quote values of rows)",
            expected="a query that runs over every row",
            hint="use try_cast or CASE where a value may not fit, and try the query on the audited snapshot",
        )
    return int(answer[0])


def unpacked(answers: Any) -> Any:
    """Return answers as they were before they were packed into the mark of a branch."""
    return json.loads(zlib.decompress(base64.b85decode(answers))) if isinstance(answers, str) else answers


def decoded(value: Any) -> Any:
    """Return a value that Spark's side wrote as JSON, as Arrow gives DuckDB's: times with zone in UTC."""
    if not isinstance(value, Mapping):
        return value
    ((kind, inner),) = value.items()
    return _READ[kind](inner)


def _with_zone(micros: int) -> dt.datetime:
    return EPOCH + micros * MICROSECOND


def _without_zone(text: str) -> dt.datetime:
    whole, _, fraction = text.partition(".")
    return dt.datetime.fromisoformat(f"{whole}.{fraction:0<6}")


_READ: Mapping[str, Callable[[Any], Any]] = {
    "float": float,
    "decimal": Decimal,
    "date": dt.date.fromisoformat,
    "timestamp": _with_zone,
    "timestamp_ntz": _without_zone,
}
