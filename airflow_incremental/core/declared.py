"""Whether a watermark still speaks of what its process declares now.

A watermark says that all of a scope is loaded up to some positions, in ranges of an event-time column. Declared anew for more rows,
or by another column, it would claim what never happened, and the difference would be missing for good. A part of the old scope is
another matter: what holds of the whole holds of it.
"""

from __future__ import annotations

from airflow_incremental.core.errors import DeclarationChanged
from airflow_incremental.core.facts import TargetFacts
from airflow_incremental.core.spec import ProcessSpec
from airflow_incremental.core.tables import scope_within, show_scope
from airflow_incremental.core.watermark import Published, SourcePosition

_RELOAD = "set on_lost_watermark='reload' for one run to compute everything in scope again"


def check_target_declared(spec: ProcessSpec, last: Published, target: TargetFacts) -> None:
    """Refuse a scope that is more than the watermark speaks of, and ranges or keys of other columns of the target.

    :raises DeclarationChanged: with what to do.
    """
    known = last.watermark
    if not scope_within(spec.target.scope, known.scope):
        raise DeclarationChanged(
            f"process {spec.process!r} declares {show_scope(spec.target.scope)} of {spec.target.table} as its scope, but its "
            f"watermark (session {last.session}) speaks of {show_scope(known.scope)}: the history of the rest was never loaded",
            expected="the scope that the watermark was published for, or a part of it",
            hint=f"declare that scope again and give the rest to a process of its own, or {_RELOAD} (other rows stay as they are)",
        )
    if None not in (target.event_field, known.event_field) and target.event_field != known.event_field:
        raise _other_column(spec, f"the target {spec.target.table}", spec.target.event_time, known.event_field)
    if target.key_fields and known.key_fields and set(target.key_fields) != set(known.key_fields):
        raise DeclarationChanged(
            f"process {spec.process!r} declares the keys {list(spec.keys)!r} of {spec.target.table}, but its watermark was "
            f"reached by others (field ids {list(known.key_fields)}), and rows written by those would stay beside new ones",
            expected="the keys that the watermark was published for, under whatever names they have now",
            hint=f"declare those keys again, or {_RELOAD}",
        )


def check_source_declared(spec: ProcessSpec, name: str, before: SourcePosition | None, event_field: int | None) -> None:
    """Refuse another event-time column of a source where ranges of it are recomputed. Appended rows are the same by any column.

    :raises DeclarationChanged: with what to do.
    """
    if spec.replaces_ranges and before is not None and before.event_field not in (None, event_field):
        source = spec.sources[name]
        raise _other_column(spec, f"source {name!r} ({source.table})", source.event_time, before.event_field)


def narrowed(spec: ProcessSpec, last: Published | None) -> str | None:
    """Say what a scope that is less than before means; None if it is not."""
    if last is None or scope_within(last.watermark.scope, spec.target.scope):
        return None
    return (
        f"the scope is narrowed from {show_scope(last.watermark.scope)} to {show_scope(spec.target.scope)}: rows outside stay as "
        "they are, and this process updates them no more"
    )


def _other_column(spec: ProcessSpec, what: str, column: str | None, field: int | None) -> DeclarationChanged:
    return DeclarationChanged(
        f"process {spec.process!r} declares {column!r} as event time of {what}, but its watermark was reached by another column "
        f"(field id {field}), and ranges of the two are not the same rows",
        expected="the event-time column that the watermark was published for, under whatever name it has now",
        hint=f"name that column again, or {_RELOAD}",
    )
