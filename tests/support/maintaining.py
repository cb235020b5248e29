"""Maintenance as tests do it: first as a dry run, which has to say exactly what the real one then does."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterable
from typing import Any

from hypothesis import strategies as st
from pyiceberg.catalog import Catalog

from airflow_incremental.core.maintenance import PARTS, MaintenancePolicy
from airflow_incremental.iceberg.maintenance import Maintained, maintain

NOW = dt.timedelta(0)
#: Everything that may go goes.
KEEN = MaintenancePolicy(
    expire_older_than=NOW, retain_last=1, orphans_older_than=NOW, compact=1, merge_manifests=1, target_file_size=2**20
)

policies: st.SearchStrategy[MaintenancePolicy] = st.builds(
    MaintenancePolicy,
    parts=st.lists(st.sampled_from(PARTS), min_size=1, unique=True).map(
        lambda some: tuple(p for p in PARTS if p in some)
    ),
    expire_older_than=st.sampled_from([NOW, NOW, NOW, dt.timedelta(days=1)]),
    retain_last=st.integers(1, 4),
    orphans_older_than=st.just(NOW),
    compact=st.sampled_from([None, 1, 1, 2, 4]),
    target_file_size=st.sampled_from([2**20, 2000]),
    merge_manifests=st.sampled_from([1, 3, 100]),
)


def rows_of(catalog: Catalog, name: str) -> Counter[str]:
    """Return all rows of a table, as text."""
    table = catalog.load_table(name)
    if table.current_snapshot() is None:
        return Counter()
    return Counter(map(repr, table.scan().to_arrow().to_pylist()))


def maintained(
    catalog: Catalog, name: str, policy: MaintenancePolicy = KEEN, *, consumers: Iterable[str] = ()
) -> Maintained:
    """Maintain a table, and assert that the dry run said so before and that no row changed."""
    rows, consumers = rows_of(catalog, name), list(consumers)
    location = catalog.load_table(name).metadata_location
    told = told_of(maintain(catalog, name, policy, consumers=consumers, dry_run=True))
    assert catalog.load_table(name).metadata_location == location, "a dry run commits nothing"
    done = maintain(catalog, name, policy, consumers=consumers)
    differs = {key: (told[key], found) for key, found in told_of(done).items() if found != told[key]}
    assert not differs, f"told before, and then done: {differs}"
    assert rows_of(catalog, name) == rows
    return done


def told_of(found: Maintained) -> dict[str, Any]:
    """Return what was, or would be, done."""
    plain = found.to_json(paths=True)
    del plain["dry_run"]
    return {key: sorted(value) if key in ("files", "orphans", "foreign") else value for key, value in plain.items()}
