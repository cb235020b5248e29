"""Airflow's own backfills, and restatements by form: beside other runs, backwards, again, and through three hops of loads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import attrs
import pyarrow as pa
import pytest
from pyiceberg.catalog import Catalog

from demo.landing import Lakehouse
from demo.stack import AirflowStack
from tests.support.world import EVENTS, Row, create, hour, rows_table

DAG_ID, SOURCE = "backfills_hourly", "raw.backfills"
HOURS = pa.schema(
    [("hour_ts", pa.timestamp("us", "UTC")), ("region", pa.string()), ("n", pa.int64()), ("total", pa.int64())]
)
REGIONS = pa.schema([("region", pa.string()), ("n", pa.int64()), ("total", pa.int64())])


@attrs.define
class Hops:
    """The tables behind the DAGs in ``dags/backfills.py``."""

    stack: AirflowStack
    lakehouse: Lakehouse
    factor: int = 1
    landed: list[Row] = attrs.field(factory=list)

    @property
    def catalog(self) -> Catalog:
        """A new catalog object."""
        return self.lakehouse.catalog()

    def set_up(self) -> None:
        catalog = self.catalog
        for namespace in ("raw", "mart"):
            catalog.create_namespace_if_not_exists(namespace)
        create(catalog, SOURCE, EVENTS, (("hour", "ts"),))
        for target in ("mart.backfills_1", "mart.backfills_2"):
            create(catalog, target, HOURS, (("hour", "hour_ts"),))
        create(catalog, "mart.backfills_3", REGIONS, ())
        for dag_id in (DAG_ID, "backfills_second", "backfills_third"):
            self.stack.client.unpause(dag_id)

    def land(self, *hours: float) -> None:
        rows: list[Row] = [
            (n := len(self.landed) + i, hour(h), "eu" if n % 2 else "us", n) for i, h in enumerate(hours)
        ]
        self.landed += rows
        self.catalog.load_table(SOURCE).append(rows_table(rows))

    def change_sql(self, factor: int) -> None:
        """Correct the SQL of the first hop, as a person does, for the runs to come."""
        body = {"key": "backfills_factor", "value": str(factor)}
        if self.factor == 1:
            self.stack.client.call("POST", "/variables", json=body)
        else:
            self.stack.client.call("PATCH", "/variables/backfills_factor", json=body)
        self.factor = factor

    def run(self, form: dict[str, Any] | None = None) -> str:
        """Start a run by hand and wait for it."""
        run_id = self.stack.client.trigger(DAG_ID, form or {})
        assert self.stack.client.wait_for_run(DAG_ID, run_id) == "success"
        return run_id

    def backfill(self, start: float, end: float, **options: Any) -> int:
        return self.stack.client.backfill(DAG_ID, hour(start), hour(end), **options)

    def first(self) -> Counter[tuple[Any, ...]]:
        """Return the first hop's rows as they have to be."""
        groups: dict[tuple[Any, str], list[int]] = {}
        for _, ts, region, v in self.landed:
            assert ts is not None
            groups.setdefault((ts.replace(minute=0, second=0), region), []).append(v * self.factor)
        return Counter((ts, region, len(vs), sum(vs)) for (ts, region), vs in groups.items())

    def rows(self, table: str) -> Counter[tuple[Any, ...]]:
        found = self.catalog.load_table(table).scan().to_arrow()
        return Counter(tuple(row.values()) for row in found.to_pylist())

    def check(self) -> None:
        """Assert that the first hop is right now, and the others soon."""
        expected = self.first()
        assert self.rows("mart.backfills_1") == expected
        regions: dict[str, list[int]] = {}
        for _, region, n, total in expected.elements():
            sums = regions.setdefault(region, [0, 0])
            sums[0], sums[1] = sums[0] + n, sums[1] + total
        last = Counter((region, n, total) for region, (n, total) in regions.items())

        def followed() -> bool:
            return self.rows("mart.backfills_2") == expected and self.rows("mart.backfills_3") == last

        self.stack.client.wait_until(followed, timeout=180, what="the hops behind the first to follow")


@pytest.fixture(scope="module")
def hops(airflow_stack: AirflowStack, airflow_lakehouse: Lakehouse) -> Iterator[Hops]:
    """Three hops that have loaded six hours."""
    found = Hops(airflow_stack, airflow_lakehouse)
    found.set_up()
    found.land(*(h + part for h in range(6) for part in (0.1, 0.6)))
    found.run()
    found.check()
    yield found
    airflow_stack.client.call("PATCH", f"/dags/{DAG_ID}", json={"is_paused": True})


def test_a_backfill_restates_its_hours_backwards_beside_other_runs(hops: Hops) -> None:
    hops.change_sql(10)
    backfill_id = hops.backfill(0, 5, run_backwards=True, max_active_runs=3)
    # Rows that came meanwhile are loaded once, by whichever run comes to them.
    hops.land(2.5, 4.2)
    hops.run()

    states = hops.stack.client.wait_for_backfill(DAG_ID, backfill_id)

    assert len(states) == 6
    assert set(states.values()) == {"success"}
    hops.check()


def test_finished_runs_are_processed_again_after_the_sql_changed(hops: Hops) -> None:
    hops.change_sql(100)
    hops.stack.airflow(
        "backfill", "create", "--dag-id", DAG_ID, "--from-date", "2024-01-01T00:00:00+00:00", "--to-date",
        "2024-01-01T05:00:00+00:00", "--reprocess-behavior", "completed", "--max-active-runs", "2",
    )  # fmt: skip
    found = hops.stack.client.call("GET", "/backfills", params={"dag_id": DAG_ID})["backfills"]
    states = hops.stack.client.wait_for_backfill(DAG_ID, max(b["id"] for b in found))
    assert set(states.values()) == {"success"}
    hops.check()


def test_a_form_restates_through_three_hops(hops: Hops) -> None:
    hops.change_sql(7)
    hops.land(3.3)
    run_id = hops.run(
        {"restate_from": "2024-01-01T00:00:00Z", "restate_to": "2024-01-01T06:00:00Z", "reason": "the factor was wrong"}
    )
    hops.run()
    hops.check()
    summary = hops.stack.client.xcom(DAG_ID, run_id, "load")
    assert summary["kind"] == "restatement"
    assert "the factor was wrong" in hops.stack.client.task(DAG_ID, run_id, "load").rendered["plan_summary"]


def test_a_cleared_run_computes_with_the_sql_of_today(hops: Hops) -> None:
    run_id = hops.run({"restate_from": "2024-01-01T00:00:00Z", "restate_to": "2024-01-01T06:00:00Z"})
    hops.change_sql(9)
    hops.stack.client.clear(DAG_ID, run_id)
    assert hops.stack.client.wait_for_run(DAG_ID, run_id) == "success"
    hops.check()
