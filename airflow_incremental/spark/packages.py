"""Which jars a Spark needs to read and write Iceberg tables, as Maven coordinates, and which Spark it is."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import attrs

from airflow_incremental.core.errors import ArgumentError, TransformError
from airflow_incremental.spark.diagnosis import Diagnosis, diagnose

#: Iceberg's release that is asked for: the last one that all Spark versions below have a runtime of.
ICEBERG = "1.11.0"
#: Spark -> Scala versions that Iceberg's runtime of that release is built for.
SUPPORTED: Mapping[str, Sequence[str]] = {"3.5": ("2.12", "2.13"), "4.0": ("2.13",), "4.1": ("2.13",)}
#: Storage and catalogs whose classes are in a jar of their own.
_BUNDLES = {"s3": "iceberg-aws-bundle", "adls": "iceberg-azure-bundle", "gcs": "iceberg-gcp-bundle"}
_DRIVERS = {
    "jdbc:postgresql:": "org.postgresql:postgresql:42.7.7",
    "jdbc:mysql:": "com.mysql:mysql-connector-j:9.4.0",
    "jdbc:mariadb:": "org.mariadb.jdbc:mariadb-java-client:3.5.5",
}
_SPARK = re.compile(r"version (\d+\.\d+)(\.\d+)?")
_SCALA = re.compile(r"Scala version (\d+\.\d+)")
#: Starting a JVM takes seconds; on a machine that is busy, some more.
_TIMEOUT = 120


@attrs.frozen(kw_only=True)
class SparkVersion:
    """A version of Spark, and of the Scala it is built with: ``4.1`` and ``2.13``."""

    spark: str
    scala: str

    @classmethod
    def parse(cls, text: str) -> SparkVersion:
        """Read ``4.1``, ``4.1.0`` or ``3.5_2.13``; without Scala's, it is the one most builds of that Spark have.

        :raises ArgumentError: no runtime of Iceberg is built for it.
        """
        spark, _, scala = text.partition("_")
        spark = ".".join(spark.split(".")[:2])
        return cls(spark=spark, scala=scala or SUPPORTED.get(spark, ("2.13",))[0]).checked()

    def checked(self) -> SparkVersion:
        """Return the version itself if Iceberg supports it.

        :raises ArgumentError: it does not.
        """
        if self.scala in SUPPORTED.get(self.spark, ()):
            return self
        raise ArgumentError(
            f"Spark is {self.spark} with Scala {self.scala}",
            expected=f"one that Iceberg {ICEBERG} has a runtime for: "
            + ", ".join(f"{spark} (Scala {' or '.join(scalas)})" for spark, scalas in SUPPORTED.items()),
            hint="install one of these; or, if the cluster has a runtime of its own, set packages=None",
        )


def coordinates(version: SparkVersion, *, kind: str, uri: str, storage: Sequence[str]) -> tuple[str, ...]:
    """Return the Maven coordinates of what a Spark needs for a catalog.

    :param kind: of the catalog, see :class:`~airflow_incremental.spark.catalogs.SparkCatalog`.
    :param uri: of the catalog.
    :param storage: kinds of storage its tables are in.
    """
    found = [f"org.apache.iceberg:iceberg-spark-runtime-{version.spark}_{version.scala}:{ICEBERG}"]
    kinds = {*storage, *(("s3",) if kind == "glue" else ())}
    found += [f"org.apache.iceberg:{_BUNDLES[name]}:{ICEBERG}" for name in sorted(kinds) if name in _BUNDLES]
    found += [driver for prefix, driver in _DRIVERS.items() if uri.startswith(prefix)]
    return tuple(found)


def installed_version(binary: str, env_vars: Mapping[str, str]) -> SparkVersion:
    """Ask ``spark-submit`` which Spark it is; the answer is kept for as long as the process lives and the program is the same.

    :param binary: name or path of the program.
    :param env_vars: what is set besides the environment.
    :raises TransformError: it is not there, or does not start.
    :raises ArgumentError: no runtime of Iceberg is built for it.
    """
    env = {**os.environ, **{key: str(value) for key, value in env_vars.items()}}
    found = shutil.which(binary, path=env.get("PATH"))
    if found is None:
        raise diagnose((), binary=binary, missing=True).error()
    set_up = tuple((key, env[key]) for key in ("SPARK_HOME", "JAVA_HOME", "PATH") if key in env)
    return _ask(found, Path(found).stat().st_mtime_ns, set_up, tuple(sorted(env_vars))).checked()


@lru_cache(maxsize=16)
def _ask(program: str, _modified: int, set_up: tuple[tuple[str, str], ...], _names: tuple[str, ...]) -> SparkVersion:
    try:
        done = subprocess.run(  # noqa: S603  (the program the connection names, with arguments of our own)
            [program, "--version"],
            env={**os.environ, **dict(set_up)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
            timeout=_TIMEOUT,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise TransformError(
            f"{program} --version did not answer: {error}",
            expected="spark-submit to say which version it is",
            hint="see that it starts on this worker; or set spark_version, so that it need not be asked",
        ) from error
    spark, scala = _SPARK.search(done.stdout), _SCALA.search(done.stdout)
    if done.returncode == 0 and spark and scala:
        return SparkVersion(spark=spark[1], scala=scala[1])
    lines = done.stdout.splitlines()
    found = diagnose(lines, binary=program)
    if found.cause is None:
        found = Diagnosis(
            cause=f"{program} --version ended with {done.returncode}: {' '.join(lines[-1:]) or 'it said nothing'}",
            hint="see that it starts on this worker; or set spark_version, so that it need not be asked",
        )
    raise found.error()
