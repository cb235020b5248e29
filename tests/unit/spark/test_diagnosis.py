"""Real logs of spark-submit, shortened, and what is made of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from airflow_incremental.spark.diagnosis import Transcript, diagnose, diagnose_report, diagnose_transcript

LOGS = Path(__file__).parent / "logs"

#: Log -> words of the cause and of the hint, and whether a retry may help.
KNOWN = {
    "catalog_forbidden": (["Spark may not do that", "ForbiddenException: Forbidden"], "catalog_conf", False),
    "catalog_refused": (["does not answer", "http://127.0.0.1:9 failed: Connection refused"], "localhost", True),
    "catalog_unauthorized": (
        ["NotAuthorizedException: Not authorized"],
        "credentials of the Iceberg connection",
        False,
    ),
    "catalog_unknown_host": (["no-such-host.invalid"], "catalog_conf", True),
    "java_home_wrong": (["JAVA_HOME is wrong", "/nonexistent/bin/java"], "env_vars={'JAVA_HOME'", False),
    "java_memory": (["Java does not start", "-Xmx1zz"], "driver_memory", False),
    "java_too_new": (["Java is too new for this Spark", "getSubject"], "JAVA_HOME", False),
    "java_too_old": (["Java is too old", "class file version 69", "up to 61"], "JAVA_HOME", False),
    "jdbc_no_driver": (["no JDBC driver for jdbc:postgresql"], "packages='auto'", False),
    "jdbc_refused": (["Connection to 127.0.0.1:9 refused"], "localhost", True),
    "missing_runtime": (
        ["Iceberg's Spark runtime is not there", "org.apache.iceberg.spark.SparkCatalog"],
        "packages",
        False,
    ),
    "no_application": (["the application '/opt/jobs/nope.py' is not there"], "absolute path", False),
    "no_java": (["no Java on the worker", "JAVA_HOME is not set"], "JAVA_HOME", False),
    "no_master": (["Spark's master 127.0.0.1:9 does not answer"], "Spark connection", True),
    "no_module": (["No module named 'no_such_module'"], "py_files", False),
    "no_worker_python": (["no program '/nonexistent/python3'"], "PYSPARK_PYTHON", False),
    "out_of_memory": (["ran out of memory", "Java heap space"], "driver_memory", True),
    "python_mismatch": (["different versions of Python"], "PYSPARK_DRIVER_PYTHON", False),
    "runtime_of_3.5_on_4.1": (
        ["built for another Spark", "NoSuchMethodError", "SQLContext.conf()"],
        "packages='auto'",
        False,
    ),
    "runtime_of_4.1_on_3.5": (["built for another Spark", "ProcedureCatalog"], "packages='auto'", False),
    "unresolved_package": (["iceberg-spark-runtime-4.1_2.13;9.9.9 could not be had"], "repositories", True),
}


def log_of(name: str) -> list[str]:
    return (LOGS / f"{name}.txt").read_text(encoding="utf-8").splitlines()


def test_every_log_is_tested() -> None:
    assert sorted(KNOWN) == sorted(path.stem for path in LOGS.iterdir())


@pytest.mark.parametrize("name", KNOWN)
def test_a_log_comes_down_to_one_cause(name: str) -> None:
    causes, hint, retryable = KNOWN[name]
    error = diagnose(log_of(name)).error()
    for word in causes:
        assert word in error.found
    assert "\n" not in error.found
    assert hint in error.hint
    assert error.retryable is retryable


def driver_line(**report: str) -> str:
    return "airflow-incremental: " + json.dumps({"driver": "failed", **report})


def test_the_drivers_own_error_comes_first_whatever_else_the_log_says() -> None:
    said = driver_line(error="ValueError: no such flight", where="transform", hint="correct the function")
    error = diagnose([*log_of("out_of_memory"), said, *log_of("catalog_refused")]).error()
    assert str(error).startswith("the driver failed in the transform: ValueError: no such flight.")
    assert error.hint == "correct the function"
    assert error.retryable


def test_a_driver_that_has_no_hint_gets_the_one_of_the_symptom() -> None:
    error = diagnose([driver_line(error="java.net.UnknownHostException: lake.internal", where="read")]).error()
    assert error.found == (
        "the driver failed while it read the sources: java.net.UnknownHostException: lake.internal. That means: a host of the "
        "catalog or its storage is not known to Spark: UnknownHostException: lake.internal"
    )
    assert "catalog_conf" in error.hint
    assert error.retryable


@pytest.mark.parametrize(
    "text",
    [
        "AnalysisException: [TABLE_OR_VIEW_NOT_FOUND] The table or view `event` cannot be found.",
        "ParseException: [PARSE_SYNTAX_ERROR] Syntax error at or near 'SELEC'.",
        "NameError: name 'F' is not defined",
        "the transform committed snapshot 7 (append) to mart.result itself. Expected: rows that are returned.",
    ],
)
def test_a_mistake_in_the_transform_is_not_tried_again(text: str) -> None:
    assert not diagnose([driver_line(error=text, where="transform")]).error().retryable


def test_a_driver_that_lost_its_branch_leaves_it_to_the_next_try() -> None:
    report = {"error": "TypeError: the branch 'b' of mart.result is gone", "where": "write", "hint": "", "code": "late"}
    assert diagnose_report(report).error().retryable
    assert not diagnose_report({**report, "code": ""}).error().retryable


def test_a_driver_that_is_done_is_no_failure() -> None:
    done = 'airflow-incremental: {"driver": "done", "rows": 3}'
    found = diagnose([done, "Traceback (most recent call last):", "KeyError: 'x'"])
    assert found.cause == "KeyError: 'x'"


def test_progress_lines_and_broken_ones_are_no_reports() -> None:
    transcript = Transcript()
    for line in (
        "airflow-incremental: read 3 sources",
        'airflow-incremental: {"driver": "fai',
        "airflow-incremental: [1]",
    ):
        transcript.see(line)
    assert transcript.report is None


def test_of_an_unknown_error_its_own_words_are_shown() -> None:
    lines = [
        "Traceback (most recent call last):",
        '  File "run_job.py", line 1, in <module>',
        "mypackage.Broken: no",
        "x",
    ]
    assert diagnose([*lines[:2], "mypackage.BrokenError: no"]).error().found == "mypackage.BrokenError: no"
    main = 'Exception in thread "main" org.apache.spark.SparkException: Application application_1 finished with failed status'
    assert (
        diagnose([main]).error().found.startswith("org.apache.spark.SparkException: Application application_1 finished")
    )
    jvm = [
        "py4j.protocol.Py4JJavaError: An error occurred while calling o1.sql.",
        ": java.lang.IllegalStateException: odd",
    ]
    assert diagnose(jvm).error().found == "java.lang.IllegalStateException: odd"


def test_a_log_that_says_nothing_leaves_it_to_the_caller() -> None:
    found = diagnose(["hello", "world"])
    assert found.cause is None
    assert found.error("spark-submit failed: exit code is: 3").found == "spark-submit failed: exit code is: 3"


def test_of_a_long_log_little_is_kept_and_the_reason_found() -> None:
    transcript = Transcript()
    for number in range(100_000):
        transcript.see(f"WARN TaskSetManager: an error that passes {number}")
    for line in log_of("missing_runtime"):
        transcript.see(line)
    assert len(list(transcript.lines())) <= 600
    assert "Iceberg's Spark runtime is not there" in diagnose_transcript(transcript).error().found


def test_without_the_program_its_name_is_said() -> None:
    error = diagnose((), binary="spark3-submit", missing=True).error()
    assert error.found == "the program 'spark3-submit' is not there"
    assert "PATH" in error.hint


def test_a_killed_submit() -> None:
    error = diagnose(["spark-submit failed: Error code is: 137"]).error()
    assert "spark-submit was killed (exit code 137)" in error.found
    assert error.retryable
