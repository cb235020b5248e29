"""All of maintenance on one table, in order: refs and old snapshots, their files, small files, orphans. A preview says the same."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import attrs
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import NoSuchNamespaceError
from pyiceberg.table import Table

from airflow_incremental.core.errors import ArgumentError, IncrementalError, TableError
from airflow_incremental.core.maintenance import MaintenancePolicy
from airflow_incremental.core.ranges import UTC, format_time
from airflow_incremental.iceberg import compaction, expiry, sweep
from airflow_incremental.iceberg.commits import load_table
from airflow_incremental.iceberg.compaction import Compaction
from airflow_incremental.iceberg.expiry import Expiry
from airflow_incremental.iceberg.garbage import NOT_COLLECTED, is_collected
from airflow_incremental.iceberg.sweep import Leftover
from airflow_incremental.iceberg.targets import targets_in
from airflow_incremental.iceberg.waiting import find_table

#: Ends the name of a namespace whose targets are meant.
_ALL_OF = ".*"


@attrs.frozen(kw_only=True)
class Maintained:
    """What was done to a table, or would be."""

    table: str
    dry_run: bool
    #: Snapshots there were before.
    snapshots_before: int
    expiry: Expiry
    compaction: Compaction
    orphans: tuple[Leftover, ...] = ()
    #: Files of others that nothing refers to.
    foreign: tuple[Leftover, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def counts(self) -> Mapping[str, int]:
        """How much of everything."""
        files = self.expiry.files
        return {
            "snapshots_before": self.snapshots_before,
            "snapshots_expired": len(self.expiry.snapshots),
            "refs_dropped": len(self.expiry.refs),
            "data_files_deleted": len(files.data),
            "delete_files_deleted": len(files.deletes),
            "manifests_deleted": len(files.manifests),
            "manifest_lists_deleted": len(files.lists),
            "statistics_deleted": len(files.statistics),
            "bytes_deleted": files.bytes,
            "partitions_compacted": self.compaction.partitions,
            "files_compacted": self.compaction.files_before,
            "files_written": self.compaction.files_after,
            "bytes_compacted": self.compaction.bytes,
            "manifests_merged": self.compaction.manifests,
            "orphans_deleted": len(self.orphans),
            "orphan_bytes_deleted": sum(f.bytes for f in self.orphans),
            "foreign_orphans": len(self.foreign),
        }

    @property
    def all_notes(self) -> tuple[str, ...]:
        """What was left alone, and why."""
        left = len(self.expiry.files.not_ours)
        kept = (
            [f"{left} files of expired snapshots stay: they do not lie where the table keeps its own"] if left else []
        )
        return (*self.expiry.notes, *kept, *self.compaction.notes, *self.notes)

    def to_json(self, *, paths: bool = False) -> dict[str, Any]:
        """Return plain values.

        :param paths: also what goes, one by one.
        """
        held = [
            {
                "by": h.by,
                "snapshot": h.snapshot_id,
                "committed_at": format_time(h.committed_at),
                "snapshots": h.snapshots,
            }
            for h in self.expiry.held
        ]
        plain = {
            "table": self.table,
            "dry_run": self.dry_run,
            **self.counts,
            "held": held,
            "notes": list(self.all_notes),
        }
        if paths:
            plain["refs"] = dict(self.expiry.refs)
            plain["snapshots"] = list(self.expiry.snapshots)
            plain["files"] = list(self.expiry.files.paths)
            plain["orphans"] = [f.path for f in self.orphans]
            plain["foreign"] = [f.path for f in self.foreign]
        return plain


def maintain(
    catalog: Catalog,
    identifier: str,
    policy: MaintenancePolicy,
    *,
    consumers: Iterable[str] = (),
    dry_run: bool = False,
    now: dt.datetime | None = None,
) -> Maintained:
    """Do what a policy says to a table, or say what would be done.

    Killed anywhere it leaves the table whole, and files that the next run takes. Two of them at once do not harm each other.

    :param consumers: tables whose processes read this one (``namespace.*``: all targets there): what they stand at is kept. Those
        that pin what they have consumed need not be named.
    :param dry_run: touch nothing.
    :param now: from which ages are counted, timezone-aware; default is the clock.
    :raises TableError: the table, or a consumer, does not exist or is damaged.
    """
    now = dt.datetime.now(UTC) if now is None else now
    try:
        return _maintain(catalog, identifier, policy, consumers=consumers, dry_run=dry_run, now=now)
    except FileNotFoundError as error:
        raise TableError(
            f"a file that {identifier} refers to is missing: {error}",
            expected="all manifests and data files of the snapshots that are kept",
            hint="restore it, or expire the snapshots that have it by their ids; what was not deleted yet is left as it is",
        ) from error


def _maintain(
    catalog: Catalog,
    identifier: str,
    policy: MaintenancePolicy,
    *,
    consumers: Iterable[str],
    dry_run: bool,
    now: dt.datetime,
) -> Maintained:
    names = [name for name in _tables(catalog, consumers) if name != identifier]

    def load_consumers() -> Sequence[Table]:
        return [load_table(catalog, name, role="consumer") for name in names]

    table = load_table(catalog, identifier)
    before = len(table.metadata.snapshots)
    wanted = {"refs", "expire"}.intersection(policy.parts)
    if not wanted:
        expired = Expiry()
    elif dry_run:
        expired = expiry.preview(table, policy, now=now, consumers=load_consumers())
    else:
        expired = expiry.expire(catalog, identifier, policy, now=now, consumers=load_consumers)
    compacted = Compaction()
    if "compact" in policy.parts:
        table = load_table(catalog, identifier)
        compacted = compaction.preview(table, policy) if dry_run else compaction.compact(catalog, table, policy)
    orphans, foreign, notes = _orphans(load_table(catalog, identifier), policy, dry_run=dry_run)
    return Maintained(
        table=identifier,
        dry_run=dry_run,
        snapshots_before=before,
        expiry=expired,
        compaction=compacted,
        orphans=orphans,
        foreign=foreign,
        notes=notes,
    )


def maintain_all(
    catalog: Catalog,
    tables: Sequence[str],
    policy: MaintenancePolicy,
    *,
    consumers: Iterable[str] = (),
    dry_run: bool = False,
) -> Iterator[tuple[str, Maintained | IncrementalError]]:
    """Do it to several tables, one after the other, each a consumer of the others; one that fails does not keep the rest waiting.

    Yields each table with what was done, or with why nothing was.
    """
    known = [*consumers, *(table for table in tables if find_table(catalog, table) is not None)]
    for table in tables:
        try:
            yield table, maintain(catalog, table, policy, consumers=known, dry_run=dry_run)
        except IncrementalError as error:
            yield table, error


def _orphans(
    table: Table, policy: MaintenancePolicy, *, dry_run: bool
) -> tuple[tuple[Leftover, ...], tuple[Leftover, ...], tuple[str, ...]]:
    """Find and remove orphans, and return those that go, those that stay, and why none was looked for."""
    if "orphans" not in policy.parts:
        return (), (), ()
    if not is_collected(table):
        return (), (), (f"no orphans were looked for: {NOT_COLLECTED}",)
    try:
        found = sweep.unreferenced(table, older_than=policy.orphans_older_than)
    except (ArgumentError, TableError) as error:
        return (), (), (f"no orphans were looked for: {error.found}",)
    going = tuple(f for f in found if f.ours or policy.delete_foreign_orphans)
    if not dry_run:
        sweep.remove(table, going)
    return going, tuple(f for f in found if f not in going), ()


def _tables(catalog: Catalog, consumers: Iterable[str]) -> list[str]:
    found: dict[str, None] = {}
    for name in consumers:
        if name.endswith(_ALL_OF):
            found.update(dict.fromkeys(_targets_in(catalog, name.removesuffix(_ALL_OF))))
        else:
            found[name] = None
    return list(found)


def _targets_in(catalog: Catalog, namespace: str) -> list[str]:
    try:
        return targets_in(catalog, namespace)
    except NoSuchNamespaceError:
        raise TableError(
            f"the namespace {namespace!r}, whose targets are named as consumers, does not exist in catalog {catalog.name!r}",
            expected="a namespace, followed by .*",
            hint="correct the consumers",
        ) from None
