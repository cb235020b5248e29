"""Partition fields that pyiceberg and Java do not write or read alike: tables that have them are refused, not damaged.

Spark writes all of them. Found by writing every type under every transform with both.
"""

from __future__ import annotations

from pyiceberg.partitioning import PartitionField
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.transforms import IdentityTransform, TruncateTransform
from pyiceberg.types import BinaryType, DoubleType, FixedType, UUIDType

from airflow_incremental.core.errors import TableError


def check_readable(table: Table, role: str) -> None:
    """Refuse a table some of whose manifests may be misread.

    Java writes an identity partition value of type fixed with a length that does not belong there (apache/iceberg#17501), so that
    all that comes after it in the manifest is read wrongly.

    :param role: ``source`` or ``target``.
    :raises TableError: there is such a partition field, in the current spec or an earlier one.
    """
    for schema, field in _fields(table, everything=True):
        if isinstance(field.transform, IdentityTransform) and _is(schema, field, FixedType):
            raise _refused(table, role, schema, field, "other than identity of fixed, whose values Java writes wrongly")


def check_writable(table: Table) -> None:
    """Refuse a target whose partition values pyiceberg cannot work out, or does not keep.

    It reads doubles of a manifest in single precision (apache/iceberg-python#3808) and would write them so when the manifest is
    written anew: readers that take the column from the partition value get another number.

    :raises TableError: there is such a partition field in the current spec.
    """
    check_readable(table, "target")
    for schema, field in _fields(table, everything=False):
        identity, truncate = (isinstance(field.transform, t) for t in (IdentityTransform, TruncateTransform))
        if (identity and _is(schema, field, UUIDType, DoubleType)) or (truncate and _is(schema, field, BinaryType)):
            expected = "that pyiceberg writes: neither identity of uuid or double nor truncate of binary"
            raise _refused(table, "target", schema, field, expected)


def _fields(table: Table, *, everything: bool) -> list[tuple[Schema, PartitionField]]:
    """Return partition fields with a schema that has their columns; one whose column is gone has no values any more."""
    specs = table.metadata.partition_specs if everything else [table.spec()]
    schemas = [table.schema(), *table.metadata.schemas]
    found = []
    for field in (f for spec in specs for f in spec.fields):
        schema = next((s for s in schemas if field.source_id in s.field_ids), None)
        if schema is not None:
            found.append((schema, field))
    return found


def _is(schema: Schema, field: PartitionField, *types: type) -> bool:
    return isinstance(schema.find_field(field.source_id).field_type, types)


def _refused(table: Table, role: str, schema: Schema, field: PartitionField, expected: str) -> TableError:
    column = schema.find_field(field.source_id)
    return TableError(
        f"the {role} {'.'.join(table.name())} is partitioned by {field.transform}({column.name}), a column of type "
        f"{column.field_type}",
        expected=f"partition fields {expected}",
        hint=f"rewrite the table under another partition field, such as bucket(16, {column.name})",
    )
