from __future__ import annotations

import stat
from pathlib import Path

import pytest

from airflow_incremental.core.errors import ArgumentError, TransformError
from airflow_incremental.spark.packages import SparkVersion, coordinates, installed_version

RUNTIME = "org.apache.iceberg:iceberg-spark-runtime-{}:1.11.0"


@pytest.mark.parametrize(
    ("text", "runtime"),
    [
        ("3.5", "3.5_2.12"),
        ("3.5.6", "3.5_2.12"),
        ("3.5_2.13", "3.5_2.13"),
        ("4.0", "4.0_2.13"),
        ("4.1.4", "4.1_2.13"),
        ("4.1_2.13", "4.1_2.13"),
    ],
)
def test_the_runtime_fits_spark_and_scala(text: str, runtime: str) -> None:
    assert coordinates(SparkVersion.parse(text), kind="rest", uri="http://x", storage=()) == (RUNTIME.format(runtime),)


@pytest.mark.parametrize("text", ["3.4", "4.2", "4.0_2.12", "2.4"])
def test_what_iceberg_has_no_runtime_for_is_refused_with_what_it_has(text: str) -> None:
    with pytest.raises(ArgumentError, match=r"3\.5 \(Scala 2\.12 or 2\.13\), 4\.0 \(Scala 2\.13\), 4\.1"):
        SparkVersion.parse(text)


def test_storage_and_database_bring_their_own() -> None:
    version = SparkVersion.parse("4.1")
    found = coordinates(version, kind="jdbc", uri="jdbc:postgresql://db/lake", storage=("s3", "gcs"))
    assert found[1:] == (
        "org.apache.iceberg:iceberg-gcp-bundle:1.11.0",
        "org.apache.iceberg:iceberg-aws-bundle:1.11.0",
        "org.postgresql:postgresql:42.7.7",
    )
    assert coordinates(version, kind="glue", uri="", storage=())[1:] == (
        "org.apache.iceberg:iceberg-aws-bundle:1.11.0",
    )


BANNER = r"""
Welcome to
      ____              __
     / __/__  ___ _____/ /__
    _\ \/ _ \/ _ `/ __/  '_/
   /___/ .__/\_,_/_/ /_/\_\   version 3.5.6
      /_/

Using Scala version 2.12.18, OpenJDK 64-Bit Server VM, 17.0.15
"""


def program(folder: Path, text: str) -> str:
    path = folder / "spark-submit"
    path.write_text(f"#!/bin/sh\necho x >> {folder}/calls\n{text}\n", encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_spark_submit_is_asked_once(tmp_path: Path) -> None:
    asked = program(tmp_path, f"cat >&2 <<'EOF'\n{BANNER}\nEOF")
    for _ in range(2):
        assert installed_version(asked, {}) == SparkVersion(spark="3.5", scala="2.12")
    assert (tmp_path / "calls").read_text() == "x\n"
    installed_version(asked, {"JAVA_HOME": "/elsewhere"})
    assert (tmp_path / "calls").read_text() == "x\nx\n"


def test_it_is_found_on_the_path_of_the_task(tmp_path: Path) -> None:
    program(tmp_path, f"cat <<'EOF'\n{BANNER.replace('3.5.6', '4.0.1').replace('2.12', '2.13')}\nEOF")
    assert installed_version("spark-submit", {"PATH": f"{tmp_path}:/usr/bin:/bin"}).spark == "4.0"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("echo 'JAVA_HOME is not set' >&2; exit 1", "no Java on the worker"),
        ("echo 'odd' >&2; exit 3", "--version ended with 3: odd"),
        ("exit 0", "--version ended with 0: it said nothing"),
    ],
)
def test_one_that_does_not_start_says_why(tmp_path: Path, text: str, found: str) -> None:
    with pytest.raises(TransformError, match=found):
        installed_version(program(tmp_path, text), {})


def test_one_that_is_too_new_or_not_there(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"Spark is 4\.2"):
        installed_version(
            program(tmp_path, f"cat <<'EOF'\n{BANNER.replace('3.5.6', '4.2.0').replace('2.12', '2.13')}\nEOF"), {}
        )
    with pytest.raises(TransformError, match="the program 'spark-submit' is not there"):
        installed_version("spark-submit", {"PATH": str(tmp_path / "empty")})
