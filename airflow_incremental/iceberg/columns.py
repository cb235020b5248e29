"""Which columns a data file really has, by Iceberg field id, and whether they are the table's.

``add_files`` takes files whose field ids belong to another table; read by id, their columns come back as NULL without
a word (or as each other). Such a file is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlparse

import attrs
import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.io import FileIO
from pyiceberg.io.pyarrow import UnsupportedPyArrowTypeException, pyarrow_to_schema, schema_to_pyarrow
from pyiceberg.manifest import DataFile, FileFormat
from pyiceberg.schema import Schema, sanitize_column_names
from pyiceberg.table import Table
from pyiceberg.transforms import IdentityTransform
from pyiceberg.types import NestedField

from airflow_incremental.core.errors import TableError

_FIELD_ID = b"PARQUET:field_id"


def local_path(location: str) -> str | None:
    """Return the path of a file on a local file system, or None if the location is remote."""
    uri = urlparse(location)
    if not uri.scheme:
        return location
    return f"{uri.netloc}{uri.path}" if uri.scheme == "file" else None


@attrs.frozen(kw_only=True)
class FileColumns:
    """The columns of one Parquet file as a table sees them."""

    physical: pa.Schema
    #: The same with the table's field ids, from the file itself or from the table's name mapping.
    schema: Schema
    #: Whether the ids are in the file.
    has_ids: bool

    def name_of(self, field_id: int) -> str | None:
        """Return the name a top-level column has in the file, or None if the file does not have it."""
        return next((f.name for f in self.schema.fields if f.field_id == field_id), None)


@attrs.define
class ColumnReader:
    """Opens files of a table and finds out which columns they have; files written alike are worked out once."""

    table: Table
    _names: dict[int, set[str]] = attrs.field(factory=dict, init=False)
    _known: dict[bytes, FileColumns] = attrs.field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        for schema in self.table.metadata.schemas:
            # Writers replace characters that Avro does not take in names; both forms are the column's.
            for form in (schema, sanitize_column_names(schema)):
                for field_id in form.field_ids:
                    name = form.find_column_name(field_id)
                    if name is not None:
                        self._names.setdefault(field_id, set()).add(name)

    @property
    def io(self) -> FileIO:
        """The table's file access."""
        return self.table.io

    def of_file(self, location: str) -> FileColumns:
        """Read the footer of a Parquet file.

        :raises FileNotFoundError: the file is gone.
        :raises TableError: its columns are not the table's.
        """
        with self.io.new_input(location).open() as stream:
            return self.of_schema(pq.read_schema(stream), location)

    def of_schema(self, physical: pa.Schema, location: str) -> FileColumns:
        """Match a file's columns with the table's.

        :raises TableError: its columns are not the table's.
        """
        key = physical.serialize().to_pybytes()
        if key in self._known:
            return self._known[key]
        try:
            schema = pyarrow_to_schema(physical, self.table.metadata.name_mapping(), downcast_ns_timestamp_to_us=True)
        except (ValueError, UnsupportedPyArrowTypeException) as error:
            raise self._foreign(location, f"cannot be matched with the table's columns ({error})") from error
        has_ids = all(_has_id(f) for f in physical)
        if has_ids:
            self._check(schema, location)
        found = FileColumns(physical=physical, schema=schema, has_ids=has_ids)
        self._known[key] = found
        return found

    def _check(self, schema: Schema, location: str) -> None:
        owners: dict[str, set[int]] = {}
        for field_id, names in self._names.items():
            for name in names:
                owners.setdefault(name, set()).add(field_id)
        for field_id in sorted(schema.field_ids):
            column = schema.find_column_name(field_id)
            if column in owners and column not in self._names.get(field_id, ()):
                raise self._foreign(
                    location,
                    f"has its column {column!r} under field id {field_id}, the table under {sorted(owners[column])}",
                )
        if schema.field_ids and self._names.keys().isdisjoint(schema.field_ids):
            raise self._foreign(
                location, f"has field ids {sorted(schema.field_ids)[:8]}, none of which the table knows"
            )

    def _foreign(self, location: str, what: str) -> TableError:
        return TableError(
            f"data file {location} of table {'.'.join(self.table.name())} {what}",
            expected="a file written for this table; with other field ids its columns would be read as NULL, or as each other",
            hint="remove the file from the table and append its rows, or rewrite it without field ids and set "
            "schema.name-mapping.default before add_files",
        )


def _has_id(field: pa.Field) -> bool:
    """Say whether a column and everything nested in it has a field id."""
    kind = field.type
    nested = (
        (kind.key_field, kind.item_field) if pa.types.is_map(kind) else (kind.field(i) for i in range(kind.num_fields))
    )
    return field.metadata is not None and _FIELD_ID in field.metadata and all(_has_id(f) for f in nested)


def plain_in(columns: FileColumns, schema: Schema, file: DataFile, identity: Mapping[int, int]) -> bool:
    """Say whether an engine that reads a Parquet file by field ids, NULL where there is none, gets what Iceberg says.

    It does not when nested columns have evolved, values stand in the partition tuple only, or physical types need
    Iceberg's rules.

    :param schema: columns that are wanted.
    :param identity: source field id -> position in the partition tuple, for identity partition fields of the file's
        spec.
    """
    if not columns.has_ids or file.file_format != FileFormat.PARQUET:
        return False
    in_file = {f.field_id: f for f in columns.schema.fields}
    return all(_plain(field, in_file.get(field.field_id), columns.physical, file, identity) for field in schema.fields)


def _plain(
    wanted: NestedField, found: NestedField | None, physical: pa.Schema, file: DataFile, identity: Mapping[int, int]
) -> bool:
    if found is None:
        position = identity.get(wanted.field_id)
        return not wanted.required and (position is None or file.partition[position] is None)
    if not wanted.field_type.is_primitive or not found.field_type.is_primitive:
        return wanted.field_type == found.field_type
    here, there = physical.field(found.name).type, schema_to_pyarrow(wanted.field_type)
    return _same(here, there) or _widens(here, there)


def _same(here: pa.DataType, there: pa.DataType) -> bool:
    text, raw = (pa.string(), pa.large_string()), (pa.binary(), pa.large_binary())
    return here == there or (here in text and there in text) or (here in raw and there in raw)


def _widens(here: pa.DataType, there: pa.DataType) -> bool:
    if pa.types.is_decimal(here) and pa.types.is_decimal(there):
        return bool(here.scale == there.scale and here.precision <= there.precision)
    return (here, there) in ((pa.int32(), pa.int64()), (pa.float32(), pa.float64()))


def identity_positions(table: Table) -> dict[int, dict[int, int]]:
    """Return spec id -> source field id -> position in the partition tuple, for identity partition fields."""
    return {
        spec.spec_id: {f.source_id: i for i, f in enumerate(spec.fields) if isinstance(f.transform, IdentityTransform)}
        for spec in table.metadata.partition_specs
    }
