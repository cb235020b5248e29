"""Reading Avro metadata files with as little work as possible beside decoding.

pyiceberg works out anew for every file how to read its schema, which costs more than decoding a manifest of a few files. The
files of a table are written alike, so here that is done once per schema; the decoding is pyiceberg's own.
"""

from __future__ import annotations

import enum
from functools import lru_cache
from typing import Any

from pyiceberg.avro.decoder import new_decoder
from pyiceberg.avro.file import META_SCHEMA, SYNC_SIZE, AvroFileHeader
from pyiceberg.avro.reader import Reader
from pyiceberg.avro.resolver import ReadSchemaResolver, SchemaPartnerAccessor, construct_reader, resolve_reader
from pyiceberg.io import FileIO
from pyiceberg.manifest import (
    DEFAULT_READ_VERSION,
    MANIFEST_ENTRY_SCHEMAS,
    MANIFEST_LIST_FILE_SCHEMAS,
    DataFile,
    DataFileContent,
    FileFormat,
    ManifestContent,
    ManifestEntry,
    ManifestEntryStatus,
    ManifestFile,
    PartitionFieldSummary,
)
from pyiceberg.schema import Schema, visit_with_partner
from pyiceberg.types import IcebergType

_HEADER = construct_reader(META_SCHEMA, {-1: AvroFileHeader})
_PARTITION_SUMMARIES = "partitions"


class Kind(enum.Enum):
    """What a file holds, and which fields of it are wanted."""

    ENTRIES = "manifest entries"
    LIST = "manifests with their partition summaries"
    #: Half of the time it takes to read a list goes into the partition summaries, which only pruning needs.
    BARE_LIST = "manifests"


def read_records(io: FileIO, location: str, kind: Kind) -> list[Any]:
    """Return the records of an Avro file: ``ManifestEntry`` or ``ManifestFile`` objects.

    :raises FileNotFoundError: the file is gone.
    :raises ValueError: the file is damaged.
    """
    with io.new_input(location).open() as stream:
        decoder = new_decoder(stream.read())
    header: AvroFileHeader = _HEADER.read(decoder)
    reader = _reader(header.meta["avro.schema"], kind)
    codec = header.compression_codec()
    records: list[Any] = []
    while True:
        try:
            count = decoder.read_int()
        except EOFError:
            return records
        data = decoder.read_bytes()
        block = new_decoder(data if codec is None else codec.decompress(data))
        records.extend(reader.read(block) for _ in range(count))
        if decoder.read(SYNC_SIZE) != header.sync:
            raise ValueError(f"{location} is damaged: the marker after a block of {count} records is not the file's")


@lru_cache(maxsize=256)
def _reader(schema: str, kind: Kind) -> Reader:
    """Return what reads records of an Avro schema; it keeps no state and may be shared by threads."""
    header = AvroFileHeader(b"", {"avro.schema": schema}, b"")
    if kind is Kind.ENTRIES:
        return resolve_reader(
            header.get_schema(),
            MANIFEST_ENTRY_SCHEMAS[DEFAULT_READ_VERSION],
            {-1: ManifestEntry, 2: DataFile},
            {0: ManifestEntryStatus, 101: FileFormat, 134: DataFileContent},
        )
    wanted = MANIFEST_LIST_FILE_SCHEMAS[DEFAULT_READ_VERSION]
    if kind is Kind.BARE_LIST:
        names = [f.name for f in wanted.fields]
        # The fields of a record are found by position, so only what follows can be left out.
        wanted = Schema(*wanted.fields[: names.index(_PARTITION_SUMMARIES)])
    resolver = ReadSchemaResolver({-1: ManifestFile, 508: PartitionFieldSummary}, {517: ManifestContent})
    found: Reader = visit_with_partner(header.get_schema(), wanted, resolver, _Leaving())  # type: ignore[misc]
    return found


class _Leaving(SchemaPartnerAccessor):
    """Lets lists of records be left out, which pyiceberg takes for a mismatch of the schemas."""

    def field_partner(self, partner: IcebergType | None, field_id: int, field_name: str) -> IcebergType | None:
        """Return the wanted type of a field; None if the record is not wanted."""
        return None if partner is None else super().field_partner(partner, field_id, field_name)

    def list_element_partner(self, partner_list: IcebergType | None) -> IcebergType | None:
        """Return the wanted type of a list's elements; None if the list is not wanted."""
        return None if partner_list is None else super().list_element_partner(partner_list)
