"""Audits in Spark: the questions of a job of kind ``audit`` about snapshots of the target, and their answers in its mark.

A job has ``scopes``: each names a snapshot to look at, and ``questions``, in order. A question has an ``id`` and ``sql`` over the
relation ``incremental_rows`` that returns one row; with ``own`` it is around a query of an author's over ``rows``. With ``when``,
which is ``[id, place, other]``, it is only asked if two values of an earlier answer differ.

Values come back exactly: what JSON has no form for is an object of one key, which says what it is. No row as a whole does: a mark
is part of the table's metadata, of which old files may stay.
"""

from __future__ import annotations

import base64
import datetime as dt
import decimal
import json
import math
import re
import time
import zlib
from typing import Any, Mapping, Sequence

from airflow_incremental_spark.branch import Branch
from airflow_incremental_spark.document import identifier
from airflow_incremental_spark.errors import during, first_lines
from airflow_incremental_spark.job import last_words, say
from airflow_incremental_spark.settings import configure, functions_of

#: Conf of the session that the answers depend on, beside what every job has.
CONF = {
    # Of bounds in metadata Iceberg would make a greatest value that leaves out NaN.
    "spark.sql.iceberg.aggregate-push-down.enabled": "false",
    # "${...}" in a query would be replaced by what the cluster's settings say.
    "spark.sql.variable.substitute": "false",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.ansi.enabled": "true",
}
_CONDITION = re.compile(r"\[([A-Z][A-Z0-9_]*(?:\.[A-Z0-9_]+)*)\]")
#: Conditions that say nothing about a query: what is read is not there, or Spark itself is at fault.
_ENVIRONMENT = (
    "CANNOT_LOAD",
    "FAILED_EXECUTE",
    "FAILED_READ_FILE",
    "INTERNAL_ERROR",
    "OUT_OF_MEMORY",
    "UNABLE_TO_ACQUIRE",
)
#: Answers of more characters are packed.
_LONG = 4_000
_MOST_SAID = 2_000


def run_audit(spark: Any, document: Mapping[str, Any]) -> dict[str, Any]:
    """Answer the questions of a job and leave the answers in the mark of its branch.

    :param spark: a session, classic or Connect. Its conf is changed.
    :returns: the answers.
    :raises DriverError: the branch is not this job's; Spark's own errors pass as they are. Whatever it is, the branch is marked.
    """
    started, branch = time.monotonic(), Branch(spark, document)
    try:
        with during("bind"):
            configure(spark, document)
            branch.check()
        with during("read"):
            found = answered(spark, document)
        said = {
            "seconds": round(time.monotonic() - started, 1),
            "spark": spark.version,
            "application": spark.conf.get("spark.app.id", None),
        }
        with during("write"):
            branch.mark("done", json.dumps(dict(said, answers=packed(found))))
    except Exception as error:
        last_words(branch, error, {})
        raise
    say(json.dumps(dict(said, driver="done")))
    return found


def answered(spark: Any, document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the answers to all questions of a job, by the name of the scope and their ids."""
    for key, value in CONF.items():
        spark.conf.set(key, value)
    table = identifier(document["catalog"]["name"], document["target"]["table"])
    found = {}
    for scope in document["scopes"]:
        rows = spark.sql(f"SELECT * FROM {table} VERSION AS OF {scope['snapshot']:d}")  # noqa: S608 - quoted, and a number
        found[scope["over"]] = answers(spark, rows, scope["questions"])
    return found


def answers(spark: Any, rows: Any, questions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Answer questions about the rows of a DataFrame; by id, those that were not to be asked left out."""
    for name in ("rows", "incremental_rows"):
        rows.createOrReplaceTempView(name)
    found: dict[str, Any] = {}
    for question in questions:
        if "when" in question:
            name, place, other = question["when"]
            if found[name][place] == found[name][other]:
                continue
        ask = _own if question.get("own") else _one_row
        found[question["id"]] = ask(spark, question["sql"])
    return found


def packed(found: Mapping[str, Any]) -> Any:
    """Return answers as a mark has them: as they are, or many as compressed text."""
    text = json.dumps(found)
    return found if len(text) <= _LONG else base64.b85encode(zlib.compress(text.encode())).decode()


def _one_row(spark: Any, sql: str) -> list[Any]:
    return _values(spark.sql(sql))


def _own(spark: Any, sql: str) -> Any:
    """Ask what a query of an author's has; what is wrong with it is an answer too.

    The query stands in a subquery, so it can be nothing else.
    """
    try:
        frame = spark.sql(sql)
        frame.schema  # noqa: B018 - looked at here; with Spark Connect not before
    except Exception as error:
        if _condition(error) is None:
            raise
        return {"refused": _about_sql(error)}
    try:
        return _values(frame)
    except Exception as error:
        condition = _condition(error)
        if condition is None or condition.startswith(_ENVIRONMENT):
            raise
        return {"stopped": condition}  # its text could quote a row


def _condition(error: BaseException) -> str | None:
    """Return the name that Spark gives to an error; None if it has none."""
    for named in ("getCondition", "getErrorClass"):
        known = getattr(error, named, None)
        name = known() if known is not None else None
        if name:
            return str(name)
    found = _CONDITION.search(str(error))
    return found.group(1) if found else None


def _about_sql(error: BaseException) -> str:
    text = first_lines(error)
    for end in ("\n== SQL", "; line ", "\n'"):  # after them: the query, with what stands around it, and its plan
        text = text.split(end, 1)[0]
    return " ".join(text.split())[:_MOST_SAID]


def _values(frame: Any) -> list[Any]:
    """Return the values of the one row of a DataFrame."""
    fields, functions = frame.schema.fields, functions_of(frame)
    names = [f"c{i}" for i in range(len(fields))]
    kinds = [f.dataType.typeName() for f in fields]
    plain = frame.toDF(*names)  # as Python can have it without a look at the time zone it runs in
    shown = [
        functions.unix_micros(plain[n])
        if k == "timestamp"
        else plain[n].cast("string")
        if k == "timestamp_ntz"
        else plain[n]
        for n, k in zip(names, kinds)
    ]
    (row,) = plain.select(*shown).collect()
    return [_encoded(value, kind) for value, kind in zip(row, kinds)]


def _encoded(value: Any, kind: str) -> Any:
    if value is None:
        return None
    if kind in {"timestamp", "timestamp_ntz"}:
        return {kind: value}
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": repr(value)}
    if isinstance(value, decimal.Decimal):
        return {"decimal": str(value)}
    return {"date": value.isoformat()} if isinstance(value, dt.date) else value
