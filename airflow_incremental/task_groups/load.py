"""The task group that runs an incremental load, one task per stage."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from airflow_incremental.audits import Audit
from airflow_incremental.audits.python import Check
from airflow_incremental.compat import Asset, TaskGroup, XComArg
from airflow_incremental.core.approval import ApprovalDefault, ApprovalPolicy, OnReject
from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.core.spec import Mode
from airflow_incremental.core.tables import IcebergSource, IcebergTarget
from airflow_incremental.operators.arguments import Stage, Transform, check_approval, check_transform
from airflow_incremental.operators.chunk import make_chunks
from airflow_incremental.operators.load import IncrementalLoadOperator
from airflow_incremental.task_groups.parallel import check_alike, check_mappable, check_parallel
from airflow_incremental.task_groups.session import SessionValues

if TYPE_CHECKING:
    from airflow.sdk.definitions.mappedoperator import MappedOperator
    from typing_extensions import Self

    from airflow_incremental.operators.approve import SessionApprovalOperator

#: What the group decides itself, so that the stages stay one load.
_RESERVED = frozenset(
    {
        "task_id",
        "stage",
        "group_name",
        "stage_task_ids",
        "session_keys",
        "task_group",
        "dag",
        "trigger_rule",
        "do_xcom_push",
    }
)
#: What holds for the plan, and so for all stages: an argument of the group.
_OF_PLAN = frozenset({"chunk_bytes", "max_chunks"})
#: The same for the task that asks: what it asks, of whom and for how long are arguments of the group.
_OF_APPROVE = frozenset(
    {
        *("subject", "body", "options", "defaults", "multiple", "response_timeout", "assigned_users", "respondents"),
        *("fail_on_reject", "ignore_downstream_trigger_rules", "approval", "on_reject", "default", "when_pending"),
        *("iceberg_conn_id", "poll_interval"),
    }
)


class IncrementalLoad(TaskGroup):
    """Load what changed in Iceberg tables into another one, as tasks ``plan``, ``load``, ``audit`` and ``publish``.

    With ``approval`` a task ``approve`` before ``publish`` asks a person, by Airflow's own human-in-the-loop.

    The same load as :class:`~airflow_incremental.IncrementalLoadOperator`, whose arguments it takes; each stage can have a pool, a
    queue and retries of its own. When there is nothing to do, the stages between are skipped and ``publish`` succeeds and says so,
    so that work chained after the group goes on (or is skipped, with ``on_no_change="skip"``).

    With ``transform=None`` the writing is yours. The group is then a context manager, and tasks made inside stand between ``plan``
    and ``seal``; they write to ``session["branch"]`` of the target, and to no event time outside ``session["ranges"]``::

        with IncrementalLoad("dim", sources=..., target=..., mode="overwrite", transform=None) as dim:
            write_dimension(branch=dim.session["branch"], ranges=dim.session["ranges"])

    Own writes must be idempotent: a retry finds the branch as the try before it left it. They read the sources at
    ``session["snapshots"]``.

    The tasks are ``plan``, ``load``, ``audit`` and ``publish`` of the group; ``session`` holds the values of the plan (see
    :class:`~airflow_incremental.task_groups.session.SessionValues`), ``asset`` is the target's asset, and ``output`` the summary of
    how the load ended.

    :param group_id: id of the group.
    :param sources: see the operator.
    :param target: see the operator.
    :param mode: see the operator.
    :param transform: see the operator; None for writes of your own.
    :param process: name of the load. Default: the target's identifier.
    :param audits: see the operator.
    :param approval: when a person has to approve the audited rows before they are published: ``"always"``; ``"on_warning"``, when
        an audit warned; ``"on_sensitive_data"``, when an audit for sensitive data found something. Audits of severity ``ask`` ask
        whatever it says, and need it to be set.
    :param approval_timeout: how long to wait for an answer; None waits for good.
    :param approval_default: the answer when nobody gives one in time: ``deny`` or ``approve``.
    :param approval_on_reject: a rejection does ``fail`` the run, ``discard`` the session while the run goes on, or put its rows
        into ``quarantine``. In any case nothing is published.
    :param approvers: who may answer, by user id, or as mappings with ``id`` and ``name``; None for everybody who may in Airflow.
    :param parallel_chunks: a plan that is cut into chunks (see ``chunk_bytes`` of the operator) is computed by mapped tasks
        ``load``, one for each chunk and so many at a time; a task ``seal`` then puts what they wrote together. None computes the
        chunks in one task. For SQL and callables in mode ``append`` or ``overwrite``, outside mapped task groups.
    :param operator_args: more arguments of the tasks, by stage, with ``"*"`` for all:
        ``{"*": {"retries": 3}, "load": {"pool": "duckdb", "queue": "big"}}``. With writes of your own, ``load`` is called ``seal``;
        with ``parallel_chunks`` there are both.
    :param default_args: as of any task group.
    :param prefix_group_id: as of any task group.
    :param parent_group: as of any task group.
    :param dag: as of any task group.
    :param tooltip: as of any task group.
    :param load_args: any other argument of the operator, such as ``iceberg_conn_id``, ``initial``, ``on_rewrite``, ``when_busy``.
        Task ids, trigger rules and whether results are pushed are the group's own.
    """

    def __init__(
        self,
        group_id: str,
        *,
        sources: Mapping[str, IcebergSource | Mapping[str, Any]],
        target: IcebergTarget | Mapping[str, Any],
        mode: Mode,
        transform: Transform,
        process: str | None = None,
        audits: Sequence[Audit | Mapping[str, Any] | Check] = (),
        approval: ApprovalPolicy | None = None,
        approval_timeout: dt.timedelta | None = None,
        approval_default: ApprovalDefault = "deny",
        approval_on_reject: OnReject = "fail",
        approvers: Sequence[str | Mapping[str, str]] | None = None,
        parallel_chunks: int | None = None,
        operator_args: Mapping[str, Mapping[str, Any]] | None = None,
        default_args: dict[str, Any] | None = None,
        prefix_group_id: bool = True,
        parent_group: TaskGroup | None = None,
        dag: Any = None,
        tooltip: str = "",
        **load_args: Any,
    ) -> None:
        check_transform(transform, stage="plan")
        _check_reserved(load_args, what=f"the group {group_id!r} is given")
        given = {"parent_group": parent_group, "dag": dag, "default_args": default_args}
        super().__init__(
            group_id=group_id,
            prefix_group_id=prefix_group_id,
            tooltip=tooltip,
            **{name: value for name, value in given.items() if value is not None},
        )
        self.own_writes = transform is None
        if self.own_writes and mode == "merge":
            raise ArgumentError(
                f"the group {group_id!r} has mode='merge' and transform=None",
                expected="a transform: which keys are replaced is found while it is loaded",
                hint="write the transform as SQL or a callable, or use mode='overwrite' with writes of your own",
            )
        labels = {"plan": "plan", "load": "load", "audit": "audit", "publish": "publish"}
        if parallel_chunks is not None:
            check_parallel(self, parallel_chunks, mode=mode, transform=transform)
            labels["chunk"] = "load"
        if self.own_writes or parallel_chunks is not None:
            labels["load"] = "seal"
        check_approval(approval, approval_on_reject, alone=False)
        asking: dict[str, Any] = {"timeout": approval_timeout, "default": approval_default, "approvers": approvers}
        if approval is None:
            _check_unasked({**asking, "on_reject": approval_on_reject})
        else:
            labels["approve"] = "approve"
        extra = _arguments_by_stage(operator_args or {}, labels)
        if parallel_chunks is not None:
            # How rows are made is said by the task that seals, also where it was said of the mapped one.
            extra["load"] |= check_alike(operator_args or {})
        shared = {
            "sources": sources,
            "target": target,
            "mode": mode,
            "transform": transform,
            "process": process,
            "audits": audits,
            "approval": approval,
            "approval_on_reject": approval_on_reject,
            "group_name": self.group_id,
            "stage_task_ids": {stage: self.child_id(label) for stage, label in labels.items()},  # type: ignore[no-untyped-call]
            "task_group": self,
            "dag": self.dag,
            **load_args,
        }

        def make(stage: Stage, **more: Any) -> IncrementalLoadOperator:
            return IncrementalLoadOperator(task_id=labels[stage], stage=stage, **{**shared, **extra[stage], **more})

        #: The four tasks; ``load`` is called ``seal`` when the writing is the author's.
        self.plan = make("plan", multiple_outputs=True)
        self.load = make("load")
        self.audit = make("audit")
        # Runs, and says so, when the stages before it were skipped because there was nothing to do.
        self.publish = make("publish", trigger_rule="none_failed")
        #: The task that asks a person, between ``audit`` and ``publish``; None without ``approval``.
        self.approve: SessionApprovalOperator | None = None
        #: The mapped task that computes the chunks, between ``plan`` and ``load``; None without ``parallel_chunks``.
        self.chunks: MappedOperator | None = None
        if parallel_chunks is not None:
            check_mappable(self, self.plan.chunking.most)
            self.chunks = make_chunks(
                self.plan,
                self.load,
                parallel_chunks,
                {"task_group": self, "dag": self.dag, **load_args, **extra["chunk"]},
            )
            self.chunks >> self.load
        self.plan >> self.load >> self.audit
        if approval is None:
            self.audit >> self.publish
        else:
            # Airflow's own operator is imported by those who need it.
            from airflow_incremental.operators.approve import make_approve

            self.approve = make_approve(
                self.publish, approval, **asking, arguments={"task_group": self, "dag": self.dag, **extra["approve"]}
            )
            self.audit >> self.approve >> self.publish
        #: What the plan says, as references for other tasks: ``session["branch"]``.
        self.session = SessionValues(self.plan)

    @property
    def asset(self) -> Asset:
        """The target's asset, to schedule other DAGs on. Only ``publish`` emits its events."""
        return self.publish.asset

    @property
    def output(self) -> XComArg:
        """What the load did, as a reference: the summary that the asset's event carries too."""
        return self.publish.output

    def __enter__(self) -> Self:
        """Begin the tasks that write.

        :raises ArgumentError: the group has a transform, which writes.
        """
        if not self.own_writes:
            raise ArgumentError(
                f"the group {self.group_id!r} has a transform and is used as a context manager",
                expected="one of the two: a transform, or tasks of your own",
                hint="pass transform=None to write with tasks of your own",
            )
        super().__enter__()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> Literal[False]:
        """Put the tasks that were made inside between ``plan`` and ``seal``."""
        super().__exit__(exc_type, exc, traceback)  # type: ignore[no-untyped-call]
        if exc_type is None:
            self._embrace()
        return False

    def _embrace(self) -> None:
        made = (self.plan, self.load, self.audit, self.approve, self.publish)
        stages = {task.task_id for task in made if task is not None}
        inner = {task.task_id: task for task in self if task.task_id not in stages}
        if not inner:
            raise ArgumentError(
                f"the group {self.group_id!r} has no transform and no tasks inside",
                expected="tasks that write to session['branch']",
                hint="make them inside the with block, or give a transform",
            )
        for task in inner.values():
            if task.upstream_task_ids.isdisjoint(inner):
                self.plan >> task
            # A teardown runs whatever happened, so what counts as written is what it waits for.
            followers = [inner[id_] for id_ in task.downstream_task_ids & inner.keys()]
            if not task.is_teardown and all(follower.is_teardown for follower in followers):
                task >> self.load


