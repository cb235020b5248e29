"""Results of audits that read no rows: what manifests, earlier publishes and kept results tell is all they need."""

from __future__ import annotations

import math
import statistics as stats
from collections.abc import Mapping, Sequence
from functools import singledispatch
from typing import Any

from airflow_incremental.audits.base import Audit
from airflow_incremental.audits.columns import resolve
from airflow_incremental.audits.compile import comparable
from airflow_incremental.audits.statistics import ColumnRange, NullFraction, Volume
from airflow_incremental.audits.subject import Subject
from airflow_incremental.audits.trend import Trend
from airflow_incremental.core.audit import AuditResult
from airflow_incremental.core.errors import AuditFailed
from airflow_incremental.core.statistics import Statistics

#: A share this close to the greatest one is taken for it: 3 of 10 rows are 0.3 of them, whatever a float makes of it.
_EXACT = 1e-12


@singledispatch
def known_result(audit: Audit, subject: Subject, found: Mapping[str, AuditResult]) -> AuditResult:
    """Return what an audit that reads no rows finds.

    :param found: the results of the audits that ran before, by name.
    :raises AuditFailed: it cannot be told, and the audit does not say to go on then.
    """
    raise NotImplementedError(audit.type)


def _result(audit: Audit, message: str, **what: Any) -> AuditResult:
    return AuditResult(
        **{
            "name": audit.name,
            "severity": audit.severity,
            "kind": audit.type,
            "over": audit.over,
            "path": "statistics",
            "message": message,
            **what,
        }
    )


@known_result.register
def _(audit: NullFraction, subject: Subject, found: Mapping[str, AuditResult]) -> AuditResult:
    del found
    known = subject.statistics(audit.over)
    resolve(known.schema, audit.column, audit=audit.name)
    each = known.nulls(audit.column)
    nulls = sum(n for n in each if n is not None)
    silent = sum(rows for rows, n in zip(known.rows, each, strict=True) if n is None)
    total, deleted = known.total, known.deleted
    # Any of the rows that are hidden may be null, or none of them.
    left = total if deleted == 0 else 0 if deleted is None else max(total - deleted, 0)
    least = 0.0 if deleted is None or not left else max(nulls - deleted, 0) / left
    most = (min((nulls + silent) / left, 1.0) if left else 1.0) if total else 0.0
    if least <= audit.max + _EXACT < most:
        why = f"the null counts of {_silent(each, known.rows)} files are missing" if silent else _hidden(known)
        return _unknown(audit, why, instead="NotNull", checked=total)
    exact = deleted == 0 and not silent
    share = f"{nulls / total:.4g}" if exact and total else f"{least:.4g} to {most:.4g}" if total else "none"
    return _result(
        audit,
        f"{nulls:,} of {total:,} rows are null: {share} of them, expected at most {audit.max:.4g}"
        + ("" if exact else f" ({_hidden(known)})" if deleted != 0 else ""),
        passed=most <= audit.max + _EXACT,
        offending=nulls,
        checked=total,
        observed=nulls / total if exact and total else None,
    )


@known_result.register
def _(audit: ColumnRange, subject: Subject, found: Mapping[str, AuditResult]) -> AuditResult:
    del found
    known = subject.statistics(audit.over)
    column = resolve(known.schema, audit.column, audit=audit.name)
    bounds = [b for b in (audit.min, audit.max) if b is not None]
    domain = comparable(audit, column, bounds[0])
    low = -math.inf if audit.min is None else domain.stored(audit.min, round_up=True)
    high = math.inf if audit.max is None else domain.stored(audit.max, round_up=False)
    bounded = zip(known.rows, known.nulls(audit.column), *known.bounds(audit.column), strict=True)
    outside = silent = checked = 0
    for rows, nulls, lower, upper in bounded:
        if nulls == rows:
            continue
        checked += rows - (nulls or 0)
        if lower is None or upper is None:
            silent += 1
        elif lower < low or upper > high:
            outside += 1
    if silent and not (outside and known.deleted == 0):
        return _unknown(audit, f"the bounds of {silent:,} files are missing", instead="Between", checked=checked)
    if outside and known.deleted != 0:
        why = f"{outside:,} files hold values that are not in {audit.interval}, but {_hidden(known)}"
        return _unknown(audit, why, instead="Between", checked=checked)
    return _result(
        audit,
        f"{outside:,} of {len(known.rows):,} files, {checked:,} rows with a value, hold one that is not "
        f"{'in ' if len(bounds) > 1 else ''}{audit.interval}",
        passed=not outside,
        offending=outside,
        checked=checked,
    )


def _silent(each: Sequence[int | None], rows: Sequence[int]) -> str:
    return f"{sum(1 for n, r in zip(each, rows, strict=True) if n is None and r):,}"


def _hidden(known: Statistics) -> str:
    if known.deleted is None:
        return "row-level deletes hide rows, how many is not known"
    return f"row-level deletes hide up to {known.deleted:,} rows"


