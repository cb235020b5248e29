"""From an operator's rendered fields to the process that a session works for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from airflow_incremental.audits import validate_audits
from airflow_incremental.operators.arguments import SPEC_FIELDS, build_spec, check_asks, check_transform
from airflow_incremental.operators.runtime import catalog_of
from airflow_incremental.operators.templates import with_suite_files

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog

    from airflow_incremental.core.plan import Owner
    from airflow_incremental.core.requests import RestateRequest
    from airflow_incremental.core.spark import SparkTransform
    from airflow_incremental.operators.load import IncrementalLoadOperator
    from airflow_incremental.operators.spark import Runner
    from airflow_incremental.sessions.process import Process


def bind(
    operator: IncrementalLoadOperator,
    *,
    owner: Owner,
    run_is_over: Callable[[Owner], bool],
    make_runner: Callable[[SparkTransform, Catalog], Runner],
    restate: RestateRequest | None = None,
) -> Process:
    """Return the process of an operator whose fields are rendered.

    :param make_runner: what runs a transform on Spark.
    :raises ArgumentError: a template was rendered to something wrong.
    """
    from airflow_incremental.sessions.process import Process

    spec = build_spec({name: getattr(operator, name) for name in SPEC_FIELDS})
    on_spark = operator.spark_transform()
    transform: Any = operator.transform_callable or on_spark or operator.transform
    check_transform(transform, stage=operator.stage)
    # A template may have been rendered to the path of a suite; and of a mapped task no file was read at the import.
    read = with_suite_files(operator.audits, operator.get_template_env())
    audits = validate_audits(read, functions=operator.audit_functions)
    check_asks(audits, operator.approval)
    catalog = catalog_of(operator.iceberg_conn_id)
    runner = None if on_spark is None else make_runner(on_spark, catalog)
    return Process(
        spec=spec,
        catalog=catalog,
        owner=owner,
        transform=runner or transform,
        audit_runner=runner if on_spark is not None and on_spark.audits_on == "spark" else None,
        audits=audits,
        quarantine_table=operator.quarantine_table,
        audit_table=operator.audit_table,
        engine=operator.make_engine(),
        run_is_over=run_is_over,
        samples=operator.samples,
        chunking=operator.chunking,
        approval=operator.approval,
        quarantine_rejected=operator.approval_on_reject == "quarantine",
        replace_pending=operator.when_pending == "replace",
        restate=restate,
    )
