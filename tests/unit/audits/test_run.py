"""Running audits: one pass, messages, columns, own SQL, sample rows."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airflow_incremental.audits import AcceptedValues, Audit, Between, NotNull, RowCount, SqlCheck, Unique, query, run
from airflow_incremental.audits.compile import measures_of
from airflow_incremental.audits.run import run_audits
from airflow_incremental.core.audit import AuditIncomplete
from airflow_incremental.core.errors import ArgumentError, AuditFailed
from airflow_incremental.engines.relations import bind, open_connection
from tests.unit.audits.rows import SNAPSHOT, audit, only, read_of, subject_of

UTC = dt.timezone.utc
FLIGHTS = pa.table(
    {
        "id": [1, 2, 3, 3, None],
        "carrier": ["AA", "UA", "UA", "ZZ", None],
        "delay": [0.5, -3.0, float("nan"), 900.0, None],
        "left_at": pa.array(
            [dt.datetime(2013, 1, 1, hour, tzinfo=UTC) for hour in range(4)] + [None], pa.timestamp("us", "UTC")
        ),
        "plane": [{"tail": "N1"}, {"tail": None}, None, {"tail": "N2"}, {"tail": "N3"}],
    }
)
PASSING: list[Audit] = [
    NotNull("carrier", severity="warn"),
    Unique("id", "carrier"),
    Unique("left_at"),
    AcceptedValues("carrier", ["AA", "UA", "ZZ"]),
    Between("id", 1, 3),
    RowCount(1, 5),
]


class Watched:
    """A connection that notes the statements over the audited rows."""

    def __init__(self, con: Any, seen: list[str]) -> None:
        self._con, self._seen = con, seen

    def execute(self, sql: str, *values: Any) -> Any:
        self._seen.append(sql)
        return self._con.execute(sql, *values)

    def sql(self, sql: str, **options: Any) -> Any:
        self._seen.append(sql)
        return self._con.sql(sql, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._con, name)


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the statements that are run over the rows once they are bound."""
    seen: list[str] = []
    monkeypatch.setattr(run, "open_connection", lambda *where, **how: Watched(open_connection(*where, **how), seen))
    monkeypatch.setattr(query, "bind", lambda con, read: bind(con._con, read))
    return seen


def test_all_built_in_audits_are_one_statement(statements: list[str]) -> None:
    assert audit(FLIGHTS, *PASSING).verdict == "warned"
    assert len(statements) == 1
    assert statements[0].count("FROM rows") == 1


def test_the_size_of_groups_of_duplicates_is_one_more_statement_and_only_when_there_are_some(
    statements: list[str],
) -> None:
    audit(FLIGHTS, Unique("id"), Unique("carrier"), Unique("delay"), NotNull("id"))
    assert len(statements) == 2


def test_each_sql_check_is_bound_and_counted(statements: list[str]) -> None:
    audit(FLIGHTS, *PASSING, SqlCheck("a", "FROM rows WHERE id > 9"), SqlCheck("b", "FROM rows WHERE id > 8"))
    assert [s.partition(" ")[0] for s in statements] == ["SELECT", "CREATE", "SELECT", "CREATE", "SELECT"]


def test_samples_cost_a_statement_for_each_failed_audit_only(statements: list[str]) -> None:
    audit(FLIGHTS, NotNull("id"), Between("id", 1), AcceptedValues("carrier", ["AA"]), RowCount(9), samples=2)
    assert len(statements) == 3


def test_a_stream_of_rows_is_opened_once_however_many_audits_there_are() -> None:
    opened: list[None] = []
    read = read_of(FLIGHTS, opened=lambda: opened.append(None))
    run_audits([*PASSING, Unique("id"), SqlCheck("own", "FROM rows")], subject_of(read))
    assert len(opened) == 1