def _check_unasked(asking: Mapping[str, Any]) -> None:
    unused = {"timeout": None, "default": "deny", "on_reject": "fail", "approvers": None}
    given = [name for name, value in asking.items() if value != unused[name]]
    if given:
        names = ", ".join(name if name == "approvers" else f"approval_{name}" for name in given)
        raise ArgumentError(
            f"{names} is given without approval",
            expected="approval='always', 'on_warning' or 'on_sensitive_data', which says when a person is asked",
            hint="set approval, or leave the others out",
        )


def _arguments_by_stage(
    operator_args: Mapping[str, Mapping[str, Any]], labels: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    if not isinstance(operator_args, Mapping):
        raise ArgumentError(
            f"operator_args is {operator_args!r}",
            expected="a mapping from a stage, or '*', to a mapping of arguments",
            hint="write operator_args={'load': {'pool': 'duckdb'}}",
        )
    unknown = [name for name in operator_args if name != "*" and name not in labels.values()]
    if unknown:
        raise ArgumentError(
            f"operator_args has the keys {', '.join(map(repr, unknown))}",
            expected=f"'*', {', '.join(map(repr, labels.values()))}",
        )
    for name, given in operator_args.items():
        if not isinstance(given, Mapping):
            raise ArgumentError(
                f"operator_args has {given!r} for {name!r}",
                expected="a mapping of arguments",
                hint="write operator_args={'load': {'pool': 'duckdb'}}",
            )
    found = {stage: {**operator_args.get("*", {}), **operator_args.get(label, {})} for stage, label in labels.items()}
    for arguments in found.values():
        _check_reserved(arguments, what="operator_args sets", taken=_RESERVED | _OF_PLAN)
    if "approve" in labels:
        _check_reserved(operator_args.get("approve", {}), what="operator_args sets", taken=_OF_APPROVE)
    return found


def _check_reserved(arguments: Mapping[str, Any], *, what: str, taken: frozenset[str] = _RESERVED) -> None:
    found = sorted(taken & arguments.keys())
    if found:
        raise ArgumentError(
            f"{what} {', '.join(map(repr, found))}",
            expected=f"arguments that are not the group's own: {', '.join(sorted(taken))}",
        )
