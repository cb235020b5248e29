"""Changed rows: what came less what went, so that rows of a rewritten file that stayed the same do not count."""

from __future__ import annotations

from typing import Any, Mapping

from airflow_incremental_spark.document import quote
from airflow_incremental_spark.errors import DriverError
from airflow_incremental_spark.settings import functions_of

#: Column that says of a changed row whether it came (``insert``) or went (``delete``), as Iceberg's changelog views name it.
CHANGE_TYPE = "_change_type"
_TIMES = "__incremental_times"
_GROUP = "__incremental_group_"
#: Options under which JSON keeps every digit of a time.
_JSON = {
    "timestampFormat": "yyyy-MM-dd'T'HH:mm:ss.SSSSSSXXX",
    "timestampNTZFormat": "yyyy-MM-dd'T'HH:mm:ss.SSSSSS",
    "ignoreNullFields": "false",
}


def changed(added: Any, removed: Any | None) -> Any:
    """Return the rows that are in one of two DataFrames and not in the other, each with how often: above zero, it came.

    Equal rows cancel each other out one by one; nulls are equal, and so are NaNs.

    :param removed: None if nothing went.
    """
    functions = functions_of(added)
    one = functions.lit(1).cast("bigint")
    if removed is None:
        return added.withColumn(_TIMES, one)
    both = added.withColumn(_TIMES, one).union(removed.withColumn(_TIMES, -one))
    # Spark 3.5 groups by anything but maps.
    maps = [f.name for f in added.schema.fields if "map<" in f.dataType.simpleString()]
    for number, name in enumerate(maps):
        text = functions.to_json(functions.struct(functions.col(quote(name))), _JSON)
        both = both.withColumn(f"{_GROUP}{number}", text)
    keys = [quote(c) for c in added.columns if c not in maps] + [f"{_GROUP}{i}" for i in range(len(maps))]
    wanted = [functions.sum(_TIMES).alias(_TIMES)]
    wanted += [functions.first(functions.col(quote(name))).alias(name) for name in maps]
    rows = both.groupBy(*keys).agg(*wanted).where(f"{_TIMES} <> 0")
    return rows.select(*[functions.col(quote(c)) for c in added.columns], _TIMES)


def changes(name: str, added: Any, removed: Any | None) -> Any:
    """Return the changed rows, each as often as it came or went, with its ``_change_type``.

    :param name: of the source.
    :raises DriverError: the source has a column of that name.
    """
    if CHANGE_TYPE in [c.lower() for c in added.columns]:
        raise DriverError(
            f"source {name!r} has a column {CHANGE_TYPE!r}, which '{name}_changes' adds to its columns",
            expected="another name",
            hint="rename the column in the source table",
            where="read",
        )
    functions = functions_of(added)
    if removed is None:
        return added.withColumn(CHANGE_TYPE, functions.lit("insert"))
    kind = functions.expr(f"CASE WHEN {_TIMES} > 0 THEN 'insert' ELSE 'delete' END").alias(CHANGE_TYPE)
    each = functions.expr(f"explode(sequence(1L, abs({_TIMES})))").alias(_TIMES)
    columns = [functions.col(quote(c)) for c in added.columns]
    return changed(added, removed).select(*columns, kind, each).drop(_TIMES)


def changed_keys(added: Any, removed: Any | None, columns: Mapping[str, str]) -> Any:
    """Return the distinct keys of changed rows.

    Rows without a whole key belong to no target row. New ones are refused by the plan; those that went may be older than the
    process.

    :param columns: name in the result -> column of the rows.
    """
    rows = changed(added, removed)
    for column in columns.values():
        rows = rows.where(f"{quote(column)} IS NOT NULL")
    wanted: list[str] = [f"{quote(column)} AS {quote(name)}" for name, column in columns.items()]
    return rows.selectExpr(*wanted).distinct()
