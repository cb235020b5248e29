"""What a load may ask of the engine and of audits: checked where it is written, long before anything runs."""

from __future__ import annotations

import re
from typing import Any

from airflow_incremental.core.errors import ArgumentError

#: Sample rows travel through XCom and logs; more than this belong into a query of one's own.
SAMPLE_LIMIT = 100
_MEMORY = re.compile(r"\d+(\.\d+)?\s*([KMGT](B|IB)?|%)", re.IGNORECASE)


def check_engine(memory_limit: Any, threads: Any) -> None:
    """Refuse limits that DuckDB would refuse.

    :raises ArgumentError: with what it takes.
    """
    if memory_limit is not None and not (isinstance(memory_limit, str) and _MEMORY.fullmatch(memory_limit.strip())):
        raise ArgumentError(
            f"memory_limit is {memory_limit!r}",
            expected="a number with a unit, such as '2GB', '512MiB' or '50%', or None for DuckDB's own",
        )
    if threads is not None and not _whole(threads, 1):
        raise ArgumentError(f"threads is {threads!r}", expected="a whole number, 1 or more, or None for one per core")


def check_samples(samples: Any) -> int:
    """Return a number of sample rows; refuse what is none.

    :raises ArgumentError: with what it takes.
    """
    if not _whole(samples, 0) or samples > SAMPLE_LIMIT:
        raise ArgumentError(
            f"samples is {samples!r}",
            expected=f"a number of rows from 0 to {SAMPLE_LIMIT}",
            hint="query the audited snapshot for more",
        )
    return int(samples)


def _whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
