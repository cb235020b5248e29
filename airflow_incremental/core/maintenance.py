"""What maintenance of a table may do: how long history stays, what counts as small, which parts are done."""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Sequence
from typing import Any, Literal, get_args

import attrs

from airflow_incremental.core.errors import ArgumentError

#: ``refs``: branches that sessions left; ``expire``: old snapshots and the files that only they had; ``compact``: small files and
#: small manifests; ``orphans``: files that nothing refers to.
Part = Literal["refs", "expire", "compact", "orphans"]
PARTS: tuple[Part, ...] = get_args(Part)
#: As in Iceberg's own ``remove_orphan_files``: longer than any commit takes.
ORPHAN_AGE = dt.timedelta(days=3)
#: A younger file may be about to be committed by somebody: another compaction, a load that holds no lock. Spark's least age, too.
LEAST_ORPHAN_AGE = dt.timedelta(days=1)
#: Manifests of a snapshot beyond which small ones are merged; Iceberg's default for its own merging.
MANY_MANIFESTS = 100
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_SIZES = {"": 1, "B": 1, "KB": 1000, "MB": 1000**2, "GB": 1000**3, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}


@attrs.frozen(kw_only=True)
class MaintenancePolicy:
    """What is done to a table, and what is left alone.

    :param parts: which parts are done.
    :param expire_older_than: snapshots of ``main`` older than this may go; None: what the table says
        (``history.expire.max-snapshot-age-ms``), else Iceberg's default of five days.
    :param retain_last: newest snapshots of ``main`` that stay however old they are; None: what the table says
        (``history.expire.min-snapshots-to-keep``), else one.
    :param orphans_older_than: files that nothing refers to may go when they are older than this: a day at least.
    :param delete_foreign_orphans: whether such files go although their names do not show that a session wrote them for the table.
    :param compact: partitions with more small files than this are rewritten; None rewrites none.
    :param target_file_size: bytes a rewritten file should have; a file is small below three quarters of it. None: what the table
        says (``write.target-file-size-bytes``), else Iceberg's default of 512 MiB.
    :param merge_manifests: once the head lists more manifests than this, the small ones become few.
    """

    parts: tuple[Part, ...] = PARTS
    expire_older_than: dt.timedelta | None = None
    retain_last: int | None = None
    orphans_older_than: dt.timedelta = ORPHAN_AGE
    delete_foreign_orphans: bool = False
    compact: int | None = None
    target_file_size: int | None = None
    merge_manifests: int = MANY_MANIFESTS

    @classmethod
    def read(
        cls,
        *,
        parts: Any = None,
        expire_older_than: Any = None,
        retain_last: Any = None,
        orphans_older_than: Any = None,
        delete_foreign_orphans: Any = False,
        compact: Any = None,
        target_file_size: Any = None,
        merge_manifests: Any = None,
    ) -> MaintenancePolicy:
        """Read what people write: ages as ``timedelta`` or text such as ``7d``, sizes as bytes or ``128MiB``, numbers also as text.

        :raises ArgumentError: a value is wrong.
        """
        return cls(
            parts=PARTS if parts is None else _parts(parts),
            expire_older_than=None
            if expire_older_than is None
            else read_age(expire_older_than, what="expire_older_than"),
            retain_last=None if retain_last is None else _count(retain_last, what="retain_last", least=1),
            orphans_older_than=ORPHAN_AGE if orphans_older_than is None else _orphan_age(orphans_older_than),
            delete_foreign_orphans=read_flag(delete_foreign_orphans, what="delete_foreign_orphans"),
            compact=None if compact is None else _count(compact, what="compact", least=1),
            target_file_size=None if target_file_size is None else read_size(target_file_size, what="target_file_size"),
            merge_manifests=MANY_MANIFESTS
            if merge_manifests is None
            else _count(merge_manifests, what="merge_manifests", least=1),
        )


def read_age(value: Any, *, what: str) -> dt.timedelta:
    """Return a length of time given as ``timedelta`` or as text: a number and one of ``s m h d w``.

    :raises ArgumentError: it is none, or negative.
    """
    found = re.fullmatch(r"\s*(\d+)\s*([smhdw])\s*", value) if isinstance(value, str) else None
    if found is not None:
        value = dt.timedelta(**{_UNITS[found[2]]: int(found[1])})
    if not isinstance(value, dt.timedelta) or value < dt.timedelta(0):
        raise ArgumentError(
            f"{what} is {value!r}", expected="a timedelta, or a number and one of s m h d w, such as '7d'"
        )
    return value


def _orphan_age(value: Any) -> dt.timedelta:
    age = read_age(value, what="orphans_older_than")
    if age < LEAST_ORPHAN_AGE:
        raise ArgumentError(
            f"orphans_older_than is {value!r}",
            expected="a day or more: a younger file may be about to be committed by somebody",
            hint="to look for none, leave 'orphans' out of parts",
        )
    return age


def read_size(value: Any, *, what: str) -> int:
    """Return a number of bytes given as a number or as text such as ``128MiB`` or ``512MB``.

    :raises ArgumentError: it is none, or not positive.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMG]?i?B)?\s*", value) if isinstance(value, str) else None
    size = value if found is None else math.floor(float(found[1]) * _SIZES.get(found[2] or "", 0))
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ArgumentError(f"{what} is {value!r}", expected="bytes, as a number or as text such as '128MiB'")
    return size


def _parts(value: Any) -> tuple[Part, ...]:
    given = value if isinstance(value, Sequence) and not isinstance(value, str) else None
    if given is None or not given or any(part not in PARTS for part in given):
        raise ArgumentError(f"parts is {value!r}", expected=f"a list of some of {', '.join(PARTS)}")
    return tuple(part for part in PARTS if part in given)


def _count(value: Any, *, what: str, least: int) -> int:
    if isinstance(value, str) and value.strip().isdecimal():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ArgumentError(f"{what} is {value!r}", expected=f"a whole number, {least} or more")
    return value


def read_flag(value: Any, *, what: str) -> bool:
    """Return a truth value, also one that a template rendered.

    :raises ArgumentError: it is none.
    """
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    if not isinstance(value, bool):
        raise ArgumentError(f"{what} is {value!r}", expected="True or False")
    return value