def _unknown(audit: NullFraction | ColumnRange, why: str, *, instead: str, checked: int) -> AuditResult:
    if audit.on_unknown == "fail":
        raise AuditFailed(
            f"audit {audit.name!r} cannot be answered from statistics: {why}",
            expected="files whose manifest entries tell, or on_unknown='warn' to go on with a warning",
            hint=f"use {instead}, which reads the rows. Files written with the metrics mode 'none', or before the column was "
            "added, tell nothing; compaction writes them anew",
        )
    return _result(
        audit,
        f"cannot be answered from statistics: {why}",
        severity="warn",
        passed=False,
        offending=0,
        checked=checked,
    )


@known_result.register
def _(audit: Volume, subject: Subject, found: Mapping[str, AuditResult]) -> AuditResult:
    del found
    if audit.over == "partitions":
        return _partition_volume(audit, subject)
    rows = subject.statistics(audit.over).total
    past = [p.rows if audit.over == "rows" else p.total for p in subject.publishes(audit.last)]
    return _volume(audit, [rows], [n for n in past if n is not None], "publishes")


def _partition_volume(audit: Volume, subject: Subject) -> AuditResult:
    touched = subject.statistics("partitions").partitions()
    specs = {partition[0] for partition in touched}
    # Partitions of another spec are of another size.
    others = [
        n
        for p, n in subject.statistics("table").partitions().items()
        if p not in touched and (p[0] in specs or not specs)
    ]
    return _volume(audit, list(touched.values()), others[: audit.last], "other partitions")


def _volume(audit: Volume, numbers: Sequence[int], past: Sequence[int], of_what: str) -> AuditResult:
    """Compare one number of rows, or that of each partition, with earlier ones."""
    several = audit.over == "partitions"
    said = f"{len(numbers):,} partitions" if several else f"{numbers[0]:,} rows"
    observed = None if several else numbers[0]
    if len(past) < audit.min_history:
        message = f"{said}, not compared: of {audit.min_history} {of_what} to compare with there are {len(past)}"
        return _result(
            audit, message, passed=True, offending=0, checked=len(numbers) if several else numbers[0], observed=observed
        )
    usual = stats.median(past)
    low = 0.0 if audit.min_ratio is None else audit.min_ratio * usual
    high = math.inf if audit.max_ratio is None else audit.max_ratio * usual
    off = [max(math.ceil(low - n), math.ceil(n - high) if math.isfinite(high) else 0, 0) for n in numbers]
    limits = " and ".join(
        f"{word} {ratio:g}"
        for word, ratio in (("at least", audit.min_ratio), ("at most", audit.max_ratio))
        if ratio is not None
    )
    expected = f"expected {limits} times {usual:,g} rows, the median of the last {len(past)} {of_what}"
    if several:
        said = f"{sum(1 for n in off if n):,} of {said} are not as usual"
    return _result(
        audit,
        f"{said}, {expected}",
        passed=not any(off),
        offending=sum(1 for n in off if n) if several else off[0],
        checked=len(numbers) if several else numbers[0],
        observed=observed,
    )


@known_result.register
def _(audit: Trend, subject: Subject, found: Mapping[str, AuditResult]) -> AuditResult:
    current = found.get(audit.audit)
    if current is None:
        raise AuditFailed(
            f"audit {audit.name!r} follows {audit.audit!r}, which is no result of this session",
            expected=f"one of {', '.join(map(repr, found))}",
            hint="correct the name",
        )
    now = value_of(current, audit)
    if now is None:
        raise AuditFailed(
            f"audit {audit.name!r} follows what {audit.audit!r} observed, which is no number",
            expected="an audit that measures a number",
            hint="use value='share', or another audit",
        )
    sessions = [p.session for p in subject.publishes(audit.last)]
    past = [v for r in subject.kept(sessions, audit.audit) if (v := value_of(r, audit)) is not None]
    what = "share of offending rows" if audit.value == "share" else "value"
    same = {"over": current.over, "checked": 1, "observed": now}
    if len(past) < audit.min_history:
        message = f"{what} {now:.4g}, not compared: of {audit.min_history} published sessions to compare with there are {len(past)}"
        return _result(audit, message, passed=True, offending=0, **same)
    if audit.max_change is not None:
        usual, limit = stats.median(past), f"expected a change of at most {audit.max_change:.4g} of"
        passed = abs(now - usual) <= audit.max_change * abs(usual) + _EXACT
        middle = "the median"
    else:
        usual, sigma = stats.fmean(past), stats.pstdev(past)
        limit = f"expected within {audit.max_deviations:.4g} standard deviations ({sigma:.4g}) of"
        passed = abs(now - usual) <= (audit.max_deviations or 0.0) * sigma + _EXACT * max(abs(usual), 1.0)
        middle = "the mean"
    message = f"{what} {now:.4g}, {limit} {usual:.4g}, {middle} of the last {len(past)} published sessions"
    return _result(audit, message, passed=passed, offending=int(not passed), **same)


def value_of(result: AuditResult, audit: Trend) -> float | None:
    """Return what of a result a trend follows, or None if it has none."""
    if audit.value == "share":
        return result.offending / result.checked if result.checked else 0.0
    value = result.observed
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
