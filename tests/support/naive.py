"""What the tables of a chain should hold, in plain Python: the rules of the modes written a second time, without the package.

Everything is computed from all rows, every time. What cannot be computed from rows alone is kept in a ``Memory`` per publish, so
that a table that is rolled back is compared with what was known then: what its sources held when it was loaded, how far it was
processed, and the names as they were when a customer's rows changed last.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import attrs

Row = tuple[Any, ...]
Names = Mapping[str, str]
Moment = dt.datetime | None


@attrs.frozen(kw_only=True)
class Rule:
    """Up to which event time a source is complete."""

    kind: Literal["latest_event", "property", "arrival", "published"]
    lateness: dt.timedelta = dt.timedelta(0)


@attrs.frozen(kw_only=True)
class Shape:
    """What there is to know of a process: how its target follows from its drivers.

    :param drivers: alias -> table.
    :param unit: of the target's partitions; None where it has no event time.
    :param compute: rows of the drivers (in ``merge`` also the names that hold for each key) -> rows of the target.
    """

    mode: Literal["append", "overwrite", "stateful", "merge"]
    drivers: Mapping[str, str]
    unit: Literal["hour", "day"] | None
    compute: Callable[..., list[Row]]


@attrs.frozen(kw_only=True)
class Read:
    """A driver as a run finds it.

    :param told: what its rule goes by, where that is not its rows: a property, the time of its last commit, or what its process
        published.
    """

    rows: Sequence[Row]
    rule: Rule
    told: Moment = None


@attrs.frozen(kw_only=True)
class Memory:
    """What a publish of a process stands for."""

    rows: Mapping[str, Sequence[Row]]
    latest: Mapping[str, dt.datetime]
    complete: Moment
    processed: Moment
    names: Mapping[str, Names]
    expected: Sequence[Row]


@attrs.frozen(kw_only=True)
class Expected:
    """What a run has to do: what it publishes, which units it replaces, and the keys it computes.

    ``touched`` are the event times of rows that came or went, whatever is done about them.
    """

    memory: Memory
    touched: frozenset[dt.datetime]
    replaced: frozenset[dt.datetime]
    keys: frozenset[str]


def floor(moment: dt.datetime, unit: str | None) -> dt.datetime:
    """Return the start of the hour or day that holds a moment."""
    whole = moment.replace(minute=0, second=0, microsecond=0)
    return whole.replace(hour=0) if unit == "day" else whole


def units(start: dt.datetime, end: dt.datetime, unit: str | None) -> frozenset[dt.datetime]:
    """Return the starts of all units of a range."""
    length = dt.timedelta(days=1) if unit == "day" else dt.timedelta(hours=1)
    first = floor(start, unit)
    return frozenset(first + n * length for n in range(-((first - end) // length)))


def changed(before: Sequence[Row], after: Sequence[Row]) -> list[Row]:
    """Return the rows that came or went."""
    held, holds = Counter(before), Counter(after)
    return [*(holds - held), *(held - holds)]


def event_time(row: Row) -> dt.datetime:
    """Return the one time in a row."""
    (found,) = (v for v in row if isinstance(v, dt.datetime))
    return found


def run(shape: Shape, reads: Mapping[str, Read], names: Names, memory: Memory | None) -> Expected:
    """Say what a run of a process makes of what it finds.

    :param memory: of the publish it goes on from; None on a first run.
    """
    rows = {alias: sorted(read.rows) for alias, read in reads.items()}
    delta = [r for a in rows for r in changed(memory.rows[a] if memory else (), rows[a])]
    latest = _latest(reads, memory)
    complete = _complete(reads, latest, shape.unit)
    touched = frozenset(map(event_time, delta))
    keys = frozenset(r[2] for r in delta) if shape.mode == "merge" else frozenset()
    processed, replaced, kept = None, frozenset[dt.datetime](), dict(memory.names) if memory else {}
    if shape.mode == "overwrite":
        replaced = frozenset(floor(t, shape.unit) for t in touched)
        expected = shape.compute(rows)
    elif shape.mode == "stateful":
        processed, replaced = _stateful(shape, touched, complete, memory.processed if memory else None)
        # No row depends on a later one, so rows past the end may be computed and left out.
        expected = [r for r in shape.compute(rows) if processed is not None and r[1] < processed]
        complete = None if processed is None or complete is None else min(complete, processed)
    elif shape.mode == "merge":
        kept.update(dict.fromkeys(keys, names))
        expected = shape.compute(rows, kept)
    else:
        expected = shape.compute(rows)
    after = Memory(
        rows=rows, latest=latest, complete=complete, processed=processed, names=kept, expected=sorted(expected)
    )
    return Expected(memory=after, touched=touched, replaced=replaced, keys=keys)


def reload(shape: Shape, reads: Mapping[str, Read], names: Names) -> Expected:
    """Say what a run makes of what it finds if it has to start over."""
    return run(shape, reads, names, None)


def _latest(reads: Mapping[str, Read], memory: Memory | None) -> dict[str, dt.datetime]:
    """Return the latest event of each driver that was ever seen: one that was deleted since counts as well."""
    found = dict(memory.latest) if memory else {}
    for alias, read in reads.items():
        seen = [*map(event_time, read.rows), *([found[alias]] if alias in found else [])]
        if seen:
            found[alias] = max(seen)
    return found


def _complete(reads: Mapping[str, Read], latest: Mapping[str, dt.datetime], unit: str | None) -> Moment:
    """Return the least complete-through of the drivers, in whole units of the target; None until each of them says one."""
    least: Moment = None
    for alias, read in reads.items():
        moment = latest.get(alias) if read.rule.kind == "latest_event" else read.told
        if moment is None:
            return None
        through = floor(moment - read.rule.lateness, unit)
        least = through if least is None else min(least, through)
    return least


def _stateful(
    shape: Shape, touched: frozenset[dt.datetime], b: Moment, p: Moment
) -> tuple[Moment, frozenset[dt.datetime]]:
    """Return processed-through afterwards and what is replaced: ``[min(A and P if B > P), max(P, B))``."""
    if b is None and p is None:
        return None, frozenset()
    end = max(m for m in (b, p) if m is not None)
    starts = [t for t in touched if t < end]
    if p is not None and end > p:
        starts.append(p)
    if not starts:
        # A table for which nothing was ever complete begins with the first event that is.
        return p, frozenset()
    return end, units(min(starts), end, shape.unit)


def facts(rows: Mapping[str, Sequence[Row]]) -> list[Row]:
    """Return the events of the one source that is appended."""
    return list(rows["a"])


def totals(rows: Mapping[str, Sequence[Row]]) -> list[Row]:
    """Return the number and the sum of each customer's events in each hour."""
    groups: dict[tuple[dt.datetime, str], list[int]] = {}
    for _, ts, customer, v in [r for driver in rows.values() for r in driver]:
        groups.setdefault((floor(ts, "hour"), customer), []).append(v)
    return [(ts, customer, len(vs), sum(vs)) for (ts, customer), vs in groups.items()]


def balances(rows: Mapping[str, Sequence[Row]]) -> list[Row]:
    """Return what each customer holds after each event."""
    held: dict[str, int] = {}
    found = []
    for i, ts, customer, v in sorted([r for driver in rows.values() for r in driver], key=lambda r: (r[1], r[0])):
        held[customer] = held.get(customer, 0) + v
        found.append((i, ts, customer, held[customer]))
    return found


def customers(rows: Mapping[str, Sequence[Row]], names: Mapping[str, Names]) -> list[Row]:
    """Return each customer's name, number of events and highest balance."""
    groups: dict[str, list[int]] = {}
    for _, _, customer, balance in rows["balances"]:
        groups.setdefault(customer, []).append(balance)
    return [(c, names[c].get(c), len(held), max(held)) for c, held in groups.items()]


def days(rows: Mapping[str, Sequence[Row]]) -> list[Row]:
    """Return the number and the sum of all events of each day."""
    groups: dict[dt.datetime, list[int]] = {}
    for ts, _, n, v in rows["totals"]:
        held = groups.setdefault(floor(ts, "day"), [0, 0])
        held[0], held[1] = held[0] + n, held[1] + v
    return [(ts, n, v) for ts, (n, v) in groups.items()]
