"""A plan: everything a session is going to read and write, fixed before the first byte moves.

The same object is what a preview prints, what the lock holds in the table, and what the steps execute; a retry replays it.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import secrets
import zlib
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal

import attrs

from airflow_incremental.core.commands import abandon_command
from airflow_incremental.core.errors import IncrementalError
from airflow_incremental.core.ranges import MAX_TIME, MIN_TIME, EventRanges, Grain, TimeRange, format_time, parse_time
from airflow_incremental.core.tables import ScopeValue
from airflow_incremental.core.watermark import SourcePosition, Watermark

#: Format of the stored plan; a reader refuses what it does not know.
PLAN_VERSION = 3
#: A stored plan larger than this (bytes, encoded) has its ranges coalesced until it fits.
PLAN_LIMIT = 32 * 1024
#: Ranges a stored plan tells people before any that are replaced are coalesced.
_TOLD = 64

PlanKind = Literal["load", "positions", "reload", "restatement"]
Derivation = Literal[
    "first_run", "from_now", "unchanged", "lineage", "diff", "sequence", "reload", "restatement", "lookup"
]


@attrs.frozen(kw_only=True)
class Owner:
    """Who runs a session. Only manners depend on it (who waits for whom); safety comes from the lock's compare-and-set."""

    deployment: str
    dag_id: str = ""
    run_id: str = ""
    task_id: str = ""
    map_index: int = -1
    clear_number: int = 0

    def same_task(self, other: Owner) -> bool:
        """Say whether both are tries of one task (or task group) of one run, however often it was cleared.

        Without a run nothing tells two callers apart, so they never count as the same.
        """
        return bool(self.run_id) and (self.deployment, self.dag_id, self.run_id, self.task_id, self.map_index) == (
            other.deployment,
            other.dag_id,
            other.run_id,
            other.task_id,
            other.map_index,
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return attrs.asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Owner:
        """Read what ``to_json`` wrote; unknown keys of a newer version are left out."""
        return cls(**{f.name: value[f.name] for f in attrs.fields(cls) if f.name in value})

    def __str__(self) -> str:
        run = f"run {self.run_id!r} of DAG {self.dag_id!r}" if self.run_id else "a session outside Airflow"
        return f"{run} (deployment {self.deployment!r})"


@attrs.frozen(kw_only=True)
class SourcePlan:
    """What one source contributes: from which position to which, found how, and how much."""

    name: str
    table: str
    #: Position consumed before; None on a first run.
    base: SourcePosition | None
    #: Snapshot that is read; becomes the watermark.
    pinned: SourcePosition
    derivation: Derivation
    #: Event times of the rows added or removed, as exact as is known (not yet aligned).
    changed: EventRanges = EventRanges()
    files_added: int = 0
    rows_added: int = 0
    files_removed: int = 0
    rows_removed: int = 0
    #: Rows added below what was already complete.
    rows_late: int = 0
    #: Rows of rewritten snapshots that ``on_rewrite='ignore'`` leaves out, added and removed.
    rows_ignored: int = 0
    #: Digest of the files whose rows came or went; a retry that finds other files does not go on.
    digest: str = ""
    #: In ``merge``: live files that may hold rows of changed keys, and the bytes of their key columns, which are searched; at most.
    scan_files: int = 0
    scan_bytes: int = 0
    #: Column -> least and greatest value among the changed rows, as numbers or ISO text; None if there is none.
    bounds: Mapping[str, list[Any] | None] = attrs.field(factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        plain = attrs.asdict(self, recurse=False)
        plain["base"] = None if self.base is None else self.base.to_json()
        plain["pinned"] = self.pinned.to_json()
        plain["changed"] = self.changed.to_json()
        return plain

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> SourcePlan:
        """Read what ``to_json`` wrote."""
        plain = dict(value)
        plain["base"] = None if plain["base"] is None else SourcePosition.from_json(plain["base"])
        plain["pinned"] = SourcePosition.from_json(plain["pinned"])
        plain["changed"] = EventRanges.from_json(plain["changed"])
        return cls(**plain)


@attrs.frozen(kw_only=True)
class Plan:
    """One attempt at one piece of work of one process.

    ``kind`` says why there is a session: ``load`` (changes to compute), ``positions`` (only the watermark moves), ``reload``
    (everything is computed again because a policy says so after a lost watermark), ``restatement`` (given ranges are computed
    again on purpose; the watermark stays).
    """

    process: str
    session: str
    mode: str
    kind: PlanKind
    #: One sentence for people: why this session exists.
    reason: str
    target: str
    target_uuid: str
    #: Head of the target's ``main`` when the plan was made.
    main: int
    #: Session whose publish the plan starts from; None on a first run.
    base_session: str | None
    sources: tuple[SourcePlan, ...]
    #: Event times of the target that are replaced, in whole units of ``grain``; rows outside fail the session (but in ``append``).
    replaced: EventRanges = EventRanges()
    #: Whether sessions of the process may replace rows, now or later: other processes have to keep out of its scope.
    may_replace: bool = False
    #: Event times that rows are added to or replaced in, for people and for downstream; in ``append`` as the source's files say.
    affected: EventRanges = EventRanges()
    #: The part of ``affected`` below what was already complete.
    late: EventRanges = EventRanges()
    grain: Grain | None = None
    scope: Mapping[str, Sequence[ScopeValue]] | None = None
    #: Columns of the target by whose values rows are replaced: those of the changed keys. Empty where ranges are, or everything is.
    keys: tuple[str, ...] = ()
    #: Event times at which the work is cut into chunks (see ``core.chunks``); none if it is done at once.
    cuts: tuple[dt.datetime, ...] = ()
    #: Published with the data.
    watermark: Watermark
    owner: Owner
    created_at: dt.datetime
    #: Digest of the declaration the plan was made from.
    declared: str = ""

    @property
    def reads_added_rows(self) -> bool:
        """Whether the transform sees added rows (outside the replaced ranges) rather than whole ranges."""
        return self.mode == "append" and self.kind == "load"

    @property
    def read(self) -> EventRanges:
        """Event times that are read and written where whole ranges are; a ``stateful`` reload empties more than it fills."""
        return self.affected if self.mode == "stateful" else self.replaced

    @property
    def chunks(self) -> tuple[EventRanges, ...]:
        """The stretches of all event time in which the work is done one by one; a plan that is not cut has the one of everything.

        Rows without event time belong to the last.
        """
        ends = (MIN_TIME, *self.cuts, MAX_TIME)
        return tuple(EventRanges((TimeRange(start, end),), nulls=end == MAX_TIME) for start, end in pairwise(ends))

    def only(self, part: EventRanges) -> Plan:
        """Return this plan with what of its ranges is in a part."""
        return attrs.evolve(
            self,
            replaced=self.replaced.intersect(part),
            affected=self.affected.intersect(part),
            late=self.late.intersect(part),
        )

    @property
    def has_work(self) -> bool:
        """Whether a transform has to run; ``positions`` plans publish an empty snapshot."""
        return self.kind != "positions"

    def source(self, name: str) -> SourcePlan:
        """Return one source's part."""
        return next(s for s in self.sources if s.name == name)

    def restated(self, source: SourcePlan) -> EventRanges:
        """Return the event times of a driver that are computed again on purpose."""
        return source.changed if self.keys else self.read

    @property
    def rows_added(self) -> int:
        """Rows added to the sources."""
        return sum(s.rows_added for s in self.sources)

    @property
    def rows_late(self) -> int:
        """Rows added below what was already complete."""
        return sum(s.rows_late for s in self.sources)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        plain = attrs.asdict(self, recurse=False)
        plain["version"] = PLAN_VERSION
        plain["sources"] = [s.to_json() for s in self.sources]
        for name in ("replaced", "affected", "late"):
            plain[name] = plain[name].to_json()
        plain["grain"] = None if self.grain is None else self.grain.value
        plain["scope"] = None if self.scope is None else {k: list(v) for k, v in self.scope.items()}
        plain["watermark"] = self.watermark.to_json()
        plain["owner"] = self.owner.to_json()
        plain["created_at"] = format_time(self.created_at)
        plain["cuts"] = [format_time(cut) for cut in self.cuts]
        return plain

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Plan:
        """Read what ``to_json`` wrote; a plan of another format version is refused."""
        plain = dict(value)
        version = plain.pop("version", None)
        if version != PLAN_VERSION:
            raise IncrementalError(
                f"the stored plan has format version {version!r}",
                expected=f"version {PLAN_VERSION}",
                hint="upgrade airflow-incremental on this worker"
                if isinstance(version, int) and version > PLAN_VERSION
                else f"let the version that planned session {plain.get('session')} finish it, or end it with "
                f"{abandon_command(str(plain.get('target')), str(plain.get('process')))}; the next run takes the same changes",
            )
        plain["sources"] = tuple(SourcePlan.from_json(s) for s in plain["sources"])
        for name in ("replaced", "affected", "late"):
            plain[name] = EventRanges.from_json(plain[name])
        plain["grain"] = None if plain["grain"] is None else Grain(plain["grain"])
        plain["watermark"] = Watermark.from_json(plain["watermark"])
        plain["owner"] = Owner.from_json(plain["owner"])
        plain["created_at"] = parse_time(plain["created_at"])
        plain["keys"] = tuple(plain["keys"])
        plain["cuts"] = tuple(parse_time(cut) for cut in plain["cuts"])
        if plain["scope"] is not None:
            plain["scope"] = {k: tuple(v) for k, v in plain["scope"].items()}
        return cls(**plain)

    def encode(self) -> str:
        """Return the plan as compressed text for a snapshot summary, at most ``PLAN_LIMIT`` bytes."""
        return base64.b85encode(zlib.compress(json.dumps(self.to_json(), separators=(",", ":")).encode(), 9)).decode()

    @classmethod
    def decode(cls, text: str) -> Plan:
        """Read what ``encode`` wrote."""
        return cls.from_json(json.loads(zlib.decompress(base64.b85decode(text))))

    def fitted(self) -> Plan:
        """Return this plan with its ranges coalesced until ``encode`` fits the limit.

        What is replaced stays exact as long as it can, for thousands of ranges: rows between them may be none that the sources can
        give back. Only what the plan tells people is coalesced before. A table with holes every other hour for years pays with some
        hours in between, which are computed again.
        """
        sizes = [2**n for n in range(11, 0, -1)]
        # From the most exact to the shortest: how many ranges are replaced (None: as many as there are), and how many are told.
        steps: list[tuple[int | None, int | None]] = [(None, None)]
        steps += [(None, most) for most in sizes if most >= _TOLD] + [(most, min(most, _TOLD)) for most in sizes]
        # Each try costs as much as all that is made after it.
        last = len(steps) - 1
        first = bisect_left(steps, -PLAN_LIMIT, hi=last, key=lambda step: -len(self._merged(*step).encode()))
        return self._merged(*steps[first])

    def _merged(self, most: int | None, told: int | None) -> Plan:
        """Return this plan with at most so many ranges that are replaced, and that are told to people; None for all."""
        if told is None:
            return self
        replaced = self.replaced if most is None else self.replaced.coalesce(most)
        return attrs.evolve(
            self,
            replaced=replaced,
            affected=self.affected.coalesce(told).union(replaced),
            late=self.late.coalesce(told),
            sources=tuple(attrs.evolve(s, changed=s.changed.coalesce(told)) for s in self.sources),
        )

    def describe(self) -> str:
        """Return what people read in a log or on the task's page."""
        lines = [f"session {self.session} of process {self.process!r} ({self.mode}, {self.kind}): {self.reason}"]
        for s in self.sources:
            if s.derivation == "restatement":
                lines.append(
                    f"  reads {s.name} = {s.table} at snapshot {s.pinned.snapshot_id}: {shorten(self.restated(s))}"
                )
                continue
            since = "the start" if s.base is None else f"snapshot {s.base.snapshot_id}"
            lines.append(
                f"  reads {s.name} = {s.table} from {since} to snapshot {s.pinned.snapshot_id} ({s.derivation}): "
                f"{s.rows_added:,} rows added in {s.files_added:,} files, {s.rows_removed:,} removed"
                + (f", {s.rows_late:,} late" if s.rows_late else "")
                + (f", {s.rows_ignored:,} ignored" if s.rows_ignored else "")
            )
            if self.keys and s.derivation not in ("lookup", "restatement"):
                lines.append(
                    f"    and all its rows of the changed keys: at most {s.scan_files:,} files are searched for them "
                    f"({s.scan_bytes:,} bytes of key columns)"
                )
        if self.keys:
            which = "keys of these rows" if self.kind == "restatement" else "changed keys"
            lines.append(f"  replaces the rows of the {which} ({', '.join(self.keys)}) in {self.target}")
            return "\n".join(lines)
        verb = "replaces" if self.replaced else "adds to"
        units = ""
        if self.grain and self.affected and not self.affected.is_everything:
            count = self.affected.count(self.grain)
            units = f" ({count:,} {self.grain.value}{'' if count == 1 else 's'})"
        lines.append(f"  {verb} {self.target}: {shorten(self.affected)}{units}")
        if self.cuts:
            lines.append(f"  in {len(self.cuts) + 1:,} chunks")
        # A restatement is of what was there, and what is only added may lie beside it in a unit that is not complete.
        if self.late and self.kind != "restatement" and (self.replaced or self.rows_late):
            lines.append(f"  late part: {shorten(self.late)}")
        if self.watermark.skipped:
            lines.append(f"  skipped, and kept for later: {shorten(self.watermark.skipped)}")
        return "\n".join(lines)


def shorten(ranges: EventRanges, most: int = 6) -> str:
    """Return the first few of the ranges, for people."""
    if ranges.is_everything:
        return "everything"
    items = ranges.to_json()
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "") or "nothing"


def new_session_id(now: dt.datetime) -> str:
    """Return an id that sorts by time and cannot collide: ``20240131T235959-1a2b3c4d``."""
    return f"{now.astimezone(dt.timezone.utc):%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"