def test_without_audits_nothing_is_read() -> None:
    def refuse() -> None:
        raise AssertionError

    report = run_audits([], subject_of(read_of(FLIGHTS, opened=refuse)))
    assert (report.verdict, report.rows, report.results) == ("passed", None, ())


def test_rows_of_several_parts_and_of_files_are_one_relation(tmp_path: Path) -> None:
    report = run_audits([Unique("id"), RowCount(10)], subject_of(read_of(FLIGHTS, FLIGHTS)))
    assert [r.offending for r in report.results] == [8, 0]
    path = str(tmp_path / "a b'c.parquet")
    columns = [f.with_metadata({"PARQUET:field_id": str(i)}) for i, f in enumerate(FLIGHTS.drop(["plane"]).schema, 1)]
    table = FLIGHTS.drop(["plane"]).cast(pa.schema(columns))
    pq.write_table(table, path)
    report = run_audits([Unique("id"), RowCount(5)], subject_of(read_of(table, paths=(path,))))
    assert [r.offending for r in report.results] == [2, 0]


def test_results_keep_the_order_the_author_gave_them() -> None:
    report = audit(FLIGHTS, SqlCheck("first", "FROM rows"), RowCount(1), SqlCheck("third", "FROM rows"), NotNull("id"))
    assert [r.name for r in report.results] == ["first", "row_count", "third", "not_null(id)"]
    assert report.snapshot_id == SNAPSHOT


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (NotNull("id"), "1 of 5 rows are null"),
        (NotNull("id", "plane.tail"), "3 of 5 rows are null (id: 1, plane.tail: 2)"),
        (Unique("id"), "2 of 4 rows share their key with another row (1 with a null in it not looked at)"),
        (AcceptedValues("carrier", ["AA", "ZZ"]), "2 of 4 rows are none of 'AA', 'ZZ'"),
        (AcceptedValues("id", range(1, 9)), "0 of 4 rows are none of 1, 2, 3, 4, 5 and 3 more"),
        (Between("delay", 0, 60, inclusive="left"), "3 of 4 rows are not in [0, 60)"),
        (Between("delay", Decimal("-9.5")), "1 of 4 rows are not >= -9.5"),
        (Between("delay", max=60, inclusive="neither"), "2 of 4 rows are not < 60"),
        (Between("left_at", dt.datetime(2013, 1, 1, 1, tzinfo=UTC)), "1 of 4 rows are not >= 2013-01-01T01:00:00Z"),
        (RowCount(10), "5 rows, expected at least 10"),
        (RowCount(1, 4), "5 rows, expected at least 1 and at most 4"),
        (SqlCheck("own", "SELECT carrier FROM rows WHERE id = 3"), "its query over 5 rows returned 2"),
    ],
)
def test_messages_say_how_many_of_how_many(check: Audit, message: str) -> None:
    assert only(FLIGHTS, check).message == message


ODD = ["plain", 'quo"te', "apo'strophe", "semi;colon--", "a.b", "$1", "tab\there", "rows", "select", "ü 😀", "n"]


@pytest.mark.parametrize("column", ODD)
def test_column_names_mean_what_they_say(column: str) -> None:
    table = pa.table({c: [1, None] if c == column else [5, 5] for c in ODD})
    inner = pa.table({"st.ruct": table.to_pylist()})
    row: dict[str, Any] = {**dict.fromkeys(ODD, 5), column: None}
    for rows, path, sample in ((table, column, row), (inner, f"st.ruct.{column}", {"st.ruct": row})):
        report = audit(rows, NotNull(path), Unique(path), Between(path, 1, 1), AcceptedValues(path, [1]), samples=1)
        assert [(r.offending, r.checked) for r in report.results] == [(1, 2), (0, 1), (0, 1), (0, 1)]
        assert report.results[0].samples == (sample,)


