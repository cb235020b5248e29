"""The target as planning needs to know it, and its creation."""

from __future__ import annotations

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import NoSuchTableError, TableAlreadyExistsError
from pyiceberg.io.pyarrow import PyArrowFileIO, _pyarrow_to_schema_without_ids
from pyiceberg.partitioning import PARTITION_FIELD_ID_START, PartitionField, PartitionSpec
from pyiceberg.schema import Schema, assign_fresh_schema_ids
from pyiceberg.table import Table
from pyiceberg.table.metadata import new_table_metadata
from pyiceberg.table.refs import MAIN_BRANCH
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.table.sorting import UNSORTED_SORT_ORDER
from pyiceberg.transforms import (
    DayTransform,
    HourTransform,
    IdentityTransform,
    MonthTransform,
    Transform,
    YearTransform,
    parse_transform,
)

from airflow_incremental.core.commands import rollback_command
from airflow_incremental.core.errors import TableError, TargetNotEmpty
from airflow_incremental.core.facts import TargetFacts
from airflow_incremental.core.ranges import EventRanges, Grain
from airflow_incremental.core.spec import ProcessSpec
from airflow_incremental.core.tables import IcebergTarget, show_scope
from airflow_incremental.iceberg import naming
from airflow_incremental.iceberg.bounds import EventColumn
from airflow_incremental.iceberg.commits import load_table
from airflow_incremental.iceberg.history import main_lineage
from airflow_incremental.iceberg.keys import key_fields
from airflow_incremental.iceberg.masks import Scope
from airflow_incremental.iceberg.partitioning import check_writable
from airflow_incremental.iceberg.replace import RowSet
from airflow_incremental.iceberg.state import state_of, words_of

#: The one format version that pyiceberg can write and that has the sequence numbers a session relies on.
FORMAT_VERSION = 2
#: Of a target that is created.
_CREATED_PROPERTIES = {"format-version": str(FORMAT_VERSION)}

_TRANSFORMS: dict[type[Transform], Grain] = {  # type: ignore[type-arg]
    HourTransform: Grain.HOUR,
    DayTransform: Grain.DAY,
    MonthTransform: Grain.MONTH,
    YearTransform: Grain.YEAR,
}


def find_target(catalog: Catalog, target: IcebergTarget) -> Table | None:
    """Load the target, or return None if it does not exist."""
    try:
        return check_format(catalog.load_table(target.table))
    except NoSuchTableError:
        return None


def targets_in(catalog: Catalog, namespace: str) -> list[str]:
    """Return the identifiers of a namespace's tables that a process has published to."""
    found = []
    for identifier in sorted(catalog.list_tables(namespace)):
        properties = catalog.load_table(identifier).metadata.properties
        if any(naming.process_of_property(key) is not None for key in properties):
            found.append(".".join(identifier))
    return found


def check_format(table: Table) -> Table:
    """Refuse format versions that cannot carry a session."""
    version = table.metadata.format_version
    if version != FORMAT_VERSION:
        raise TableError(
            f"the target {'.'.join(table.name())} has format version {version}",
            expected="Iceberg format version 2",
            hint="upgrade a version 1 table (property format-version=2)"
            if version == 1
            else "write to a version 2 table; pyiceberg cannot write version 3 yet",
        )
    return table


def target_grain(table: Table, target: IcebergTarget) -> Grain | None:
    """Return the unit by which the target is partitioned by its event time, finest first, or None if it is not."""
    if target.event_time is None:
        return None
    column = EventColumn.of(table, target.event_time)
    found = []
    for field in table.spec().fields:
        if field.source_id != column.field_id:
            continue
        if isinstance(field.transform, IdentityTransform) and column.is_date:
            found.append(Grain.DAY)
        elif type(field.transform) in _TRANSFORMS:
            found.append(_TRANSFORMS[type(field.transform)])
    order = list(Grain)
    return min(found, key=order.index) if found else None


def target_facts(table: Table, spec: ProcessSpec) -> TargetFacts:
    """Check that the target can take what the process declares, and return what planning needs to know of it."""
    check_format(table)
    check_writable(table)
    grain = target_grain(table, spec.target)
    if spec.replaces_ranges and grain is None:
        fields = ", ".join(f"{f.transform}({f.name})" for f in table.spec().fields) or "nothing"
        raise TableError(
            f"the target {spec.target.table} is not partitioned by its event time {spec.target.event_time!r} but by {fields}",
            expected="partitioning by hour, day, month or year of the event time (or the date itself), "
            "because ranges of it are replaced",
            hint=f"ALTER TABLE {spec.target.table} ADD PARTITION FIELD day({spec.target.event_time}), or mode='append'",
        )
    for key in () if spec.state is None else spec.state.keys:
        if key not in table.schema().column_names:
            raise TableError(
                f"the target {spec.target.table} has no column {key!r}, by which its state is asked for ({spec.state})",
                expected=f"one of {', '.join(table.schema().column_names)}",
                hint="correct the keys of state",
            )
    replaced = spec.target.event_time if spec.replaces_ranges else None
    head = table.metadata.refs.get(MAIN_BRANCH)
    return TargetFacts(
        table_uuid=str(table.metadata.table_uuid),
        # A target without a snapshot gets one before a session is opened; a preview touches nothing.
        main=0 if head is None else head.snapshot_id,
        grain=grain,
        event_field=EventColumn.of(table, replaced).field_id if replaced is not None else None,
        key_fields=tuple(f.field_id for f in key_fields(table, spec.keys, table.schema(), what="target")),
    )


