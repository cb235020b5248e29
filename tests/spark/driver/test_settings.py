"""What the driver sets in a session, and how it finds its job."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from airflow_incremental_spark import DriverError
from airflow_incremental_spark.document import path_in, read_document
from airflow_incremental_spark.settings import configure
from tests.spark.driver.lake import Lake


def test_secrets_of_the_catalog_are_hidden(lake: Lake) -> None:
    conf = {**lake.catalog["conf"], "credential": "open-sesame", "s3.secret-access-key": "abracadabra"}
    document = {"catalog": {"name": "vault", "conf": conf}}
    for _ in range(2):
        configure(lake.spark, document)
    shown = {r["key"]: r["value"] for r in lake.spark.sql("SET").collect()}
    assert shown["spark.sql.catalog.vault.credential"] == "*********(redacted)"
    assert not {"open-sesame", "abracadabra"} & set(shown.values())
    assert lake.spark.conf.get("spark.sql.redaction.options.regex").count("vault") == 1
    assert [r[0] for r in lake.spark.sql("SELECT '${spark.sql.catalog.vault.credential}'").collect()] == [
        "${spark.sql.catalog.vault.credential}"
    ]


def test_settings_of_the_cluster_do_not_change_what_is_written(lake: Lake) -> None:
    lake.create("dst", "id bigint, ts timestamp", properties="'write.wap.enabled'='true'")
    lake.insert("dst", "VALUES (0L, NULL)")
    lake.branch("dst")
    lake.spark.conf.set("spark.wap.branch", "elsewhere")
    lake.spark.conf.set("spark.sql.session.timeZone", "America/New_York")
    lake.run(
        lake.document(
            "dst",
            "SELECT 1L AS id, TIMESTAMP '1970-01-01 00:00:00' AS ts",
            session_conf={"spark.sql.ansi.enabled": "true"},
        )
    )
    frame = lake.spark.table(lake.name("dst.branch_attempt")).where("id = 1")
    assert [r[0] for r in frame.selectExpr("unix_micros(ts)").collect()] == [0]


def test_a_setting_that_spark_does_not_take(lake: Lake) -> None:
    document = {"catalog": lake.catalog, "session_conf": {"spark.sql.warehouse.dir": "elsewhere"}}
    with pytest.raises(DriverError, match=r"Spark does not take the setting spark\.sql\.warehouse\.dir"):
        configure(lake.spark, document)


def test_the_document_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert path_in(["--mine", "--job", "a/b.json", "x"]) == "a/b.json"
    assert path_in(["--job=a/b.json"]) == "a/b.json"
    with pytest.raises(DriverError, match="was started without --job"):
        path_in(["--job"])
    job = tmp_path / "job.json"
    job.write_text(json.dumps({"version": 1}))
    assert read_document(str(job)) == {"version": 1}
    monkeypatch.chdir(tmp_path)
    assert read_document(f"{os.sep}nowhere{os.sep}job.json") == {"version": 1}
    with pytest.raises(DriverError, match=r"the job document 'other\.json' is not on the driver"):
        read_document(f"{os.sep}nowhere{os.sep}other.json")
