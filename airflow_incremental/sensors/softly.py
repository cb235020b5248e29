"""Sensors that are skipped where others fail, before they are deferred, too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from airflow_incremental.compat import AirflowFailException, AirflowSkipException, BaseSensorOperator


@contextmanager
def failing_softly(sensor: BaseSensorOperator) -> Iterator[None]:
    """Turn a failure into a skip as the sensor's ``soft_fail`` and ``never_fail`` say.

    Airflow does so around its own loop of pokes and when a task resumes, but not around a look before a task is deferred.
    """
    try:
        yield
    except Exception as error:
        if sensor.never_fail or (sensor.soft_fail and isinstance(error, AirflowFailException)):
            raise AirflowSkipException(str(error)) from error
        raise
