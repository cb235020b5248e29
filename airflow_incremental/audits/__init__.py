"""Checks over the rows a session wrote, before they are published.

What a DAG author uses is here and loads no engine; ``audits.run`` does, and only a step imports it.
"""

from __future__ import annotations

from airflow_incremental.audits.base import Audit
from airflow_incremental.audits.checks import NotNull, RowCount, SqlCheck, Unique
from airflow_incremental.audits.comparisons import AcceptedValues, Between
from airflow_incremental.audits.expectations.suite import Expectations
from airflow_incremental.audits.forms import audit_from_dict, validate_audits
from airflow_incremental.audits.python import Finding, PythonCheck
from airflow_incremental.audits.sensitive import SensitiveData
from airflow_incremental.audits.statistics import ColumnRange, NullFraction, Volume
from airflow_incremental.audits.trend import Trend

__all__ = [
    "AcceptedValues",
    "Audit",
    "Between",
    "ColumnRange",
    "Expectations",
    "Finding",
    "NotNull",
    "NullFraction",
    "PythonCheck",
    "RowCount",
    "SensitiveData",
    "SqlCheck",
    "Trend",
    "Unique",
    "Volume",
    "audit_from_dict",
    "validate_audits",
]