def check_first_run(table: Table, spec: ProcessSpec) -> None:
    """Refuse a first run into a target (or scope) that already holds rows, unless ``initial`` adopts them."""
    head = table.metadata.refs.get(MAIN_BRANCH)
    if head is None or spec.initial.adopt:
        return
    if holds_rows(table, spec.target.scope):
        hint = (
            "say what the rows stand for: initial={'adopt': 'current'} (the source up to now is loaded), "
            "{'adopt': <snapshot id or time of the source>}, or {'adopt': 'all'} (they come from elsewhere)"
        )
        if spec.mode == "stateful":
            hint = "delete the rows, and they are computed from the start: up to where a found state was processed is not known"
        reset = next((s for s in main_lineage(table) if state_of(s) == spec.process), None)
        # What is undone already would only be done again.
        if reset is not None and naming.BACK_TO not in words_of(reset):
            back = rollback_command(spec.target.table, spec.process, words_of(reset)[naming.SESSION])
            hint += f". Or, if the watermark should not have been taken away, bring it back with {back}"
        raise TargetNotEmpty(
            f"process {spec.process!r} has no watermark on {spec.target.table}, but the table "
            + (f"holds rows in its scope {show_scope(spec.target.scope)}" if spec.target.scope else "is not empty"),
            expected="an empty target on a first run",
            hint=hint,
        )


def holds_rows(table: Table, scope: Scope, *, snapshot: Snapshot | None = None) -> bool:
    """Say whether a target holds rows in a scope, at a snapshot or now; a file that may hold some counts."""
    owned = RowSet.of(table, event_time=None, ranges=EventRanges.everything(), scope=scope)
    return any(True for _ in owned.live(snapshot))


def iceberg_schema(columns: pa.Schema) -> Schema:
    """Return the Iceberg schema of the columns a transform returns, with field ids from 1 on."""
    return assign_fresh_schema_ids(_pyarrow_to_schema_without_ids(columns))


def check_creatable(target: IcebergTarget, columns: pa.Schema) -> Schema:
    """Return the schema of a target with the columns a transform returns.

    :raises TableError: it cannot be partitioned as declared.
    """
    schema = iceberg_schema(columns)
    for transform, column in target.partition_fields():
        if column in schema.column_names:
            kind = schema.find_field(column).field_type
            if not parse_transform(transform).can_transform(kind):
                raise TableError(
                    f"the transform returns {column!r} as {kind}, by whose {transform} {target.table} cannot be partitioned",
                    expected="a date or timestamp (an hour needs a timestamp)",
                    hint=f"CAST {column} in the transform, or change event_time or partition_by of the target",
                )
        else:
            raise TableError(
                f"the transform returns no column {column!r}; it returns {', '.join(schema.column_names)}",
                expected=f"a column to partition {target.table} by {transform}",
                hint="return the column, or change event_time or partition_by of the target",
            )
    return schema


def draft_target(catalog: Catalog, target: IcebergTarget, columns: pa.Schema) -> Table:
    """Return the target as it would be created from the columns a transform returns; nothing is created.

    :raises TableError: it cannot be partitioned as declared.
    """
    schema = check_creatable(target, columns)
    fields = [
        PartitionField(
            source_id=schema.find_field(column).field_id,
            field_id=PARTITION_FIELD_ID_START + number,
            transform=parse_transform(transform),
            name=_field_name(transform, column),
        )
        for number, (transform, column) in enumerate(target.partition_fields())
    ]
    metadata = new_table_metadata(
        schema, PartitionSpec(*fields), UNSORTED_SORT_ORDER, location="", properties=_CREATED_PROPERTIES
    )
    return Table(tuple(target.table.split(".")), metadata, "", PyArrowFileIO(), catalog)


def _field_name(transform: str, column: str) -> str:
    return column if transform == "identity" else f"{column}_{transform}"


def create_target(catalog: Catalog, target: IcebergTarget, columns: pa.Schema) -> Table:
    """Create the target from the columns a transform returns; somebody else's creation in the meantime is fine."""
    schema = check_creatable(target, columns)
    namespace = tuple(target.table.split(".")[:-1])
    catalog.create_namespace_if_not_exists(namespace)
    try:
        with catalog.create_table_transaction(
            target.table, schema=schema, properties=_CREATED_PROPERTIES
        ) as transaction:
            fields = target.partition_fields()
            if fields:
                with transaction.update_spec() as update:
                    for transform, column in fields:
                        update.add_field(column, parse_transform(transform), _field_name(transform, column))
    except TableAlreadyExistsError:
        pass
    return check_format(load_table(catalog, target.table, role="target"))


def ddl(target: IcebergTarget, columns: pa.Schema) -> str:
    """Return a CREATE TABLE statement for a target that does not exist."""
    listed = ",\n".join(f"  {f.name} {f.field_type}" for f in iceberg_schema(columns).fields)
    partitions = dict.fromkeys(target.partition_fields())
    # A scope holds whole partitions of its columns.
    partitions |= {("identity", column): None for column in target.scope or ()}
    fields = ", ".join(
        column if transform == "identity" else f"{transform}({column})" for transform, column in partitions
    )
    return f"CREATE TABLE {target.table} (\n{listed}\n) USING iceberg" + (
        f"\nPARTITIONED BY ({fields})" if fields else ""
    )