def test_an_unknown_column_names_the_known_ones() -> None:
    with pytest.raises(AuditFailed) as caught:
        only(FLIGHTS, NotNull("carier"))
    assert str(caught.value) == (
        "audit 'not_null(carier)' names the column 'carier', which the written rows do not have. "
        "Expected: one of id, carrier, delay, left_at, plane, plane.tail. What to do: did you mean 'carrier'? "
        "correct the audit; elements of lists and maps can only be reached by an SqlCheck."
    )


def test_a_long_list_of_columns_is_cut() -> None:
    with pytest.raises(AuditFailed, match="c38, c39 and 20 more"):
        only(pa.table({f"c{n}": [1] for n in range(60)}), NotNull("other"))


@pytest.mark.parametrize(
    ("check", "words"),
    [
        (NotNull("Carrier"), ["'Carrier'", "did you mean 'carrier'"]),
        (NotNull("plane.tale"), ["'plane.tale'", "'plane.tail'"]),
        (NotNull("carrier.x"), ["'carrier.x'"]),
        (Between("carrier", 1), ["'carrier' of type string with numbers", "Expected: strings"]),
        (AcceptedValues("id", ["1"]), ["type int64 with strings", "Expected: numbers"]),
        (AcceptedValues("id", [True]), ["with booleans"]),
        (Between("left_at", dt.date(2013, 1, 1)), ["timestamp[us, tz=UTC] with dates", "Expected: times"]),
        (AcceptedValues("plane", ["N1"]), ["struct<tail: string> with strings", "SqlCheck"]),
    ],
)
def test_an_audit_that_does_not_fit_the_rows_fails_even_if_it_only_warns(check: Audit, words: list[str]) -> None:
    check = type(check).from_fields({k: v for k, v in check.as_dict().items() if k != "type"} | {"severity": "warn"})
    with pytest.raises(AuditFailed) as caught:
        audit(FLIGHTS, RowCount(1), check)
    assert [w for w in words if w not in str(caught.value)] == []
    with pytest.raises(AuditFailed):  # and can be known before anything is loaded
        measures_of([check], FLIGHTS.schema)


def test_columns_that_sql_takes_for_one_are_refused() -> None:
    with pytest.raises(AuditFailed, match=r"'A', which differs from 'a' only in upper and lower case"):
        only(pa.table({"a": [1], "A": [None]}), NotNull("A"))
    with pytest.raises(AuditFailed, match=r"'s\.A', which differs from 'a'"):
        only(pa.table({"s": [{"a": 1, "A": None}]}), NotNull("s.A"))
    with pytest.raises(AuditFailed, match="no audit can run over the written rows"):
        only(pa.table({"a": [1], "A": [1], "b": [1]}), NotNull("b"))
    with pytest.raises(AuditFailed, match="a name with a dot in it and a field of a struct"):
        only(pa.table({"a.b": [1], "a": [{"b": 2}]}), NotNull("a.b"))


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM rows WHERE id = 3;",
        "SELECT * FROM rows WHERE id = 3 -- the end",
        "FROM rows WHERE id = 3; -- the end",
        "WITH r AS (FROM rows) SELECT a.*, b.id FROM r a JOIN r b USING (delay) WHERE a.id = 3",
        "SELECT id FROM rows GROUP BY id HAVING count(*) > 1 UNION ALL SELECT 7",
        "SELECT * FROM rows WHERE plane.tail LIKE 'N%' AND delay > 0",
        "SELECT * FROM rows WHERE 'a;b' <> '--' AND left_at >= TIMESTAMPTZ '2013-01-01 02:00:00+00'",
    ],
)
def test_own_sql_in_many_shapes(sql: str) -> None:
    assert only(FLIGHTS, SqlCheck("own", sql)).offending == 2


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("SELECT nope FROM rows", ['"nope"', "id, carrier, delay"]),
        ("SELECT * FROM flights", ["flights"]),
        ("SELEC", ["syntax error"]),
        ("SELECT 1) UNION (SELECT 2", ["syntax error"]),
        ("SELECT 1; SELECT 2", ["2 statements", "split it"]),
        ("-- nothing", ["no statements"]),
        ("DELETE FROM rows", ["type DELETE"]),
        ("CREATE TABLE x AS SELECT 1", ["type CREATE"]),
        ("SELECT * FROM rows WHERE id = $id", ["a parameter", "templates"]),
    ],
)
def test_own_sql_that_is_no_select_over_the_rows(sql: str, words: list[str]) -> None:
    with pytest.raises(AuditFailed) as caught:
        audit(FLIGHTS, SqlCheck("own", sql, severity="warn"))
    assert [w for w in [*words, "audit 'own'"] if w not in str(caught.value)] == []
    assert "TEMP VIEW" not in str(caught.value)


