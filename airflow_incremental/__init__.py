"""Watermark-driven incremental loads over Apache Iceberg for Apache Airflow.

What a DAG file needs is importable from here. Names are loaded when they are first used, and none of them loads pyiceberg, pyarrow,
DuckDB or another engine: that happens in the task, so a DAG file parses as fast as before.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_incremental.audits import (
        AcceptedValues,
        Audit,
        Between,
        ColumnRange,
        Expectations,
        Finding,
        NotNull,
        NullFraction,
        PythonCheck,
        RowCount,
        SensitiveData,
        SqlCheck,
        Trend,
        Unique,
        Volume,
    )
    from airflow_incremental.core.completeness import CompleteThrough
    from airflow_incremental.core.errors import IncrementalError
    from airflow_incremental.core.spark import SparkTransform
    from airflow_incremental.core.tables import IcebergSource, IcebergTarget
    from airflow_incremental.operators.assets import iceberg_asset
    from airflow_incremental.operators.load import IncrementalLoadOperator
    from airflow_incremental.operators.spark_load import SparkLoadOperator
    from airflow_incremental.task_groups.load import IncrementalLoad

__version__ = "0.1.0.dev0"

__all__ = [
    "AcceptedValues",
    "Audit",
    "Between",
    "ColumnRange",
    "CompleteThrough",
    "Expectations",
    "Finding",
    "IcebergSource",
    "IcebergTarget",
    "IncrementalError",
    "IncrementalLoad",
    "IncrementalLoadOperator",
    "NotNull",
    "NullFraction",
    "PythonCheck",
    "RowCount",
    "SensitiveData",
    "SparkLoadOperator",
    "SparkTransform",
    "SqlCheck",
    "Trend",
    "Unique",
    "Volume",
    "__version__",
    "iceberg_asset",
]

_AUDITS = "airflow_incremental.audits"
_HOMES = {
    "AcceptedValues": _AUDITS,
    "Audit": _AUDITS,
    "Between": _AUDITS,
    "ColumnRange": _AUDITS,
    "CompleteThrough": "airflow_incremental.core.completeness",
    "Expectations": _AUDITS,
    "Finding": _AUDITS,
    "IcebergSource": "airflow_incremental.core.tables",
    "IcebergTarget": "airflow_incremental.core.tables",
    "IncrementalError": "airflow_incremental.core.errors",
    "IncrementalLoad": "airflow_incremental.task_groups.load",
    "IncrementalLoadOperator": "airflow_incremental.operators.load",
    "NotNull": _AUDITS,
    "NullFraction": _AUDITS,
    "PythonCheck": _AUDITS,
    "RowCount": _AUDITS,
    "SensitiveData": _AUDITS,
    "SparkLoadOperator": "airflow_incremental.operators.spark_load",
    "SparkTransform": "airflow_incremental.core.spark",
    "SqlCheck": _AUDITS,
    "Trend": _AUDITS,
    "Unique": _AUDITS,
    "Volume": _AUDITS,
    "iceberg_asset": "airflow_incremental.operators.assets",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
