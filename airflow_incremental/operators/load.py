"""The operator that runs an incremental load: all of it in one task, or one stage of a task group."""

from __future__ import annotations

import datetime as dt
import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_incremental.compat import Asset, BaseOperator, BaseOperatorLink, SkipMixin
from airflow_incremental.core.approval import ApprovalPolicy, OnReject
from airflow_incremental.core.chunks import Chunking
from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.core.limits import check_engine, check_samples
from airflow_incremental.core.literals import AuditTable, is_template, name_of_callable, one_of
from airflow_incremental.core.spec import Mode, OnLostWatermark, OnMissingBounds, OnNullEventTime, OnRewrite, Step
from airflow_incremental.core.stateful import CatchUp
from airflow_incremental.core.tables import IcebergSource, IcebergTarget
from airflow_incremental.core.thresholds import OnSkipped
from airflow_incremental.operators.alone import check_alone
from airflow_incremental.operators.arguments import (
    SPEC_FIELDS,
    OnNoChange,
    Stage,
    Transform,
    WhenBusy,
    WhenPending,
    check_approval,
    check_asks,
    check_number,
    check_parsed,
    check_transform,
    default_process,
    functions_of,
    is_open,
    literal_audits,
    on_spark,
    plain,
)
from airflow_incremental.operators.assets import DEFAULT_CONN_ID, DEFAULT_STORE_CONN_ID, iceberg_asset
from airflow_incremental.operators.links import SessionPlanLink
from airflow_incremental.operators.runtime import failing_for_good
from airflow_incremental.operators.templates import check_templates, hide_secrets, with_suite_files
from airflow_incremental.spark.code import check_code

if TYPE_CHECKING:
    from airflow.sdk import Context
    from pyiceberg.catalog import Catalog

    from airflow_incremental.audits import Audit
    from airflow_incremental.audits.python import Check
    from airflow_incremental.core.spark import SparkTransform
    from airflow_incremental.engines.duckdb import DuckDBEngine
    from airflow_incremental.operators.spark import Runner


