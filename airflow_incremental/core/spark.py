"""A transform that runs on Spark, as a DAG author writes it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import attrs

from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.core.literals import check_name, choice, is_template, one_of
from airflow_incremental.core.spark_code import PYTHON_FILE, FunctionName, name_of_function

#: Who runs the audits: the Airflow worker in DuckDB, or Spark.
AuditsOn = Literal["worker", "spark"]
DeployMode = Literal["client", "cluster"]

AUTO = "auto"
#: In ``catalog_conf``: the catalog is one that the cluster knows, and nothing is said about it.
CLUSTER = "cluster"

_VERSION = re.compile(r"\d+\.\d+(\.\d+)?(_2\.\d+)?")
_MEMORY = re.compile(r"\d+[kmgtp]?b?", re.IGNORECASE)
_CATALOG = re.compile(r"[A-Za-z0-9_\-]+")
#: Of the provider's operator: what this package decides itself, and what has an argument of its own here.
_SUBMIT_TAKEN = frozenset(
    {
        *("application", "application_args", "archives", "conf", "conn_id", "deploy_mode", "driver_memory", "env_vars"),
        *(
            "executor_cores",
            "executor_memory",
            "files",
            "jars",
            "num_executors",
            "packages",
            "py_files",
            "repositories",
        ),
        *("dag", "durable", "java_class", "reconnect_on_retry", "task_group", "task_id"),
    }
)


def _function(value: Any) -> Any:
    return name_of_function(value) if callable(value) else value


def _texts(value: Any) -> tuple[Any, ...]:
    return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, (list, tuple)) else (value,)


def _packages(value: Any) -> str | tuple[Any, ...] | None:
    return value if value in (None, AUTO) else _texts(value)


def _mapping(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value


def _check_texts(instance: SparkTransform, attribute: attrs.Attribute[Any], value: Any) -> None:
    for item in value if isinstance(value, tuple) else ():
        if not isinstance(item, str) or not item:
            raise ArgumentError(f"{attribute.name} of {instance.what} holds {item!r}", expected="a list of texts")


def _check_mapping(instance: SparkTransform, attribute: attrs.Attribute[Any], value: Any) -> None:
    if isinstance(value, Mapping) and all(isinstance(key, str) and key for key in value):
        return
    raise ArgumentError(f"{attribute.name} of {instance.what} is {value!r}", expected="a mapping from names to values")


def _check_count(instance: SparkTransform, attribute: attrs.Attribute[Any], value: Any) -> None:
    fits = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    if value is not None and not fits and not is_template(value) and not (isinstance(value, str) and value.isdigit()):
        raise ArgumentError(f"{attribute.name} of {instance.what} is {value!r}", expected="a whole number, 1 or more")


def _check_memory(instance: SparkTransform, attribute: attrs.Attribute[Any], value: Any) -> None:
    fits = isinstance(value, str) and (is_template(value) or _MEMORY.fullmatch(value))
    if value is not None and not fits:
        raise ArgumentError(
            f"{attribute.name} of {instance.what} is {value!r}",
            expected="a size as Spark writes it, such as '2g' or '512m'",
        )


@attrs.frozen
class SparkTransform:
    """What makes target rows of source rows, on Spark instead of DuckDB: exactly one of ``sql``, ``function`` and ``application``.

    All three read the sources by their names, bound to exactly what the mode says to read, and the same extras as DuckDB SQL does
    (``plan_ranges``, ``<name>_changes`` and so on). Times are UTC.

    :param sql: a SELECT in Spark's dialect, or the path of a ``.sql`` file (templated, found as Airflow finds template files).
    :param function: ``transform(spark, sources, plan)`` that returns a DataFrame. ``sources`` maps each name to a DataFrame,
        ``plan`` is the plan as plain values. ``"package.module:function"`` is imported where the driver finds it;
        ``"path/to/file.py:function"``, or a function at the top level of a module, is shipped: that one file, as a module.
    :param application: path of a Python program of your own, which uses ``from airflow_incremental_spark import open_job``.
    :param spark_conn_id: Airflow connection of the type ``spark``: where ``spark-submit`` submits to.
    :param spark_connect_conn_id: Airflow connection of the type ``spark_connect``. Given, the transform runs in a session of that
        server, and not by ``spark-submit``.
    :param conf: Spark's configuration. It stands on the command line of ``spark-submit``, so no secret belongs there.
    :param py_files: more Python for driver and executors: ``.py``, ``.zip``, ``.whl``.
    :param jars: jars for driver and executors.
    :param files: files for driver and executors.
    :param archives: archives for driver and executors.
    :param packages: Maven coordinates. ``"auto"``: the Iceberg runtime that fits Spark, and what the catalog and its storage need
        besides. It may be one in a list of others. None when the cluster has the jars.
    :param repositories: where to look for packages besides Maven Central, such as a mirror.
    :param spark_version: of the cluster, such as ``"3.5"`` or ``"3.5_2.13"`` with Scala's; default is what
        ``spark-submit --version`` says.
    :param env_vars: environment variables of ``spark-submit`` (and of the driver, on YARN and Kubernetes).
    :param application_args: more arguments of your ``application``.
    :param deploy_mode: ``client`` or ``cluster``; default is the connection's.
    :param driver_memory: of the driver, such as ``"2g"``.
    :param executor_memory: of an executor.
    :param executor_cores: of an executor.
    :param num_executors: how many to start.
    :param submit_args: any other argument of the provider's ``SparkSubmitOperator``, such as ``{"yarn_queue": "etl"}``.
    :param catalog_name: name of the catalog in Spark; default is the id of the Iceberg connection. A JDBC catalog must keep it.
    :param catalog_conf: properties of the Iceberg catalog in Spark, as after ``spark.sql.catalog.<name>.``; they come on top of
        what follows from the Iceberg connection, None removes one. ``"cluster"``: the cluster has the catalog of that name.
        They travel in a file that only the task's user can read.
    :param audits_on: who runs the audits: the ``worker``, in DuckDB, or ``spark``, for tables too large for one machine.
    """

    sql: str | None = None
    function: Any = attrs.field(default=None, kw_only=True, converter=_function)
    application: str | None = attrs.field(default=None, kw_only=True)
    spark_conn_id: str = attrs.field(default="spark_default", kw_only=True)
    spark_connect_conn_id: str | None = attrs.field(default=None, kw_only=True)
    conf: Mapping[str, Any] = attrs.field(factory=dict, kw_only=True, converter=_mapping, validator=_check_mapping)
    py_files: Sequence[str] = attrs.field(default=(), kw_only=True, converter=_texts, validator=_check_texts)
    jars: Sequence[str] = attrs.field(default=(), kw_only=True, converter=_texts, validator=_check_texts)
    files: Sequence[str] = attrs.field(default=(), kw_only=True, converter=_texts, validator=_check_texts)
    archives: Sequence[str] = attrs.field(default=(), kw_only=True, converter=_texts, validator=_check_texts)
    packages: str | Sequence[str] | None = attrs.field(
        default=AUTO, kw_only=True, converter=_packages, validator=_check_texts
    )
    repositories: Sequence[str] = attrs.field(default=(), kw_only=True, converter=_texts, validator=_check_texts)
    spark_version: str | None = attrs.field(default=None, kw_only=True)
    env_vars: Mapping[str, Any] = attrs.field(factory=dict, kw_only=True, converter=_mapping, validator=_check_mapping)
    application_args: Sequence[str] = attrs.field(default=(), kw_only=True, converter=_texts, validator=_check_texts)
    deploy_mode: DeployMode | None = attrs.field(default=None, kw_only=True)
    driver_memory: str | None = attrs.field(default=None, kw_only=True, validator=_check_memory)
    executor_memory: str | None = attrs.field(default=None, kw_only=True, validator=_check_memory)
    executor_cores: int | str | None = attrs.field(default=None, kw_only=True, validator=_check_count)
    num_executors: int | str | None = attrs.field(default=None, kw_only=True, validator=_check_count)
    submit_args: Mapping[str, Any] = attrs.field(
        factory=dict, kw_only=True, converter=_mapping, validator=_check_mapping
    )
    catalog_name: str | None = attrs.field(default=None, kw_only=True)
    catalog_conf: Mapping[str, Any] | str = attrs.field(factory=dict, kw_only=True, converter=_mapping)
    audits_on: AuditsOn = attrs.field(default="worker", kw_only=True, validator=choice(AuditsOn))

    def __attrs_post_init__(self) -> None:
        given = [name for name in ("sql", "function", "application") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ArgumentError(
                f"SparkTransform has {' and '.join(given) or 'neither sql nor function nor application'}",
                expected="exactly one of sql, function and application",
            )
        self._check_code()
        check_name(self.spark_conn_id, what="spark_conn_id of SparkTransform")
        if self.spark_connect_conn_id is not None:
            check_name(self.spark_connect_conn_id, what="spark_connect_conn_id of SparkTransform")
        if self.deploy_mode is not None:
            one_of(self.deploy_mode, DeployMode, what="deploy_mode of SparkTransform")
        self._check_version()
        self._check_catalog()
        self._check_submit()

    def _check_code(self) -> None:
        text = getattr(self, self.kind)
        if not isinstance(text, str) or not text.strip():
            raise ArgumentError(f"{self.kind} of SparkTransform is {text!r}", expected=_EXPECTED[self.kind])
        if is_template(text):
            return
        if self.kind == "function":
            FunctionName.parse(text)
        if self.kind == "application" and not text.endswith(PYTHON_FILE):
            raise ArgumentError(
                f"application of SparkTransform is {text!r}",
                expected="the path of a Python program, which ends in .py",
                hint="to write with a jar, use IncrementalLoad(..., transform=None) with a SparkSubmitOperator inside",
            )
        if self.application_args and self.kind != "application":
            raise ArgumentError(
                f"application_args is given with {self.kind}",
                expected="them with an application only",
                hint="a function reads what it needs from spark.conf, which conf sets",
            )

    def _check_version(self) -> None:
        version = self.spark_version
        if version is None or is_template(version):
            return
        if not isinstance(version, str) or not _VERSION.fullmatch(version):
            raise ArgumentError(
                f"spark_version of SparkTransform is {version!r}",
                expected="a version such as '3.5', '4.1' or '3.5_2.13' with Scala's",
            )

    def _check_catalog(self) -> None:
        name, conf = self.catalog_name, self.catalog_conf
        if name is not None and not is_template(name) and not (isinstance(name, str) and _CATALOG.fullmatch(name)):
            raise ArgumentError(
                f"catalog_name of SparkTransform is {name!r}", expected="a name of letters, digits, '_' and '-'"
            )
        if conf != CLUSTER and not isinstance(conf, Mapping):
            raise ArgumentError(
                f"catalog_conf of SparkTransform is {type(conf).__name__}",
                expected=f"a mapping of properties of an Iceberg catalog in Spark, or {CLUSTER!r}",
            )

    def _check_submit(self) -> None:
        taken = sorted(_SUBMIT_TAKEN & self.submit_args.keys())
        if taken:
            raise ArgumentError(
                f"submit_args of SparkTransform sets {', '.join(map(repr, taken))}",
                expected="arguments of SparkSubmitOperator that SparkTransform does not have, and the task does not set itself",
                hint="give it to SparkTransform, if it has it",
            )
        if self.spark_connect_conn_id is None:
            return
        unused = [
            name
            for name in ("jars", "repositories", "env_vars", "deploy_mode", "submit_args", *_SIZES)
            if getattr(self, name) not in (None, (), {})
        ]
        if self.packages not in (None, AUTO):
            unused.append("packages")
        if unused:
            raise ArgumentError(
                f"SparkTransform has a spark_connect_conn_id, and {', '.join(unused)}",
                expected="what a session of a running server can have: conf, py_files, files and archives",
                hint="set the others where the server is started",
            )
        if self.kind == "application":
            raise ArgumentError(
                "SparkTransform has a spark_connect_conn_id and an application",
                expected="sql or a function: an application is a program of its own, which spark-submit starts",
                hint="make it a function transform(spark, sources, plan)",
            )

    @property
    def what(self) -> str:
        """What errors call it."""
        return "SparkTransform"

    @property
    def kind(self) -> Literal["sql", "function", "application"]:
        """What is run."""
        return "sql" if self.sql is not None else "function" if self.function is not None else "application"

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, the form Airflow can template and serialise: what is not as it is by default, in one order."""
        found: dict[str, Any] = {}
        for field in attrs.fields(type(self)):
            value, default = getattr(self, field.name), field.default
            if value != (default.factory() if isinstance(default, attrs.Factory) else default):  # type: ignore[arg-type]
                found[field.name] = _plain(value)
        return found

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> SparkTransform:
        """Build the value from plain ones.

        :raises ArgumentError: something is missing, unknown or wrong.
        """
        unknown = sorted(plain.keys() - {field.name for field in attrs.fields(cls)})
        if unknown:
            raise ArgumentError(
                f"a transform is a mapping with {', '.join(map(repr, unknown))}",
                expected=f"the arguments of SparkTransform: {', '.join(f.name for f in attrs.fields(cls))}",
            )
        return cls(**plain)


_SIZES = ("driver_memory", "executor_memory", "executor_cores", "num_executors")
_EXPECTED = {
    "sql": "SQL text, or the path of a .sql file",
    "function": "'package.module:function', 'path/to/file.py:function', or a function at the top level of a module",
    "application": "the path of a Python program, which ends in .py",
}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in sorted(value.items())}
    return [_plain(inner) for inner in value] if isinstance(value, (list, tuple)) else value
