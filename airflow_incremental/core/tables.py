"""The tables a process reads and writes, as a DAG author declares them, and the part of a target that is a process's own."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import attrs

from airflow_incremental.core.completeness import CompleteThrough
from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.core.literals import check_name, check_table, choice, column_names, is_template

Role = Literal["driver", "lookup"]
ScopeValue = str | int | bool | None

_PARTITION = re.compile(r"(?:(hour|day|month|year|identity)\((\w+)\)|(\w+))")


def _complete_through(value: Any) -> CompleteThrough | None:
    return CompleteThrough.parse(value)


def _change_bounds(value: Any) -> tuple[str, ...]:
    return column_names(value, what="change_bounds")


def _key_columns(value: Any) -> tuple[str, ...] | None:
    return None if value is None else column_names(value, what="key_columns")


def _flag(_instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    if not isinstance(value, bool) and not is_template(value):
        raise ArgumentError(
            f"{attribute.name} of a table is {value!r}",
            expected="True or False",
            hint="a template renders text, and 'False' would count as true; set render_template_as_native_obj=True on the DAG"
            if isinstance(value, str)
            else "",
        )


@attrs.frozen
class IcebergSource:
    """An Iceberg table a process reads.

    :param table: identifier, ``namespace.table``.
    :param event_time: column that says when a thing happened: a date, a timestamp (read as UTC) or a timestamp with zone.
        ``append`` can do without (nothing is then known about late rows); ``overwrite`` cannot.
    :param branch: branch of the source that is followed.
    :param complete_through: up to which event time the source counts as complete, see
        :class:`~airflow_incremental.core.completeness.CompleteThrough`, or the name of its rule. Default is what the processes that
        load the table publish for it (``"published"``); if none does, the latest event seen (``"latest_event"``). ``stateful`` does
        not take that second default.
    :param role: a ``driver`` makes work when it changes; a ``lookup`` is read whole, at one snapshot per session, and makes none:
        rows stay as the lookup was when they were last written.
    :param change_bounds: columns whose least and greatest value among the changed rows the transform wants to know, as relation
        ``<name>_bounds`` and as variables ``<name>_min_<column>`` and ``<name>_max_<column>``.
    :param key_columns: ``merge`` only: the columns that hold the process's keys, in their order; default is columns of the same
        names.
    :param pin: keep a tag ``inc_pin_<process>_<name>`` on the source at the snapshot that was consumed last, so that expiry cannot
        lose the watermark. Needs write access to the source; drop the tag when the process is given up.
    """

    table: str
    event_time: str | None = None
    branch: str = "main"
    complete_through: CompleteThrough | None = attrs.field(default=None, converter=_complete_through)
    role: Role = attrs.field(default="driver", validator=choice(Role))
    pin: bool = attrs.field(default=False, validator=_flag)
    change_bounds: tuple[str, ...] = attrs.field(default=(), converter=_change_bounds)
    key_columns: tuple[str, ...] | None = attrs.field(default=None, converter=_key_columns)

    def __attrs_post_init__(self) -> None:
        check_table(self.table, what="the table of a source")
        check_name(self.branch, what=f"the branch of source {self.table!r}")
        if self.event_time is not None:
            check_name(self.event_time, what=f"the event_time of source {self.table!r}")
        if self.role == "lookup" and self.pin is True:
            raise ArgumentError(
                f"the lookup {self.table!r} is to be pinned", expected="pins on drivers only: a lookup has no watermark"
            )
        if self.role == "lookup" and self.change_bounds:
            raise ArgumentError(
                f"the lookup {self.table!r} has change_bounds", expected="them on drivers only: a lookup is read whole"
            )
        if self.role == "lookup" and self.key_columns is not None:
            raise ArgumentError(
                f"the lookup {self.table!r} has key_columns",
                expected="key columns of drivers only: a lookup is read whole, and makes no work",
            )
        if self.role == "lookup" and self.complete_through is not None:
            raise ArgumentError(
                f"the lookup {self.table!r} has a complete_through",
                expected="one for drivers only: a lookup does not decide how far the target is complete",
            )

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, the form Airflow can template and serialise."""
        return attrs.asdict(self)


