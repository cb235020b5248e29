"""The DAGs in docs/sensors.md are imported as Airflow imports a file."""

from __future__ import annotations

import re
from pathlib import Path

from airflow.dag_processing.collection import AssetModelOperation
from airflow.dag_processing.dagbag import DagBag
from airflow.serialization.serialized_objects import LazyDeserializedDAG

PAGE = Path(__file__).parents[3] / "docs" / "sensors.md"


def test_the_dags_on_the_page_are_imported_and_the_watcher_is_found(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (tmp_path / "page.py").write_text(code)
    bag = DagBag(str(tmp_path), bundle_path=tmp_path, bundle_name="page")
    assert not bag.import_errors
    assert bag.dags.keys() == {"daily_report", "load_orders"}
    lazy = {name: LazyDeserializedDAG.from_dag(dag) for name, dag in bag.dags.items()}
    # Of assets with one name and URI Airflow takes the last that it finds, and the watchers of no other.
    watched = [asset for asset in AssetModelOperation.collect(lazy).assets.values() if asset.watchers]
    (watcher,) = watched[0].watchers
    assert len(watched) == 1
    assert watcher.trigger["classpath"] == "airflow_incremental.triggers.iceberg.IcebergDataTrigger"
