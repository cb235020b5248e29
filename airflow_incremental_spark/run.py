"""Runs a job: with a session that is there already (Spark Connect), as a program of its own, or around an author's application."""

from __future__ import annotations

import sys
import traceback
from contextlib import contextmanager
from typing import Any, Iterator, Mapping, Sequence

from airflow_incremental_spark.audits import run_audit
from airflow_incremental_spark.document import checked, path_in, read_document
from airflow_incremental_spark.errors import DriverError, first_lines
from airflow_incremental_spark.job import Job, finished, say_failed
from airflow_incremental_spark.transform import TARGET, Function, produced


def run(spark: Any, document: Mapping[str, Any], function: Function | None = None) -> dict[str, Any]:
    """Run a job's transform and leave its rows on the attempt's branch.

    :param spark: a session, classic or Connect. Its conf is changed: the catalog, UTC, ANSI.
    :param document: the job document.
    :param function: the transform, for a driver that has it at hand; else it is imported by the name in the document.
    :returns: ``{"rows": ...}``.
    :raises DriverError: what it says of its cause; Spark's own errors pass as they are. Whatever it is, the branch is marked.
    """
    if document.get("what") == "audit":
        return run_audit(spark, checked(document))
    with _begun(spark, document) as job:
        for step in job.steps:
            with produced(
                spark,
                document["transform"],
                step.sources,
                step.plan,
                function=function,
                tables=_tables_of(document),
            ) as frame:
                if document["transform"]["kind"] == "function":
                    job.check_nothing_else_written("the transform")
                step.write(frame)
        job.done()
        return {"rows": job.rows}


def _tables_of(document: Mapping[str, Any]) -> dict[str, str]:
    """Return the tables of a job with their catalog, by the names of the sources."""
    catalog = document["catalog"]["name"]
    found = {name: "{}.{}".format(catalog, source["table"]) for name, source in document["sources"].items()}
    return {**found, TARGET: "{}.{}".format(catalog, document["target"]["table"])}


@contextmanager
def open_job(path: str | None = None, spark: Any = None) -> Iterator[Job]:
    """Open the job that this application was started for; at the end of the block it is done, or failed if the block raised.

    :param path: of the job document; default is what ``--job`` names among the program's arguments.
    :param spark: a session; default is the one there is, or a new one.
    :raises DriverError: there is no document, the branch is not this attempt's, or nothing was written in the block.
    """
    try:
        where = path or path_in(sys.argv[1:])
        session = _session() if spark is None else spark  # first: Spark tells where a file has been shipped to
        document = read_document(where)
    except Exception as error:
        say_failed(error, {})
        raise
    with _begun(session, document) as job:
        yield job


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job that ``--job`` names, and return the exit code of the program: 0, or 1 for a job that failed."""
    spark = None
    try:
        try:
            path = path_in(sys.argv[1:] if arguments is None else arguments)
            spark = _session()  # first: Spark tells where a file has been shipped to
            document = read_document(path)
        except Exception as error:
            say_failed(error, {})
            raise
        run(spark, document)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told and the program ends
        _tell(error)
        return 1
    finally:
        if spark is not None:
            spark.stop()
    return 0


@contextmanager
def _begun(spark: Any, document: Mapping[str, Any]) -> Iterator[Job]:
    with finished(Job.begin(spark, checked(document))) as job:
        yield job


def _session() -> Any:
    from pyspark.sql import SparkSession

    return SparkSession.builder.getOrCreate()


def _tell(error: Exception) -> None:
    """Print an error last, where a reader of the log looks first; the author's own lines with it, but none of the JVM's."""
    if not isinstance(error, DriverError):
        for line in traceback.format_list(traceback.extract_tb(error.__traceback__)):
            sys.stderr.write(line)
    told = str(error) if isinstance(error, DriverError) else f"{type(error).__name__}: {first_lines(error)}"
    sys.stderr.write(f"\n{told}\n")  # Spark's progress may be on the line
    sys.stderr.flush()
