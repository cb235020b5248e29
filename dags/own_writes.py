"""Writing by oneself between plan and seal: flights per airport and day, with plain pyiceberg.

The group plans, locks, checks, audits and publishes; the task in the middle does the writing, here with pyiceberg, elsewhere with
dbt, Spark or whatever else writes Iceberg. It gets the branch to write to, the days to compute and the snapshot to read, and may
run twice: each day is overwritten as a whole, so a retry finds its own earlier try and replaces it.
"""

from __future__ import annotations

from airflow.sdk import DAG, task

from airflow_incremental import IcebergSource, IcebergTarget, IncrementalLoad, NotNull, Unique

TARGET = "mart.airport_days"


@task
def create_table() -> None:
    """Create the target on the first run: without a transform nobody else knows its columns."""
    import pyarrow as pa
    from airflow.providers.apache.iceberg.hooks.iceberg import IcebergHook
    from pyiceberg.transforms import IdentityTransform

    catalog = IcebergHook("iceberg_default").catalog
    catalog.create_namespace_if_not_exists("mart")
    if not catalog.table_exists(TARGET):
        columns = pa.schema([("day", pa.date32()), ("origin", pa.string()), ("flights", pa.int64())])
        with catalog.create_table(TARGET, schema=columns).update_spec() as spec:
            spec.add_field("day", IdentityTransform(), "day")


@task
def write_days(branch: str, ranges: list[str], snapshots: dict[str, int]) -> None:
    """Count the flights of the planned days and overwrite those days on the session's branch.

    :param snapshots: what the watermark will say is loaded: flights that land after the plan belong to the next session.
    """
    from airflow.providers.apache.iceberg.hooks.iceberg import IcebergHook
    from pyiceberg.expressions import And, GreaterThanOrEqual, LessThan

    catalog = IcebergHook("iceberg_default").catalog
    for start, end in (item.split("/") for item in ranges):
        hours = And(
            GreaterThanOrEqual("time_hour", start.replace("Z", "+00:00")),
            LessThan("time_hour", end.replace("Z", "+00:00")),
        )
        days = And(GreaterThanOrEqual("day", start[:10]), LessThan("day", end[:10]))
        flights = catalog.load_table("raw.flights").scan(row_filter=hours, snapshot_id=snapshots["flights"]).to_arrow()
        flights = flights.append_column("day", flights["time_hour"].cast("date32"))
        counted = flights.group_by(["day", "origin"]).aggregate([([], "count_all")])
        catalog.load_table(TARGET).overwrite(
            counted.rename_columns(["day", "origin", "flights"]), overwrite_filter=days, branch=branch
        )


with DAG("own_writes", schedule=None, max_active_runs=1, tags=["example", "flights"], doc_md=__doc__):
    with IncrementalLoad(
        "airport_days",
        iceberg_conn_id="iceberg_default",
        sources={"flights": IcebergSource("raw.flights", event_time="time_hour")},
        target=IcebergTarget(TARGET, event_time="day"),
        mode="overwrite",
        transform=None,
        audits=[NotNull("day", "origin"), Unique("day", "origin")],
    ) as load:
        write_days(load.session["branch"], load.session["ranges"], load.session["snapshots"])  # type: ignore[arg-type]
    create_table() >> load
