"""Everything whose home differs between Airflow 3.1 and later; no other module of this package cares which Airflow runs it.

The official common-compat provider, which the Iceberg provider depends on, knows where things are. Names are looked up when they
are first used: a DAG file needs few of them, and some of their homes take long to import.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import (
        AirflowFailException,
        AirflowPlugin,
        AirflowSkipException,
        Asset,
        BaseOperator,
        BaseOperatorLink,
        DownstreamTasksSkipped,
        SkipMixin,
        Stats,
        TaskGroup,
        XComArg,
        conf,
    )

__all__ = [
    "AirflowFailException",
    "AirflowPlugin",
    "AirflowSkipException",
    "Asset",
    "BaseOperator",
    "BaseOperatorLink",
    "DownstreamTasksSkipped",
    "SkipMixin",
    "Stats",
    "TaskGroup",
    "XComArg",
    "conf",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    from airflow.providers.common.compat import sdk

    value = getattr(sdk, name)
    globals()[name] = value
    return value
