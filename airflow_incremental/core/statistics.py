"""What is known of rows without reading them, as plain values: what manifests say of files, and how many rows came before."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import attrs


@attrs.frozen(kw_only=True)
class Statistics:
    """What manifests say of the files of one scope.

    :param schema: Arrow schema of the rows.
    :param rows: rows of each file, before row-level deletes.
    :param deleted: how many rows row-level deletes hide of them at most: 0 is none, None is unknown.
    :param nulls: rows of each file without a value in a column, which is given by its path; None where an entry does not say.
    :param bounds: what no value of a column in each file is below, and what none is above, as Iceberg stores it: whole numbers
        and decimals by their digits, days or microseconds since 1970 for dates and times; None where an entry does not say.
        NaN is in no bound.
    :param partitions: partition -> rows, before row-level deletes, the one written last first; one that a session emptied has 0.
        The first item of a partition is the id of its spec.
    """

    schema: Any = attrs.field(eq=False)
    rows: Sequence[int]
    deleted: int | None
    nulls: Callable[[str], Sequence[int | None]] = attrs.field(eq=False, repr=False)
    bounds: Callable[[str], tuple[Sequence[Any], Sequence[Any]]] = attrs.field(eq=False, repr=False)
    partitions: Callable[[], Mapping[tuple[Hashable, ...], int]] = attrs.field(eq=False, repr=False)

    @property
    def total(self) -> int:
        """Rows of all files, before row-level deletes."""
        return sum(self.rows)


@attrs.frozen(kw_only=True)
class PastPublish:
    """A publish of the process that is part of ``main``.

    :param session: its id.
    :param rows: rows the session wrote.
    :param total: rows the table had then, before row-level deletes; None where the snapshot does not say.
    """

    session: str
    rows: int
    total: int | None
