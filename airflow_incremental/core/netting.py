"""From what each snapshot did to what it all came to: the net effect of a window of snapshots on files.

Files are keys here and carry any payload; nothing is known about tables. The rules are those of the operations:
``replace`` moves rows into other files without changing them, everything else that removes files or adds row-level
deletes changes rows.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from typing import Generic, TypeVar

import attrs

T = TypeVar("T")


@attrs.frozen
class RowDeletes(Generic[T]):
    """A file of row-level deletes that came or went, and the data files it can touch (None: any)."""

    payload: T
    touches: frozenset[str] | None = None


@attrs.frozen(kw_only=True)
class Step(Generic[T]):
    """What one snapshot did: data files by path, and row-level delete files."""

    snapshot_id: int
    #: Whether its operation is ``replace``.
    replaces: bool
    added: Mapping[str, T] = attrs.field(factory=dict)
    removed: Mapping[str, T] = attrs.field(factory=dict)
    deletes: tuple[RowDeletes[T], ...] = ()


@attrs.frozen(kw_only=True)
class NetRewrite(Generic[T]):
    """What a snapshot did that changed rows which were there before the window, or which an earlier such snapshot wrote."""

    added: Mapping[str, T]
    removed: Mapping[str, T]
    deletes: tuple[T, ...]
    #: Those of ``removed`` that hold only new rows, as they were when they were added.
    unread: Mapping[str, T]


@attrs.frozen(kw_only=True)
class Net(Generic[T]):
    """The net effect of a window."""

    added: Mapping[str, T]
    removed: Mapping[str, T]
    deletes: tuple[T, ...]
    rewrites: Mapping[int, NetRewrite[T]]


class _Rows(enum.Enum):
    """What the rows of a file that was added within the window are."""

    #: All of them are new.
    NEW = enum.auto()
    #: Written by a snapshot that changed older rows: some may be older rows, moved or changed.
    REWRITTEN = enum.auto()
    #: Moved by a compaction that took in rows which are not new, or which are accounted for under another file already.
    CARRIED = enum.auto()


def net(steps: Iterable[Step[T]]) -> Net[T]:
    """Return the net effect of snapshots, given oldest first.

    A file that is not known to have been added within the window was there before it.
    """
    state: dict[str, _Rows] = {}
    added: dict[str, T] = {}
    removed: dict[str, T] = {}
    deletes: list[T] = []
    rewrites: dict[int, NetRewrite[T]] = {}
    for step in steps:
        kinds = {path: state.pop(path, None) for path in step.removed}
        if step.replaces:
            # The same rows in other files. If all of them are new, the new files stand for them, so that what is read
            # later is what is live; if not, the files that were taken in stay listed, because the new ones mix their
            # rows with older ones.
            fresh = bool(kinds) and all(kind is _Rows.NEW for kind in kinds.values())
            if fresh:
                for path in kinds:
                    added.pop(path, None)
                added.update(step.added)
            state.update(dict.fromkeys(step.added, _Rows.NEW if fresh else _Rows.CARRIED))
            continue
        touched = [
            d for d in step.deletes if d.touches is None or not all(state.get(p) is _Rows.NEW for p in d.touches)
        ]
        changes_rows = bool(touched) or any(kind is not _Rows.NEW for kind in kinds.values())
        unread = {path: added[path] for path, kind in kinds.items() if kind is _Rows.NEW and path in added}
        for path, kind in kinds.items():
            if kind in (_Rows.NEW, _Rows.REWRITTEN):
                # It came and went within the window; the rows it took over were removed with the files they came from.
                added.pop(path, None)
            else:
                removed[path] = step.removed[path]
        added.update(step.added)
        state.update(dict.fromkeys(step.added, _Rows.REWRITTEN if changes_rows else _Rows.NEW))
        if changes_rows:
            deletes.extend(d.payload for d in touched)
            rewrites[step.snapshot_id] = NetRewrite(
                added=step.added, removed=step.removed, deletes=tuple(d.payload for d in touched), unread=unread
            )
    return Net(added=added, removed=removed, deletes=tuple(deletes), rewrites=rewrites)
