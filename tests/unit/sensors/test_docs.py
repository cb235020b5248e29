"""The DAGs in docs/sensors.md are imported as Airflow imports a file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from airflow.dag_processing.dagbag import DagBag
from airflow.serialization.serialized_objects import DagSerialization

PAGE = Path(__file__).parents[3] / "docs" / "sensors.md"


def test_the_dags_on_the_page_are_imported_and_serialised(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (tmp_path / "page.py").write_text(code)
    bag = DagBag(str(tmp_path), bundle_path=tmp_path, bundle_name="page")
    assert not bag.import_errors
    serialized: dict[str, Any] = {name: DagSerialization.serialize_dag(dag) for name, dag in bag.dags.items()}
    assert serialized.keys() == {"daily_report", "load_orders"}
    (watcher,) = _watchers(serialized["load_orders"])
    assert watcher["trigger"]["classpath"] == "airflow_incremental.triggers.iceberg.IcebergDataTrigger"
    again = DagSerialization.deserialize_dag(serialized["daily_report"])
    assert set(again.task_ids) == {"signups_complete", "report"}


def _watchers(value: Any) -> list[dict[str, Any]]:
    """Return the watchers of all assets in a serialised DAG."""
    if isinstance(value, dict):
        here = value.get("watchers", [])
        return [*here, *(w for inner in value.values() if inner is not here for w in _watchers(inner))]
    return [w for inner in value for w in _watchers(inner)] if isinstance(value, list) else []
