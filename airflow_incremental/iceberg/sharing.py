"""Several processes on one target: each that replaces rows keeps to a scope of its own.

What a process may do is registered on the target: in the property of its last publish, and in the begin record of an open session.
"""

from __future__ import annotations

from typing import Any

from pyiceberg.table import Table

from airflow_incremental.core.commands import abandon_command
from airflow_incremental.core.errors import ScopeOverlap
from airflow_incremental.core.plan import Plan
from airflow_incremental.core.spec import ProcessSpec
from airflow_incremental.core.tables import scopes_overlap, show_scope
from airflow_incremental.iceberg import naming
from airflow_incremental.iceberg.build import snapshot_index
from airflow_incremental.iceberg.state import other_processes


def check_scopes(table: Table, spec: ProcessSpec, *, replaces: bool = False) -> None:
    """Raise ScopeOverlap if another process of this target may replace rows of this one, or the reverse.

    Both processes that have published (their property) and those with an open session (their begin record) are looked at. A process
    in mode ``append`` may replace rows too: with ``on_rewrite='overwrite'``, and in a reload or a restatement.

    :param replaces: this session replaces rows although its mode does not (a reload or a restatement).
    """
    others = _others(table, spec.process)
    for name, (other_replaces, scope) in sorted(others.items()):
        if (other_replaces or replaces or spec.replaces) and scopes_overlap(scope, spec.target.scope):
            raise ScopeOverlap(
                f"process {spec.process!r} (scope {show_scope(spec.target.scope)}) and process {name!r} "
                f"(scope {show_scope(scope)}) both write rows of {spec.target.table} that one of them replaces",
                expected="disjoint scopes on identity partition columns",
                hint="give each process IcebergTarget(scope={column: value}), or different targets. "
                + _how_to_retire(table, name, spec.target.table),
            )


def _how_to_retire(table: Table, process: str, target: str) -> str:
    """Say how to make a target forget a process that will never run again."""
    end = (
        f"end its session with {abandon_command(target, process)}, "
        if naming.lock_ref(process) in table.metadata.refs
        else ""
    )
    return (
        f"If process {process!r} no longer runs, retire it: {end}remove the table property {naming.state_property(process)!r} and "
        f"drop the tag {naming.watermark_tag(process)!r} of {target}; its rows stay"
    )


def has_others(table: Table, process: str) -> bool:
    """Say whether other processes have published to this target or have an open session on it."""
    return bool(_others(table, process))


def _others(table: Table, process: str) -> dict[str, tuple[bool, Any]]:
    """Return the other processes of a target -> whether they replace rows, and their scope."""
    others = {
        name: (state["may_replace"], (state["watermark"] or state)["scope"])
        for name, state in other_processes(table, process).items()
    }
    index = snapshot_index(table)
    for ref in table.metadata.refs.values():
        snapshot = index.get(ref.snapshot_id)
        summary = (
            snapshot.summary.additional_properties if snapshot is not None and snapshot.summary is not None else {}
        )
        if summary.get(naming.RECORD) == naming.BEGIN and summary[naming.PROCESS] != process:
            plan = Plan.decode(summary[naming.PLAN])
            others[plan.process] = (plan.may_replace or bool(plan.replaced), plan.scope)
    return others
