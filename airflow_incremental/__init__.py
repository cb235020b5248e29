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
    from airflow_incremental.core.signal_values import as_date, as_integer, as_timestamp
    from airflow_incremental.core.signals import SignalDependency, eq, ge, gt, in_, le, lt
    from airflow_incremental.core.spark import SparkTransform
    from airflow_incremental.core.tables import IcebergSource, IcebergTarget
    from airflow_incremental.operators.assets import iceberg_asset
    from airflow_incremental.operators.emit import EmitSignalOperator, emit_signal
    from airflow_incremental.operators.load import IncrementalLoadOperator
    from airflow_incremental.operators.maintain import MaintainTableOperator
    from airflow_incremental.operators.matches import ClaimMatchesOperator, claim_matches
    from airflow_incremental.operators.restate import restate_params
    from airflow_incremental.operators.rollback import RollbackOperator
    from airflow_incremental.operators.spark_load import SparkLoadOperator
    from airflow_incremental.sensors.signal import SignalSensor
    from airflow_incremental.sensors.watermark import WatermarkSensor
    from airflow_incremental.task_groups.load import IncrementalLoad
    from airflow_incremental.timetables.catch_up import CatchUpTimetable
    from airflow_incremental.triggers.iceberg import IcebergDataTrigger
    from airflow_incremental.triggers.subscription import SignalMatchTrigger

__version__ = "0.1.0.dev0"

__all__ = [
    "AcceptedValues",
    "Audit",
    "Between",
    "CatchUpTimetable",
    "ClaimMatchesOperator",
    "ColumnRange",
    "CompleteThrough",
    "EmitSignalOperator",
    "Expectations",
    "Finding",
    "IcebergDataTrigger",
    "IcebergSource",
    "IcebergTarget",
    "IncrementalError",
    "IncrementalLoad",
    "IncrementalLoadOperator",
    "MaintainTableOperator",
    "NotNull",
    "NullFraction",
    "PythonCheck",
    "RollbackOperator",
    "RowCount",
    "SensitiveData",
    "SignalDependency",
    "SignalMatchTrigger",
    "SignalSensor",
    "SparkLoadOperator",
    "SparkTransform",
    "SqlCheck",
    "Trend",
    "Unique",
    "Volume",
    "WatermarkSensor",
    "__version__",
    "as_date",
    "as_integer",
    "as_timestamp",
    "claim_matches",
    "emit_signal",
    "eq",
    "ge",
    "gt",
    "iceberg_asset",
    "in_",
    "le",
    "lt",
    "restate_params",
]

_AUDITS = "airflow_incremental.audits"
_HOMES = {
    "AcceptedValues": _AUDITS,
    "Audit": _AUDITS,
    "Between": _AUDITS,
    "CatchUpTimetable": "airflow_incremental.timetables.catch_up",
    "ClaimMatchesOperator": "airflow_incremental.operators.matches",
    "ColumnRange": _AUDITS,
    "CompleteThrough": "airflow_incremental.core.completeness",
    "EmitSignalOperator": "airflow_incremental.operators.emit",
    "Expectations": _AUDITS,
    "Finding": _AUDITS,
    "IcebergDataTrigger": "airflow_incremental.triggers.iceberg",
    "IcebergSource": "airflow_incremental.core.tables",
    "IcebergTarget": "airflow_incremental.core.tables",
    "IncrementalError": "airflow_incremental.core.errors",
    "IncrementalLoad": "airflow_incremental.task_groups.load",
    "IncrementalLoadOperator": "airflow_incremental.operators.load",
    "MaintainTableOperator": "airflow_incremental.operators.maintain",
    "NotNull": _AUDITS,
    "NullFraction": _AUDITS,
    "PythonCheck": _AUDITS,
    "RollbackOperator": "airflow_incremental.operators.rollback",
    "RowCount": _AUDITS,
    "SensitiveData": _AUDITS,
    "SignalDependency": "airflow_incremental.core.signals",
    "SignalMatchTrigger": "airflow_incremental.triggers.subscription",
    "SignalSensor": "airflow_incremental.sensors.signal",
    "SparkLoadOperator": "airflow_incremental.operators.spark_load",
    "SparkTransform": "airflow_incremental.core.spark",
    "SqlCheck": _AUDITS,
    "Trend": _AUDITS,
    "Unique": _AUDITS,
    "Volume": _AUDITS,
    "WatermarkSensor": "airflow_incremental.sensors.watermark",
    "as_date": "airflow_incremental.core.signal_values",
    "as_integer": "airflow_incremental.core.signal_values",
    "claim_matches": "airflow_incremental.operators.matches",
    "as_timestamp": "airflow_incremental.core.signal_values",
    "emit_signal": "airflow_incremental.operators.emit",
    "eq": "airflow_incremental.core.signals",
    "ge": "airflow_incremental.core.signals",
    "gt": "airflow_incremental.core.signals",
    "iceberg_asset": "airflow_incremental.operators.assets",
    "in_": "airflow_incremental.core.signals",
    "le": "airflow_incremental.core.signals",
    "lt": "airflow_incremental.core.signals",
    "restate_params": "airflow_incremental.operators.restate",
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
