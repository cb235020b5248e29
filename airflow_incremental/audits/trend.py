"""An audit of what other audits found, against what they found in earlier sessions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import attrs

from airflow_incremental.audits.base import Audit, label, name_of, severity_of
from airflow_incremental.audits.statistics import history_of, number
from airflow_incremental.core.audit import Over, Severity
from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.core.literals import is_template, one_of

#: What of a result is followed: offending rows by checked ones, or the value that was measured.
TrendValue = Literal["share", "observed"]


@attrs.frozen(init=False)
class Trend(Audit):
    """A result of another audit of the load is about what it was in the last published sessions.

    Compared is with the kept results of the process's last publishes that ``main`` still shows, so a session that failed,
    was denied or was rolled back does not count. As long as there are fewer than ``min_history`` the audit passes, and says
    that nothing was compared.

    :param audit: name of the result: of another audit, or of one expectation of a suite.
    :param max_change: the greatest change that passes, relative to the median of the earlier values: 0.5 is half of it, up or
        down.
    :param max_deviations: the greatest distance that passes from the mean of the earlier values, in standard deviations.
    :param value: what is compared: the ``"share"`` of offending rows among those checked (default), or what was
        ``"observed"``, such as a mean, if that is a number.
    :param last: how many publishes are looked at.
    :param min_history: how many of them need to have the result.
    """

    type: ClassVar[str] = "trend"
    required: ClassVar[tuple[str, ...]] = ("audit",)
    reads_rows: ClassVar[bool] = False
    over: ClassVar[Over] = "rows"  # type: ignore[misc]  # it looks at results; what those look over is theirs
    name: str
    severity: Severity
    audit: str
    max_change: float | None
    max_deviations: float | None
    value: TrendValue
    last: int
    min_history: int

    def __init__(
        self,
        audit: str,
        *,
        max_change: float | None = None,
        max_deviations: float | None = None,
        value: TrendValue = "share",
        last: int = 10,
        min_history: int = 3,
        severity: Severity = "block",
        name: str | None = None,
    ) -> None:
        audit = name_of("" if audit is None else audit, "")
        name = name_of(name, label(self.type, audit))
        if (max_change is None) == (max_deviations is None):
            raise ArgumentError(
                f"audit {name!r} has max_change {max_change!r} and max_deviations {max_deviations!r}",
                expected="one of the two",
                hint=f"Trend({audit!r}, max_change=0.5) lets the value move by half of what it usually is",
            )
        change = None if max_change is None else number(max_change, f"max_change of audit {name!r}", least=0)
        sigma = None if max_deviations is None else number(max_deviations, f"max_deviations of audit {name!r}", least=0)
        self.__attrs_init__(
            audit=audit,
            max_change=change,
            max_deviations=sigma,
            value=one_of(value, TrendValue, what=f"value of audit {name!r}"),
            **history_of(last, min_history, name),
            name=name,
            severity=severity_of(severity, "rows", name, row_wise=self.row_wise)["severity"],
        )


def check_trends(audits: Sequence[Audit], *, kept: bool) -> None:
    """Refuse trends that could never be answered.

    :param kept: whether results are kept in a table.
    :raises ArgumentError: one names no result of the load, or results are not kept.
    """
    others = [a for a in audits if not isinstance(a, Trend)]
    for trend in audits:
        if not isinstance(trend, Trend):
            continue
        if not kept:
            raise ArgumentError(
                f"audit {trend.name!r} compares with earlier results, and audit_table is False",
                expected="a table in which results are kept",
                hint="leave audit_table out, or use Volume, which needs none",
            )
        # A suite that is only named, by a file or a context, gives its results' names when it is read: they begin with its own.
        open_names = [a.name for a in others if a.type == "expectations"]
        named: Any = [n for a in others for n in a.result_names]
        if trend.audit in named or is_template(trend.audit) or trend.audit.startswith(tuple(open_names)):
            continue
        raise ArgumentError(
            f"audit {trend.name!r} follows {trend.audit!r}, which no other audit of the load is called",
            expected=f"one of {', '.join(map(repr, named))}" if named else "another audit in the list",
            hint="name the audit with name=...; the default is the check and its columns",
        )
