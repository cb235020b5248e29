"""The operator that runs an incremental load on Spark, all of it in one task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from airflow_incremental.core.spark import AUTO, AuditsOn, DeployMode, SparkTransform
from airflow_incremental.operators.arguments import is_open, plain
from airflow_incremental.operators.load import IncrementalLoadOperator

#: Arguments of ``SparkTransform``; all are template fields.
SPARK_FIELDS = (
    "sql",
    "function",
    "application",
    "spark_conn_id",
    "spark_connect_conn_id",
    "conf",
    "py_files",
    "jars",
    "files",
    "archives",
    "packages",
    "repositories",
    "spark_version",
    "env_vars",
    "application_args",
    "deploy_mode",
    "driver_memory",
    "executor_memory",
    "executor_cores",
    "num_executors",
    "submit_args",
    "catalog_name",
    "catalog_conf",
)


class SparkLoadOperator(IncrementalLoadOperator):
    """Load what changed in Iceberg tables into another one on Spark: plan, load, audit and publish, in one task.

    It is :class:`~airflow_incremental.IncrementalLoadOperator` with a :class:`~airflow_incremental.SparkTransform`, whose arguments
    stand here one by one and are template fields each. The worker plans, audits and publishes; Spark runs the transform and
    writes the session's branch. For one task per stage, use
    :class:`~airflow_incremental.IncrementalLoad` with ``transform=SparkTransform(...)``.

    Exactly one of ``sql``, ``function`` and ``application`` says what is run.

    :param sql: a SELECT in Spark's dialect, or the path of a ``.sql`` file.
    :param function: ``transform(spark, sources, plan)``, by name or itself.
    :param application: path of a Python program of your own.
    :param spark_conn_id: Airflow connection that ``spark-submit`` submits by.
    :param spark_connect_conn_id: Airflow connection of a Spark Connect server, to run there instead.
    :param conf: Spark's configuration.
    :param py_files: more Python for driver and executors.
    :param jars: jars for driver and executors.
    :param files: files for driver and executors.
    :param archives: archives for driver and executors.
    :param packages: Maven coordinates; ``"auto"`` for what Iceberg needs, alone or in a list; None if the cluster has it.
    :param repositories: where to look for packages besides Maven Central.
    :param spark_version: of the cluster; default is what ``spark-submit --version`` says.
    :param env_vars: environment variables of ``spark-submit``, and of the driver on YARN and Kubernetes.
    :param application_args: more arguments of your ``application``.
    :param deploy_mode: ``client`` or ``cluster``; default is the connection's.
    :param driver_memory: of the driver, such as ``"2g"``.
    :param executor_memory: of an executor.
    :param executor_cores: of an executor.
    :param num_executors: how many to start.
    :param submit_args: any other argument of the provider's ``SparkSubmitOperator``.
    :param catalog_name: name of the catalog in Spark; default is the id of the Iceberg connection.
    :param catalog_conf: properties of the catalog in Spark, on top of what follows from the Iceberg connection.
    :param audits_on: who runs the audits, ``worker`` or ``spark``.
    :param load_args: any argument of :class:`~airflow_incremental.IncrementalLoadOperator` but ``transform``, such as
        ``sources``, ``target``, ``mode`` and ``audits``.
    """

    template_fields: Sequence[str] = (
        *(name for name in IncrementalLoadOperator.template_fields if name != "transform"),
        *SPARK_FIELDS,
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {
        **{
            name: kind
            for name, kind in IncrementalLoadOperator.template_fields_renderers.items()
            if name != "transform"
        },
        "sql": "sql",
        **dict.fromkeys(("conf", "env_vars", "submit_args", "catalog_conf"), "json"),
    }
    ui_color = "#f7e2d0"

    def __init__(
        self,
        *,
        sql: str | None = None,
        function: str | Callable[..., Any] | None = None,
        application: str | None = None,
        spark_conn_id: str = "spark_default",
        spark_connect_conn_id: str | None = None,
        conf: Mapping[str, Any] | None = None,
        py_files: str | Sequence[str] = (),
        jars: str | Sequence[str] = (),
        files: str | Sequence[str] = (),
        archives: str | Sequence[str] = (),
        packages: str | Sequence[str] | None = AUTO,
        repositories: str | Sequence[str] = (),
        spark_version: str | None = None,
        env_vars: Mapping[str, Any] | None = None,
        application_args: Sequence[str] = (),
        deploy_mode: DeployMode | None = None,
        driver_memory: str | None = None,
        executor_memory: str | None = None,
        executor_cores: int | str | None = None,
        num_executors: int | str | None = None,
        submit_args: Mapping[str, Any] | None = None,
        catalog_name: str | None = None,
        catalog_conf: Mapping[str, Any] | str | None = None,
        audits_on: AuditsOn = "worker",
        **load_args: Any,
    ) -> None:
        # A function itself would be called by Airflow to render it; by its name the driver finds it.
        named = SparkTransform(function=function).function if callable(function) and not is_open(function) else function
        super().__init__(
            transform={
                "sql": sql,
                "function": named,
                "application": application,
                "spark_conn_id": spark_conn_id,
                "spark_connect_conn_id": spark_connect_conn_id,
                "conf": conf or {},
                "py_files": py_files,
                "jars": jars,
                "files": files,
                "archives": archives,
                "packages": packages,
                "repositories": repositories,
                "spark_version": spark_version,
                "env_vars": env_vars or {},
                "application_args": application_args,
                "deploy_mode": deploy_mode,
                "driver_memory": driver_memory,
                "executor_memory": executor_memory,
                "executor_cores": executor_cores,
                "num_executors": num_executors,
                "submit_args": submit_args or {},
                "catalog_name": catalog_name,
                "catalog_conf": catalog_conf or {},
                "audits_on": audits_on,
            },
            **load_args,
        )
        self.sql = sql
        self.function = named
        self.application = application
        self.spark_conn_id = spark_conn_id
        self.spark_connect_conn_id = spark_connect_conn_id
        self.conf = plain(conf or {})
        self.py_files = plain(py_files)
        self.jars = plain(jars)
        self.files = plain(files)
        self.archives = plain(archives)
        self.packages = plain(packages)
        self.repositories = plain(repositories)
        self.spark_version = spark_version
        self.env_vars = plain(env_vars or {})
        self.application_args = plain(application_args)
        self.deploy_mode = deploy_mode
        self.driver_memory = driver_memory
        self.executor_memory = executor_memory
        self.executor_cores = executor_cores
        self.num_executors = num_executors
        self.submit_args = plain(submit_args or {})
        self.catalog_name = catalog_name
        self.catalog_conf = plain(catalog_conf or {})
        self.audits_on = audits_on

    def prepare_template(self) -> None:
        """Check what is known when the DAG is whole; the SQL may have been read from its file by now."""
        self.transform = self._spark_arguments()
        super().prepare_template()

    def _spark_arguments(self) -> dict[str, Any]:
        return {**{name: getattr(self, name) for name in SPARK_FIELDS}, "audits_on": self.audits_on}
