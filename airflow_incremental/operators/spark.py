"""What a load's transform on Spark needs of the running task: its catalog, its files, and a runner to start it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow_incremental.compat import mask_secret
from airflow_incremental.spark.catalogs import SparkCatalog, spark_catalog
from airflow_incremental.spark.code import Code

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog

    from airflow_incremental.core.spark import SparkTransform

log = logging.getLogger(__name__)


class Runner:
    """Runs jobs on Spark for a session; see :class:`~airflow_incremental.core.spark_job.SparkRunner`.

    :param transform: with rendered arguments.
    :param catalog: pyiceberg's, of the load's connection.
    :param context: of the task.
    :param folders: where relative paths are looked up.
    :raises ArgumentError: the catalog cannot be the same in Spark.
    """

    def __init__(
        self, transform: SparkTransform, catalog: Catalog, context: Mapping[str, Any], *, folders: Sequence[str]
    ) -> None:
        self.arguments = transform
        self.context = context
        self.folders = folders
        self._iceberg = catalog
        self.in_spark: SparkCatalog = spark_catalog(
            catalog.name, catalog.properties, given=transform.catalog_conf, given_name=transform.catalog_name
        )
        for secret in self.in_spark.secrets:
            mask_secret(secret)

    @property
    def catalog(self) -> Mapping[str, Any]:
        """The catalog as the job has it."""
        return {"name": self.in_spark.name, "conf": dict(self.in_spark.conf)}

    @cached_property
    def code(self) -> Code:
        """What is run, and shipped."""
        return Code.of(self.arguments, self.folders)

    @property
    def transform(self) -> Mapping[str, Any]:
        """The transform as the job has it."""
        return self.code.document

    @property
    def fingerprint(self) -> str:
        """A digest of what is run."""
        return self.code.fingerprint

    def run(self, job: Mapping[str, Any]) -> None:
        """Run a job to its end.

        :raises TransformError: it failed.
        """
        raise NotImplementedError

    def stop(self) -> None:
        """Stop what runs, when the task is killed."""
        raise NotImplementedError

    def say_what_stays(self) -> None:
        """Log what of the connection Spark is not told."""
        for note in self.in_spark.notes:
            log.info("catalog %s in Spark: %s", self.in_spark.name, note)

    def location_of(self, table: str) -> str:
        """Return where a table is, which tells what Spark needs to read it."""
        return str(self._iceberg.load_table(table).location())


def runner_of(
    transform: SparkTransform, catalog: Catalog, context: Mapping[str, Any], *, folders: Sequence[str]
) -> Runner:
    """Return what runs a transform: ``spark-submit``, or a session of a Spark Connect server."""
    if transform.spark_connect_conn_id is not None:
        from airflow_incremental.operators.spark_connect import ConnectRunner

        return ConnectRunner(transform, catalog, context, folders=folders)
    from airflow_incremental.operators.spark_submit import SubmitRunner

    return SubmitRunner(transform, catalog, context, folders=folders)
