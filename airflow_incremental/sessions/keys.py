"""The keys a ``merge`` session computes: those of all rows that came or went in its drivers, and where their rows can be."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

import attrs
import pyarrow as pa

from airflow_incremental.core.changes import ChangeSet
from airflow_incremental.core.ranges import EventRanges
from airflow_incremental.engines.changes import keys_query
from airflow_incremental.iceberg.commits import load_table
from airflow_incremental.iceberg.key_sources import KeySource, changed_spans
from airflow_incremental.iceberg.keys import KeySet, key_fields
from airflow_incremental.iceberg.target_keys import keys_in_ranges
from airflow_incremental.sessions.reading import changed_rows, key_columns

if TYPE_CHECKING:
    from pyiceberg.table import Table

    from airflow_incremental.core.parts import SourceFacts
    from airflow_incremental.core.plan import Plan
    from airflow_incremental.sessions.process import Process

log = logging.getLogger(__name__)


def changed_keys(process: Process, plan: Plan, target: Table) -> KeySet | None:
    """Return the keys a session computes, read from the rows that changed; None where the plan does not replace rows by key.

    A restatement of ranges computes the keys of all rows in them, of the drivers and of the target.

    The same in every try: the snapshots of the drivers, and of the target, are pinned.

    :raises PlanExpired: a snapshot or file of the plan is gone.
    """
    if not plan.keys:
        return None
    started = time.monotonic()
    schema = pa.schema([target.schema().as_arrow().field(name) for name in plan.keys])
    found: list[pa.Table] = []
    for source in plan.sources:
        if source.derivation == "lookup":
            continue
        rows = changed_rows(process, plan, source)
        if not (rows.added.parts or rows.removed.parts):
            continue
        columns = dict(zip(plan.keys, key_columns(process.spec, source.name), strict=True))
        query = keys_query(rows.added, rows.removed, columns)
        with process.engine.run(
            query, [rows.added, rows.removed], plan, target_schema=schema, work_dir=process.work_dir
        ) as batches:
            found.append(batches.read_all())
    restated = any(source.derivation == "restatement" for source in plan.sources)
    if restated and process.spec.target.event_time is not None:
        # What the target has there may come from rows with another event time, or from none any more.
        found.append(keys_in_ranges(target, plan, event_time=process.spec.target.event_time).cast(schema))
    keys = KeySet.of(pa.concat_tables(found) if found else schema.empty_table())
    log.info("%s keys changed (%.1f s)", f"{len(keys):,}", time.monotonic() - started)
    return keys


def with_key_scans(process: Process, target: Table | None, facts: Mapping[str, SourceFacts]) -> dict[str, SourceFacts]:
    """Check the key columns of the drivers and say how much has to be searched for rows of the changed keys, at most.

    :param target: None if it does not exist yet.
    :raises TableError: a key column is missing or of a type that cannot be one.
    :raises NullKey: a changed row has no key.
    """
    spec = process.spec
    sources = [
        KeySource.of(
            name,
            load_table(process.catalog, source.table, role="source"),
            facts[name].pinned.snapshot_id,
            columns=key_columns(spec, name),
            changes=ChangeSet(derivation="unchanged") if facts[name].from_now else facts[name].changes,
            event_time=source.event_time,
        )
        for name, source in spec.drivers.items()
    ]
    keys = None if target is None else key_fields(target, spec.keys, target.schema(), what="target")
    for source in sources:
        if keys is not None:
            source.check_types(keys)
        source.check_nulls()
    if not any(s.changes for s in sources):
        return dict(facts)
    spans = changed_spans(sources)
    changed = EventRanges.union_of(s.changes.changed for s in sources)
    within = None if spec.key_horizon is None else changed.widened(spec.key_horizon)
    scans = {s.name: s.scan(spans, within) for s in sources}
    return {
        name: found if name not in scans else attrs.evolve(found, scan_files=scans[name][0], scan_bytes=scans[name][1])
        for name, found in facts.items()
    }
