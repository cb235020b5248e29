"""What is asked of an engine elsewhere, all at once: the one pass, and what may have to follow it; and what its answers mean.

Starting an application costs more than most questions, so one that is only asked if an earlier one says so goes along with it.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import attrs

from airflow_incremental.audits.checks import SqlCheck
from airflow_incremental.audits.compile import Counts, Measure
from airflow_incremental.audits.counting import counting, counts_of, shares, sharing, taken_apart
from airflow_incremental.audits.query import plain
from airflow_incremental.audits.spark_sql import SparkSql
from airflow_incremental.core.errors import AuditFailed
from airflow_incremental.core.ranges import EPOCH, MICROSECOND

_COUNTS = "counts"
_ROWS = SparkSql.rows


@attrs.frozen(kw_only=True)
class Answered:
    """What was found elsewhere over the rows of one scope.

    :param total: how many rows there are.
    :param found: what measures found, by the measure's name.
    :param returned: how many rows the queries of ``SqlCheck`` audits returned, by the audit's name.
    :param samples: offending rows, by the name of the measure or the audit.
    """

    total: int
    found: Mapping[str, Counts]
    returned: Mapping[str, int]
    samples: Mapping[str, tuple[Mapping[str, Any], ...]]


@attrs.frozen(kw_only=True)
class Questions:
    """What is asked of Spark about the rows of one scope.

    :param measures: in Spark's SQL.
    :param checks: queries of the author's, in Spark's SQL.
    :param samples: how many offending rows each result may show.
    """

    measures: tuple[Measure, ...]
    checks: tuple[SqlCheck, ...]
    samples: int = 0

    def as_job(self) -> list[dict[str, Any]]:
        """Return the questions as an application is asked them."""
        shown = [m for m in self.measures if self.samples and m.offends is not None]
        # Of measures without a key it is not known which aggregate counts the offending rows, so those are counted once more.
        counted = [m for m in shown if not m.keys]
        more = [f"count(*) FILTER (WHERE {m.offends})" for m in counted]
        asked: list[dict[str, Any]] = [{"id": _COUNTS, "sql": counting(self.measures, _ROWS, more)}]
        places: dict[str, tuple[int, ...]] = {}
        at = 1
        for m in self.measures:
            if m.keys:
                places[m.name] = (at, at + 1)
                asked.append({"id": f"shared {m.name}", "sql": sharing(m.keys, _ROWS), "when": [_COUNTS, at, at + 1]})
            at += len(m.aggregates)
        places.update({m.name: (at + i,) for i, m in enumerate(counted)})
        for m in shown:
            order = f" ORDER BY {', '.join(m.keys)}" if m.keys else ""  # duplicates next to each other
            sql = f"SELECT * FROM {_ROWS} WHERE {m.offends}{order} LIMIT {self.samples}"  # noqa: S608
            asked.append({"id": f"rows {m.name}", "sql": sql, "many": True, "when": [_COUNTS, *places[m.name]]})
        for check in self.checks:
            name = f"check {check.name}"
            # On lines of its own: it may end in a comment.
            own = f"(\n{check.sql}\n)"
            asked.append({"id": name, "sql": f"SELECT count(*) FROM {own}", "own": True})  # noqa: S608
            if self.samples:
                sql = f"SELECT * FROM {own} LIMIT {self.samples}"  # noqa: S608
                asked.append({"id": f"rows {check.name}", "sql": sql, "own": True, "many": True, "when": [name, 0]})
        return asked

    def read(self, answers: Mapping[str, Any], columns: Sequence[str]) -> Answered:
        """Return what the answers say.

        :param columns: names of the columns of the rows, for messages.
        :raises AuditFailed: a query of the author's is none, or stopped on a row.
        """
        more = [m for m in self.measures if self.samples and m.offends is not None and not m.keys]
        values = [decoded(v) for v in answers[_COUNTS]]
        total, taken = taken_apart(self.measures, values[: len(values) - len(more)])
        shared = {m.name: answers[f"shared {m.name}"][0] for m in self.measures if shares(m, taken[m.name])}
        returned = {check.name: _returned(check, answers, columns) for check in self.checks}
        return Answered(
            total=total,
            found=counts_of(self.measures, total, taken, shared),
            returned=returned,
            samples={
                name.removeprefix("rows "): tuple({k: plain(decoded(v)) for k, v in row} for row in rows)
                for name, rows in answers.items()
                if name.startswith("rows ") and isinstance(rows, list)
            },
        )


def _returned(check: SqlCheck, answers: Mapping[str, Any], columns: Sequence[str]) -> int:
    for name in (f"check {check.name}", f"rows {check.name}"):
        answer = answers.get(name)
        if isinstance(answer, Mapping) and "refused" in answer:
            raise AuditFailed(
                f"the SQL of audit {check.name!r} is refused by Spark: {answer['refused']}",
                expected="a SELECT over rows, in Spark's SQL, which has the columns " + ", ".join(columns),
                hint="correct the SQL; the data stays unpublished until all audits could be run",
            )
        if isinstance(answer, Mapping):
            raise AuditFailed(
                f"the SQL of audit {check.name!r} stopped on a row with {answer['stopped']} "
                "(Spark's message is left out because it can quote values of rows)",
                expected="a query that runs over every row",
                hint="use try_cast or CASE where a value may not fit, and try the query on the audited snapshot",
            )
    return int(answers[f"check {check.name}"][0])


def decoded(value: Any) -> Any:
    """Return a value that Spark's side wrote as JSON, as Arrow gives DuckDB's: times with zone in UTC."""
    if not isinstance(value, Mapping):
        return value
    ((kind, inner),) = value.items()
    return _READ[kind](inner)


def _time(micros: int) -> dt.datetime:
    return EPOCH + micros * MICROSECOND


def _naive(text: str) -> dt.datetime:
    whole, _, fraction = text.partition(".")
    return dt.datetime.fromisoformat(f"{whole}.{fraction:0<6}")


_READ: Mapping[str, Any] = {
    "float": float,
    "decimal": Decimal,
    "date": dt.date.fromisoformat,
    "time": _time,
    "naive": _naive,
    "binary": bytes.fromhex,
    "list": lambda values: [decoded(v) for v in values],
    "struct": lambda fields: {name: decoded(v) for name, v in fields},
    "map": lambda pairs: [(decoded(k), decoded(v)) for k, v in pairs],
}
