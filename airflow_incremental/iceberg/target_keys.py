"""The keys of a target's rows in given event times, for a ``merge`` that computes them again."""

from __future__ import annotations

import pyarrow as pa
from pyiceberg.schema import Schema
from pyiceberg.table import Table

from airflow_incremental.core.errors import PlanExpired
from airflow_incremental.core.plan import Plan
from airflow_incremental.iceberg.build import snapshot_index
from airflow_incremental.iceberg.replace import RowSet
from airflow_incremental.iceberg.rows import row_batches
from airflow_incremental.iceberg.scan import row_deletes


def keys_in_ranges(table: Table, plan: Plan, *, event_time: str) -> pa.Table:
    """Return the keys of the target's rows in the affected ranges and the scope, as they were when the plan was made.

    :param event_time: column of the target.
    :raises PlanExpired: that snapshot is gone.
    """
    snapshot = snapshot_index(table).get(plan.main)
    if snapshot is None:
        raise PlanExpired(
            f"snapshot {plan.main} of the target {plan.target}, on which session {plan.session} was planned, is gone",
            expected="snapshots that are kept longer than a session takes",
            hint="retry the task; it plans anew",
        )
    rows = RowSet.of(table, event_time=event_time, ranges=plan.affected, scope=plan.scope)
    wanted = {event_time, *plan.keys, *(plan.scope or ())}
    schema = Schema(*(f for f in table.schema().fields if f.name in wanted))
    deletes = row_deletes(table, snapshot)
    tasks = [deletes.task(t.live.file, t.live.entry.sequence_number or 0) for t in rows.live(snapshot)]
    found = [batch.filter(rows.mask(batch)).select(plan.keys) for batch in row_batches(table, schema, tasks)]
    empty = table.schema().as_arrow().empty_table().select(plan.keys)
    return pa.Table.from_batches(found) if found else empty
