"""Runs a DAG in this very process, and reads back what Airflow has recorded of the run."""

from __future__ import annotations

import datetime as dt
from typing import Any
from unittest.mock import patch

import attrs
from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
from airflow.models.asset import AssetEvent, AssetModel
from airflow.models.dagrun import DagRun
from airflow.models.renderedtifields import RenderedTaskInstanceFields
from airflow.models.taskinstance import clear_task_instances
from airflow.models.xcom import XComModel
from airflow.sdk import DAG
from airflow.serialization.serialized_objects import DagSerialization
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState
from sqlalchemy import select

#: Airflow's own bundle for the dags folder, which is empty here: DAGs are made in the tests.
BUNDLE = "dags-folder"


@attrs.frozen
class Run:
    """A finished run.

    :param dag_id: its DAG.
    :param run_id: its id.
    :param state: ``success`` or ``failed``.
    :param tasks: task id (with ``[index]`` when mapped) -> state.
    :param tries: task id -> tries it took.
    """

    dag_id: str
    run_id: str
    state: str
    tasks: dict[str, str]
    tries: dict[str, int]

    def xcom(self, task_id: str, key: str = "return_value") -> Any:
        """Return what a task pushed, or None."""
        with create_session() as session:
            row = session.scalars(
                XComModel.get_many(run_id=self.run_id, dag_ids=self.dag_id, task_ids=task_id, key=key)
            ).first()
            return None if row is None else XComModel.deserialize_value(row)

    def xcom_keys(self, task_id: str) -> set[str]:
        """Return the keys a task has pushed."""
        with create_session() as session:
            rows = session.scalars(XComModel.get_many(run_id=self.run_id, dag_ids=self.dag_id, task_ids=task_id))
            return {row.key for row in rows}

    def events(self) -> list[tuple[str, str, dict[str, Any]]]:
        """Return the asset events of the run: task id, URI and extra."""
        with create_session() as session:
            found = session.execute(
                select(AssetEvent, AssetModel.uri)
                .join(AssetModel, AssetModel.id == AssetEvent.asset_id)
                .where(AssetEvent.source_dag_id == self.dag_id, AssetEvent.source_run_id == self.run_id)
                .order_by(AssetEvent.id)
            )
            return [(event.source_task_id, uri, event.extra) for event, uri in found]

    def rendered(self, task_id: str, map_index: int = -1) -> dict[str, Any]:
        """Return the rendered fields on a task's page."""
        with create_session() as session:
            row = session.scalars(
                select(RenderedTaskInstanceFields).where(
                    RenderedTaskInstanceFields.dag_id == self.dag_id,
                    RenderedTaskInstanceFields.run_id == self.run_id,
                    RenderedTaskInstanceFields.map_index == map_index,
                    RenderedTaskInstanceFields.task_id == task_id,
                )
            ).one()
            return dict(row.rendered_fields)


def register(dag: DAG) -> None:
    """Make a DAG known to Airflow, as the DAG processor does."""
    bag = DagBag(dag_folder="/dev/null", bundle_name=BUNDLE)
    bag.bag_dag(dag)
    assert not bag.import_errors
    with create_session() as session:
        sync_bag_to_db(bag, BUNDLE, None, session=session)


def run_dag(dag: DAG, **arguments: Any) -> Run:
    """Register a DAG and run it once.

    :param arguments: of ``DAG.test``, such as ``run_conf``.
    """
    register(dag)
    done = dag.test(**arguments)
    return read_run(dag.dag_id, done.run_id)


def run_again(dag: DAG, run: Run, *, only: str | None = None) -> Run:
    """Clear a whole run, or only one task (with all its mapped instances), as a person does in the UI, and let it run again."""
    with create_session() as session:
        found = session.scalars(select(DagRun).where(DagRun.dag_id == run.dag_id, DagRun.run_id == run.run_id)).one()
        found.dag = DagSerialization.deserialize_dag(DagSerialization.serialize_dag(dag))
        tasks = [ti for ti in found.get_task_instances(session=session) if only in (None, ti.task_id)]
        clear_task_instances(tasks, session)
        found.state = DagRunState.RUNNING
        session.flush()
        with patch("airflow.models.dagrun.get_or_create_dagrun", return_value=found):
            session.commit()
            dag.test()
    return read_run(run.dag_id, run.run_id)


def read_run(dag_id: str, run_id: str) -> Run:
    """Return what Airflow knows of a run."""
    with create_session() as session:
        run = session.scalars(select(DagRun).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id)).one()
        tasks = run.get_task_instances(session=session)
        names = {ti: ti.task_id if ti.map_index < 0 else f"{ti.task_id}[{ti.map_index}]" for ti in tasks}
        return Run(
            dag_id=dag_id,
            run_id=run_id,
            state=str(run.state),
            tasks={name: str(ti.state) for ti, name in names.items()},
            tries={name: ti.try_number for ti, name in names.items()},
        )


def new_dag(name: str, **arguments: Any) -> DAG:
    """Return an empty DAG, without a schedule unless one is given."""
    return DAG(
        name,
        schedule=arguments.pop("schedule", None),
        start_date=dt.datetime(2024, 1, 1, tzinfo=dt.timezone.utc),
        **arguments,
    )
