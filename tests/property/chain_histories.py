"""Random histories of a chain: what can happen to its tables between two ticks, as Hypothesis draws it."""

from __future__ import annotations

import datetime as dt
from typing import Any, Protocol

import attrs
from hypothesis import strategies as st
from pyiceberg.expressions import EqualTo
from pyiceberg.table import Table

from tests.support.chain import CUSTOMERS, PROCESSES, PROPERTY, Chain, Publish, Setting, events
from tests.support.chain_work import lineage
from tests.support.naive import Rule
from tests.support.tables import compact, expire, roll_back
from tests.support.world import hour


class Action(Protocol):
    """Something that happens to a chain."""

    def do(self, chain: Chain) -> None: ...


@attrs.frozen
class Land:
    """Rows land in a raw source: so many hours late, at most as late as the whole history is long."""

    source: int
    late: tuple[int, ...]
    customer: str
    #: Hours that pass before, with rows or without.
    passes: int

    def do(self, chain: Chain) -> None:
        chain.clock += self.passes
        chain.land(_source(chain, self.source), [max(0, chain.clock - late) for late in self.late], self.customer)


@attrs.frozen
class Complete:
    """Somebody moves how far a source is complete, up or down."""

    source: int
    #: Hours from now.
    by: int

    def do(self, chain: Chain) -> None:
        told = [source for source, rule in chain.setting.rules.items() if rule.kind == "property"]
        if told:
            with chain.table(f"raw.{told[self.source % len(told)]}").transaction() as transaction:
                transaction.set_properties({PROPERTY: hour(max(0, chain.clock + self.by)).isoformat()})


@attrs.frozen
class Delete:
    """Rows of some hours, those from one row on, leave a source that is not appended."""

    source: int
    nth: int
    hours: int

    def do(self, chain: Chain) -> None:
        table = _rewritten(chain, self.source)
        rows = chain.rows(".".join(table.name())) if table is not None else []
        if table is not None and rows:
            start = rows[self.nth % len(rows)][1]
            end = start + dt.timedelta(hours=self.hours)
            table.delete(f"ts >= '{start.isoformat()}' and ts < '{end.isoformat()}'")


