"""Audits in Spark: the questions of a job of kind ``audit`` about one snapshot, and their answers as JSON.

A job has ``scopes``: each names a snapshot of the target to look at, and ``questions``, in order. A question has an ``id`` and
``sql`` over the relation ``incremental_rows``, or with ``own`` a query of an author's over ``rows``, of which the rows are counted.
``many`` asks for all rows it returns as mappings, else it returns one row, of which the values count. ``when`` asks only if an
earlier question says so: ``[id, place]`` if the value there is not 0, ``[id, place, other]`` if the two values differ.

Values come back exactly: what JSON has no form for is an object of one key, which says what it is.
"""

from __future__ import annotations

import datetime
import decimal
import math
import re
from typing import Any, Dict, List, Optional

from pyspark.sql import functions, types

#: Conf of the session that the answers depend on.
CONF = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.ansi.enabled": "true",
    # Of bounds in metadata Iceberg would make a greatest value that leaves out NaN.
    "spark.sql.iceberg.aggregate-push-down.enabled": "false",
    # "${...}" in a query would be replaced by what the cluster's settings say.
    "spark.sql.variable.substitute": "false",
}
_CONDITION = re.compile(r"\[([A-Z][A-Z0-9_]*(?:\.[A-Z0-9_]+)*)\]")
#: Conditions that say nothing about a query: what is read is not there, or Spark itself is at fault.
_ENVIRONMENT = ("FAILED_READ_FILE", "INTERNAL_ERROR", "CANNOT_LOAD", "FAILED_EXECUTE", "UNABLE_TO_ACQUIRE", "OUT_OF_MEMORY")
_LIMIT = 2000


def answer_job(spark: Any, job: Dict[str, Any]) -> Dict[str, Dict[str, Any]]:
    """Answer all questions of a job, by what they look over and their ids.

    :param spark: a session whose catalogs are set; its conf is changed.
    """
    for key, value in CONF.items():
        spark.conf.set(key, value)
    table = ".".join(_quoted(part) for part in (job["catalog"]["name"] + "." + job["target"]["table"]).split("."))
    spark.sql(f"REFRESH TABLE {table}")  # a session that is used again may have it as it was before
    found = {}
    for scope in job["scopes"]:
        rows = spark.sql(f"SELECT * FROM {table} VERSION AS OF {int(scope['snapshot'])}")
        found[scope["over"]] = answers(spark, rows, scope["questions"])
    return found


def answers(spark: Any, rows: Any, questions: List[Dict[str, Any]]) -> Dict[str, Any]:
    """Answer questions about the rows of a data frame; by id, those that were not to be asked left out."""
    rows.createOrReplaceTempView("rows")
    rows.createOrReplaceTempView("incremental_rows")
    found: Dict[str, Any] = {}
    for question in questions:
        if _wanted(question.get("when"), found):
            ask = _ask_own if question.get("own") else _ask
            found[question["id"]] = ask(spark, question)
    return found


def _wanted(when: Optional[List[Any]], found: Dict[str, Any]) -> bool:
    if when is None:
        return True
    name, *places = when
    if not isinstance(found.get(name), list):  # an own query that could not be answered
        return False
    values = [found[name][place] for place in places]
    return bool(values[0] != values[1] if len(values) > 1 else values[0])


def _ask(spark: Any, question: Dict[str, Any]) -> Any:
    return _collected(spark.sql(question["sql"]), many=bool(question.get("many")))


def _ask_own(spark: Any, question: Dict[str, Any]) -> Any:
    """Ask a query of an author's; what is wrong with it is an answer too.

    It stands in a subquery, so it can be nothing but a query.
    """
    try:
        frame = spark.sql(question["sql"])
        frame.schema  # noqa: B018  analysed here; with Spark Connect not before
    except Exception as error:  # whatever kinds there are, they speak of the text
        condition = _condition(error)
        if condition is None:
            raise
        return {"refused": _first_line(error)}
    try:
        return _collected(frame, many=bool(question.get("many")))
    except Exception as error:
        condition = _condition(error)
        if condition is None or condition.startswith(_ENVIRONMENT):
            raise
        return {"stopped": condition}  # the text could quote a row


def _condition(error: BaseException) -> Optional[str]:
    """Return the name that Spark gives to the error; None if it has none."""
    for named in ("getCondition", "getErrorClass"):
        condition = getattr(error, named, None)
        if condition is not None:
            found = condition()
            if found:
                return str(found)
    found = _CONDITION.search(str(error))
    return found.group(1) if found else None


def _first_line(error: BaseException) -> str:
    text = str(error).split("\n== SQL", 1)[0].split("; line ", 1)[0].split("JVM stacktrace", 1)[0]
    return " ".join(text.split())[:_LIMIT]


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def _collected(frame: Any, *, many: bool) -> Any:
    fields = frame.schema.fields
    plain = frame.toDF(*(f"c{i}" for i in range(len(fields))))  # names may occur twice
    shown = plain.select(*(_readable(plain[f"c{i}"], f.dataType).alias(f"c{i}") for i, f in enumerate(fields)))
    rows = [[encoded(value, f.dataType) for value, f in zip(row, fields)] for row in shown.collect()]
    if many:
        return [[[f.name, value] for f, value in zip(fields, row)] for row in rows]
    if len(rows) != 1:
        raise ValueError(f"a question that has one row as its answer was answered with {len(rows)}")
    return rows[0]


def _readable(column: Any, kind: Any) -> Any:
    """Return a column as Python can have it without a look at the time zone it runs in."""
    if isinstance(kind, types.TimestampType):
        return functions.unix_micros(column)
    if isinstance(kind, types.ArrayType):
        return functions.transform(column, lambda each: _readable(each, kind.elementType))
    if isinstance(kind, types.MapType):
        pairs = functions.map_entries(column)
        return functions.transform(
            pairs,
            lambda pair: functions.struct(
                _readable(pair["key"], kind.keyType).alias("key"), _readable(pair["value"], kind.valueType).alias("value")
            ),
        )
    if isinstance(kind, types.StructType):
        inner = [_readable(column[f.name], f.dataType).alias(f"c{i}") for i, f in enumerate(kind.fields)]
        return functions.when(column.isNotNull(), functions.struct(*inner))
    known = (types.NumericType, types.BooleanType, types.StringType, types.BinaryType, types.DateType, types.NullType)
    return column if isinstance(kind, known) else column.cast("string")


def encoded(value: Any, kind: Any) -> Any:
    """Return a value of a type, as ``_readable`` has it, as JSON."""
    if value is None:
        return None
    if isinstance(kind, types.ArrayType):
        return {"list": [encoded(each, kind.elementType) for each in value]}
    if isinstance(kind, types.MapType):
        return {"map": [[encoded(pair[0], kind.keyType), encoded(pair[1], kind.valueType)] for pair in value]}
    if isinstance(kind, types.StructType):
        return {"struct": [[f.name, encoded(each, f.dataType)] for f, each in zip(kind.fields, value)]}
    if isinstance(kind, types.TimestampType):
        return {"time": int(value)}
    if isinstance(kind, types.TimestampNTZType):
        return {"naive": str(value)}
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": repr(value)}
    if isinstance(value, decimal.Decimal):
        return {"decimal": str(value)}
    if isinstance(value, datetime.date):
        return {"date": value.isoformat()}
    return {"binary": bytes(value).hex()} if isinstance(value, (bytes, bytearray)) else value
