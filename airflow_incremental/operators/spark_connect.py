"""Runs a job in a session of a Spark Connect server: the helper package works in the task's own process, Spark elsewhere."""

from __future__ import annotations

import contextlib
import importlib
import logging
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.providers.apache.spark.hooks.spark_connect import SparkConnectHook

from airflow_incremental.compat import AirflowException, mask_secret
from airflow_incremental.core.errors import ArgumentError, TransformError
from airflow_incremental.operators.spark import Runner
from airflow_incremental.spark.code import located
from airflow_incremental.spark.diagnosis import diagnose_report

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

log = logging.getLogger(__name__)

#: Seconds for the first connection to the server.
_ANSWERS_WITHIN = 60


class ConnectRunner(Runner):
    """Runs jobs in sessions of a Spark Connect server, each in its own."""

    _session: SparkSession | None = None

    def run(self, job: Mapping[str, Any]) -> None:
        """Run a job in a new session, and end the session.

        :raises TransformError: the server cannot be had, or the job failed; its own error comes first.
        """
        self.say_what_stays()
        builder = self._builder(self._url())
        with tempfile.TemporaryDirectory(prefix="airflow-incremental-spark-") as folder:
            shipped = _write(self.code.modules, Path(folder))
            session = _connect(builder)
            self._session = session
            try:
                self._ship(session, shipped)
                with _importable(folder, self.code.modules):
                    _run(session, job)
            except BaseException:
                # A timeout, or a stop of the task itself, too: on the server, queries outlive a client that goes.
                with contextlib.suppress(Exception):
                    session.interruptAll()
                raise
            finally:
                self._session = None
                _end(session)

    def stop(self) -> None:
        """Interrupt what the server does for this session."""
        if self._session is not None:
            self._session.interruptAll()

    def _url(self) -> str:
        conn_id = str(self.arguments.spark_connect_conn_id)
        hook = SparkConnectHook(conn_id)
        try:
            url = hook.get_connection_url()
            token = hook.get_connection(conn_id).password
        except (AirflowException, AttributeError, ValueError) as error:
            raise ArgumentError(
                f"the Airflow connection {conn_id!r} leads to no Spark Connect server: {error}",
                expected="a connection of the type 'spark_connect' with the server's host and port",
                hint=f"create it (Admin > Connections, or the variable AIRFLOW_CONN_{conn_id.upper()}), or set "
                "spark_connect_conn_id",
            ) from error
        if token:
            mask_secret(token)
        return str(url)

    def _builder(self, url: str) -> Any:
        try:
            from pyspark.sql.connect.session import SparkSession
        except ImportError as error:
            raise TransformError(
                f"pyspark cannot talk to a Spark Connect server here: {error}",
                expected="pyspark-client, or pyspark[connect], in the worker's Python",
                hint="install the one that fits the server's version",
            ) from error
        self._check_answers(url)
        builder = SparkSession.builder.remote(url)
        for key, value in self.arguments.conf.items():
            builder = builder.config(key, str(value).lower() if isinstance(value, bool) else str(value))
        return builder

    def _check_answers(self, url: str) -> None:
        """Wait until the server can be reached: a session would try for ten minutes, and once more when it is given up.

        :raises TransformError: it cannot.
        """
        import grpc
        from pyspark.sql.connect import client

        make: Any = getattr(client, "DefaultChannelBuilder", None) or client.ChannelBuilder  # the latter: pyspark 3.5
        channel = make(url).toChannel()
        try:
            grpc.channel_ready_future(channel).result(timeout=_ANSWERS_WITHIN)
        except grpc.FutureTimeoutError as error:
            raise _unreachable(
                f"the Spark Connect server of the connection {self.arguments.spark_connect_conn_id!r} did not answer within "
                f"{_ANSWERS_WITHIN} seconds"
            ) from error
        finally:
            channel.close()

    def _ship(self, session: SparkSession, shipped: Sequence[str]) -> None:
        given = self.arguments
        # The helper package stays here; executors need what functions of the author's may name.
        for kind, names in (
            ("pyfile", [*shipped, *located(given.py_files, self.folders)]),
            ("file", located(given.files, self.folders)),
            ("archive", located(given.archives, self.folders)),
        ):
            if names:
                session.addArtifacts(*names, **{kind: True})


def _connect(builder: Any) -> SparkSession:
    try:
        session: SparkSession = builder.create()
        log.info("connected to Spark %s", session.version)
    except Exception as error:  # a client of gRPC raises what its layers raise
        raise _unreachable(
            f"the Spark Connect server gave no session: {type(error).__name__}: {str(error)[:2000]}"
        ) from error
    return session


def _end(session: SparkSession) -> None:
    """End a session on the server. It may be what failed, so nothing is tried twice, and nothing depends on it."""
    with contextlib.suppress(Exception):
        session.client.set_retry_policies([])
    with contextlib.suppress(Exception):
        session.stop()


def _run(session: SparkSession, job: Mapping[str, Any]) -> None:
    from airflow_incremental_spark import run
    from airflow_incremental_spark.errors import report_of

    try:
        run(session, job)
    except Exception as error:  # whatever the author's function, Spark or gRPC raises
        raise diagnose_report(report_of(error)).error() from error


def _unreachable(what: str) -> TransformError:
    found = TransformError(
        what,
        expected="a Spark Connect server that the worker reaches, of a version that its pyspark can talk to",
        hint="see that the server is up, and correct the Spark Connect connection",
    )
    found.retryable = True
    return found


def _write(modules: Mapping[str, bytes], folder: Path) -> list[str]:
    paths = [folder / f"{name}.py" for name in modules]
    for path, source in zip(paths, modules.values(), strict=True):
        path.write_bytes(source)
    return list(map(str, paths))


@contextlib.contextmanager
def _importable(folder: str, modules: Mapping[str, bytes]) -> Iterator[None]:
    """Let Python import the shipped modules while the job runs; a module of that name that is loaded already is put aside."""
    aside = {name: sys.modules.pop(name) for name in modules if name in sys.modules}
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(folder)
        for name in modules:
            sys.modules.pop(name, None)
        sys.modules.update(aside)
        sys.path_importer_cache.pop(folder, None)
