"""Which audits Spark answers, and which still read the rows on the worker, and why."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import singledispatch
from typing import Any, get_args

import pyarrow as pa

from airflow_incremental.audits.base import Audit
from airflow_incremental.audits.checks import SqlCheck
from airflow_incremental.audits.compile import measures, measures_of
from airflow_incremental.audits.questions import Answered, Questions
from airflow_incremental.audits.spark_sql import SparkSql
from airflow_incremental.audits.sql import Inexact
from airflow_incremental.core.audit import Over

log = logging.getLogger(__name__)

#: Answers the questions about the rows of each scope: what :meth:`Questions.as_job` gives, by scope, and what
#: :meth:`Questions.read` takes.
Ask = Callable[[Mapping[Over, Sequence[Mapping[str, Any]]]], Mapping[Over, Mapping[str, Any]]]


def ask_all(audits: Sequence[Audit], schema: Callable[[Over], pa.Schema], ask: Ask) -> dict[Over, Answered]:
    """Ask Spark all that audits want to know and it can tell, in one go; nothing if that is nothing.

    :param schema: of the rows of a scope.
    :raises AuditFailed: an audit does not fit the rows, or a query of the author's is none.
    """
    asked: dict[Over, tuple[Questions, pa.Schema]] = {}
    for over in get_args(Over):
        chosen = [a for a in audits if a.over == over and a.reads_rows]
        if not chosen:
            continue
        columns = schema(over)
        found = measures_of(chosen, columns, SparkSql)
        checks = tuple(a for a in chosen if isinstance(a, SqlCheck))
        told = tuple(m for each in found.values() for m in each)
        if told or checks:
            asked[over] = Questions(measures=told, checks=checks), columns
    if not asked:
        return {}
    answers = ask({over: questions.as_job() for over, (questions, _) in asked.items()})
    return {over: questions.read(answers[over], columns.names) for over, (questions, columns) in asked.items()}


def say_read_here(audits: Sequence[Audit], schema: pa.Schema) -> None:
    """Log which audits read rows on the worker although Spark runs the others, before there is anything to read."""
    told = [(name, why) for at, audit in enumerate(audits) for name, why in read_here(audit, schema, f"a{at}")]
    told += [(a.name, "it finds the rows to put aside, if some offend") for a in audits if a.puts_aside]
    if told:
        log.warning(
            "Spark does not answer all audits; these read rows on the worker: %s",
            "; ".join(f"{name!r} ({why})" for name, why in told),
        )


@singledispatch
def read_here(audit: Audit, schema: pa.Schema, prefix: str) -> Sequence[tuple[str, str]]:
    """Return the results of an audit that Spark cannot find, each with the reason why.

    :param prefix: what the names of its parameters start with.
    """
    try:
        measures(audit, schema, SparkSql(prefix=prefix))
    except Inexact as inexact:
        return [(audit.name, inexact.reason)]
    return []
