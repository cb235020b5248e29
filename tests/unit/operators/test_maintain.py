"""What a DAG file with maintenance is, and what the task does with its arguments."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest
from airflow.exceptions import AirflowFailException
from airflow.sdk import DAG
from airflow.serialization.serialized_objects import DagSerialization

from airflow_incremental import MaintainTableOperator
from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.core.maintenance import PARTS, MaintenancePolicy
from airflow_incremental.operators import maintain as module
from airflow_incremental.sessions import steps
from tests.support.world import SOURCE, TARGET, World


def make(**changes: Any) -> MaintainTableOperator:
    with DAG("upkeep", schedule=None, start_date=dt.datetime(2024, 1, 1, tzinfo=dt.timezone.utc)):
        return MaintainTableOperator(**{"task_id": "maintain", "tables": [TARGET], **changes})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tables": []}, ["tables is []", "identifiers of tables"]),
        ({"tables": [7]}, ["tables is [7]"]),
        ({"consumers": [""]}, ["consumers is ['']"]),
        ({"expire_older_than": "a week"}, ["expire_older_than is 'a week'", "such as '7d'"]),
        ({"expire_older_than": 7}, ["expire_older_than is 7"]),
        ({"expire_older_than": dt.timedelta(days=-1)}, ["expire_older_than is '-86400s'"]),
        ({"orphans_older_than": "3 months"}, ["orphans_older_than is '3 months'"]),
        ({"orphans_older_than": "23h"}, ["orphans_older_than is '23h'", "a day or more"]),
        ({"retain_last": 0}, ["retain_last is 0", "1 or more"]),
        ({"retain_last": True}, ["retain_last is True"]),
        ({"compact": 0.5}, ["compact is 0.5"]),
        ({"target_file_size": "128 buckets"}, ["target_file_size is '128 buckets'", "'128MiB'"]),
        ({"target_file_size": "5iB"}, ["target_file_size is '5iB'"]),
        ({"target_file_size": 0}, ["target_file_size is 0"]),
        ({"merge_manifests": -1}, ["merge_manifests is -1"]),
        ({"parts": ["expire", "vacuum"]}, ["'vacuum'", "refs, expire, compact, orphans"]),
        ({"parts": []}, ["parts is []"]),
        ({"parts": "expire"}, ["parts is 'expire'"]),
        ({"delete_foreign_orphans": "maybe"}, ["delete_foreign_orphans is 'maybe'"]),
        ({"dry_run": "perhaps"}, ["dry_run is 'perhaps'"]),
    ],
)
def test_a_wrong_argument_fails_the_import(changes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ArgumentError) as raised:
        make(**changes)
    assert [word for word in words if word not in str(raised.value)] == []


def test_what_people_write_is_read() -> None:
    read = MaintenancePolicy.read(
        parts=["orphans", "expire"],
        expire_older_than="2w",
        retain_last="10",
        orphans_older_than=dt.timedelta(hours=25),
        delete_foreign_orphans="True",
        compact=" 5 ",
        target_file_size="1.5MiB",
        merge_manifests=20,
    )
    assert read == MaintenancePolicy(
        parts=("expire", "orphans"),
        expire_older_than=dt.timedelta(weeks=2),
        retain_last=10,
        orphans_older_than=dt.timedelta(hours=25),
        delete_foreign_orphans=True,
        compact=5,
        target_file_size=3 * 2**19,
        merge_manifests=20,
    )
    assert MaintenancePolicy.read(target_file_size="512MB").target_file_size == 512_000_000
    assert MaintenancePolicy.read() == MaintenancePolicy()
    assert MaintenancePolicy().parts == PARTS


def test_all_arguments_are_templates_and_serialise_the_same_in_every_parse() -> None:
    templated = {
        "tables": ["{{ params.table }}"],
        "expire_older_than": "{{ params.age }}",
        "retain_last": "{{ params.keep }}",
        "compact": "{{ params.files }}",
        "consumers": "{{ params.consumers }}",
        "dry_run": "{{ params.dry }}",
        "parts": ["{{ params.part }}"],
    }
    first, second = (DagSerialization.to_dict(make(**templated).dag) for _ in range(2))
    assert json.dumps(first, sort_keys=True) == json.dumps(second, sort_keys=True)
    operator = make(**templated)
    operator.render_template_fields(
        {
            "params": {
                "table": TARGET,
                "age": "1d",
                "keep": 3,
                "files": 4,
                "consumers": "mart.*",
                "dry": True,
                "part": "expire",
            }
        }
    )
    assert (operator.tables, operator.retain_last, operator.dry_run_only) == ([TARGET], "3", "True")
    assert make(expire_older_than=dt.timedelta(days=2)).expire_older_than == "172800s"
    assert callable(operator.dry_run), "Airflow's own"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    found = World(home=tmp_path).set_up()
    for n in range(4):
        found.land(n, 0.5)
        steps.run(found.process())
    monkeypatch.setattr(module, "catalog_of", lambda _: found.catalog)
    return found


def test_the_result_says_what_was_done(world: World) -> None:
    keen: dict[str, Any] = {
        "tables": [SOURCE, TARGET],
        "expire_older_than": "0s",
        "compact": "2",
    }
    told = make(**keen, dry_run="true").execute({})
    assert told[TARGET]["dry_run"] is True
    assert len(world.target.metadata.snapshots) == 5
    done = make(**keen).execute({})
    assert list(done) == [SOURCE, TARGET]
    for table in (SOURCE, TARGET):
        assert {**done[table], "dry_run": True} == told[table]
    assert done[TARGET]["snapshots_expired"] == 4
    assert done[TARGET]["partitions_compacted"] == 1
    assert done[SOURCE]["held"] == [], "the other table is its consumer, and stands at its head"
    json.dumps(done)
    world.check()


def test_a_table_that_is_not_there_does_not_keep_the_others_waiting(world: World) -> None:
    with pytest.raises(AirflowFailException, match=r"mart\.missing"):
        make(tables=["mart.missing", TARGET], expire_older_than="0s").execute({})
    assert len(world.target.metadata.snapshots) == 1
    for consumers, why in {
        "mart.missing": r"consumer 'mart\.missing' does not",
        "nowhere.*": r"namespace 'nowhere'",
    }.items():
        with pytest.raises(AirflowFailException, match=why):
            make(consumers=consumers).execute({})
    operator = make(retain_last="{{ x }}")
    operator.retain_last = "many"
    with pytest.raises(AirflowFailException, match="retain_last is 'many'"):
        operator.execute({})
