"""The audit for sensitive data: what it finds and where, and that nothing it finds is ever said."""

from __future__ import annotations

import json
import logging
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from airflow_incremental.audits import (
    Expectations,
    NotNull,
    PythonCheck,
    SensitiveData,
    SqlCheck,
    Unique,
    audit_from_dict,
    detector,
)
from airflow_incremental.audits.masks import mask
from airflow_incremental.audits.run import check_queries
from airflow_incremental.core.audit import AuditIncomplete
from airflow_incremental.core.errors import ArgumentError, AuditFailed
from airflow_incremental.sessions import steps
from airflow_incremental.sessions.auditing import audit as session_audit
from airflow_incremental.sessions.planner import plan
from airflow_incremental.sessions.process import Session
from tests.support.quarantine import QUARANTINE
from tests.support.world import EVENTS, SOURCE, TARGET, World, create, hour, new_catalog
from tests.unit.audits.rows import audit, only
from tests.unit.audits.test_failing import everything_said

MAIL, CARD, SSN, IBAN = "jane.doe@example.org", "4111 1111 1111 1111", "536-90-4399", "DE89370400440532013000"
# Pieces that no time or number in a log holds by chance.
SECRETS = (MAIL, "jane", "doe@", "example.org", CARD, "4111 1111", SSN, "536-90", "-4399", IBAN, "3704004405")
ROWS = pa.table(
    {
        "id": [1, 2, 3, 4, 5, 6],
        "contact": [MAIL, MAIL, "none", None, "", "at the door"],
        "note": ["fine", f"pay from {IBAN} today", f"card {CARD}", "ok", f"ssn {SSN}, {MAIL}", "ok"],
        "box": [{"in": [{"s": "x"}]}, {"in": [{"s": SSN}, {"s": None}]}, {"in": []}, {"in": None}, None, None],
        "tags": pa.array(
            [[("k", "v")], [(MAIL, "v")], None, [], [("k", MAIL)], [("k", None)]], pa.map_(pa.string(), pa.string())
        ),
    }
)


