"""How far a table is complete, for whoever waits for it: what its processes published, or what the table says by a rule."""

from __future__ import annotations

import datetime as dt

import attrs
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import NoSuchNamespaceError, NoSuchTableError
from pyiceberg.table import Table
from pyiceberg.table.refs import MAIN_BRANCH

from airflow_incremental.core.completeness import CompleteThrough
from airflow_incremental.core.errors import TableError
from airflow_incremental.core.ranges import format_time
from airflow_incremental.iceberg import naming
from airflow_incremental.iceberg.completeness import told_through
from airflow_incremental.iceberg.history import main_lineage
from airflow_incremental.iceberg.lineage import head_of
from airflow_incremental.iceberg.state import other_processes, published, words_of


@attrs.frozen(kw_only=True)
class Told:
    """What a table says at one moment.

    :param through: event time (exclusive) up to which it is complete; None: nothing is known of it yet.
    :param process: the process that decides, the one least far; None where none publishes.
    :param snapshot_id: the head of ``main`` that was looked at: whoever reads it finds everything before ``through``.
    """

    through: dt.datetime | None = None
    process: str | None = None
    snapshot_id: int | None = None
    exists: bool = True

    def __str__(self) -> str:
        if not self.exists:
            return "the table does not exist yet"
        who = "the table" if self.process is None else f"process {self.process!r}"
        return f"{who} " + (
            "says nothing yet" if self.through is None else f"is complete through {format_time(self.through)}"
        )


def find_table(catalog: Catalog, identifier: str) -> Table | None:
    """Load a table, or return None if it is not there (yet)."""
    try:
        return catalog.load_table(identifier)
    except (NoSuchTableError, NoSuchNamespaceError):
        return None


def ask(table: Table | None, process: str | None, rule: CompleteThrough | None) -> Told:
    """Return how far a table is complete.

    :param table: None is one that is not there yet, of which nothing is known.
    :param process: the one process that counts; None: all that publish to the table, the least of them.
    :param rule: for a table that no process loads; None: what processes published.
    :raises TableError: nobody of whom this could be known writes the table, or its property cannot be understood.
    :raises WatermarkLost: a process's watermark cannot be tied to the table any more.
    """
    if table is None:
        return Told(process=process, exists=False)
    head = head_of(table, MAIN_BRANCH)
    snapshot_id = None if head is None else head.snapshot_id
    if rule is not None:
        moment = told_through(table, MAIN_BRANCH, head, rule)
        return Told(through=None if moment is None else rule.before(moment), snapshot_id=snapshot_id)
    names = [process] if process is not None else sorted(other_processes(table, ""))
    if not names and head is not None and not _is_begun(table):
        raise TableError(
            f"no process publishes to the table {'.'.join(table.name())}, so nothing tells how far it is complete",
            expected="a table that an incremental load publishes to, or a rule",
            hint="give rule=CompleteThrough.property('<table property>') or CompleteThrough.arrival(lateness=...); or "
            "process='<name>', to wait for the first publish of a load that is still to come",
        )
    least = Told(snapshot_id=snapshot_id)
    for name in names:
        last = published(table, name)
        through = None if last is None else last.watermark.complete_through
        if through is None:
            return Told(process=name, snapshot_id=snapshot_id)
        if least.through is None or through < least.through:
            least = Told(through=through, process=name, snapshot_id=snapshot_id)
    return least


def _is_begun(table: Table) -> bool:
    """Say whether a load has begun on a table to which none has published: it leaves branches, and a first, empty snapshot.

    Tags do not count: a load pins its sources with them.
    """
    refs = table.metadata.refs.items()
    begun = any(ref.snapshot_ref_type.value == "branch" and name.startswith(naming.lock_ref("")) for name, ref in refs)
    return begun or any(naming.RECORD in words_of(snapshot) for snapshot in main_lineage(table))
