"""What planning needs to know of a target, told by whoever can look at the table."""

from __future__ import annotations

import attrs

from airflow_incremental.core.ranges import Grain


@attrs.frozen(kw_only=True)
class TargetFacts:
    """A target as a plan starts from it.

    :param main: head of its ``main``.
    :param grain: unit of event time by which it is partitioned; None if it is not.
    :param event_field: field id of the column whose ranges the process replaces; None if it replaces none.
    :param key_fields: field ids of the columns by whose values it replaces rows (mode ``merge``).
    """

    table_uuid: str
    main: int
    grain: Grain | None
    event_field: int | None = None
    key_fields: tuple[int, ...] = ()
