"""A target that does not exist yet: what the run would do that creates it, and the columns it would get; nothing is written."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from airflow_incremental.audits.run import check_audits
from airflow_incremental.core.errors import TableError
from airflow_incremental.core.facts import TargetFacts
from airflow_incremental.core.plan import Plan
from airflow_incremental.core.planning import NothingToDo, make_plan
from airflow_incremental.core.ranges import UTC, Grain
from airflow_incremental.core.spark_job import SparkRunner
from airflow_incremental.iceberg.scopes import resolve_scope
from airflow_incremental.iceberg.targets import check_creatable, ddl, draft_target, target_facts
from airflow_incremental.sessions.chunking import with_cuts
from airflow_incremental.sessions.facts import source_facts
from airflow_incremental.sessions.keys import with_key_scans
from airflow_incremental.sessions.process import Process
from airflow_incremental.sessions.reading import PlanReader
from airflow_incremental.sessions.requested import nothing_to_restate

if TYPE_CHECKING:
    import pyarrow as pa


def draft_everything(process: Process) -> Plan:
    """Decide what a run would do that takes everything, whatever ``initial`` says: its transform tells the target's columns.

    :raises TableError: a run could not create the target.
    """
    decided = draft_new(process, reload="the target is created")
    if isinstance(decided, NothingToDo):
        raise TableError(
            f"the target {process.spec.target.table!r} does not exist and nothing can tell its columns: {decided.reason}",
            hint="load the source first, or create the table",
        )
    return decided


def columns_of_new(process: Process, decided: Plan) -> pa.Schema:
    """Return the columns that the transform returns, of which the target is made. SQL is not run for it, a function is.

    Of a plan that is cut, over the first chunk: that fits where all chunks do.

    :param decided: what a run would do that takes everything.
    :raises TableError: they cannot be partitioned as declared, or the process could not load the table that would be created.
    :raises AuditFailed: an audit does not fit them.
    """
    # Of others there is no plan for a new target.
    assert process.transform is not None and not isinstance(process.transform, SparkRunner)  # noqa: S101, PT018
    part = decided.chunks[0]
    reader = PlanReader(process=process, plan=decided, within=part)
    schema = process.engine.schema(
        process.transform,
        reader.reads(part),
        decided.only(part),
        changes=reader.changes(part),
        work_dir=process.work_dir,
    )
    target = process.spec.target
    check_audits(process.audits, check_creatable(target, schema).as_arrow())
    if target.create:
        # Refused once it is there, the table would be in the way.
        made = draft_target(process.catalog, target, schema)
        target_facts(made, resolve_scope(made, process.spec))
    return schema


def no_target(process: Process, schema: pa.Schema | None) -> TableError:
    """Return the error for a target that does not exist and that nobody asked to create.

    :param schema: columns the transform returns; None if they are not known.
    """
    spec = process.spec
    how = "create it" if schema is None else "create it with, for example:\n" + ddl(spec.target, schema)
    return TableError(
        f"the target {spec.target.table!r} does not exist in catalog {process.catalog.name!r}",
        expected="an existing table, or IcebergTarget(create=True)",
        hint=how,
    )


def draft_new(process: Process, *, reload: str | None = None) -> Plan | NothingToDo:
    """Decide what the first run would do of a target that does not exist, touching nothing.

    :param reload: why everything is taken, whatever ``initial`` says, if it is.
    :raises TableError: the run could not create the target.
    """
    spec = process.spec
    if process.transform is None:
        raise TableError(
            f"the target {spec.target.table!r} does not exist, and without a transform its columns are not known",
            expected="an existing target when the writes are your own",
            hint="create the table first",
        )
    if isinstance(process.transform, SparkRunner):
        raise TableError(
            f"the target {spec.target.table!r} does not exist, and what a transform on Spark returns is not known before it runs",
            expected="an existing target",
            hint="create the table first",
        )
    if spec.state is not None:
        raise TableError(
            f"the target {spec.target.table!r} does not exist, and the transform reads its state, so its columns are not known",
            expected="an existing target where state is asked for",
            hint="create the table first",
        )
    if process.restate is not None:
        raise nothing_to_restate(spec)
    if spec.target.event_time is not None:
        units = [
            Grain(t)
            for t, column in spec.target.partition_fields()
            if column == spec.target.event_time and t != "identity"
        ]
        grain = units[0] if units else None
    else:
        grain = None
    facts = TargetFacts(table_uuid="", main=0, grain=grain)
    sources = {name: source_facts(process, name, None, grain, reset=reload is not None) for name in spec.sources}
    if spec.mode == "merge":
        sources = with_key_scans(process, None, sources)
    decided = make_plan(
        spec,
        target=facts,
        published=None,
        sources=sources,
        owner=process.owner,
        now=dt.datetime.now(UTC),
        reload=reload,
    )
    return with_cuts(process, decided, sources) if isinstance(decided, Plan) else decided
