"""What an audit run found, as plain values: they go through XCom, into snapshot summaries and into logs.

No value of a row is in here unless sample rows were asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import attrs

from airflow_incremental.core.errors import AuditFailed, IncrementalError

#: What a failed audit does. ``block``: the session ends and nothing is published. ``warn``: the data is published and
#: the report says so. ``ask``: a person decides. ``quarantine``: the offending rows are put aside, the rest is published.
#: Other tools say error/warn (dbt, Airflow's ``SQLCheckResult``) or critical/warning; here an *error* is an audit that
#: could not be run to its end, which no severity lets pass, so the word for a failed one is what it does.
Severity = Literal["block", "warn", "ask", "quarantine"]
#: What an audit looks at: the ``rows`` the session wrote, all rows of the ``partitions`` it touched, or the whole
#: ``table``, the last two as the sealed snapshot has them.
Over = Literal["rows", "partitions", "table"]
#: How a result was found: one statement in DuckDB or Spark, Great Expectations itself, what manifests and earlier results say, or
#: Python over the rows.
Path = Literal["duckdb", "spark", "gx", "statistics", "python"]
#: ``failed``: a blocking audit failed. ``asks``: none did, but a person has to decide. ``warned``: rows were put aside, or
#: an audit failed that only warns.
Verdict = Literal["passed", "warned", "asks", "failed"]


class AuditIncomplete(IncrementalError):
    """The audits could not be run to their end: unreadable file, lack of memory, interrupt.

    It says nothing about the data. Nothing may be published on it; a retry audits the same snapshot again.
    """


@attrs.frozen(kw_only=True)
class AuditResult:
    """What one audit found.

    :param name: name of the audit, unique in its report.
    :param severity: what its failing does.
    :param passed: whether the rows are as the audit asks.
    :param offending: rows that are not (for ``RowCount``: rows too few or too many; for ``SqlCheck``: rows its query
        returned; for ``ColumnRange``: files; for ``Volume`` over partitions: partitions).
    :param checked: rows it looked at (for ``Volume`` over partitions: partitions); rows it does not apply to, such as nulls in
        ``Between``, are not counted.
    :param message: the finding for people, without the name.
    :param samples: some offending rows as plain values by column, empty unless they were asked for.
    :param kind: what kind of audit it is: the ``type`` of its serialised form, or of a Great Expectations expectation.
    :param over: what it looked at.
    :param path: how it was found.
    :param observed: what was measured, such as a mean, as a JSON value; None where the counts say it all.
    :param quarantined: offending rows that were put aside, so that they are not published.
    :param full: more of the finding than travels through XCom, as JSON values: for an expectation its standard Great
        Expectations result. Kept in the audit table only.
    """

    name: str
    severity: Severity
    passed: bool
    offending: int
    checked: int
    message: str
    samples: tuple[Mapping[str, Any], ...] = ()
    kind: str = ""
    over: Over = "rows"
    path: Path = "duckdb"
    observed: Any = None
    quarantined: int = 0
    full: Mapping[str, Any] | None = None

    @property
    def blocks(self) -> bool:
        """Whether this finding keeps the data from being published."""
        if self.passed:
            return False
        # Rows that were to be put aside and are still there must not be published either.
        return self.severity == "block" or (self.severity == "quarantine" and self.quarantined != self.offending)

    @property
    def asks(self) -> bool:
        """Whether a person has to decide on this finding."""
        return not self.passed and self.severity == "ask"

    def brief(self) -> AuditResult:
        """Return the result without what does not travel: sample rows, which may hold personal data, and ``full``."""
        return attrs.evolve(self, samples=(), full=None)

    def to_json(self) -> dict[str, Any]:
        """Return plain values; what is as it is by default is left out."""
        plain = attrs.asdict(self, recurse=False)
        for field in attrs.fields(AuditResult):
            if field.default is not attrs.NOTHING and plain[field.name] == field.default:
                del plain[field.name]
        if self.samples:
            plain["samples"] = [dict(row) for row in self.samples]
        return plain

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> AuditResult:
        """Read what ``to_json`` wrote; unknown keys of a newer version are left out."""
        plain = {f.name: value[f.name] for f in attrs.fields(cls) if f.name in value}
        return cls(**{**plain, "samples": tuple(dict(row) for row in plain.get("samples", ()))})


@attrs.frozen(kw_only=True)
class AuditReport:
    """What all audits of one session found over the rows it wrote.

    :param snapshot_id: the sealed snapshot the rows belong to; the one that may be published on this report.
    :param rows: rows that were audited; None when there was no audit and nothing was read.
    :param results: one per audit, in the order the author gave them.
    :param quarantined: rows that were put aside before, so that they are not among ``rows``: the two add up to what was written. A
        row that offends several audits counts once.
    :param audits: digest of the audits it is by, as they were declared.
    """

    snapshot_id: int
    rows: int | None
    results: tuple[AuditResult, ...] = ()
    quarantined: int = 0
    audits: str = ""

    @property
    def verdict(self) -> Verdict:
        """The report in one word."""
        if any(r.blocks for r in self.results):
            return "failed"
        if any(r.asks for r in self.results):
            return "asks"
        return "passed" if all(r.passed for r in self.results) else "warned"

    @property
    def failed(self) -> tuple[AuditResult, ...]:
        """The blocking audits that failed."""
        return tuple(r for r in self.results if r.blocks)

    @property
    def warnings(self) -> tuple[AuditResult, ...]:
        """The audits that failed and do not keep the data from being published."""
        return tuple(r for r in self.results if not r.passed and not r.blocks)

    def brief(self) -> AuditReport:
        """Return the report as it travels through XCom: without sample rows and full results."""
        return attrs.evolve(self, results=tuple(r.brief() for r in self.results))

    def to_json(self) -> dict[str, Any]:
        """Return plain values; a few hundred bytes per audit."""
        return {
            "snapshot_id": self.snapshot_id,
            "rows": self.rows,
            "verdict": self.verdict,
            "results": [r.to_json() for r in self.results],
            **({"quarantined": self.quarantined} if self.quarantined else {}),
            **({"audits": self.audits} if self.audits else {}),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> AuditReport:
        """Read what ``to_json`` wrote; the verdict is computed from the results again."""
        return cls(
            snapshot_id=value["snapshot_id"],
            rows=value["rows"],
            results=tuple(AuditResult.from_json(r) for r in value["results"]),
            quarantined=value.get("quarantined", 0),
            audits=value.get("audits", ""),
        )

    def describe(self) -> str:
        """Return what people read in a log: a headline, then one aligned line per audit and its sample rows."""
        if not self.results:
            return f"audits of snapshot {self.snapshot_id}: none were asked for"
        counts = f"{len(self.results) - len(self.failed) - len(self.warnings)} passed"
        counts += f", {len(self.warnings)} warned" if self.warnings else ""
        counts += f", {len(self.failed)} failed" if self.failed else ""
        aside = f"; {self.quarantined:,} rows more were put aside" if self.quarantined else ""
        lines = [
            f"audits of snapshot {self.snapshot_id} over {self.rows or 0:,} rows: {self.verdict} ({counts}){aside}"
        ]
        width = max(len(r.name) for r in self.results)
        severity = max(5, *(len(r.severity) for r in self.results))
        for r in self.results:
            lines.append(f"  {_mark(r)}  {r.name:<{width}}  {r.severity:<{severity}}  {r.message}")
            lines.extend(f"        offending row: {dict(row)}" for row in r.samples)
        return "\n".join(lines)

    def raise_if_failed(self, *, inspect: str = "") -> None:
        """Raise when a blocking audit failed.

        :param inspect: where the audited snapshot can be looked at, as a sentence of its own; becomes part of the hint.
        :raises AuditFailed: with each failed audit and its counts; never with a value of a row.
        """
        failed = self.failed
        if not failed:
            return
        findings = "; ".join(f"{r.name}: {r.message}" for r in failed)
        hint = "the data stays unpublished and readers see no change. " + (
            f"{inspect.rstrip('. ')}. " if inspect else ""
        )
        raise AuditFailed(
            f"{len(failed)} of {len(self.results)} audits failed over {self.rows or 0:,} rows "
            f"of snapshot {self.snapshot_id}: {findings}",
            expected="no offending rows in a blocking audit",
            hint=f"{hint}Correct the source, the transform or the audit; the next run plans the same changes anew",
        )


def _mark(result: AuditResult) -> str:
    if result.passed:
        return "ok  "
    if result.blocks:
        return "FAIL"
    return "ASK " if result.asks else "WARN"
