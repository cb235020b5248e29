"""What a DAG author declares of a process. Checked as soon as it is built, so that a bad DAG fails at parse time."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, Literal

import attrs

from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.core.literals import choice, column_names, is_template
from airflow_incremental.core.merge import check_merge, parse_horizon
from airflow_incremental.core.ranges import format_time, parse_time, utc
from airflow_incremental.core.reads import PLAN_RANGES, bounds_name, changes_name, ranges_name
from airflow_incremental.core.stateful import STATE, CatchUp, State
from airflow_incremental.core.tables import IcebergSource, IcebergTarget
from airflow_incremental.core.thresholds import OnSkipped, check_thresholds, read_budget, read_lookback

Mode = Literal["append", "overwrite", "stateful", "merge"]
Step = Literal["hour", "day", "month", "year"]
OnRewrite = Literal["fail", "ignore", "overwrite"]
OnNullEventTime = Literal["fail", "own_range"]
OnLostWatermark = Literal["fail", "reload", "added_only"]
OnMissingBounds = Literal["read", "fail"]

_PROCESS = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}")
_RESERVED = ("wm_", "failed_")
_SOURCE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def _keys(value: Any) -> tuple[str, ...]:
    return column_names(value, what="keys")


def _state(value: Any) -> State | None:
    # Like any other argument, a template is carried along until it is rendered.
    return value if is_template(value) else State.parse(value)


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
    :param sources: name in the transform -> source. Several drivers in mode ``append`` are a union: each name stands for its own
        added rows, which the transform puts together with ``UNION ALL``; what they are joined to has to be a lookup.
    :param target: the table that is written.
    :param mode: ``append`` (a target row depends on one source row), ``overwrite`` (a target range depends on the source rows of
        the same range), ``stateful`` (it depends on what came before, too: everything from the first change on is computed
        again, in order, up to where all drivers are complete) or ``merge`` (it depends on all source rows of its key).
    :param keys: ``merge`` only: the columns of the target that make up a key; drivers hold them under the same names, or say under
        which (``IcebergSource(key_columns=...)``). The transform reads all rows of the keys that changed, and returns their target
        rows: any number per key, none to delete them.
    :param key_horizon: ``merge`` only: how far apart in event time the source rows of one key can be at most (a timedelta, or
        seconds); files farther from the changed rows are then not searched for its rows. None searches all.
    :param state: ``stateful`` only: what the transform reads of the target under the name ``state``: ``"previous_step"``,
        ``"latest_by(<key column>, ...)"`` or None for nothing, see :class:`~airflow_incremental.core.stateful.State`.
    :param step: ``stateful`` only: unit in which the transform runs over the range, in order, each run seeing the state the last
        one left; None runs it once over all of it.
    :param catch_up: ``stateful`` only: ``whole_range`` computes everything from the first change on; ``missed`` only the units that
        changed or are newly complete, which states that no unit depends on the ones before it, and takes no ``state``.
    :param max_lookback: ``overwrite`` and ``stateful``: units older than this before the published complete-through are not
        computed; a timedelta or seconds. On a first run nothing is too old.
    :param budget: ``overwrite`` and ``stateful``: units of the target a session computes at most; the newest of them, but the
        oldest where everything depends on what came before.
    :param on_skipped: work that ``max_lookback`` or ``budget`` cuts off does ``fail`` the plan, or is kept in the watermark as
        skipped (``keep``) and caught up on as soon as they allow.
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
    keys: tuple[str, ...] = attrs.field(default=(), converter=_keys)
    key_horizon: dt.timedelta | None = attrs.field(default=None, converter=parse_horizon)
    catch_up: CatchUp = attrs.field(default="whole_range", validator=choice(CatchUp))
    max_lookback: dt.timedelta | None = attrs.field(default=None, converter=read_lookback)
    budget: int | None = attrs.field(default=None, converter=read_budget)
    on_skipped: OnSkipped = attrs.field(default="fail", validator=choice(OnSkipped))

    def __attrs_post_init__(self) -> None:
        self._check_sources()
        if self.surely_replaces and self.mode != "merge":
            self._check_event_times()
        if self.mode in ("overwrite", "stateful") and self.on_rewrite == "ignore":
            raise ArgumentError(
                f"on_rewrite of process {self.process!r} is 'ignore' in mode {self.mode!r}",
                expected="on_rewrite in mode 'append' only: the other modes compute what was rewritten again",
                hint="leave on_rewrite out",
            )
        self._check_created()
        self._check_stateful()
        check_merge(
            self.process,
            self.mode,
            keys=self.keys,
            horizon=self.key_horizon,
            on_rewrite=self.on_rewrite,
            drivers=self.drivers,
        )
        given = {"max_lookback": self.max_lookback, "budget": self.budget}
        keep = {} if self.on_skipped == "fail" else {"on_skipped": self.on_skipped}
        check_thresholds(self.process, self.mode, {**given, **keep})

    def _check_stateful(self) -> None:
        if self.catch_up == "missed" and self.state is not None:
            raise ArgumentError(
                f"process {self.process!r} has catch_up='missed' and state={str(self.state)!r}",
                expected="one of the two: 'missed' states that no state carries over, so later units are not computed again",
                hint="leave state out, or use catch_up='whole_range'",
            )
        if is_template(self.mode):
            return
        if self.mode != "stateful":
            given = {
                "state": self.state,
                "step": self.step,
                "catch_up": None if self.catch_up == "whole_range" else self.catch_up,
            }
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
    def tables(self) -> tuple[str, ...]:
        """The tables the process writes and reads."""
        return (self.target.table, *(source.table for source in self.sources.values()))

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
        taken: dict[str, str] = {PLAN_RANGES: "the plan's ranges"}
        for name in self.drivers:
            for made in (changes_name(name), ranges_name(name), bounds_name(name)):
                taken[made.lower()] = f"what changed in source {name!r}"
        for name, source in self.sources.items():
            if not isinstance(name, str) or _SOURCE_NAME.fullmatch(name) is None:
                raise ArgumentError(
                    f"a source of process {self.process!r} is named {name!r}",
                    expected="a name SQL can use without quotes: letters, digits and '_'",
                )
            if name.lower() in taken:
                raise ArgumentError(
                    f"the source name {name!r} of process {self.process!r} is taken by {taken[name.lower()]}",
                    expected="names that differ by more than case, which SQL ignores, also from those the transform reads besides",
                    hint="rename the source in the DAG and in the transform",
                )
            taken[name.lower()] = f"source {name!r}"
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
        if self.surely_replaces and self.mode != "merge" and event_time not in [c for _, c in fields]:
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
            "state": [str(self.state), self.step, self.catch_up],
            "keys": [list(self.keys), str(self.key_horizon)],
            "thresholds": [str(self.max_lookback), self.budget, self.on_skipped],
        }
        return hashlib.sha256(json.dumps(declared, sort_keys=True, default=str).encode()).hexdigest()[:16]

    @property
    def keeps_event_time(self) -> bool:
        """Whether a source's event time is the target's, so that a range of one is the same range of the other.

        Modes that replace ranges are declared that way; ``append`` may derive another event time, and says that it does not by
        naming the same column on both sides.
        """
        if self.mode in ("overwrite", "stateful"):
            return True
        return (
            self.mode == "append"
            and self.target.event_time is not None
            and all(s.event_time == self.target.event_time for s in self.drivers.values())
        )

    @property
    def replaces(self) -> bool:
        """Whether sessions of this process can replace rows of the target, not only add some."""
        return self.mode == "merge" or self.replaces_ranges

    @property
    def replaces_ranges(self) -> bool:
        """Whether they can replace ranges of event time."""
        return self.mode in ("overwrite", "stateful") or (self.mode == "append" and self.on_rewrite == "overwrite")

    @property
    def surely_replaces(self) -> bool:
        """Whether it does whatever a mode that is still a template will be."""
        return self.mode in ("overwrite", "stateful", "merge") or self.on_rewrite == "overwrite"
