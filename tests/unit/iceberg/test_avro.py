"""Metadata files are read faster than pyiceberg does it, and just the same."""

from __future__ import annotations

import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.manifest import ManifestFile, _inherit_from_manifest, read_manifest_list
from pyiceberg.table import Table

from airflow_incremental.iceberg.avro import Kind, read_records
from tests.support.tables import append, at, delete_rows_by_position, head, make_table, repartition


@pytest.fixture(params=[2, 1], ids=["v2", "v1"])
def table(catalog: Catalog, request: pytest.FixtureRequest) -> Table:
    """Two specs, removed files and (in format version 2) row-level deletes."""
    found = make_table(catalog, partition_by=[("hour", "ts"), ("bucket[2]", "id")], version=request.param)
    append(found, (1, at(0)), (2, None), (3, at(5)))
    repartition(found, [])
    append(found, (4, at(7)))
    found.delete("id = 1")
    if request.param == 2:
        delete_rows_by_position(found, [3])
    return found.refresh()


def test_lists_are_those_of_pyiceberg(table: Table) -> None:
    for snapshot in table.metadata.snapshots:
        expected = list(read_manifest_list(table.io.new_input(snapshot.manifest_list)))
        assert [m._data for m in read_records(table.io, snapshot.manifest_list, Kind.LIST)] == [
            m._data for m in expected
        ]
        bare = read_records(table.io, snapshot.manifest_list, Kind.BARE_LIST)
        assert all(isinstance(m, ManifestFile) for m in bare)
        assert [m._data for m in bare] == [m._data[:13] for m in expected]


def test_entries_are_those_of_pyiceberg(table: Table) -> None:
    manifests = head(table).manifests(table.io)
    assert len(manifests) >= 2
    for manifest in manifests:
        expected = manifest.fetch_manifest_entry(table.io, discard_deleted=False)
        found = read_records(table.io, manifest.manifest_path, Kind.ENTRIES)
        for ours, theirs in zip(found, expected, strict=True):
            assert _inherit_from_manifest(ours, manifest)._data[:4] == theirs._data[:4]
            assert ours.data_file._data == theirs.data_file._data
            assert ours.data_file.spec_id == theirs.data_file.spec_id


def test_a_damaged_file_is_an_error(table: Table) -> None:
    path = head(table).manifest_list
    with table.io.new_input(path).open() as stream:
        content = bytearray(stream.read())
    content[-1] ^= 0xFF
    with table.io.new_output(path).create(overwrite=True) as stream:
        stream.write(bytes(content))
    with pytest.raises(ValueError, match="is damaged"):
        read_records(table.io, path, Kind.LIST)


def test_a_file_that_is_gone_is_told_apart(table: Table) -> None:
    path = head(table).manifest_list
    table.io.delete(path)
    with pytest.raises(FileNotFoundError):
        read_records(table.io, path, Kind.BARE_LIST)
