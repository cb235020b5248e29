"""Random histories of a target: what is said to be a process's last publish is so, whatever was expired."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyiceberg.table import Table
from pyiceberg.table.update import AssertRefSnapshotId, SetPropertiesUpdate, SetSnapshotRefUpdate

from airflow_incremental.core.errors import WatermarkLost
from airflow_incremental.core.watermark import Watermark
from airflow_incremental.iceberg import naming
from airflow_incremental.iceberg.state import SEALED, is_publish_of, published, published_by, state_value
from tests.support.tables import append, arrow_rows, at, compact, expire, head, make_table, roll_back, sql_catalog

PUBLISH, EMPTY_PUBLISH, FOREIGN, COMPACT = "publish", "empty publish", "foreign", "compact"


@attrs.define
class History:
    """A table and everything that ever was in it."""

    table: Table
    parents: dict[int, int | None] = attrs.field(factory=dict)
    publishes: dict[int, str] = attrs.field(factory=dict)
    made: int = 0

    def note(self) -> None:
        for snapshot in self.table.refresh().metadata.snapshots:
            self.parents.setdefault(snapshot.snapshot_id, snapshot.parent_snapshot_id)
            if is_publish_of(snapshot, "p"):
                self.publishes.setdefault(snapshot.snapshot_id, published_by(snapshot).session)

    def ancestry(self) -> list[int]:
        found, current = [], self.table.metadata.current_snapshot_id
        while current is not None:
            found.append(current)
            current = self.parents[current]
        return found

    def publish(self, *, rows: bool) -> None:
        """Do what a session's publish leaves: a snapshot that says so, the property and the tag."""
        self.made += 1
        words = {
            naming.PROCESS: "p",
            naming.RECORD: SEALED,
            naming.SESSION: f"s{self.made}",
            naming.WATERMARK: Watermark(positions={}).dumps(),
        }
        batch = arrow_rows(self.table, [(self.made, at(self.made))])
        self.table.append(batch if rows else batch.slice(0, 0), snapshot_properties=words)
        snapshot = head(self.table)
        value = state_value(self.table, published_by(snapshot), mode="append", may_replace=False, verdict="none")
        self.table.catalog.commit_table(
            self.table,
            (AssertRefSnapshotId(ref="main", snapshot_id=snapshot.snapshot_id),),
            (
                SetPropertiesUpdate(updates={naming.state_property("p"): value}),
                SetSnapshotRefUpdate(ref_name=naming.watermark_tag("p"), type="tag", snapshot_id=snapshot.snapshot_id),
            ),
        )

    def do(self, action: object) -> None:
        if action in (PUBLISH, EMPTY_PUBLISH):
            self.publish(rows=action == PUBLISH)
        elif action == FOREIGN:
            append(self.table, (0, at(0)))
        elif action == COMPACT:
            if self.table.current_snapshot() is not None:
                compact(self.table)
        else:
            kind, number = action  # type: ignore[misc]
            if kind == "back" and self.table.current_snapshot() is not None:
                kept = {s.snapshot_id for s in self.table.metadata.snapshots}
                line = self.ancestry()
                to = line[min(number, len(line) - 1)]
                # pyiceberg rolls back to what it can see to be an ancestor.
                if all(i in kept for i in line[: number + 1]):
                    roll_back(self.table, to)
            elif kind == "expire":
                held = {ref.snapshot_id for ref in self.table.metadata.refs.values()}
                free = [s.snapshot_id for s in self.table.metadata.snapshots if s.snapshot_id not in held]
                gone = [i for n, i in enumerate(free) if number >> (n % 6) & 1]
                if gone:
                    expire(self.table, gone)
        self.note()


ACTIONS = st.lists(
    st.one_of(
        st.sampled_from([PUBLISH, EMPTY_PUBLISH, FOREIGN, FOREIGN, COMPACT]),
        st.tuples(st.just("back"), st.integers(1, 4)),
        st.tuples(st.just("expire"), st.integers(1, 63)),
    ),
    min_size=3,
    max_size=14,
)


@pytest.mark.parametrize("kept_versions", ["100", "3"])
@settings(max_examples=settings().max_examples * 2 // 5, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(actions=ACTIONS)
def test_the_last_publish_is_the_newest_of_mains_true_lineage(kept_versions: str, actions: list[object]) -> None:
    """With all metadata kept the answer is always known; with a few versions it is right or the watermark is lost."""
    with tempfile.TemporaryDirectory() as home:
        table = make_table(sql_catalog(Path(home)), properties={"write.metadata.previous-versions-max": kept_versions})
        history = History(table=table)
        for action in actions:
            history.do(action)
            true = next((i for i in history.ancestry() if i in history.publishes), None)
            try:
                found = published(history.table, "p")
            except WatermarkLost:
                assert true is None or kept_versions != "100"
                assert json.loads(history.table.properties[naming.state_property("p")])
                continue
            assert (None if found is None else found.snapshot_id) == true
            assert true is None or (found is not None and found.session == history.publishes[true])
