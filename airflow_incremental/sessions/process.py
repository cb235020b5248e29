"""A process bound to a catalog, a transform and the ways of the place it runs in."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from airflow_incremental.core.approval import ApprovalPolicy, Decision
from airflow_incremental.core.chunks import Chunking
from airflow_incremental.core.literals import AuditTable, check_audit_table, default_audit_table
from airflow_incremental.core.plan import Owner, Plan
from airflow_incremental.core.quarantine import check_quarantine, default_table
from airflow_incremental.core.requests import RestateRequest
from airflow_incremental.core.spark_job import SparkRunner
from airflow_incremental.core.spec import ProcessSpec
from airflow_incremental.core.watermark import Published
from airflow_incremental.engines.duckdb import DuckDBEngine
from airflow_incremental.engines.fingerprint import fingerprint
from airflow_incremental.iceberg.scratch import OWN_WRITES

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog

    from airflow_incremental.audits import Audit
    from airflow_incremental.iceberg.locks import Begin

log = logging.getLogger(__name__)


@attrs.frozen(kw_only=True)
class Process:
    """Everything the steps of a session need, besides what the tables say.

    :param owner: who runs it. Without a run id the open session of a caller that died is not found again by itself: give each run
        an id of its own, and a retry the same.
    :param transform: SQL text or a Python callable (see :class:`~airflow_incremental.engines.duckdb.DuckDBEngine`); what runs it on
        Spark; None when the author's own tasks write to the session's scratch branch.
    :param audits: checks of what the session wrote; a failed blocking one keeps it from being published.
    :param quarantine_table: where rows are put aside that offend an audit with severity ``quarantine``; default is
        ``<target>__quarantine``. It is created when the first rows come.
    :param audit_table: identifier of the table in which results of audits are kept; None is the target's with ``__audits``
        after it, False keeps none.
    :param run_is_over: says whether the run that holds a lock is over, so that its session may be taken over.
    :param samples: rows an audit may show of what it found; 0 shows none, because they may hold personal data.
    :param approval: when a person has to decide before a publish; audits that ask need one whatever it says.
    :param quarantine_rejected: whether all rows of a session that a person rejects are put aside.
    :param replace_pending: whether a session of another run that waits for a person may be taken over.
    :param restate: event times to compute again on purpose, instead of what changed.
    :param work_dir: where the engine spills; default is a temporary directory.
    :param chunking: how large the chunks are into which a large plan is cut.
    :param keep_parts_every: seconds of work after which a session in chunks or steps keeps the finished ones for a retry, at the
        cost of one commit.
    :param on_progress: called when they are kept, with how many are done and of how many.
    :param audit_runner: runs on Spark what of the audits it can tell; None runs all of them here.
    """

    spec: ProcessSpec
    catalog: Catalog
    owner: Owner
    transform: str | Callable[..., Any] | SparkRunner | None
    audits: Sequence[Audit] = ()
    audit_table: AuditTable = None
    engine: DuckDBEngine = attrs.field(factory=DuckDBEngine)
    run_is_over: Callable[[Owner], bool] = attrs.field(default=lambda _owner: False)
    samples: int = 0
    approval: ApprovalPolicy | None = None
    quarantine_rejected: bool = False
    replace_pending: bool = False
    restate: RestateRequest | None = None
    work_dir: Path | None = None
    chunking: Chunking = attrs.field(factory=Chunking)
    keep_parts_every: float = 15.0
    on_progress: Callable[[int, int], None] = attrs.field(default=lambda _done, _parts: None)
    quarantine_table: str | None = None
    audit_runner: SparkRunner | None = None

    def __attrs_post_init__(self) -> None:
        check_quarantine(self.spec, self.quarantine_table, [a.name for a in self.audits if a.puts_aside])
        check_audit_table(self.audit_table, tables=[*self.spec.tables, self.quarantine])

    @property
    def quarantine(self) -> str:
        """Identifier of the table that takes rows put aside."""
        return self.quarantine_table or default_table(self.spec.target.table)

    @property
    def puts_aside(self) -> bool:
        """Whether sessions of this process may put rows aside."""
        return self.quarantine_rejected or any(a.puts_aside for a in self.audits)

    @property
    def results_table(self) -> str | None:
        """The table in which results of audits are kept; None if there are none or they are not."""
        if not self.audits or self.audit_table is False:
            return None
        return self.audit_table or default_audit_table(self.spec.target.table)

    @property
    def fingerprint(self) -> str:
        """A digest of the rendered transform: a retry after it was corrected does the load again.

        What of a callable it covers, and what not, says :mod:`airflow_incremental.engines.fingerprint`.
        """
        if self.transform is None:
            return OWN_WRITES
        return self.transform.fingerprint if isinstance(self.transform, SparkRunner) else fingerprint(self.transform)


@attrs.frozen(kw_only=True)
class Session:
    """An open session: this process holds its lock, as far as was seen last."""

    process: Process
    begin: Begin

    @property
    def plan(self) -> Plan:
        """What the session reads and writes."""
        return self.begin.plan


@attrs.frozen(kw_only=True)
class Finished:
    """The end of a run: ``nothing_to_do``, ``published``, or ``already_published`` (a retry found its own publish)."""

    outcome: str
    reason: str
    published: Published | None
    #: The plan, where there was one.
    plan: Plan | None = None
    #: Verdict of the audits of the session that was just published.
    verdict: str = "none"
    #: Of the person who was asked about it.
    decision: Decision | None = None

    @property
    def did_publish(self) -> bool:
        """Whether this run stands behind a publish."""
        return self.outcome in ("published", "already_published")
