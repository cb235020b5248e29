"""What a DAG author declares: sources, target, process. Checked as soon as it is built, so that a bad DAG fails at parse time."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import attrs

from airflow_incremental.core.completeness import CompleteThrough
from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.core.literals import check_name, check_table, choice, is_template
from airflow_incremental.core.ranges import format_time, parse_time, utc
from airflow_incremental.core.reads import PLAN_RANGES
from airflow_incremental.core.stateful import STATE, State

Mode = Literal["append", "overwrite", "stateful"]
Role = Literal["driver", "lookup"]
Step = Literal["hour", "day", "month", "year"]
OnRewrite = Literal["fail", "ignore", "overwrite"]
OnNullEventTime = Literal["fail", "own_range"]
OnLostWatermark = Literal["fail", "reload", "added_only"]
OnMissingBounds = Literal["read", "fail"]

ScopeValue = str | int | bool | None

_PROCESS = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}")
_RESERVED = ("wm_", "failed_")
_SOURCE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PARTITION = re.compile(r"(?:(hour|day|month|year|identity)\((\w+)\)|(\w+))")


def _state(value: Any) -> State | None:
    return State.parse(value)


def _complete_through(value: Any) -> CompleteThrough | None:
    return CompleteThrough.parse(value)


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
    """

    table: str
    event_time: str | None = None
    branch: str = "main"
    complete_through: CompleteThrough | None = attrs.field(default=None, converter=_complete_through)
    role: Role = attrs.field(default="driver", validator=choice(Role))

    def __attrs_post_init__(self) -> None:
        check_table(self.table, what="the table of a source")
        check_name(self.branch, what=f"the branch of source {self.table!r}")
        if self.event_time is not None:
            check_name(self.event_time, what=f"the event_time of source {self.table!r}")
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