class IncrementalLoadOperator(BaseOperator, SkipMixin):
    """Load what changed in Iceberg tables into another one: plan, load, audit and publish, in one task.

    A run computes its work from the sources and the watermark on the target, never from its data interval, so any schedule will
    do. A task that was killed goes on where it stopped. Nothing is visible in the target before its audits have passed; data and
    watermark are published in one commit. A publish emits the event of the target's asset, with the session's summary as ``extra``;
    a run that finds nothing to do emits none.

    For one task per stage, see :class:`~airflow_incremental.task_groups.load.IncrementalLoad`. This form can be mapped:
    ``IncrementalLoadOperator.partial(task_id=..., ...).expand_kwargs([...])``, with ``as_dict()`` of sources and targets; each
    mapped instance needs a process of its own.

    :param process: name of the load, the unit of watermarks; survives renames of DAGs and tasks. Default: the target's identifier.
    :param iceberg_conn_id: Airflow connection of the catalog, of the type the official Iceberg provider defines.
    :param sources: name in the transform -> :class:`~airflow_incremental.IcebergSource` (or a mapping of its arguments). Several
        drivers in mode ``append`` are a union, which the transform writes as ``UNION ALL``; what is joined has to be a lookup.
    :param target: :class:`~airflow_incremental.IcebergTarget` (or a mapping of its arguments).
    :param mode: ``append`` (a target row depends on one source row), ``overwrite`` (a target range on the source rows of the same
        range), ``stateful`` (it depends on what came before, too) or ``merge`` (it depends on all source rows of its key).
    :param transform: what makes target rows of source rows: DuckDB SQL, the path of a ``.sql`` file (templated, found as Airflow
        finds template files), or a callable ``f(relations, plan)`` that returns an Arrow table, a reader or a DuckDB relation. It
        reads the names in ``sources`` and ``plan_ranges`` (``range_start``, ``range_end``); times are UTC. Or a
        :class:`~airflow_incremental.SparkTransform`, which runs on Spark (see also
        :class:`~airflow_incremental.SparkLoadOperator`).
    :param audits: checks of what was loaded, before it is published: audits, their plain values, or functions
        ``check(rows, subject)`` (see :class:`~airflow_incremental.PythonCheck`).
    :param quarantine_table: where rows are put aside that offend an audit with ``severity="quarantine"``; default is
        ``<target>__quarantine``. It is created when the first rows come.
    :param audit_table: identifier of the table in which results of audits are kept, made if it is missing. Default: the target's
        identifier with ``__audits`` after it; False keeps none.
    :param incremental_conn_id: Airflow connection of the store, which keeps the session log and to which each publish is a signal
        (see :class:`~airflow_incremental.SignalSensor`). Where nobody made the connection, it is a file in Airflow's home. None
        keeps no log and emits no signals.
    :param initial: what a first run takes as given: ``"all"``, ``"current"``, a snapshot id, a time with zone, or
        ``{"adopt": one of these}`` for a target that has rows already.
    :param on_rewrite: ``append`` only, when consumed rows were changed or removed: ``fail``, ``ignore`` (both sides of such
        snapshots stay out) or ``overwrite`` (their ranges are computed again).
    :param on_null_event_time: rows without an event time ``fail`` the plan or are a range of their own (``own_range``).
    :param on_lost_watermark: when the watermark cannot be tied to the tables any more: ``fail``, ``reload`` (everything, replacing
        the target) or ``added_only`` (files newer than the lost position).
    :param on_missing_bounds: ``read`` the event times of changed files without bounds, or ``fail``.
    :param state: ``stateful`` only: what the transform reads of the target under the name ``state``: ``"previous_step"``,
        ``"latest_by(<key column>, ...)"``, or None for nothing.
    :param step: ``stateful`` only: ``hour``, ``day``, ``month`` or ``year`` in which the transform runs, in order, each seeing the
        state the last one left; None runs it once over the whole range.
    :param keys: ``merge`` only: the columns of the target that make up a key; the transform reads all source rows of the keys that
        changed, and their target rows are replaced by what it returns.
    :param key_horizon: ``merge`` only: how far apart in event time the source rows of one key can be at most, a timedelta or
        seconds; None searches all files whose bounds or buckets may hold a changed key.
    :param catch_up: ``stateful`` only: ``whole_range`` computes everything from the first change on; ``missed`` only the units
        that changed or are newly complete, for a transform in which no state carries over.
    :param max_lookback: ``overwrite`` and ``stateful``: hours (or other units of the target) older than this before the published
        complete-through are not computed; a timedelta or seconds.
    :param budget: ``overwrite`` and ``stateful``: units of the target a run computes at most.
    :param on_skipped: what ``max_lookback`` and ``budget`` cut off does ``fail`` the plan, or is kept as skipped (``keep``)
        and caught up on by later runs as soon as they allow.
    :param when_busy: when another living run holds the process: ``wait`` (deferred, up to ``execution_timeout``), ``skip`` or
        ``fail`` (without retry).
    :param when_pending: when another run's session waits for a person to approve it: ``skip``, or ``replace`` it, planning its
        changes together with what came since, to be asked about anew. A run never waits for that, whatever ``when_busy`` says.
    :param on_no_change: a task that finds nothing to do does ``succeed`` or ``skip``.
    :param poll_interval: seconds between two looks while waiting.
    :param memory_limit: DuckDB's memory limit, such as ``"2GB"`` or ``"50%"``; default is its own, 80% of the machine.
    :param threads: DuckDB's threads; default is one per core.
    :param chunk_bytes: ``append`` and ``overwrite``: a plan that reads more bytes of source files is cut by event time into chunks
        of about this size, over which the transform runs one by one; a retry goes on after those that are done. A number, or a
        text such as ``"512MB"``.
    :param max_chunks: into how many chunks at most; 1 never cuts.
    :param samples: offending rows an audit may log, 100 at most; 0 shows none, because rows may hold personal data.
    :param approval: when a person is asked before the publish; set by the task group, which has a task that asks.
    :param approval_on_reject: what a rejection leads to; set by the task group.
    :param stage: which step this task runs; set by the task group.
    :param group_name: name under which the stages of a group share a session; set by the task group.
    :param stage_task_ids: stage -> task id; set by the task group.
    :param session_keys: values of the session that tasks refer to; set by the task group.
    :param retries: tries after the first. What a retry cannot mend (a failed audit, a wrong argument) is not retried. A mapped task
        on Airflow 3.1 has Airflow's own default.
    :param retry_delay: time between tries.
    """

    template_fields: Sequence[str] = (
        *SPEC_FIELDS,
        "iceberg_conn_id",
        "transform",
        "audits",
        "quarantine_table",
        "audit_table",
        "plan_summary",
    )
    template_ext: Sequence[str] = (".sql",)
    template_fields_renderers: ClassVar[dict[str, str]] = {
        "sources": "json",
        "target": "json",
        "transform": "sql",
        "audits": "json",
    }
    ui_color = "#d9ecf7"
    # The rendered fields are stored again when the task is done, so that its page shows what ``plan_summary`` has become.
    overwrite_rtif_after_execution = True
    operator_extra_links: Sequence[BaseOperatorLink] = (SessionPlanLink(),)
    _runner: Runner | None = None

    def __init__(
        self,
        *,
        sources: Mapping[str, IcebergSource | Mapping[str, Any]],
        target: IcebergTarget | Mapping[str, Any],
        mode: Mode,
        transform: Transform = None,
        process: str | None = None,
        iceberg_conn_id: str = DEFAULT_CONN_ID,
        audits: Sequence[Audit | Mapping[str, Any] | Check] = (),
        quarantine_table: str | None = None,
        audit_table: AuditTable = None,
        incremental_conn_id: str | None = DEFAULT_STORE_CONN_ID,
        initial: Any = "all",
        on_rewrite: OnRewrite = "fail",
        on_null_event_time: OnNullEventTime = "fail",
        on_lost_watermark: OnLostWatermark = "fail",
        on_missing_bounds: OnMissingBounds = "read",
        state: str | None = None,
        step: Step | None = None,
        keys: Sequence[str] = (),
        key_horizon: dt.timedelta | float | None = None,
        catch_up: CatchUp = "whole_range",
        max_lookback: dt.timedelta | float | str | None = None,
        budget: int | str | None = None,
        on_skipped: OnSkipped = "fail",
        when_busy: WhenBusy = "wait",
        when_pending: WhenPending = "skip",
        on_no_change: OnNoChange = "succeed",
        poll_interval: float = 30,
        memory_limit: str | None = None,
        threads: int | None = None,
        chunk_bytes: int | str = "1GiB",
        max_chunks: int = 200,
        samples: int = 0,
        approval: ApprovalPolicy | None = None,
        approval_on_reject: OnReject = "fail",
        stage: Stage = "all",
        group_name: str | None = None,
        stage_task_ids: Mapping[str, str] | None = None,
        session_keys: set[str] | None = None,
        retries: int = 2,
        retry_delay: dt.timedelta | float = dt.timedelta(seconds=30),
        **kwargs: Any,
    ) -> None:
        super().__init__(retries=retries, retry_delay=retry_delay, **kwargs)
        # A single source, without a name for it, stays what it is and is refused below.
        self.sources = sources if isinstance(sources, IcebergSource) else plain(sources)
        self.target = plain(target)
        self.process = default_process(process, self.target)
        self.mode = mode
        self.initial = plain(initial)
        self.on_rewrite = on_rewrite
        self.on_null_event_time = on_null_event_time
        self.on_lost_watermark = on_lost_watermark
        self.on_missing_bounds = on_missing_bounds
        self.state = state
        self.step = step
        self.keys = plain(keys)
        self.key_horizon = plain(key_horizon)
        self.catch_up = catch_up
        self.max_lookback = plain(max_lookback)
        self.budget = budget
        self.on_skipped = on_skipped
        self.iceberg_conn_id = iceberg_conn_id
        self.audits = plain(audits)
        self.audit_table, self.incremental_conn_id = audit_table, incremental_conn_id
        #: Of audits that are functions: what their plain form cannot hold.
        self.audit_functions = functions_of(audits)
        self.quarantine_table = quarantine_table
        self.stage = one_of(stage, Stage, what="stage")
        check_transform(transform, stage=self.stage)
        # A template field that is callable would be called by Airflow to render it; the page shows the callable's name instead.
        is_function = callable(transform) and not is_open(transform)
        self.transform_callable = transform if is_function else None
        self.transform = name_of_callable(transform) if is_function else plain(transform)  # type: ignore[arg-type]
        self.when_busy = one_of(when_busy, WhenBusy, what="when_busy")
        self.when_pending = one_of(when_pending, WhenPending, what="when_pending")
        self.approval, self.approval_on_reject = approval, approval_on_reject
        check_approval(approval, approval_on_reject, alone=self.stage == "all")
        self.on_no_change = one_of(on_no_change, OnNoChange, what="on_no_change")
        self.poll_interval = check_number(poll_interval, what="poll_interval", least=0)
        self.samples = check_samples(samples)
        check_engine(memory_limit, threads)
        self.memory_limit, self.threads = memory_limit, threads
        self.chunking = Chunking(chunk_bytes, max_chunks)
        self.group_name = group_name or self.task_id
        self.stage_task_ids = dict(stage_task_ids or {})
        self.session_keys = session_keys if session_keys is not None else set()
        #: What the session reads, writes and did, for the task's page; written when the task runs.
        self.plan_summary = ""
        self._engine: DuckDBEngine | None = None
        fields = {name: getattr(self, name) for name in SPEC_FIELDS}
        #: What the literal arguments declare; None where templates or other tasks have a say.
        self.declared = check_parsed(
            fields,
            iceberg_conn_id=iceberg_conn_id,
            audits=self.audits,
            functions=self.audit_functions,
            quarantine_table=quarantine_table,
            audit_table=audit_table,
            approval=approval,
        )
        check_alone(self)
        if self.stage in ("all", "plan"):
            self.inlets = [*self.inlets, *self._source_assets()]
        if self.stage in ("all", "publish") and (asset := self._target_asset()) is not None:
            self.outlets = [*self.outlets, *([] if asset in self.outlets else [asset])]

    def prepare_template(self) -> None:
        """Check what is known when the DAG is whole and Airflow has read the files that are named: at the end of the import.

        :raises ArgumentError: a file is not there, Jinja cannot read a template, or nobody writes; the DAG is then not imported.
        """
        super().prepare_template()
        if self.stage == "load" and self.transform is None and self.upstream_task_ids <= {self.stage_task_ids["plan"]}:
            raise ArgumentError(
                f"the group {self.group_name!r} has no transform and no tasks of its own between plan and seal",
                expected="tasks that write to the session's branch",
                hint="make them inside 'with IncrementalLoad(..., transform=None) as load:', or give a transform",
            )
        env = self.get_template_env()
        self.audits = with_suite_files(self.audits, env)
        check_asks(literal_audits(self.audits, self.audit_functions), self.approval)
        for name in self.template_fields:
            check_templates(getattr(self, name), env, what=f"{name} of task {self.task_id!r}")
        # A file may be empty.
        check_transform(self.transform, stage=self.stage)
        spark = self.spark_transform()
        if spark is not None:
            check_code(spark, self._folders())

    def render_template_fields(self, context: Any, jinja_env: Any = None) -> None:
        """Render the template fields, and hide what of them is a secret: they are shown on the task's page."""
        super().render_template_fields(context, jinja_env)
        hide_secrets(self._spark_arguments())

    @property
    def inherits_from_skipmixin(self) -> bool:
        """Whether the task may skip others: the scheduler then keeps them skipped, also mapped ones and ones that are cleared."""
        return self.stage in ("plan", "load")

    @property
    def asset(self) -> Asset:
        """The target's asset, to schedule other DAGs on.

        :raises ArgumentError: its name is not known before the task runs.
        """
        found = self._target_asset()
        if found is None:
            raise ArgumentError(
                f"the target of task {self.task_id!r} is templated",
                expected="a literal table and connection, when its asset is asked for in a DAG file",
                hint="name the asset with iceberg_asset(table, iceberg_conn_id)",
            )
        return found

    def execute(self, context: Context) -> Any:
        """Run the stage; see :mod:`airflow_incremental.operators.stages`."""
        from airflow_incremental.operators.stages import run_stage

        with failing_for_good():
            return run_stage(self, context)

    def execute_after_wait(self, context: Context, event: Mapping[str, Any] | None = None) -> Any:
        """Try again when the lock may be free.

        :param event: why the trigger fired.
        """
        if event is not None:
            self.log.info("session %s is not waited for any more: %s", event["session"], event["why"])
        return self.execute(context)

    def on_kill(self) -> None:
        """Stop the engine when the task is killed or timed out; the session stays, and a retry goes on with it."""
        if self._engine is not None:
            self._engine.interrupt()
        if self._runner is not None:
            self._runner.stop()

    def make_engine(self) -> DuckDBEngine:
        """Return the engine of this task, which ``on_kill`` can stop."""
        from airflow_incremental.engines.duckdb import DuckDBEngine

        self._engine = DuckDBEngine(memory_limit=self.memory_limit, threads=self.threads)
        return self._engine

    def spark_transform(self) -> SparkTransform | None:
        """Return what runs on Spark, of the fields as they are now; None if DuckDB or the author's own tasks do the work."""
        return on_spark(self._spark_arguments())

    def make_runner(self, transform: SparkTransform, catalog: Catalog, context: Mapping[str, Any]) -> Runner:
        """Return what runs a transform on Spark, which ``on_kill`` can stop.

        :raises ArgumentError: the catalog cannot be the same in Spark.
        """
        from airflow_incremental.operators.spark import runner_of

        self._runner = runner_of(transform, catalog, context, folders=self._folders())
        return self._runner

    def _spark_arguments(self) -> Any:
        return self.transform

    def _folders(self) -> tuple[str, ...]:
        return tuple(getattr(self.get_template_env().loader, "searchpath", ()))

    def _target_asset(self) -> Asset | None:
        table = self.target.get("table") if isinstance(self.target, Mapping) else None
        return self._asset_of(table)

    def _source_assets(self) -> list[Asset]:
        if not isinstance(self.sources, Mapping):
            return []
        tables = [source.get("table") if isinstance(source, Mapping) else None for source in self.sources.values()]
        return [asset for table in dict.fromkeys(tables) if (asset := self._asset_of(table)) is not None]

    def _asset_of(self, table: Any) -> Asset | None:
        names = (table, self.iceberg_conn_id)
        if any(not isinstance(name, str) or is_template(name) for name in names):
            return None
        return iceberg_asset(table, self.iceberg_conn_id)


#: Arguments of a load that say how rows are made, which tasks of other kinds do not have.
OF_LOADS = frozenset(inspect.signature(IncrementalLoadOperator.__init__).parameters) - {
    "self",
    "kwargs",
    "retries",
    "retry_delay",
}
