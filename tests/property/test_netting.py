"""The net effect of random snapshots on files, against a model that knows every row."""

from __future__ import annotations

import attrs
from hypothesis import given
from hypothesis import strategies as st

from airflow_incremental.core.netting import Net, RowDeletes, Step, net

Rows = frozenset[int]


@attrs.define
class Model:
    """Files and the rows they hold; ``read`` is what reading a file gives, also after it is gone."""

    live: dict[str, Rows] = attrs.field(factory=dict)
    read: dict[str, Rows] = attrs.field(factory=dict)
    steps: list[Step[str]] = attrs.field(factory=list)
    #: Rows brought by snapshots that touched nothing else, in the window.
    brought: set[int] = attrs.field(factory=set)
    next_row: int = 0

    def rows(self) -> Rows:
        return frozenset().union(*self.live.values())

    def new(self, count: int) -> Rows:
        self.next_row += count
        return frozenset(range(self.next_row - count, self.next_row))

    def commit(
        self,
        added: list[Rows],
        removed: list[str],
        *,
        replaces: bool = False,
        deletes: tuple[RowDeletes[str], ...] = (),
    ) -> None:
        number = len(self.steps) + 1
        names = [f"{number}.{i}" for i in range(len(added))]
        for path in removed:
            del self.live[path]
        for name, rows in zip(names, added, strict=True):
            self.live[name] = self.read[name] = rows
        self.steps.append(
            Step(
                snapshot_id=number,
                replaces=replaces,
                added={n: n for n in names},
                removed={p: p for p in removed},
                deletes=deletes,
            )
        )

    def append(self, count: int) -> None:
        rows = self.new(count)
        self.brought |= rows
        self.commit([rows], [])

    def replace(self, files: list[str]) -> None:
        rows = sorted(frozenset().union(*(self.live[f] for f in files)))
        self.commit([frozenset(part) for part in (rows[::2], rows[1::2]) if part], files, replaces=True)

    def overwrite(self, files: list[str], keep: int, fresh: int) -> None:
        kept = frozenset(r for f in files for r in self.live[f] if (r + keep) % 3)
        rows = kept | self.new(fresh)
        self.commit([rows] if rows else [], files)

    def delete_rows(self, files: list[str], *, told: bool) -> None:
        for file in files:
            if self.live[file]:
                self.live[file] = self.read[file] = self.live[file] - {min(self.live[file])}
        touches = frozenset(files) if told else None
        self.commit([], [], deletes=(RowDeletes(f"d{len(self.steps)}", touches),))


@given(data=st.data())
def test_the_net_effect_agrees_with_the_rows(data: st.DataObject) -> None:
    model = Model()
    for _ in range(data.draw(st.integers(0, 3), "old files")):
        model.append(2)
    before, model.steps, model.brought = model.rows(), [], set()
    old = {f"old-{n}": rows for n, rows in enumerate(model.live.values())}
    model.live, model.read = dict(old), dict(old)
    for _ in range(data.draw(st.integers(1, 7), "snapshots")):
        act(model, data)
    found = net(model.steps)
    check(model, found, before, model.rows())


def act(model: Model, data: st.DataObject) -> None:
    files = sorted(model.live)
    kind = data.draw(
        st.sampled_from(["append", "replace", "overwrite", "drop", "delete"]) if files else st.just("append")
    )
    if kind == "append":
        model.append(data.draw(st.integers(1, 3)))
        return
    chosen = data.draw(st.lists(st.sampled_from(files), min_size=1, max_size=3, unique=True))
    if kind == "replace":
        model.replace(chosen)
    elif kind == "overwrite":
        model.overwrite(chosen, data.draw(st.integers(0, 2)), data.draw(st.integers(0, 2)))
    elif kind == "drop":
        model.commit([], chosen)
    else:
        model.delete_rows(chosen, told=data.draw(st.booleans()))


def check(model: Model, found: Net[str], before: Rows, after: Rows) -> None:
    added = [model.read[f] for f in found.added]
    touched = frozenset().union(*added, *(model.read[f] for f in found.removed))
    if not found.rewrites:
        assert sum(map(len, added)) == len(frozenset().union(*added))
        assert frozenset().union(*added) == after - before
        assert before <= after
        return
    assert after - before <= touched
    if not found.deletes:
        assert before ^ after <= touched
    assert before <= after or any(r.removed or r.deletes for r in found.rewrites.values())
    # As if the rewrites had not been: rows brought by other snapshots, each once, and all of those that are still there.
    left_out = {f for r in found.rewrites.values() for f in r.added}
    rest = [f for f in found.added if f not in left_out] + [f for r in found.rewrites.values() for f in r.unread]
    rows = [r for f in rest for r in model.read[f]]
    assert len(rows) == len(set(rows))
    assert not before & set(rows)
    assert after & frozenset(model.brought) <= set(rows)