@attrs.frozen
class Update:
    """A row of a source that is not appended moves to another time, customer and value."""

    source: int
    nth: int
    late: int
    customer: str

    def do(self, chain: Chain) -> None:
        table = _rewritten(chain, self.source)
        rows = chain.rows(".".join(table.name())) if table is not None else []
        if table is not None and rows:
            i, _, _, v = rows[self.nth % len(rows)]
            moved = hour(max(0, chain.clock - self.late)) + dt.timedelta(minutes=i % 60, seconds=i // 60)
            table.overwrite(events([(i, moved, self.customer, v + 1)]), EqualTo("id", i))


def _source(chain: Chain, nth: int) -> str:
    return list(chain.setting.rules)[nth % len(chain.setting.rules)]


def _rewritten(chain: Chain, nth: int) -> Table | None:
    """Return a source that is not appended and holds something."""
    found = [chain.table(f"raw.{source}") for source in chain.setting.rules if source != "a"]
    found = [table for table in found if table.current_snapshot() is not None]
    return found[nth % len(found)] if found else None


@attrs.frozen
class Rename:
    """The table that is only looked up changes."""

    customer: str
    name: str

    def do(self, chain: Chain) -> None:
        chain.rename(self.customer, self.name)


def _nth(chain: Chain, nth: int) -> Table | None:
    """Return one of the tables that have a history."""
    found = [table for table in map(chain.table, chain.tables) if len(table.metadata.snapshots) > 1]
    return found[nth % len(found)] if found else None


@attrs.frozen
class Compact:
    """A table is compacted."""

    nth: int

    def do(self, chain: Chain) -> None:
        table = _nth(chain, self.nth)
        if table is not None:
            compact(table)


@attrs.frozen
class Expire:
    """Old snapshots of a table are expired, but those that a ref holds."""

    nth: int
    keep: int

    def do(self, chain: Chain) -> None:
        table = _nth(chain, self.nth)
        if table is None:
            return
        held = {ref.snapshot_id for ref in table.metadata.refs.values()}
        old = [s.snapshot_id for s in table.metadata.snapshots if s.snapshot_id not in held]
        if old[: -self.keep or None]:
            expire(table, old[: -self.keep or None])


@attrs.frozen
class RollBack:
    """A table of the chain goes back to the publish before the one that stands."""

    nth: int

    def do(self, chain: Chain) -> None:
        found = [name for name in PROCESSES if len(_kept(chain, name)) > 1]
        if found:
            name = found[self.nth % len(found)]
            before = _kept(chain, name)[1]
            roll_back(chain.table(f"mart.{name}"), before.snapshot_id)
            chain.current[name] = before
            chain.taken.pop(name, None)
            chain.undone.add(name)
            chain.check()


def _kept(chain: Chain, name: str) -> list[Publish]:
    """Return the publishes of a process that the history of its table leads to, the newest first."""
    table, publishes = chain.table(f"mart.{name}"), {p.snapshot_id: p for p in chain.publishes[name]}
    return [publishes[s.snapshot_id] for s in lineage(table) if s.snapshot_id in publishes]


@attrs.frozen
class UndoRaw:
    """A raw source that is not appended goes back to its snapshot before."""

    source: int

    def do(self, chain: Chain) -> None:
        table = _rewritten(chain, self.source)
        head = None if table is None else table.current_snapshot()
        if table is not None and head is not None and head.parent_snapshot_id is not None:
            roll_back(table, head.parent_snapshot_id)


@attrs.frozen
class Tick:
    """Processes run, in the order in which rows travel."""

    names: tuple[str, ...] = PROCESSES

    def do(self, chain: Chain) -> None:
        for name in self.names:
            chain.run(name)
        chain.check()


def _weighted(*choices: tuple[int, st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
    """Return one of several strategies, each as often as its weight says: ``one_of`` counts the same one only once."""
    return st.sampled_from([strategy for weight, strategy in choices for _ in range(weight)]).flatmap(lambda s: s)


_sources = st.integers(0, 2)
_customers = st.sampled_from(CUSTOMERS)
_late = _weighted((1, st.just(0)), (2, st.integers(0, 3)), (2, st.integers(0, 99)))
_land = st.builds(Land, _sources, st.lists(_late, min_size=1, max_size=3).map(tuple), _customers, st.integers(0, 3))
_rest = _weighted(
    (2, st.builds(Complete, _sources, st.integers(-12, 3))),
    (1, st.builds(Delete, _sources, st.integers(0, 50), st.integers(1, 6))),
    (1, st.builds(Update, _sources, st.integers(0, 50), _late, _customers)),
    (2, st.builds(UndoRaw, _sources)),
    (2, st.builds(Rename, _customers, st.sampled_from(["Ann", "Bob"]))),
    (2, st.builds(Compact, st.integers(0, 8))),
    (2, st.builds(Expire, st.integers(0, 8), st.integers(0, 2))),
    (2, st.builds(RollBack, st.integers(0, 4))),
)
_some = st.lists(st.sampled_from(PROCESSES), min_size=1, max_size=3, unique=True).map(
    lambda names: tuple(sorted(names, key=PROCESSES.index))
)
_ticks = _weighted((3, st.just(PROCESSES)), (1, _some)).map(lambda names: [Tick(names)])
_round = st.tuples(st.lists(_land, max_size=2), st.lists(_rest, max_size=3), _ticks).map(
    lambda parts: [action for part in parts for action in part]
)
_start: list[Any] = [Land(nth, (0, 2, 9), customer, 0) for nth, customer in enumerate(CUSTOMERS)]
_start += [Complete(nth, 0) for nth in range(3)]
#: Ticks and what happens before each; mostly there is something from the start. The end is left to the test.
histories: st.SearchStrategy[list[Any]] = st.tuples(
    _weighted((5, st.just(_start)), (1, st.just([]))), st.lists(_round, min_size=3, max_size=6)
).map(lambda history: [*history[0], *(action for actions in history[1] for action in actions)])

#: One history in which everything happens once, whatever Hypothesis draws.
everything: list[Any] = [
    *(*_start, Tick()),
    *(Rename("x", "Ann"), Tick(), Tick()),
    *(Land(0, (0, 99), "x", 3), Complete(0, 0), Tick()),
    *(Land(1, (0,), "y", 2), Complete(0, -8), Tick()),
    *(Delete(0, 99, 2), Update(0, 0, 1, "z"), Land(0, (3,), "x", 0), Tick(("totals", "customers", "balances")), Tick()),
    *(*map(Compact, range(9)), Complete(0, 3), Tick()),
    *(*(RollBack(nth) for nth in range(5)), Tick()),
    *(UndoRaw(0), *(Expire(nth, 0) for nth in range(9)), Land(0, (99,), "z", 0), Tick()),
]

_hours = dt.timedelta(hours=1)
_latest = st.builds(Rule, kind=st.just("latest_event"), lateness=st.sampled_from([0 * _hours, _hours]))
_property = st.just(Rule(kind="property"))


def _arrival() -> Rule:
    """Return a rule by which what arrives now is complete up to within hour 25."""
    return Rule(kind="arrival", lateness=dt.datetime.now(dt.timezone.utc) - hour(25.5))


_rules = _weighted(
    (1, st.fixed_dictionaries({"a": _latest})),
    (4, st.fixed_dictionaries({"a": st.one_of(_latest, _property), "b": _weighted((1, _latest), (2, _property))})),
    (
        3,
        st.fixed_dictionaries({"a": _latest, "b": st.one_of(_latest, _property), "c": st.builds(_arrival) | _property}),
    ),
)


#: Units of ``totals`` and ``balances``, and steps: hours of whole days cost seconds.
_units = _weighted(
    (2, st.just(("hour", None))),
    (2, st.just(("day", None))),
    (2, st.just(("hour", "hour"))),
    (2, st.just(("day", "day"))),
    (1, st.just(("day", "hour"))),
)


def settings_of(*, pinned: bool) -> st.SearchStrategy[Setting]:
    """Return chains of one to three raw sources that are complete by different rules."""
    return st.builds(
        lambda rules, units, buckets: Setting(
            rules=rules, unit=units[0], step=units[1], buckets=buckets, pinned=pinned
        ),
        _rules,
        _units,
        st.booleans(),
    )
