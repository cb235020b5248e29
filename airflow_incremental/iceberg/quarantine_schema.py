"""The columns of a quarantine table: those of its target, all optional, and what says of each row why it is there.

Columns are matched by name. A column the target has lost stays, one it has got is added, and one whose type grew grows.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping

from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import NoSuchTableError, ResolveError, TableAlreadyExistsError, ValidationError
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.types import (
    IcebergType,
    ListType,
    MapType,
    NestedField,
    StringType,
    StructType,
    TimestamptzType,
)

from airflow_incremental.core.errors import TableError
from airflow_incremental.core.quarantine import MARKERS, PROCESS_COLUMN, REASONS_COLUMN, SESSION_COLUMN, TIME_COLUMN
from airflow_incremental.iceberg import naming
from airflow_incremental.iceberg.commits import Change, commit, load_table
from airflow_incremental.iceberg.locks import bootstrap
from airflow_incremental.iceberg.targets import check_format

#: Ids of columns that a file of the target cannot have.
_ABSENT = 1_000_000_000


def ensure_table(catalog: Catalog, identifier: str, target: Table, *, of: str) -> Table:
    """Return the quarantine table of a target, created or given the columns it lacks where that is needed.

    :param of: identifier of the target.
    :raises TableError: there is a table of that name that is none, or whose columns cannot be made to fit.
    """
    check_columns(target, of=of)
    try:
        table = catalog.load_table(identifier)
    except NoSuchTableError:
        table = _create(catalog, identifier, target, of=of)
    check_table(table, of=of)
    if "main" not in table.metadata.refs:
        table = bootstrap(catalog, identifier)

    def grow(now: Table) -> Change | None:
        check_table(now, of=of)
        try:
            update = now.transaction().update_schema().union_by_name(_columns(target.schema()))
            updates, requirements = update._commit()  # noqa: SLF001  (only what it would commit is asked for)
        except (ValidationError, ResolveError, ValueError, TypeError) as error:
            raise TableError(
                f"the columns of the quarantine table {identifier} cannot hold rows of {of} any more: {error}",
                expected="columns of the same names whose types only grew",
                hint=f"rename {identifier}, or name another quarantine_table; it is created",
            ) from error
        return Change(updates=updates, requirements=requirements) if updates else None

    return commit(catalog, identifier, grow, what="the columns of the quarantine table")


def check_quarantine_table(catalog: Catalog, identifier: str, target: Table, *, of: str) -> None:
    """See before a load whether a table could take rows of a target that are put aside.

    :raises TableError: it could not.
    """
    check_columns(target, of=of)
    with contextlib.suppress(NoSuchTableError):
        check_table(catalog.load_table(identifier), of=of)


def check_table(table: Table, *, of: str) -> None:
    """Refuse a table that is not the quarantine table of a target.

    :raises TableError: it is not, or its format cannot take the rows.
    """
    name = ".".join(table.name())
    whose = table.metadata.properties.get(naming.QUARANTINE_OF)
    lacks = [c for c in MARKERS if c not in table.schema().column_names]
    if whose != of or lacks:
        what = f"the quarantine table of {whose}" if whose else "no quarantine table"
        raise TableError(
            f"rows of {of} were to be put aside in {name}, which is "
            + (f"a quarantine table without {', '.join(lacks)}" if whose == of else what),
            expected=f"a table of its own, created by the first session that puts rows aside, with the property "
            f"{naming.QUARANTINE_OF}={of}",
            hint="name another quarantine_table, or rename that table. If the target was renamed, set the property to its new name",
        )
    check_format(table)


def check_columns(target: Table, *, of: str) -> None:
    """Refuse a target with a column called like one of those that a quarantine table has besides.

    :raises TableError: it has.
    """
    taken = [f.name for f in target.schema().fields if f.name.casefold() in MARKERS]
    if taken:
        raise TableError(
            f"the target {of} has the column {taken[0]!r}, as quarantine tables call one of their own",
            expected=f"no column called {', '.join(MARKERS)}",
            hint="rename the column, or use another severity than 'quarantine'",
        )


def read_schema(quarantine: Schema, target: Schema) -> Schema:
    """Return the columns of a quarantine table with the ids that files of the target have them under."""
    absent = itertools.count(_ABSENT)
    return Schema(*_as_in(StructType(*quarantine.fields), StructType(*target.fields), absent).fields)


def _as_in(want: StructType, have: StructType, absent: Iterator[int]) -> StructType:
    known: Mapping[str, NestedField] = {f.name: f for f in have.fields}
    fields = []
    for field in want.fields:
        found = known.get(field.name)
        if found is None:
            # Nobody looks for what lies under it.
            fields.append(NestedField(next(absent), field.name, _renumbered(field.field_type, absent), required=False))
        else:
            kind = _type_as_in(field.field_type, found.field_type, absent)
            fields.append(NestedField(found.field_id, field.name, kind, required=False))
    return StructType(*fields)


def _type_as_in(want: IcebergType, have: IcebergType, absent: Iterator[int]) -> IcebergType:
    if isinstance(want, StructType) and isinstance(have, StructType):
        return _as_in(want, have, absent)
    if isinstance(want, ListType) and isinstance(have, ListType):
        element = _type_as_in(want.element_type, have.element_type, absent)
        return ListType(have.element_id, element, element_required=False)
    if isinstance(want, MapType) and isinstance(have, MapType):
        key = _type_as_in(want.key_type, have.key_type, absent)
        value = _type_as_in(want.value_type, have.value_type, absent)
        return MapType(have.key_id, key, have.value_id, value, value_required=False)
    return want


def _renumbered(kind: IcebergType, absent: Iterator[int]) -> IcebergType:
    """Return a type that no file has, with ids that none has either."""
    if isinstance(kind, StructType):
        return StructType(
            *(NestedField(next(absent), f.name, _renumbered(f.field_type, absent), required=False) for f in kind.fields)
        )
    if isinstance(kind, ListType):
        return ListType(next(absent), _renumbered(kind.element_type, absent), element_required=False)
    if isinstance(kind, MapType):
        key, value = _renumbered(kind.key_type, absent), _renumbered(kind.value_type, absent)
        return MapType(next(absent), key, next(absent), value, value_required=False)
    return kind


def _create(catalog: Catalog, identifier: str, target: Table, *, of: str) -> Table:
    catalog.create_namespace_if_not_exists(tuple(identifier.split(".")[:-1]))
    columns = _columns(target.schema())
    highest = columns.highest_field_id
    marks = [
        NestedField(highest + 1, PROCESS_COLUMN, StringType(), required=False, doc="name of the process"),
        NestedField(highest + 2, SESSION_COLUMN, StringType(), required=False, doc="session that wrote the row"),
        NestedField(highest + 3, TIME_COLUMN, TimestamptzType(), required=False, doc="when it was put aside"),
        NestedField(
            highest + 4,
            REASONS_COLUMN,
            ListType(highest + 5, StringType(), element_required=False),
            required=False,
            doc="names of the audits it offends, or who rejected it",
        ),
    ]
    with contextlib.suppress(TableAlreadyExistsError):
        catalog.create_table(
            identifier,
            schema=Schema(*columns.fields, *marks),
            properties={"format-version": "2", naming.QUARANTINE_OF: of},
        )
    return load_table(catalog, identifier, role="quarantine table")


def _columns(target: Schema) -> Schema:
    """Return the target's columns, all optional, at any depth."""
    return Schema(
        *(NestedField(f.field_id, f.name, _optional(f.field_type), required=False, doc=f.doc) for f in target.fields)
    )


def _optional(kind: IcebergType) -> IcebergType:
    if isinstance(kind, StructType):
        return StructType(
            *(NestedField(f.field_id, f.name, _optional(f.field_type), required=False, doc=f.doc) for f in kind.fields)
        )
    if isinstance(kind, ListType):
        return ListType(kind.element_id, _optional(kind.element_type), element_required=False)
    if isinstance(kind, MapType):
        key, value = _optional(kind.key_type), _optional(kind.value_type)
        return MapType(kind.key_id, key, kind.value_id, value, value_required=False)
    return kind
