"""Audits of what manifests know: what is certain, what is only a bound, and what cannot be told."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from airflow_incremental.audits import (
    Audit,
    Between,
    ColumnRange,
    NullFraction,
    RowCount,
    Trend,
    Volume,
    audit_from_dict,
    run,
    validate_audits,
)
from airflow_incremental.audits.run import check_audits, run_audits
from airflow_incremental.audits.subject import Subject
from airflow_incremental.audits.trend import check_trends
from airflow_incremental.core.audit import AuditIncomplete, AuditResult
from airflow_incremental.core.errors import ArgumentError, AuditFailed
from airflow_incremental.core.statistics import PastPublish, Statistics

UTC = dt.timezone.utc
SCHEMA = pa.schema(
    [
        ("n", pa.int64()),
        ("price", pa.decimal128(9, 2)),
        ("day", pa.date32()),
        ("at", pa.timestamp("us", "UTC")),
        ("delay", pa.float64()),
        ("name", pa.string()),
        ("tags", pa.list_(pa.string())),
    ]
)


def known(
    *files: tuple[int, int | None, Any, Any], deleted: int | None = 0, partitions: dict[Any, int] | None = None
) -> Statistics:
    """Statistics of files, each its rows, nulls and bounds, the same for every column."""
    rows, nulls, lower, upper = ([f[i] for f in files] for i in range(4))
    return Statistics(
        schema=SCHEMA,
        rows=rows,
        deleted=deleted,
        nulls=lambda _path: nulls,
        bounds=lambda _path: (lower, upper),
        partitions=lambda: partitions or {},
    )


def only(audit: Audit, found_in: Statistics | Any, **subject: Any) -> AuditResult:
    def read(_over: str) -> Any:
        raise AssertionError("rows were read")

    statistics = (lambda _over: found_in) if isinstance(found_in, Statistics) else found_in
    (result,) = run_audits([audit], Subject(snapshot_id=1, read=read, statistics=statistics, **subject)).results
    return result


@pytest.mark.parametrize(
    ("files", "deleted", "most", "passes"),
    [
        ([(10, 3, 0, 0), (10, 0, 0, 0)], 0, 0.15, True),
        ([(10, 3, 0, 0)], 0, 0.3, True),
        ([(10, 3, 0, 0)], 0, 0.29, False),
        ([(10, 0, 0, 0)], 0, 0.0, True),
        ([], 0, 0.0, True),
        # The 2 deleted rows may be null or not: 1 to 3 of 8.
        ([(10, 3, 0, 0)], 2, 0.375, True),
        ([(10, 3, 0, 0)], 2, 0.374, None),
        ([(10, 3, 0, 0)], 2, 0.12, False),
        ([(10, 3, 0, 0)], None, 0.9, None),
        ([(10, 3, 0, 0)], None, 1.0, True),
        ([(10, 3, 0, 0), (10, None, 0, 0)], 0, 0.65, True),
        ([(10, 3, 0, 0), (10, None, 0, 0)], 0, 0.64, None),
        ([(10, 3, 0, 0), (10, None, 0, 0)], 0, 0.1, False),
        # All rows may be gone, or all but a null.
        ([(10, 3, 0, 0)], 10, 0.5, None),
    ],
)
def test_the_share_of_nulls(files: list[Any], deleted: int | None, most: float, passes: bool | None) -> None:
    if passes is None:
        with pytest.raises(AuditFailed, match=r"cannot be answered from statistics.*use NotNull"):
            only(NullFraction("n", most), known(*files, deleted=deleted))
        warned = only(NullFraction("n", most, on_unknown="warn"), known(*files, deleted=deleted))
        assert not warned.passed
        assert warned.severity == "warn"
    else:
        found = only(NullFraction("n", most), known(*files, deleted=deleted))
        assert found.passed is passes
        assert found.path == "statistics"
        assert found.checked == sum(f[0] for f in files)


def test_a_share_is_observed_only_if_it_is_exact() -> None:
    assert only(NullFraction("n", 1), known((8, 2, 0, 0))).observed == 0.25
    assert only(NullFraction("n", 1), known((8, 2, 0, 0), deleted=1)).observed is None


DAY, NOON = dt.date(2024, 1, 31), dt.datetime(2024, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("audit", "inside", "outside"),
    [
        (ColumnRange("n", 1, 9), (1, 9), (0, 9)),
        (ColumnRange("n", 0.5, 9.5), (1, 9), (1, 10)),
        (ColumnRange("n", min=2**63), (2**63, 2**63), (2**63 - 1, 2**63)),
        (ColumnRange("price", Decimal("1.05"), 9), (105, 900), (104, 900)),
        (ColumnRange("price", max=1.005), (0, 100), (0, 101)),
        (ColumnRange("day", DAY, DAY), (19753, 19753), (19752, 19753)),
        (ColumnRange("at", max=NOON), (0, 1706702400000000), (0, 1706702400000001)),
        (ColumnRange("delay", 0.1, 0.3), (0.1, 0.3), (0.1, 0.30000000000000004)),
    ],
)
def test_values_lie_within_what_the_bounds_tell(audit: ColumnRange, inside: Any, outside: Any) -> None:
    assert only(audit, known((5, 1, *inside), (3, 3, None, None), (0, 0, None, None))).passed
    found = only(audit, known((5, 1, *inside), (5, 0, *outside)))
    assert not found.passed
    assert (found.offending, found.checked) == (1, 9)
    assert found.observed is None, "the least and greatest values are values of rows"


@pytest.mark.parametrize(
    ("files", "deleted", "passes"),
    [
        ([(5, 0, 1, 9)], None, True),
        ([(5, 0, 0, 9)], 1, None),
        ([(5, 0, 0, 9)], None, None),
        ([(5, 0, None, None)], 0, None),
        ([(5, None, None, None)], 0, None),
        ([(5, 0, 1, 9), (5, 4, None, 9)], 0, None),
        ([(5, 0, 0, 9), (5, 4, None, None)], 0, False),
    ],
)
def test_what_bounds_cannot_tell_never_passes(files: list[Any], deleted: int | None, passes: bool | None) -> None:
    if passes is None:
        with pytest.raises(AuditFailed, match=r"cannot be answered from statistics.*use Between"):
            only(ColumnRange("n", 1, 9), known(*files, deleted=deleted))
        assert not only(ColumnRange("n", 1, 9, on_unknown="warn"), known(*files, deleted=deleted)).passed
    else:
        assert only(ColumnRange("n", 1, 9), known(*files, deleted=deleted)).passed is passes


def past(*rows: int) -> Any:
    return lambda last: [PastPublish(session=f"s{i}", rows=n, total=10 * n) for i, n in enumerate(rows)][:last]


@pytest.mark.parametrize(
    ("rows", "history", "passes", "off"),
    [
        (50, (100, 90, 1000), True, 0),
        (49, (100, 90, 1000), False, 1),
        (200, (100, 90, 1000), True, 0),
        (230, (100, 90, 1000), False, 30),
        (0, (100, 90), True, 0),
        (0, (0, 0, 0), True, 0),
        (1, (0, 0, 0), False, 1),
        (100, (7, 7, 7, 100, 100, 100, 100), True, 0),
    ],
)
def test_the_rows_of_a_session_against_the_last_publishes(
    rows: int, history: tuple[int, ...], passes: bool, off: int
) -> None:
    audit = Volume(min_ratio=0.5, max_ratio=2)
    found = only(audit, known((rows, 0, 0, 0)), publishes=past(*history))
    assert (found.passed, found.offending, found.observed) == (passes, off, rows)
    assert ("not compared" in found.message) is (len(history) == 2)


def test_only_the_last_publishes_count() -> None:
    audit = Volume(min_ratio=0.5, last=3)
    assert only(audit, known((5, 0, 0, 0)), publishes=past(5, 5, 5, 100, 100, 100, 100)).passed


def test_the_table_against_what_it_was() -> None:
    audit = Volume(min_ratio=0.9, over="table")
    assert only(audit, known((950, 0, 0, 0)), publishes=past(100, 100, 100)).passed
    assert not only(audit, known((850, 0, 0, 0)), publishes=past(100, 100, 100)).passed


def partitions(touched: dict[Any, int], all_: dict[Any, int]) -> Any:
    return lambda over: known(partitions=touched if over == "partitions" else all_)


def test_touched_partitions_against_the_ones_written_last_of_the_others() -> None:
    others = {(0, 5): 100, (0, 4): 110, (0, 3): 90, (0, 2): 5, (1, 0): 9999}
    audit = Volume(min_ratio=0.5, max_ratio=2, over="partitions", last=3)
    touched = {(0, 6): 120, (0, 7): 0}
    found = only(audit, partitions(touched, {(0, 6): 120, **others}))
    assert (found.passed, found.offending, found.checked) == (False, 1, 2), "an emptied partition has no rows"
    assert "the median of the last 3 other partitions" in found.message
    assert only(audit, partitions({(0, 6): 120}, {(0, 6): 120, **others})).passed
    few = only(audit, partitions({(0, 6): 120}, {(0, 6): 120, (0, 5): 1, (1, 0): 1}))
    assert few.passed
    assert "not compared: of 3 other partitions to compare with there are 1" in few.message


def kept(*results: tuple[int, int, Any]) -> dict[str, Any]:
    found = [
        AuditResult(
            name="row_count", severity="block", passed=True, offending=o, checked=c, observed=observed, message=""
        )
        for o, c, observed in results
    ]
    return {"publishes": past(*[1] * len(found)), "kept": lambda sessions, _name: found[: len(sessions)]}


@pytest.mark.parametrize(
    ("trend", "history", "passes"),
    [
        (Trend("row_count", max_change=0.5, value="observed"), (60, 70, 80), True),
        (Trend("row_count", max_change=0.4, value="observed"), (60, 70, 80), False),
        (Trend("row_count", max_change=0.4, value="observed"), (60, 70), True),
        (Trend("row_count", max_change=0, value="observed"), (100, 100, 100), True),
        (Trend("row_count", max_deviations=1, value="observed"), (90, 110, 110, 90), True),
        (Trend("row_count", max_deviations=1, value="observed"), (80, 82, 81, 81), False),
        (Trend("row_count", max_deviations=0, value="observed"), (100, 100, 100), True),
        (Trend("row_count", max_change=0.5, value="observed"), ("many", 1, True), True),
    ],
)
def test_a_trend(trend: Trend, history: tuple[Any, ...], passes: bool) -> None:
    from tests.unit.audits.rows import read_of, statistics

    read = read_of(pa.table({"n": list(range(100))}))
    subject = Subject(
        snapshot_id=1,
        read=lambda _o: read,
        statistics=lambda _o: statistics(read),
        **kept(*[(0, 1, v) for v in history]),
    )
    report = run_audits([trend, RowCount(min=1)], subject)
    assert [r.name for r in report.results] == [trend.name, "row_count"]
    assert report.results[0].passed is passes
    enough = len([v for v in history if isinstance(v, int) and not isinstance(v, bool)]) >= 3
    assert ("not compared" in report.results[0].message) is not enough


def test_a_trend_of_the_share_of_offending_rows() -> None:
    now = AuditResult(name="row_count", severity="warn", passed=False, offending=3, checked=100, message="")
    for most, passes in ((0.5, True), (0.4, False)):
        subject = Subject(
            snapshot_id=1,
            read=lambda _o: pytest.fail("rows were read"),
            statistics=lambda _o: known((100, 0, 0, 0)),
            **kept((2, 100, None), (1, 50, None), (4, 200, None)),
        )
        (found,) = run_audits([Trend("row_count", max_change=most)], subject, earlier=[now]).results
        assert found.passed is passes


def test_a_trend_of_nothing_is_refused() -> None:
    trend = Trend("row_count", max_change=1)
    check_trends([RowCount(min=1), trend], kept=True)
    with pytest.raises(ArgumentError, match="follows 'row_count', which no other audit"):
        check_trends([RowCount(min=1, name="rows"), trend], kept=True)
    with pytest.raises(ArgumentError, match="audit_table is False"):
        check_trends([RowCount(min=1), trend], kept=False)
    with pytest.raises(AuditFailed, match="is no result of this session"):
        only(trend, known())


def test_no_database_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "_connection", lambda *_: pytest.fail("a database was opened"))
    found = only(NullFraction("n", 0), known((5, 0, 1, 2)))
    assert found.passed


def test_statistics_that_cannot_be_read_say_nothing_about_the_data() -> None:
    def broken(_over: str) -> Statistics:
        msg = "file:///warehouse/customer=Jane/x.avro"
        raise FileNotFoundError(msg)

    with pytest.raises(AuditIncomplete) as error:
        only(NullFraction("n", 0), broken)
    assert "Jane" not in str(error.value)
    assert error.value.__cause__ is None
    assert error.value.__context__ is None


@pytest.mark.parametrize(
    ("audit", "says"),
    [
        (NullFraction("nn", 0), "names the column 'nn'"),
        (NullFraction("tags", 0), "of which files keep no count"),
        (ColumnRange("name", 0, 1), "of type string with numbers"),
        (ColumnRange("day", min=NOON), "of type date32.* with times"),
    ],
)
def test_an_audit_that_does_not_fit_is_found_by_the_plan(audit: Audit, says: str) -> None:
    with pytest.raises(AuditFailed, match=says):
        check_audits([audit], SCHEMA)


@pytest.mark.parametrize(
    "make",
    [
        lambda: NullFraction("n", 1.5),
        lambda: NullFraction("n", float("nan")),
        lambda: NullFraction("n", 0, on_unknown="pass"),  # type: ignore[arg-type]
        lambda: NullFraction("n", 0, severity="quarantine"),
        lambda: ColumnRange("n"),
        lambda: ColumnRange("n", 2, 1),
        lambda: ColumnRange("n", "a", "b"),  # type: ignore[arg-type]
        Volume,
        lambda: Volume(min_ratio=2, max_ratio=1),
        lambda: Volume(min_ratio=0.5, last=2),
        lambda: Trend("x"),
        lambda: Trend("x", max_change=1, max_deviations=1),
        lambda: Trend("x", max_change=-1),
        lambda: Trend("", max_change=1),
    ],
)
def test_bad_arguments(make: Any) -> None:
    with pytest.raises(ArgumentError):
        make()


@pytest.mark.parametrize(
    "audit",
    [
        NullFraction("n", 0.25, over="table", on_unknown="warn"),
        ColumnRange("at", NOON, severity="warn"),
        ColumnRange("price", Decimal("1.05"), Decimal("9.10")),
        Volume(min_ratio=0.5, over="partitions", last=7),
        Trend("between(n)", max_deviations=3, severity="ask", min_history=5),
    ],
)
def test_plain_values_and_back(audit: Audit) -> None:
    assert audit_from_dict(audit.as_dict()) == audit
    assert validate_audits([audit.as_dict(), Between("n", 1).as_dict()])[0] == audit
