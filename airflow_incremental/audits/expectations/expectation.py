"""One expectation of a Great Expectations 1.x suite, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from airflow_incremental.core.audit import Severity


@attrs.frozen(kw_only=True)
class Expectation:
    """One expectation of a suite.

    :param name: what its result is called; unique among the results of one load.
    :param type: snake-case name of the expectation: ``expect_column_values_to_not_be_null``.
    :param kwargs: its arguments as in the suite's JSON form, ``row_condition`` and ``mostly`` among them.
    :param severity: what failing does.
    :param meta: the author's notes, kept with the result.
    """

    name: str
    type: str
    kwargs: Mapping[str, Any]
    severity: Severity
    meta: Mapping[str, Any] = attrs.field(factory=dict)
