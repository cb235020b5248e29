from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_incremental.store.database import Store
from airflow_incremental.triggers import polling, sharing


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let tests look more often than a triggerer does."""
    monkeypatch.setattr(polling, "PAUSE", 0.01)
    monkeypatch.setattr(sharing, "PAUSE", 0.01)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """An open, empty store, behind the connection ``store``."""
    file = tmp_path / "store.db"
    monkeypatch.setenv("AIRFLOW_CONN_STORE", json.dumps({"conn_type": "sqlite", "host": str(file)}))
    opened = Store.open(f"sqlite:///{file}")
    yield opened
    opened.close()
