"""Runs a job by ``spark-submit``, through the operator of the official Spark provider.

Connections, deploy modes, tracking on YARN and Kubernetes, and every argument are the provider's. What is added: the job in a file
that only the task's user can read, the helper package, the jars that Iceberg needs, and one clear error at the end.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from airflow_incremental.compat import AirflowException, BaseHook, mask_secret
from airflow_incremental.core.errors import ArgumentError, TransformError
from airflow_incremental.core.spark import AUTO, CLUSTER
from airflow_incremental.operators.spark import Runner
from airflow_incremental.operators.spark_submission import Submission, Trace
from airflow_incremental.spark.archive import DRIVER_PACKAGE, driver_folder, write_archive
from airflow_incremental.spark.code import located
from airflow_incremental.spark.diagnosis import Transcript, diagnose, diagnose_transcript
from airflow_incremental.spark.packages import SparkVersion, coordinates, installed_version
from airflow_incremental.spark.secrets import is_secret
from airflow_incremental.spark.storage import storage_kinds

log = logging.getLogger(__name__)

#: The program that is started on the driver, in the helper package.
_PROGRAM = "run_job.py"
_BINARY = "spark-submit"
_CODE = re.compile(r"[Ee](?:rror|xit) code is: -?\d+")


class SubmitRunner(Runner):
    """Runs jobs by ``spark-submit``."""

    _running: Submission | None = None

    def run(self, job: Mapping[str, Any]) -> None:
        """Submit a job, and wait until its application has ended.

        :raises TransformError: it could not be started, or failed; the driver's own error comes first.
        :raises ArgumentError: what is asked for does not go together.
        """
        self.say_what_stays()
        self._warn_of_secrets()
        connection = self._connection()
        packages = self._packages(job, connection)
        with tempfile.TemporaryDirectory(prefix="airflow-incremental-spark-") as folder:
            transcript = Transcript()
            arguments = self._arguments(job, Path(folder), packages, cluster=connection.cluster)
            try:
                submission = Submission(transcript=transcript, **arguments)
            except TypeError as error:
                raise ArgumentError(
                    f"the Spark provider's operator does not take submit_args: {str(error).splitlines()[-1]}",
                    expected="arguments of the SparkSubmitOperator that is installed",
                    hint="correct submit_args, or install a newer apache-airflow-providers-apache-spark",
                ) from error
            self._running = submission
            try:
                submission.submit(
                    self.context, trace=Trace(branch=job["target"]["branch"], fingerprint=self.fingerprint)
                )
            except FileNotFoundError as error:
                raise diagnose((), binary=str(error.filename or connection.binary), missing=True).error() from error
            except (AirflowException, OSError, RuntimeError) as error:
                raise _failed(transcript, error) from error
            except (UnicodeError, json.JSONDecodeError) as error:
                submission.on_kill()  # it still runs; only its log, or its cluster's answer, could not be read
                raise _failed(transcript, error) from error
            except ValueError as error:
                raise ArgumentError(
                    str(error), expected="arguments that the Spark provider takes together", hint="correct them"
                ) from error
            except BaseException:
                _kill(submission)
                raise
            finally:
                self._running = None
        if transcript.report is not None and transcript.report.get("driver") == "failed":
            raise diagnose_transcript(transcript).error()

    def rejoin(self, branch: str) -> bool:
        """Wait for the application that an earlier try of this task has started, if it runs still or has ended well.

        Possible where the provider can tell: on YARN with ``yarn_track_via_rm_api``, on Kubernetes with
        ``track_driver_via_k8s_api``, from Airflow 3.3 on.

        :param branch: that it writes to.
        :returns: whether there is such an application, and it has ended well.
        """
        submission = Submission(
            transcript=Transcript(),
            task_id=str(self.context["ti"].task_id),
            conn_id=self.arguments.spark_conn_id,
            conf={key: _text(value) for key, value in self.arguments.conf.items()},
            deploy_mode=self.arguments.deploy_mode,
            **self.arguments.submit_args,
        )
        self._running = submission
        try:
            return submission.rejoin(self.context, Trace(branch=branch, fingerprint=self.fingerprint))
        except BaseException:
            _kill(submission)
            raise
        finally:
            self._running = None

    def stop(self) -> None:
        """Kill what runs, as the provider does: the driver on a cluster, or spark-submit."""
        if self._running is not None:
            self._running.on_kill()

    def _warn_of_secrets(self) -> None:
        for key, value in self.arguments.conf.items():
            if is_secret(key):
                mask_secret(str(value))
                log.warning(
                    "conf has %s, which looks like a secret, and everybody on this machine can read spark-submit's command "
                    "line; set it in spark-defaults.conf, or, if it is the catalog's, with catalog_conf",
                    key,
                )

    def _connection(self) -> _Connection:
        given = self.arguments
        try:
            connection = BaseHook.get_connection(given.spark_conn_id)
        except AirflowException as error:
            # The provider would submit to YARN then, wherever that may be.
            raise ArgumentError(
                f"the Airflow connection {given.spark_conn_id!r} cannot be read: {error}",
                expected="a connection of the type 'spark', whose host is the master",
                hint=f"create it (Admin > Connections, or the variable AIRFLOW_CONN_{given.spark_conn_id.upper()}), or set "
                "spark_conn_id",
            ) from error
        return _Connection(connection, given.deploy_mode, given.conf, given.submit_args)

    def _packages(self, job: Mapping[str, Any], connection: _Connection) -> list[str]:
        asked = self.arguments.packages
        wanted = [AUTO] if asked == AUTO else list(asked or ())
        own = self.arguments.conf.get("spark.jars.packages")
        # On the command line, --packages takes the place of that conf.
        found = [name for name in str(own or "").split(",") if name] if wanted else []
        for name in wanted:
            found += self._needed(job, connection) if name == AUTO else [name]
        return list(dict.fromkeys(found))

    def _needed(self, job: Mapping[str, Any], connection: _Connection) -> tuple[str, ...]:
        said = self.arguments.spark_version
        version = SparkVersion.parse(said) if said else installed_version(connection.binary, self.arguments.env_vars)
        storage = {*self.in_spark.storage, *storage_kinds({}, [self.location_of(job["target"]["table"])])}
        return coordinates(
            version,
            kind=self.in_spark.kind,
            uri=self.in_spark.conf.get("uri", ""),
            storage=sorted(storage),
        )

    def _arguments(
        self, job: Mapping[str, Any], folder: Path, packages: Sequence[str], *, cluster: bool
    ) -> dict[str, Any]:
        given, code = self.arguments, self.code
        path = _write_job(job, folder)
        helper = write_archive(folder / f"{DRIVER_PACKAGE}.zip", code.modules)
        # Python looks for modules beside the program first, so it stands alone.
        program = folder / "program" / _PROGRAM
        program.parent.mkdir()
        program.write_bytes((driver_folder() / _PROGRAM).read_bytes())
        # In client mode the driver reads the file where it is; shipped, it would go to every executor, too.
        files = [*located(given.files, self.folders), *([str(path)] if cluster else [])]
        return {
            "name": f"{job['process']} {job['session']}",
            **given.submit_args,
            "task_id": str(self.context["ti"].task_id),
            "conn_id": given.spark_conn_id,
            # Audits are the package's own questions, whatever made the rows.
            "application": str(program) if job.get("what") == "audit" else code.application or str(program),
            "application_args": ["--job", str(path), *map(str, given.application_args)],
            "conf": {
                key: _text(value) for key, value in given.conf.items() if key != "spark.jars.packages" or not packages
            },
            "files": ",".join(files) or None,
            "py_files": ",".join([str(helper), *located(given.py_files, self.folders)]),
            "jars": ",".join(located(given.jars, self.folders)) or None,
            "archives": ",".join(located(given.archives, self.folders)) or None,
            "packages": ",".join(packages) or None,
            "repositories": ",".join(given.repositories) or None,
            "env_vars": {key: _text(value) for key, value in given.env_vars.items()} or None,
            "deploy_mode": given.deploy_mode,
            "driver_memory": given.driver_memory,
            "executor_memory": given.executor_memory,
            "executor_cores": _number(given.executor_cores),
            "num_executors": _number(given.num_executors),
        }


class _Connection:
    """What of a Spark connection decides before anything is submitted.

    :raises ArgumentError: a program in Python cannot run there.
    """

    def __init__(
        self, connection: Any, deploy_mode: str | None, conf: Mapping[str, Any], submit_args: Mapping[str, Any]
    ) -> None:
        extra = connection.extra_dejson
        self.binary = str(submit_args.get("spark_binary") or extra.get("spark-binary") or _BINARY)
        mode = deploy_mode or extra.get("deploy-mode") or conf.get("spark.submit.deployMode")
        self.cluster = mode == CLUSTER
        standalone = str(connection.host or "").startswith("spark://") or (
            connection.conn_type == "spark" and connection.port and "://" not in str(connection.host or "")
        )
        if self.cluster and standalone:
            raise ArgumentError(
                f"the Airflow connection {connection.conn_id!r} submits to a standalone cluster with deploy mode 'cluster'",
                expected="deploy mode 'client': Spark runs no Python drivers on standalone clusters",
                hint="set deploy_mode='client', or use YARN or Kubernetes",
            )


def _kill(submission: Submission) -> None:
    """Kill what a submission has started, when the task times out: Airflow calls ``on_kill`` after it has left ``execute``."""
    with contextlib.suppress(Exception):  # what ends the task is what has to be told
        submission.on_kill()


def _write_job(job: Mapping[str, Any], folder: Path) -> Path:
    """Write the job where only the task's user can read it: it holds the catalog's secrets."""
    path = folder / f"incremental-{job['session']}-{job.get('attempt', 0)}.json"
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump(job, file)
    return path


def _failed(transcript: Transcript, error: Exception) -> TransformError:
    # The provider's text begins with the whole command.
    code = _CODE.search(str(error))
    said = f"spark-submit failed: {code[0]}" if code else f"{type(error).__name__}: {str(error)[:500]}"
    last = transcript.last
    transcript.see(said)
    return diagnose_transcript(transcript).error(f"{said}. The last line of its log is: {last or '(none)'}")


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _number(value: Any) -> int | None:
    return None if value is None else int(value)
