"""The reckoning: it sees every difference, and says only of a good run that it was good."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.table import Table

from airflow_incremental.iceberg import naming
from demo.flights import departing, load_flights, load_planes
from demo.landing import Lakehouse
from demo.recompute import compare
from demo.report import AuditBlocked, Killed, Report, TargetReport, TickReport, report_target

FACT, HOURLY = "mart.flight_fact", "mart.hourly_departures"
STATE, AIRCRAFT = "mart.aircraft_state", "mart.aircraft"


@pytest.fixture(scope="module")
def landed() -> pa.Table:
    start = dt.datetime(2013, 1, 9, 5, tzinfo=dt.timezone.utc)
    return departing(load_flights(), start, start + dt.timedelta(days=1))


@pytest.fixture(scope="module")
def fact(landed: pa.Table) -> pa.Table:
    """The fact table as it should be, made row by row."""
    outcomes = [
        "cancelled" if row["dep_delay"] is None else "diverted" if row["air_time"] is None else "flown"
        for row in landed.select(["dep_delay", "air_time"]).to_pylist()
    ]
    return landed.append_column("outcome", pa.array(outcomes))


@pytest.fixture(scope="module")
def hourly(landed: pa.Table) -> pa.Table:
    """The hourly table as it should be, made row by row."""
    groups: dict[tuple[dt.datetime, str], list[int | None]] = {}
    for row in landed.select(["time_hour", "origin", "dep_delay"]).to_pylist():
        groups.setdefault((row["time_hour"], row["origin"]), []).append(row["dep_delay"])
    rows = []
    for (hour, origin), delays in groups.items():
        left = [d for d in delays if d is not None]
        rows.append(
            {
                "time_hour": hour,
                "origin": origin,
                "departures": len(left),
                "cancellations": len(delays) - len(left),
                "late_departures": sum(d >= 15 for d in left),
                "mean_delay": sum(left) / len(left) if left else None,
            }
        )
    return pa.Table.from_pylist(rows)


def states(landed: pa.Table) -> pa.Table:
    """The table of aircraft as it should be, made leg by leg."""
    last: dict[str, tuple[int, int]] = {}
    rows = []
    for row in landed.sort_by([("sched_dep", "ascending"), ("flight_key", "ascending")]).to_pylist():
        if row["tailnum"] is None or row["dep_delay"] is None:
            continue
        legs, carried = last.get(row["tailnum"], (0, 0))
        delay = max(row["arr_delay"] or 0, 0)
        last[row["tailnum"]] = (legs + 1, delay)
        rows.append(
            {
                **{name: row[name] for name in ("tailnum", "sched_dep", "flight_key")},
                "legs": legs + 1,
                "airport": None if row["air_time"] is None else row["dest"],
                "delay": delay,
                "carried_delay": carried,
            }
        )
    return pa.Table.from_pylist(rows)


def aircraft(legs: pa.Table) -> pa.Table:
    """The table of one row per aircraft as it should be, made leg by leg."""
    known = {row["tailnum"]: row for row in load_planes().to_pylist()}
    found: dict[str, dict[str, Any]] = {}
    for leg in legs.sort_by("legs").to_pylist():
        plane = known.get(leg["tailnum"], {})
        row = found.setdefault(
            leg["tailnum"],
            {
                "tailnum": leg["tailnum"],
                "delay": 0,
                "airport": None,
                "built": plane.get("year"),
                **{name: plane.get(name) for name in ("manufacturer", "model", "seats")},
            },
        )
        row |= {"legs": leg["legs"], "last_leg": leg["sched_dep"], "delay": row["delay"] + leg["delay"]}
        row["airport"] = leg["airport"] or row["airport"]
    return pa.Table.from_pylist(list(found.values()))


def test_right_targets_match(landed: pa.Table, fact: pa.Table, hourly: pa.Table) -> None:
    state = states(landed)
    assert max(state["legs"].to_pylist()) > 2
    assert state["airport"].null_count < state.num_rows
    one_each = aircraft(state)
    assert 0 < one_each["model"].null_count < one_each.num_rows, "some are known, some are not"
    for target, rows in ((FACT, fact), (HOURLY, hourly), (STATE, state), (AIRCRAFT, one_each)):
        shuffled = rows.select(rows.column_names[::-1]).sort_by([(rows.column_names[1], "descending")])
        found = compare(target, shuffled, landed)
        assert (found.rows, found.missing, found.unexpected, found.matches) == (rows.num_rows, 0, 0, True)
    assert {"flown", "cancelled"} <= set(fact["outcome"].to_pylist())
    assert hourly["mean_delay"].null_count == 0 or hourly.num_rows > hourly["mean_delay"].null_count


@pytest.mark.parametrize(
    ("change", "missing", "unexpected"),
    [
        (lambda rows: rows.slice(3), 3, 0),
        (lambda rows: pa.concat_tables([rows, rows.slice(5, 2)]), 0, 2),
        (lambda rows: pa.concat_tables([rows.slice(1), rows.slice(5, 1)]), 1, 1),
        (
            lambda rows: rows.set_column(
                8, "dep_delay", pc.if_else(pc.equal(rows["dep_delay"], 1301), 0, rows["dep_delay"])
            ),
            1,
            1,
        ),
        (lambda rows: rows.slice(0, 0), 902, 0),
    ],
    ids=["lost", "doubled", "lost and doubled", "changed", "all lost"],
)
def test_every_difference_is_seen(
    landed: pa.Table, fact: pa.Table, change: Callable[[pa.Table], pa.Table], missing: int, unexpected: int
) -> None:
    assert fact.column_names[8] == "dep_delay"
    found = compare(FACT, change(fact), landed)
    assert (found.missing, found.unexpected, found.matches) == (missing, unexpected, False)


def test_a_target_is_compared_as_far_as_it_is_processed(landed: pa.Table) -> None:
    through = dt.datetime(2013, 1, 9, 20, tzinfo=dt.timezone.utc)
    whole = states(landed)
    part = whole.filter(pc.less(whole["sched_dep"], pa.scalar(through)))
    assert 0 < part.num_rows < whole.num_rows
    assert compare(STATE, part, landed, through=through).matches
    assert compare(STATE, part, landed).missing == whole.num_rows - part.num_rows
    assert compare(STATE, whole, landed, through=through).unexpected == whole.num_rows - part.num_rows


def test_missing_column_is_no_match(landed: pa.Table, fact: pa.Table) -> None:
    with pytest.raises(ValueError, match=r"mart.flight_fact has the columns .* expected .*'outcome'"):
        compare(FACT, fact.drop_columns(["outcome"]), landed)


def publish(catalog: Catalog, rows: pa.Table, *, session: str, late: int, process: str = "flight_fact") -> Table:
    """Append rows with the summary that a published session leaves."""
    table = catalog.create_table_if_not_exists(FACT, schema=rows.schema)
    if not table.spec().fields:
        with table.update_spec() as update:
            update.add_field("time_hour", "day", "time_hour_day")
    summary = {naming.RECORD: "sealed", naming.PROCESS: process, naming.SESSION: session, naming.LATE_ROWS: str(late)}
    table.append(rows, snapshot_properties=summary)
    return catalog.load_table(FACT)


def test_sessions_late_rows_and_partitions_are_counted_from_the_history(
    tmp_path: Path, landed: pa.Table, fact: pa.Table
) -> None:
    catalog = Lakehouse(tmp_path).catalog()
    catalog.create_namespace("mart")
    half = fact.num_rows // 2
    publish(catalog, fact.slice(0, half), session="one", late=0)
    table = publish(catalog, fact.slice(half), session="two", late=7)
    days = [
        set(pc.floor_temporal(part["time_hour"], unit="day").to_pylist())
        for part in (fact.slice(0, half), fact.slice(half))
    ]
    found = report_target(table, process="flight_fact", landed=landed)
    assert attrs.asdict(found) == {
        "rows": fact.num_rows,
        "sessions": 2,
        "late_rows": 7,
        "partitions_written": len(days[0]) + len(days[1]),
        "partitions_total": len(days[0] | days[1]),
        "missing": 0,
        "unexpected": 0,
    }
    assert found.matches_full_recompute


def test_what_waits_to_be_complete_is_not_missing(tmp_path: Path, landed: pa.Table, fact: pa.Table) -> None:
    catalog = Lakehouse(tmp_path).catalog()
    catalog.create_namespace("mart")
    through = dt.datetime(2013, 1, 9, 20, tzinfo=dt.timezone.utc)
    part = fact.filter(pc.less(fact["time_hour"], pa.scalar(through)))
    table = publish(catalog, part, session="one", late=0)
    assert report_target(table, process="flight_fact", landed=landed, through=through).matches_full_recompute
    assert report_target(table, process="flight_fact", landed=landed).missing == fact.num_rows - part.num_rows


def test_commits_of_others_are_no_sessions(tmp_path: Path, landed: pa.Table, fact: pa.Table) -> None:
    catalog = Lakehouse(tmp_path).catalog()
    catalog.create_namespace("mart")
    publish(catalog, fact, session="one", late=3)
    publish(catalog, fact.slice(0, 1), session="other", late=1, process="another")
    table = catalog.load_table(FACT)
    table.append(fact.slice(0, 1))
    found = report_target(catalog.load_table(FACT), process="flight_fact", landed=landed)
    assert (found.sessions, found.late_rows, found.unexpected, found.matches_full_recompute) == (1, 3, 2, False)


TARGET = TargetReport(
    rows=10, sessions=3, late_rows=2, partitions_written=4, partitions_total=2, missing=0, unexpected=0
)
GOOD = Report(
    flights=10,
    ticks=[TickReport(number=1, until="2013-01-02T00:00:00+00:00", flights=10, late=0, seconds=1.0)],
    targets={FACT: TARGET, HOURLY: TARGET},
    blocked=AuditBlocked(
        tick=5, run_id="r5", failed_task="audit", bad_rows=4, published_nothing=True, loaded_after_repair=True
    ),
    killed=Killed(tick=7, run_id="r7", task="t", pid=42, session="s", published_session="s", tries=2, state="success"),
    seconds=12.3,
)


def test_good_run_is_good_in_every_form(tmp_path: Path) -> None:
    assert GOOD.good
    GOOD.write(tmp_path / "new" / "report.json")
    written = json.loads((tmp_path / "new" / "report.json").read_text())
    assert (written["audit_blocked"], written["killed_and_recovered"]) == (True, True)
    keys = {"rows", "sessions", "late_rows", "partitions_written", "partitions_total", "matches_full_recompute"}
    assert keys <= set(written["targets"][FACT])
    text = GOOD.describe()
    assert "mart.hourly_departures" in text
    assert "delivery 5 held 4 bad rows, task audit failed and nothing was published; sent again, it was loaded." in text
    assert "process 42 of task t was killed in delivery 7; its session was resumed and published in try 2." in text


assert GOOD.blocked is not None
assert GOOD.killed is not None


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (attrs.evolve(GOOD, targets={FACT: attrs.evolve(TARGET, missing=1), HOURLY: TARGET}), "1 missing"),
        (attrs.evolve(GOOD, targets={FACT: attrs.evolve(TARGET, unexpected=2), HOURLY: TARGET}), "2 too many"),
        (attrs.evolve(GOOD, blocked=None), "no audit stopped a run"),
        (attrs.evolve(GOOD, blocked=attrs.evolve(GOOD.blocked, published_nothing=False)), "SOMETHING WAS PUBLISHED"),
        (attrs.evolve(GOOD, blocked=attrs.evolve(GOOD.blocked, loaded_after_repair=False)), "WAS NOT LOADED"),
        (attrs.evolve(GOOD, killed=None), "no task could be killed"),
        (attrs.evolve(GOOD, killed=attrs.evolve(GOOD.killed, state="failed")), "THE RUN ENDED FAILED"),
        (attrs.evolve(GOOD, killed=attrs.evolve(GOOD.killed, tries=1)), "THE RUN ENDED"),
        (attrs.evolve(GOOD, targets={}), "flights landed"),
    ],
)
def test_run_with_one_flaw_is_not_good_and_says_so(broken: Report, said: str) -> None:
    assert not broken.good
    assert said in broken.describe()
