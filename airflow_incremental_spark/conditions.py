"""Conditions made of columns, that Iceberg can prune and delete by."""

from __future__ import annotations

from operator import or_
from typing import Any, Callable, Mapping, Sequence

from airflow_incremental_spark.document import quote


def balanced(items: Sequence[Any], joined: Callable[[Any, Any], Any]) -> Any:
    """Join some things by twos, as a tree of no more levels than it takes.

    Spark Connect's messages nest as what they say does, and protobuf refuses to read more than a hundred levels.
    """
    found = list(items)
    while len(found) > 1:
        found = [joined(*found[i : i + 2]) if i + 1 < len(found) else found[i] for i in range(0, len(found), 2)]
    return found[0]


def any_of(functions: Any, conditions: Sequence[Any]) -> Any:
    """Return the condition (a column) that one of some conditions holds; of none, none does."""
    return balanced([*conditions] or [functions.lit(False)], or_)  # noqa: FBT003 - a value


def in_scope(functions: Any, schema: Any, scope: Mapping[str, Sequence[Any]] | None) -> Any:
    """Return the condition (a column) that a row has one of the scope's values in every scope column; null counts as a value.

    :param functions: those of the session.
    :param schema: of the rows.
    """
    kinds = {f.name: f.dataType for f in schema.fields}
    found = functions.lit(True)  # noqa: FBT003 - a value
    for column, values in (scope or {}).items():
        name, kind = functions.col(quote(column)), kinds[column]
        # Dates are listed as text.
        each = [name.isNull() if v is None else name.eqNullSafe(functions.lit(v).cast(kind)) for v in values]
        found = found & any_of(functions, each)
    return found
