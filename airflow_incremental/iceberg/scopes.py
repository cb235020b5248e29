"""A declared scope as the target's columns have it.

Partition values are compared exactly, so a value of another type than the column's would match nothing: nothing would be replaced,
and a second process with the same scope written otherwise would count as disjoint. Values are therefore brought to the column's
type once, before anything is compared, by a rule that leaves nothing to chance: text is read as a value of the column (that is how
templates render numbers), everything else must be of its type already. Dates stay text, in the one form ``2024-01-31``.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable

import attrs
from pyiceberg.table import Table
from pyiceberg.transforms import IdentityTransform
from pyiceberg.types import BooleanType, DateType, IcebergType, IntegerType, LongType, StringType

from airflow_incremental.core.errors import TableError
from airflow_incremental.core.spec import ProcessSpec
from airflow_incremental.core.tables import ScopeValue

_WHOLE = re.compile(r"-?(0|[1-9][0-9]*)")


def resolve_scope(table: Table, spec: ProcessSpec) -> ProcessSpec:
    """Return the process with its scope's values as the target's columns have them.

    :raises TableError: a column is not an identity partition column, or of a type without scopes; or a value is none of its type.
    """
    if spec.target.scope is None:
        return spec
    schema = table.schema()
    identity = {
        name
        for f in table.spec().fields
        if isinstance(f.transform, IdentityTransform) and (name := schema.find_column_name(f.source_id)) is not None
    }
    found: dict[str, tuple[ScopeValue, ...]] = {}
    for column, values in spec.target.scope.items():
        if column not in identity:
            remedy = f"ALTER TABLE {spec.target.table} ADD PARTITION FIELD {column}"
            raise TableError(
                f"scope column {column!r} is not an identity partition column of {spec.target.table}",
                expected="a column whose values are partitions as they are"
                + (f": {', '.join(sorted(identity))}" if identity else "; the table has none"),
                hint=f"{remedy if column in schema.column_names else 'correct the name'}, or drop the scope",
            )
        kind = schema.find_field(column).field_type
        # Nulls are a partition of their own in every type.
        found[column] = tuple(dict.fromkeys(None if v is None else _value(spec, column, kind, v) for v in values))
    return attrs.evolve(spec, target=attrs.evolve(spec.target, scope=found))


def _value(spec: ProcessSpec, column: str, kind: IcebergType, value: ScopeValue) -> ScopeValue:
    if type(kind) not in _READERS:
        raise TableError(
            f"scope column {column!r} of {spec.target.table} is of type {kind}",
            expected="a column of strings, whole numbers, booleans or dates",
            hint="declare the scope on such a column, or drop it",
        )
    read, expected = _READERS[type(kind)]
    found = read(value)
    if found is None:
        raise TableError(
            f"the scope asks column {column!r} of {spec.target.table}, which is of type {kind}, to be {value!r} "
            f"({type(value).__name__})",
            expected=expected,
            hint=f"correct the scope of process {spec.process!r}",
        )
    return found


def _string(value: ScopeValue) -> str | None:
    return value if isinstance(value, str) else None


def _whole(bits: int) -> Callable[[ScopeValue], int | None]:
    def read(value: ScopeValue) -> int | None:
        if isinstance(value, str) and _WHOLE.fullmatch(value):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            return None
        return value if -(2 ** (bits - 1)) <= value < 2 ** (bits - 1) else None

    return read


def _boolean(value: ScopeValue) -> bool | None:
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.lower())
    return value if isinstance(value, bool) else None


def _date(value: ScopeValue) -> str | None:
    try:
        return dt.date.fromisoformat(value).isoformat() if isinstance(value, str) else None
    except ValueError:
        return None


_READERS: dict[type[IcebergType], tuple[Callable[[ScopeValue], ScopeValue], str]] = {
    StringType: (_string, "text: 7 and '7' and '007' are different partitions, so write what the rows hold in quotes"),
    IntegerType: (_whole(32), "a whole number of 32 bits, or text that is one, without leading zeros"),
    LongType: (_whole(64), "a whole number of 64 bits, or text that is one, without leading zeros"),
    BooleanType: (_boolean, "a boolean, or 'true' or 'false'"),
    DateType: (_date, "a date as text, such as '2024-01-31'"),
}