def _scope(scope: Any) -> dict[str, tuple[ScopeValue, ...]] | None:
    if scope is None:
        return None
    if not isinstance(scope, Mapping) or not scope:
        raise ArgumentError(
            f"scope is {scope!r}", expected="a mapping of identity partition columns to a value or a list of values"
        )
    found = {}
    for column, values in sorted(scope.items()):
        if isinstance(values, (set, frozenset)):
            values = sorted(values, key=repr)  # noqa: PLW2901  a set has another order in every process
        items = tuple(values) if isinstance(values, (list, tuple)) else (values,)
        if not items:
            raise ArgumentError(f"scope lists no value for {column!r}", expected="at least one value per column")
        for value in items:
            if not isinstance(value, (str, int, bool, type(None))):
                raise ArgumentError(
                    f"scope asks {column!r} to be {value!r} ({type(value).__name__})",
                    expected="strings, integers, booleans or None",
                )
        found[column] = items
    return found


def _partition_by(fields: str | Sequence[str] | None) -> tuple[str, ...] | None:
    if fields is None:
        return None
    found = (fields,) if isinstance(fields, str) else tuple(fields) if isinstance(fields, Sequence) else (fields,)
    for item in found:
        if not isinstance(item, str) or not (is_template(item) or _PARTITION.fullmatch(item)):
            raise ArgumentError(
                f"partition_by holds {item!r}",
                expected="hour(col), day(col), month(col), year(col), identity(col) or col",
            )
    return found


@attrs.frozen
class IcebergTarget:
    """The Iceberg table a process writes.

    :param table: identifier, ``namespace.table``.
    :param event_time: column of the target that holds the event time; needed by ``overwrite``, where the table must be
        partitioned by it (hour, day, month, year, or identity of a date).
    :param scope: the rows this process owns when several processes write one target: identity partition columns (of strings, whole
        numbers, booleans or dates) and the value (or list of values) each must have. Text for a column of another type is read as
        such a value, as templates render it: ``"7"``, ``"true"``, ``"2024-01-31"``. ``None`` owns the whole table.
    :param create: create the table on the first load, from the columns the transform returns; unless rows are only appended, its
        partitions must be those that replaced ranges and the scope need.
    :param partition_by: partitioning of a table that is created, such as ``["hour(event_ts)", "region"]``; default is
        ``day(event_time)``.
    """

    table: str
    event_time: str | None = None
    scope: Mapping[str, Sequence[ScopeValue]] | None = attrs.field(default=None, converter=_scope)
    create: bool = attrs.field(default=False, validator=_flag)
    partition_by: tuple[str, ...] | None = attrs.field(default=None, converter=_partition_by)

    def __attrs_post_init__(self) -> None:
        check_table(self.table, what="the table of the target")
        if self.event_time is not None:
            check_name(self.event_time, what=f"the event_time of target {self.table!r}")
        if self.create:
            self._check_partitioning()

    def _check_partitioning(self) -> None:
        """Refuse to create a table whose partitions are not told apart."""
        columns = [column for _, column in self.partition_fields()]
        doubled = sorted({column for column in columns if columns.count(column) > 1})
        if doubled:
            raise ArgumentError(
                f"partition_by of target {self.table!r} names {', '.join(map(repr, doubled))} more than once",
                expected="each column once",
                hint="keep the finest: hour(col) tells days apart too",
            )

    def partition_fields(self) -> tuple[tuple[str, str], ...]:
        """Return ``(transform, column)`` pairs of a table that is created."""
        if self.partition_by is None:
            return (("day", self.event_time),) if self.event_time else ()
        found = [_PARTITION.fullmatch(item) for item in self.partition_by]
        return tuple((m[1] or "identity", m[2] or m[3]) for m in found if m)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, the form Airflow can template and serialise."""
        return {
            "table": self.table,
            "event_time": self.event_time,
            "scope": None if self.scope is None else {k: list(v) for k, v in self.scope.items()},
            "create": self.create,
            "partition_by": None if self.partition_by is None else list(self.partition_by),
        }


def scopes_overlap(a: Mapping[str, Sequence[ScopeValue]] | None, b: Mapping[str, Sequence[ScopeValue]] | None) -> bool:
    """Say whether some row can be in both scopes: it can unless one column is asked for disjoint values."""
    if a is None or b is None:
        return True
    return not any(set(a[c]).isdisjoint(b[c]) for c in a.keys() & b.keys())


def scope_within(
    inner: Mapping[str, Sequence[ScopeValue]] | None, outer: Mapping[str, Sequence[ScopeValue]] | None
) -> bool:
    """Say whether every row of one scope is sure to be in another."""
    if outer is None:
        return True
    return inner is not None and all(c in inner and set(inner[c]) <= set(outer[c]) for c in outer)


def show_scope(scope: Mapping[str, Sequence[ScopeValue]] | None) -> str:
    """Return a scope for people."""
    if scope is None:
        return "the whole table"
    return " and ".join(f"{c} in ({', '.join(repr(v) for v in values)})" for c, values in scope.items())
