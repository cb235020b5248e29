from __future__ import annotations

import pickle

import pytest

from airflow_incremental.core.errors import ArgumentError, IncrementalError, StoreError


@pytest.mark.parametrize("kind", [ArgumentError, IncrementalError, StoreError])
def test_an_error_travels_between_processes(kind: type[IncrementalError]) -> None:
    error = kind("it rains", expected="sun", hint="wait")

    again = pickle.loads(pickle.dumps(error))  # noqa: S301  # our own

    assert (type(again), str(again)) == (kind, str(error))