@pytest.fixture(autouse=True)
def network(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Note every try to reach the network, whatever becomes of it."""
    tried: list[Any] = []

    def refuse(*args: Any, **_: Any) -> None:
        tried.append(args)
        raise OSError

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return tried


def test_what_is_found_is_counted_by_column_and_entity(network: list[Any]) -> None:
    result = only(ROWS, SensitiveData())
    assert result.observed == {
        "contact": {"EMAIL_ADDRESS": 2},
        "note": {"IBAN_CODE": 1, "CREDIT_CARD": 1, "EMAIL_ADDRESS": 1, "US_SSN": 1},
        "box.in[].s": {"US_SSN": 1},
        "tags.key": {"EMAIL_ADDRESS": 1},
        "tags.value": {"EMAIL_ADDRESS": 1},
    }
    assert (result.offending, result.checked, result.passed, result.path, result.kind) == (
        4,
        6,
        False,
        "python",
        "sensitive_data",
    )
    assert result.message.startswith("4 of 6 rows hold sensitive data (contact: EMAIL_ADDRESS 2; note: ")
    assert result.full is not None
    assert result.full["masked"]["contact"] == {"EMAIL_ADDRESS": ["***.***@***.***"]}
    assert network == []


def test_columns_entities_threshold_and_what_is_allowed() -> None:
    assert only(ROWS, SensitiveData(["contact"])).observed == {"contact": {"EMAIL_ADDRESS": 2}}
    assert only(ROWS, SensitiveData(entities=["us_ssn"])).observed == {
        "note": {"US_SSN": 1},
        "box.in[].s": {"US_SSN": 1},
    }
    allowed = SensitiveData(
        ["contact", "note", "box"], allow={"contact": ["EMAIL_ADDRESS"], "note": ["EMAIL_ADDRESS", "IBAN_CODE"]}
    )
    assert only(ROWS, allowed).observed == {"note": {"CREDIT_CARD": 1, "US_SSN": 1}, "box.in[].s": {"US_SSN": 1}}
    assert only(ROWS, SensitiveData(["box.in"], entities=["EMAIL_ADDRESS"])).passed
    # What a check digit confirms is sure; a pattern alone is not.
    assert only(ROWS, SensitiveData(["note"], score_threshold=0.9, entities=["CREDIT_CARD"])).offending == 1
    assert only(ROWS, SensitiveData(["note"], score_threshold=0.9)).observed == {
        "note": {"IBAN_CODE": 1, "CREDIT_CARD": 1, "EMAIL_ADDRESS": 1}
    }
    phone = pa.table({"t": ["call (212) 555-2368 now", "no"]})
    assert only(phone, SensitiveData(entities=["PHONE_NUMBER"], score_threshold=0.4)).offending == 1
    assert only(ROWS.slice(0, 0), SensitiveData()).passed
    assert only(ROWS.select(["id"]), SensitiveData()).passed


def test_a_sample_is_the_same_each_time_and_says_so() -> None:
    rows = pa.table({"n": range(5000), "t": [MAIL if n % 2 else f"{n}" for n in range(5000)]})
    one = only(rows, SensitiveData(sample=100))
    assert (one.checked, 20 < one.offending < 80) == (100, True)
    assert "(5,000 were written; the others were not looked at)" in one.message
    assert only(rows.take(list(reversed(range(5000)))), SensitiveData(sample=100)) == one
    assert only(rows, SensitiveData(sample=9999)) == only(rows, SensitiveData())


def test_more_texts_than_a_batch_holds(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr("airflow_incremental.audits.findings.BATCH", 64)
    monkeypatch.setattr("airflow_incremental.audits.findings._PROGRESS", 0.0)
    rows = pa.table({"t": [f"user{n}@example.org" if n % 3 == 0 else f"text {n}" for n in range(1000)]})
    assert only(rows, SensitiveData()).offending == 334
    assert "960 of 1,000 different texts of t looked at" in caplog.text
    assert "example" not in caplog.text


def said_by(report: Any, caplog: pytest.LogCaptureFixture) -> str:
    with pytest.raises(AuditFailed) as caught:
        report.raise_if_failed()
    return (
        f"{report.describe()} {json.dumps(report.to_json())} {report!r} {everything_said(caught.value)} {caplog.text}"
    )


@pytest.mark.parametrize("samples", [0, 5])
def test_nothing_that_is_found_is_ever_said(samples: int, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    suite = {
        "name": "suite",
        "expectations": [
            {"type": "expect_column_values_to_be_unique", "kwargs": {"column": "contact"}},
            {"type": "expect_column_value_lengths_to_be_between", "kwargs": {"column": "note", "max_value": 5}},
            {"type": "expect_column_distinct_values_to_be_in_set", "kwargs": {"column": "note", "value_set": ["ok"]}},
            {
                "type": "expect_column_most_common_value_to_be_in_set",
                "kwargs": {"column": "contact", "value_set": [""]},
            },
        ],
    }
    report = audit(
        ROWS,
        SensitiveData(),
        NotNull("contact", "box"),
        Unique("contact"),
        SqlCheck("own", "SELECT id, upper(note) || '!' AS id2, [contact] AS c, {'a': note} AS s FROM rows"),
        PythonCheck(lambda rows, _: rows.filter("id > 1"), name="mine"),
        Expectations(suite, data_docs=tmp_path),
        samples=samples,
    )
    assert not any(r.passed for r in report.results)
    assert all(len(r.samples) == (min(samples, r.offending)) for r in report.results[:5])
    pages = [path.read_text() for path in tmp_path.rglob("*.html")]
    assert pages
    said = f"{said_by(report, caplog)} {' '.join(pages)}".lower()
    assert [secret for secret in SECRETS if secret.lower() in said] == []
    if samples:
        assert report.results[0].samples[0]["contact"] == "***.***@***.***"
        assert {row["id"] for row in report.results[2].samples} == {1, 2}, "columns without findings are shown"


def test_values_at_which_a_recogniser_stumbles_are_not_said(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    odd = pa.table(
        {"t": ["DE8937040044053201300Z", "DE89 3704 0044 0532 013\u0660 00", "\u0664" + "\u0661" * 15, "\x00 \ud7ff"]}
    )
    only(odd, SensitiveData())
    assert "3704" not in caplog.text

    def stumble(*_: Any) -> None:
        logging.getLogger("presidio-analyzer").error("could not validate %s", MAIL)
        raise ValueError(MAIL)

    monkeypatch.setattr(detector.Detector, "find", stumble)
    with pytest.raises(AuditIncomplete, match="stopped in column 't' with ValueError at test_sensitive") as caught:
        only(odd, SensitiveData())
    assert MAIL not in everything_said(caught.value) + caplog.text


def test_a_pattern_that_takes_too_long_is_no_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detector, "_TIMEOUT", 0.001)
    slow = pa.table({"t": ["a" * 100_000 + "@" + "b." * 100_000 + "!"] * 3})
    with pytest.raises(AuditIncomplete, match="stopped in column 't' with TimeoutError"):
        only(slow, SensitiveData(entities=["EMAIL_ADDRESS"]))

    def give_up(*_: Any) -> list[Any]:
        logging.getLogger("presidio-analyzer").warning("Regex pattern '%s' timed out after %s seconds", "p", 60)
        return []

    monkeypatch.setattr(detector.Detector, "find", give_up)
    with pytest.raises(AuditIncomplete, match="gave up"):
        only(slow, SensitiveData())


@pytest.mark.parametrize(
    ("check", "words"),
    [
        (SensitiveData(entities=["PERSON"]), ["'PERSON'", "EMAIL_ADDRESS", "take a language model"]),
        (SensitiveData(allow={"note": ["E_MAIL"]}), ["'E_MAIL'", "one of ABA_ROUTING_NUMBER"]),
        (SensitiveData(entities=["PHONE_NUMBER"]), ["score_threshold=0.5", "at most 0.4"]),
    ],
    ids=["person", "typo", "threshold"],
)
def test_what_the_detector_does_not_know_is_found_by_the_plan(check: SensitiveData, words: list[str]) -> None:
    with pytest.raises(ArgumentError) as caught:
        check_queries([check], ROWS.schema)
    assert [word for word in words if word not in str(caught.value)] == []


def test_a_detector_that_is_not_installed_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(ArgumentError, match=r"pip install 'airflow-incremental\[sensitive\]'"):
        check_queries([SensitiveData()], ROWS.schema)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"columns": "note"}, "columns is 'note'"),
        ({"columns": []}, "no column"),
        ({"entities": []}, "is empty"),
        ({"entities": [7]}, "holds 7"),
        ({"allow": ["note"]}, "allow of audit 'sensitive_data'"),
        ({"sample": 0}, "sample of audit"),
        ({"sample": True}, "sample of audit"),
        ({"score_threshold": 0}, "score_threshold of audit"),
        ({"score_threshold": "high"}, "score_threshold of audit"),
        ({"sample": 9, "severity": "quarantine"}, "what a sample leaves out would be published"),
        ({"severity": "maybe"}, "the severity of audit"),
    ],
    ids=str,
)
def test_wrong_arguments(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        SensitiveData(**arguments)


def test_columns_that_do_not_fit() -> None:
    with pytest.raises(AuditFailed, match="column 'id', which holds no text"):
        only(ROWS, SensitiveData(["note", "id"]))
    with pytest.raises(AuditFailed, match="names the column 'nota'"):
        only(ROWS, SensitiveData(["nota"]))
    with pytest.raises(AuditFailed, match="allows entities in 'note', where it does not look"):
        only(ROWS, SensitiveData(["contact"], allow={"note": ["US_SSN"]}))


def test_it_survives_serialisation() -> None:
    check = SensitiveData(
        ["note", "box"], entities={"US_SSN", "CRYPTO"}, allow={"note": ("CRYPTO",)}, sample=10, severity="ask", name="s"
    )
    plain = json.loads(json.dumps(check.as_dict()))
    assert audit_from_dict(plain) == check
    assert plain["entities"] == ["CRYPTO", "US_SSN"]
    assert audit_from_dict({"type": "sensitive_data"}) == SensitiveData()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (MAIL, "***.***@***.***"),
        (SSN, "#-#-#"),
        ("Ünï¢ødé_9日本語", "***#***"),
        ("p$%w&d", "***"),
        ("1.2 " * 30, "#.# " * 10 + "..."),
    ],
)
def test_masks(text: str, shown: str) -> None:
    assert mask(text) == shown


def test_rows_with_sensitive_data_can_be_put_aside(tmp_path: Path) -> None:
    world = World(home=tmp_path)
    schema = pa.schema([*world.target_schema, ("note", pa.string())])
    create(new_catalog(tmp_path), SOURCE, EVENTS, ())
    create(new_catalog(tmp_path), TARGET, schema, world.partitioning)
    world.land(0.1, 0.2, 1.5, 2.5)
    sql = (
        f"SELECT id, ts, region, v * 10 AS v10, CASE WHEN id % 2 = 0 THEN 'to {MAIL}' ELSE 'x' END AS note FROM events"
    )
    finished = steps.run(world.process(transform=sql, audits=(SensitiveData(severity="quarantine", name="pii"),)))
    assert finished.verdict == "warned"
    notes = world.target.scan().to_arrow().column("note").to_pylist()
    assert notes == ["x", "x"]
    aside = world.catalog.load_table(QUARANTINE).scan().to_arrow().to_pylist()
    assert sorted((row["id"], row["note"], *row["quarantine_reasons"]) for row in aside) == [
        (2, f"to {MAIL}", "pii"),
        (4, f"to {MAIL}", "pii"),
    ]


def test_what_is_audited_again_since_main_moved_is_masked_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    world = World(home=tmp_path).set_up()
    world.land(0.1, 0.2)
    checks = (SensitiveData(severity="warn"), Unique("region", over="table", severity="warn"))
    sql = f"SELECT id, ts, '{MAIL}' AS region, v * 10 AS v10 FROM events"
    session = plan(world.process(transform=sql, audits=checks, samples=5))
    assert isinstance(session, Session)
    report = session_audit(session, steps.load(session))
    world.target.append(pa.table({"id": [9], "ts": [hour(9)], "region": [MAIL], "v10": [1]}, world.target_schema))
    steps.publish(session, report)
    assert "3 of 3 rows share their key" in caplog.text
    assert "'region': '***.***@***.***'" in caplog.text
    assert MAIL not in caplog.text.replace(sql, "")


def test_only_the_audit_itself_loads_the_detector() -> None:
    code = (
        "import sys, airflow_incremental.audits.run\n"
        "assert not {'presidio_analyzer', 'spacy', 'tldextract'} & set(sys.modules), 'loaded'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