def test_samples_are_offending_rows_as_plain_values() -> None:
    report = audit(
        FLIGHTS,
        NotNull("id"),
        Unique("id"),
        Between("delay", 0),
        RowCount(9),
        SqlCheck("own", "SELECT carrier, left_at FROM rows WHERE delay < 0"),
        NotNull("id", "carrier", name="two"),
        samples=2,
    )
    null, double, outside, count, own, _ = (r.samples for r in report.results)
    assert null == ({"id": None, "carrier": None, "delay": None, "left_at": None, "plane": {"tail": "N3"}},)
    assert [row["id"] for row in double] == [3, 3]
    assert sorted(str(row["delay"]) for row in outside) == ["-3.0", "nan"]
    assert count == ()
    assert own == ({"carrier": "UA", "left_at": "2013-01-01T01:00:00Z"},)
    assert json.loads(json.dumps(report.to_json(), allow_nan=False)) == report.to_json()


def test_samples_of_every_type_are_json_and_long_text_is_cut() -> None:
    values: dict[str, pa.Array] = {
        "n": pa.array([None], pa.int64()),
        "money": pa.array([Decimal("1.20")], pa.decimal128(10, 2)),
        "day": pa.array([dt.date(2024, 1, 31)]),
        "local": pa.array([dt.datetime(2024, 1, 31, 5)], pa.timestamp("us")),  # noqa: DTZ001
        "clock": pa.array([dt.time(5, 30)], pa.time64("us")),
        "raw": pa.array([b"\x00\xff"]),
        "uuid": pa.array([b"0123456789abcdef"], pa.uuid()),
        "tags": pa.array([["a", None]]),
        "map": pa.array([[("k", 1.5)]], pa.map_(pa.string(), pa.float64())),
        "text": pa.array(["x" * 1000]),
        "flag": pa.array([True]),
    }
    (row,) = only(pa.table(values), NotNull("n"), samples=5).samples
    assert row == {
        "n": None,
        "money": "1.20",
        "day": "2024-01-31",
        "local": "2024-01-31T05:00:00",
        "clock": "05:30:00",
        "raw": "00ff",
        "uuid": "30313233-3435-3637-3839-616263646566",
        "tags": ["a", None],
        "map": [["k", 1.5]],
        "text": "x" * 200 + "...",
        "flag": True,
    }


@pytest.mark.parametrize("samples", [-1, 101, 1.5, True, "2"])
def test_a_wrong_number_of_samples(samples: Any) -> None:
    with pytest.raises(ArgumentError, match="samples is"):
        audit(FLIGHTS, RowCount(1), samples=samples)


def test_rows_that_change_between_two_reads_are_no_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "sharing", lambda _keys, _rows: "SELECT 0")
    with pytest.raises(AuditIncomplete, match="a second time gave other rows"):
        audit(FLIGHTS, Unique("id"))


def test_the_working_directory_is_made_and_left_empty(tmp_path: Path) -> None:
    where = tmp_path / "deep" / "down"
    audit(FLIGHTS, Unique("id"), work_dir=where, memory_limit="200MB")
    assert list(where.iterdir()) == []
