"""Audits that cannot be run to their end: never a pass, and never a word of what the rows hold."""

from __future__ import annotations

import logging
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airflow_incremental.audits import AcceptedValues, Audit, Between, NotNull, RowCount, SqlCheck, Unique
from airflow_incremental.audits.run import run_audits
from airflow_incremental.core.audit import AuditIncomplete
from airflow_incremental.core.errors import AuditFailed, IncrementalError, PlanExpired
from airflow_incremental.core.reads import ReadPart, SourceRead
from tests.unit.audits.rows import audit, read_of, subject_of

SECRET = "Jane-Doe-4711"
PEOPLE = pa.table(
    {
        "name": [SECRET, SECRET, "x", None],
        "born": ["1970", SECRET, "1980", None],
        "box": [{"name": SECRET}, {"name": SECRET}, None, None],
        "n": [1, 2, 3, 9_223_372_036_854_775_807],
    }
)


def everything_said(error: BaseException) -> str:
    """Return all that a log, a task note or an error tracker can get hold of."""
    said = []
    chain: BaseException | None = error
    while chain is not None:
        said += [str(chain), repr(chain), repr(chain.args), "".join(traceback.format_exception(chain))]
        chain = chain.__cause__ or chain.__context__
    return "\n".join(said)


def test_a_report_holds_no_value_of_a_row(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    report = audit(
        PEOPLE,
        NotNull("name", "box.name"),
        Unique("name"),
        Unique("box", "name"),
        AcceptedValues("name", ["x"]),
        Between("n", max=2),
        RowCount(9),
        SqlCheck("own", "SELECT name, name AS again FROM rows WHERE length(name) > 3"),
    )
    assert all(not r.passed for r in report.results)
    with pytest.raises(AuditFailed) as caught:
        report.raise_if_failed()
    said = f"{report.describe()} {report.to_json()} {report!r} {everything_said(caught.value)} {caplog.text}"
    assert SECRET not in said


@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        ("SELECT * FROM rows WHERE born::INTEGER > 1900", "ConversionException"),
        ("SELECT * FROM rows WHERE strptime(born, '%Y') > '2000-01-01'", "InvalidInputException"),
        ("SELECT * FROM rows WHERE error(name) IS NULL", "InvalidInputException"),
        ("SELECT * FROM rows WHERE regexp_matches('a', name || '(')", "InvalidInputException"),
        ("SELECT * FROM rows WHERE n * n > 5", "OutOfRangeException"),
        ("SELECT * FROM rows WHERE name = (SELECT name FROM rows WHERE n < 3)", "InvalidInputException"),
        ("SELECT * FROM rows WHERE name::DATE < current_date", "ConversionException"),
    ],
)
def test_own_sql_that_stops_on_a_row_fails_without_quoting_it(
    sql: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(AuditFailed) as caught:
        audit(PEOPLE, SqlCheck("own", sql, severity="warn"))
    assert f"audit 'own' stopped on a row with {kind}" in str(caught.value)
    assert "TRY_CAST" in caught.value.hint
    assert SECRET not in everything_said(caught.value) + caplog.text


def test_own_sql_that_reads_values_while_it_is_bound_fails_without_quoting_them() -> None:
    with pytest.raises(AuditFailed, match="audit 'own' is refused by DuckDB: ConversionException") as caught:
        audit(PEOPLE, SqlCheck("own", f"SELECT * FROM rows LIMIT '{SECRET}'::INT"))
    assert SECRET not in everything_said(caught.value)


def in_file(path: Path) -> SourceRead:
    columns = [
        f.with_metadata({"PARQUET:field_id": str(i)}) for i, f in enumerate(PEOPLE.select(["name", "n"]).schema, 1)
    ]
    table = PEOPLE.select(["name", "n"]).cast(pa.schema(columns))
    path.parent.mkdir(parents=True)
    pq.write_table(table, path, compression="none", use_dictionary=False)
    return read_of(table, paths=(str(path),))


CHECKS: list[list[Audit]] = [[NotNull("name", severity="warn")], [RowCount(1)], [SqlCheck("own", "FROM rows")]]


@pytest.mark.parametrize("checks", CHECKS, ids=str)
def test_a_file_that_is_gone_is_worth_a_retry_and_named_without_its_partition(
    checks: list[Audit], tmp_path: Path
) -> None:
    path = tmp_path / f"name={SECRET}" / "00000-1.parquet"
    read = in_file(path)
    path.unlink()
    with pytest.raises(AuditIncomplete) as caught:
        run_audits(checks, subject_of(read))
    assert "1 of 1 data files are not there, such as 00000-1.parquet" in str(caught.value)
    assert caught.value.retryable
    assert SECRET not in everything_said(caught.value)


def test_a_file_that_is_cut_off_or_overwritten_is_no_pass(tmp_path: Path) -> None:
    read = in_file(tmp_path / f"name={SECRET}" / "00000-1.parquet")
    path = tmp_path / f"name={SECRET}" / "00000-1.parquet"
    whole = path.read_bytes()
    start = whole.index(SECRET.encode())
    end = start + len(SECRET)
    for bad in (whole[:-20], b"", whole[:4] + b"\xff" * (end - 4) + whole[end:], whole[:-60] + b"\xff" * 60):
        path.write_bytes(bad)
        with pytest.raises(AuditIncomplete, match="could not") as caught:
            run_audits([NotNull("name")], subject_of(read))
        assert SECRET not in everything_said(caught.value)


def stream_of(*steps: Callable[[], pa.RecordBatch]) -> SourceRead:
    def batches() -> pa.RecordBatchReader:
        return pa.RecordBatchReader.from_batches(PEOPLE.schema, (step() for step in steps))

    return SourceRead(
        name="r", schema=PEOPLE.schema, field_ids=(1, 2, 3, 4), parts=(ReadPart(paths=None, batches=batches),)
    )


def broken(error: Exception) -> Callable[[], pa.RecordBatch]:
    def step() -> pa.RecordBatch:
        raise error

    return step


@pytest.mark.parametrize(
    "error",
    [ValueError(SECRET), FileNotFoundError(f"/t/name={SECRET}/f.parquet"), PlanExpired(SECRET), OSError(SECRET)],
    ids=lambda e: type(e).__name__,
)
@pytest.mark.parametrize("before", [0, 1])
def test_a_stream_that_breaks_is_no_pass(error: Exception, before: int) -> None:
    whole = PEOPLE.to_batches()[0]
    with pytest.raises(AuditIncomplete, match="could not open the written rows") as caught:
        run_audits([RowCount(1)], subject_of(stream_of(*[lambda: whole] * before, broken(error))))
    assert SECRET not in everything_said(caught.value)


def test_a_stream_that_cannot_be_opened_says_what_went_wrong() -> None:
    def batches() -> pa.RecordBatchReader:
        raise PermissionError(SECRET)

    read = SourceRead(
        name="r", schema=PEOPLE.schema, field_ids=(1, 2, 3, 4), parts=(ReadPart(paths=None, batches=batches),)
    )
    with pytest.raises(
        AuditIncomplete, match=r"1 of 1 streams of rows cannot be opened: PermissionError at test_"
    ) as caught:
        run_audits([RowCount(1)], subject_of(read))
    assert SECRET not in everything_said(caught.value)


def test_too_little_memory_says_what_to_raise(tmp_path: Path) -> None:
    wide = pa.table({"t": pa.array([f"{n:0200d}" for n in range(200_000)])})
    check = SqlCheck("own", "SELECT 1 FROM rows HAVING len(list(t)) < 9")
    with pytest.raises(AuditIncomplete, match="could not run audit 'own': OutOfMemoryException") as caught:
        audit(wide, check, memory_limit="30MB", work_dir=tmp_path)
    assert "memory_limit" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


class Alarm(BaseException):
    """What Airflow's timeout raises in the main thread."""


def test_a_timeout_in_the_middle_of_a_query_stops_it_at_once() -> None:
    def ring(_signal: int, _frame: FrameType | None) -> None:
        raise Alarm

    endless = SqlCheck("own", "SELECT count(*) FROM range(1000000000000) a, rows HAVING count(*) < 0")
    before = signal.signal(signal.SIGALRM, ring)
    started = time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    try:
        with pytest.raises(Alarm):
            audit(PEOPLE, endless)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - started < 20
    assert not [t for t in threading.enumerate() if t.name.startswith("duckdb")]


def test_errors_that_are_ours_already_keep_their_words() -> None:
    def batches() -> Iterator[None]:
        raise IncrementalError("the store is down", hint="wait")

    read = SourceRead(
        name="r", schema=PEOPLE.schema, field_ids=(1, 2, 3, 4), parts=(ReadPart(paths=None, batches=batches),)
    )
    with pytest.raises(IncrementalError, match=r"the store is down\. What to do: wait"):
        run_audits([RowCount(1)], subject_of(read))