def _flag(_instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    if not isinstance(value, bool) and not is_template(value):
        raise ArgumentError(
            f"{attribute.name} of a target is {value!r}",
            expected="True or False",
            hint="a template renders text, and 'False' would count as true; set render_template_as_native_obj=True on the DAG"
            if isinstance(value, str)
            else "",
        )


@attrs.frozen
class IcebergTarget:
    """The Iceberg table a process writes.

    :param table: identifier, ``namespace.table``.
    :param event_time: column of the target that holds the event time; needed by ``overwrite``, where the table must be
        partitioned by it (hour, day, month, year, or identity of a date).
    :param scope: the rows this process owns when several processes write one target: identity partition columns (of strings, whole
        numbers, booleans or dates) and the value (or list of values) each must have. Text for a column of another type is read as
        such a value, as templates render it: ``"7"``, ``"true"``, ``"2024-01-31"``. ``None`` owns the whole table.
    :param create: create the table on the first load, from the columns the transform returns; with ``overwrite`` or a scope its
        partitions must be those that they need.
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


@attrs.frozen(kw_only=True)
class Initial:
    """What a first run takes as given: where consumption starts, and whether a filled target is accepted.

    ``position`` is ``"all"`` (everything in the source is new), ``"current"`` (start from the source as it is), a snapshot id, or
    a time (the last snapshot committed at or before it). ``adopt`` takes the rows that are already in the target as loaded up to
    that position (``"all"``: as rows that came from elsewhere).
    """

    position: str | int | dt.datetime
    adopt: bool = False

    @classmethod
    def parse(cls, value: Any) -> Initial:
        """Read ``initial``: ``"all"``, ``"current"``, a snapshot id, an aware time, or ``{"adopt": one of these}``."""
        if isinstance(value, Mapping):
            if set(value) != {"adopt"}:
                raise ArgumentError(f"initial is {dict(value)!r}", expected="a mapping with the one key 'adopt'")
            inner = cls.parse(value["adopt"])
            return attrs.evolve(inner, adopt=True)
        if isinstance(value, bool) or value is None:
            pass
        elif isinstance(value, int):
            return cls(position=value)
        elif isinstance(value, dt.datetime):
            return cls(position=utc(value, what="initial"))
        elif isinstance(value, str):
            if value in ("all", "current") or is_template(value):
                return cls(position=value)
            if value.lstrip("-").isdigit():
                return cls(position=int(value))
            if value[:1].isdigit():
                return cls(position=parse_time(value, what="initial"))
        raise ArgumentError(
            f"initial is {value!r}",
            expected="'all', 'current', a snapshot id, a time with zone, or {'adopt': one of these}",
            hint="write {'adopt': 'current'} to take the rows of a filled target as loaded up to now"
            if value == "adopt"
            else "",
        )


def _initial(value: Any) -> Initial:
    return value if isinstance(value, Initial) else Initial.parse(value)


def initial_as_plain(value: Any) -> Any:
    """Return ``initial`` as a plain value that Airflow can serialise the same way in every parse."""
    if isinstance(value, Mapping):
        return {k: initial_as_plain(v) for k, v in value.items()}
    return format_time(utc(value, what="initial")) if isinstance(value, dt.datetime) else value


def check_process_name(name: Any) -> str:
    """Return a process name that can be part of branch and property names, or say what is wrong with it."""
    if is_template(name):
        return str(name)
    if not isinstance(name, str) or _PROCESS.fullmatch(name) is None or name.startswith(_RESERVED):
        raise ArgumentError(
            f"the process name is {name!r}",
            expected="1 to 64 letters, digits, '_', '-' or '.', starting with a letter or digit and not with 'wm_' or 'failed_'",
            hint="give process=... (the default is the target's identifier); it is the identity of the watermark: choose one that "
            "survives renames of DAGs and tasks",
        )
    return name


@attrs.frozen(kw_only=True)
class ProcessSpec:
    """A named load from sources into one target: all that decides what a session reads and writes.

    :param process: unit of watermarks; its name survives DAG and task renames.
    :param sources: name in the transform -> source.
    :param target: the table that is written.
    :param mode: ``append`` (a target row depends on one source row), ``overwrite`` (a target range depends on the source rows of
        the same range) or ``stateful`` (it depends on what came before, too: everything from the first change on is computed
        again, in order, up to where all drivers are complete).
    :param state: ``stateful`` only: what the transform reads of the target under the name ``state``: ``"previous_step"``,
        ``"latest_by(<key column>, ...)"`` or None for nothing, see :class:`~airflow_incremental.core.stateful.State`.
    :param step: ``stateful`` only: unit in which the transform runs over the range, in order, each run seeing the state the last
        one left; None runs it once over all of it.
    :param initial: see :class:`Initial`.
    :param on_rewrite: ``append`` only: what to do when rows already consumed were changed or removed in the source.
    :param on_null_event_time: ``fail`` or ``own_range`` (rows without event time form a range of their own).
    :param on_lost_watermark: ``fail``, ``reload`` (recompute everything, replacing the target) or ``added_only`` (take the files
        that are newer than the lost position).
    :param on_missing_bounds: ``read`` the event-time column of changed files without bounds, or ``fail``.
    """

    process: str = attrs.field(converter=check_process_name)
    sources: Mapping[str, IcebergSource]
    target: IcebergTarget
    mode: Mode = attrs.field(validator=choice(Mode))
    initial: Initial = attrs.field(factory=lambda: Initial(position="all"), converter=_initial)
    on_rewrite: OnRewrite = attrs.field(default="fail", validator=choice(OnRewrite))
    on_null_event_time: OnNullEventTime = attrs.field(default="fail", validator=choice(OnNullEventTime))
    on_lost_watermark: OnLostWatermark = attrs.field(default="fail", validator=choice(OnLostWatermark))
    on_missing_bounds: OnMissingBounds = attrs.field(default="read", validator=choice(OnMissingBounds))
    state: State | None = attrs.field(default=None, converter=_state)
    step: Step | None = attrs.field(default=None, validator=attrs.validators.optional(choice(Step)))

    def __attrs_post_init__(self) -> None:
        self._check_sources()
        # Not ``replaces``: while the mode is a template, nobody knows.
        if self.mode == "overwrite" or self.on_rewrite == "overwrite":
            self._check_event_times()
        self._check_created()
        self._check_stateful()
        if self.mode == "append" and len(self.drivers) > 1:
            raise ArgumentError(
                f"process {self.process!r} appends from {len(self.drivers)} drivers ({', '.join(self.drivers)})",
                expected="one driver in mode 'append': added rows joined to added rows would miss new rows that match old ones",
                hint="use mode='overwrite', one process per source, or IcebergSource(role='lookup') for what is only joined",
            )

    def _check_stateful(self) -> None:
        if self.mode != "stateful":
            given = {"state": self.state, "step": self.step}
            for name, value in given.items():
                if value is not None:
                    raise ArgumentError(
                        f"process {self.process!r} has mode={self.mode!r} and {name}={str(value)!r}",
                        expected=f"{name} in mode 'stateful' only",
                    )
            return
        if self.on_null_event_time != "fail":
            raise ArgumentError(
                f"process {self.process!r} has mode='stateful' and on_null_event_time={self.on_null_event_time!r}",
                expected="'fail': a row without an event time has no place in the order of events",
                hint="leave such rows out of the source, or give them an event time there",
            )
        if self.initial.adopt:
            raise ArgumentError(
                f"process {self.process!r} has mode='stateful' and adopts a filled target",
                expected="a target this process computed from the start: up to where a found state was processed is not known",
                hint="load into an empty table",
            )
        if self.state is not None and STATE in self.sources:
            raise ArgumentError(
                f"a source of process {self.process!r} is named {STATE!r}",
                expected=f"another name: the transform reads the target's state as {STATE!r}",
            )

    @property
    def drivers(self) -> dict[str, IcebergSource]:
        """The sources that make work when they change."""
        return {name: s for name, s in self.sources.items() if s.role == "driver"}

    def _check_sources(self) -> None:
        if not self.sources:
            raise ArgumentError(f"process {self.process!r} has no sources", expected="at least one IcebergSource")
        if not self.drivers:
            raise ArgumentError(
                f"process {self.process!r} has only lookups ({', '.join(self.sources)})",
                expected="at least one driver, whose changes are what there is to do",
            )
        taken = [PLAN_RANGES]
        for name, source in self.sources.items():
            if not isinstance(name, str) or _SOURCE_NAME.fullmatch(name) is None:
                raise ArgumentError(
                    f"a source of process {self.process!r} is named {name!r}",
                    expected="a name SQL can use without quotes: letters, digits and '_'",
                )
            if name.lower() in taken:
                raise ArgumentError(
                    f"the source name {name!r} of process {self.process!r} is taken",
                    expected=f"names that differ by more than case, which SQL ignores, and none is {PLAN_RANGES!r}",
                    hint="rename the source in the DAG and in the transform",
                )
            taken.append(name.lower())
            if source.table == self.target.table:
                raise ArgumentError(
                    f"process {self.process!r} reads and writes {self.target.table!r}",
                    expected="a target that is not one of the sources",
                    hint="write to another table; a load that reads its own output never ends",
                )

    def _check_event_times(self) -> None:
        """Check what replacing ranges needs: the range of a source row and of a target row, and that they are the same."""
        why = f"mode={self.mode!r}" if self.mode != "append" else "on_rewrite='overwrite'"
        for name, source in self.drivers.items():
            if source.event_time is None:
                raise ArgumentError(
                    f"source {name!r} of process {self.process!r} has no event_time, which {why} needs",
                    expected="IcebergSource(table, event_time=<column>)",
                )
        if self.target.event_time is None:
            raise ArgumentError(
                f"the target of process {self.process!r} has no event_time, which {why} needs",
                expected="IcebergTarget(table, event_time=<column>)",
            )
        if not self.keeps_event_time:
            raise ArgumentError(
                f"process {self.process!r} recomputes rewritten ranges, but source and target name different event times",
                expected="the same event_time column in source and target, carried through unchanged by the transform",
                hint="give both the same column name, or choose on_rewrite='fail' or 'ignore'",
            )

    def _check_created(self) -> None:
        """Refuse to create a table that the same process could not load: it would then be in the way."""
        target, event_time = self.target, self.target.event_time
        if target.create is not True or any(is_template(item) for item in (event_time, *(target.partition_by or ()))):
            return
        fields = target.partition_fields()
        given = list(target.partition_by or [f"day({event_time})"])
        if (self.mode == "overwrite" or self.on_rewrite == "overwrite") and event_time not in [c for _, c in fields]:
            raise ArgumentError(
                f"the target of process {self.process!r} would be created without a partition of its event_time {event_time!r}; "
                f"partition_by is {given!r}",
                expected="partitions by hour, day, month or year of the event time (or the date itself): ranges are replaced",
                hint=f"write partition_by={[f'day({event_time})', *given]!r}",
            )
        missing = [column for column in target.scope or () if ("identity", column) not in fields]
        if missing:
            raise ArgumentError(
                f"the target of process {self.process!r} would be created without a partition of its scope's {missing!r}; "
                f"partition_by is {given!r}",
                expected="the columns of the scope among the partitions, as they are",
                hint=f"write partition_by={[*given, *missing]!r}",
            )

    @property
    def digest(self) -> str:
        """Short fingerprint of what decides which rows are read and written: a session planned under another one is not resumed."""
        declared = {
            "mode": self.mode,
            "sources": {name: source.as_dict() for name, source in sorted(self.sources.items())},
            "target": self.target.as_dict(),
            "policies": [self.on_rewrite, self.on_null_event_time, self.on_lost_watermark, self.on_missing_bounds],
            "state": [str(self.state), self.step],
        }
        return hashlib.sha256(json.dumps(declared, sort_keys=True, default=str).encode()).hexdigest()[:16]

    @property
    def keeps_event_time(self) -> bool:
        """Whether a source's event time is the target's, so that a range of one is the same range of the other.

        Modes that replace ranges are declared that way; ``append`` may derive another event time, and says that it does not by
        naming the same column on both sides.
        """
        if self.mode != "append":
            return True
        return self.target.event_time is not None and all(
            s.event_time == self.target.event_time for s in self.drivers.values()
        )

    @property
    def replaces(self) -> bool:
        """Whether sessions of this process can replace rows of the target, not only add some."""
        return self.mode != "append" or self.on_rewrite == "overwrite"
