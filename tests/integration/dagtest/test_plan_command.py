"""``airflow-incremental plan``, on DAG files in Airflow's folder."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from airflow.configuration import conf
from typer.testing import CliRunner

from airflow_incremental.cli import plan
from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.sessions import steps
from tests.integration.dagtest.loads import Worlds

app = typer.Typer(pretty_exceptions_enable=False)
app.command()(plan.plan)
app.command("other")(lambda: None)

DAG_FILE = """
from airflow.sdk import DAG, task, task_group
from airflow_incremental import IncrementalLoad, IncrementalLoadOperator

LOAD = dict(
    iceberg_conn_id="test",
    sources={{"events": {{"table": "raw.events", "event_time": "ts"}}}},
    target={{"table": "mart.result", "event_time": "hour_ts"}},
    mode="overwrite",
    transform="SELECT date_trunc('hour', ts) AS hour_ts, region, count(*) AS n, sum(v * {{{{ params.factor }}}})::BIGINT AS total "
    "FROM events GROUP BY ALL",
)
with DAG("{name}", schedule=None, params={{"factor": 1}}):
    IncrementalLoadOperator(task_id="load", process="proc", **LOAD)
with DAG("{name}_two", schedule=None):
    IncrementalLoadOperator(task_id="first", **LOAD)
    elsewhere = {{"target": {{"table": "mart.other", "event_time": "hour_ts"}}, "transform": "{{{{ ds }}}}"}}
    IncrementalLoadOperator(task_id="second", **{{**LOAD, **elsewhere}}, process="second")

@task
def regions():
    return ["eu", "us"]

def of(region):
    scope = {{"region": [region]}}
    return {{"process": f"of_{{region}}", "target": {{**LOAD["target"], "scope": scope}}, "transform": f"{{LOAD['transform']}}"}}

SHARED = {{name: LOAD[name] for name in ("iceberg_conn_id", "sources", "mode")}}
with DAG("{name}_mapped", schedule=None, params={{"factor": 1}}):
    IncrementalLoadOperator.partial(task_id="load", **SHARED).expand_kwargs([of("eu"), of("us")])
with DAG("{name}_crossed", schedule=None, params={{"factor": 1}}):
    IncrementalLoadOperator.partial(task_id="load", **LOAD).expand(process=["a", "b"], max_chunks=[1, 2])
with DAG("{name}_group", schedule=None, params={{"factor": 1}}):
    @task_group
    def region(name):
        IncrementalLoad("fact", process=name, **LOAD)
    region.expand(name=["of_eu", "of_us"])
with DAG("{name}_none", schedule=None):
    regions()
with DAG("{name}_in_a_run", schedule=None):
    IncrementalLoadOperator.partial(task_id="load", **LOAD).expand(process=regions())
with DAG("{name}_partly", schedule=None):
    @task
    def asia():
        return of("asia")
    IncrementalLoadOperator.partial(task_id="load", **SHARED).expand_kwargs([of("eu"), asia()])
with DAG("{name}_returned", schedule=None):
    IncrementalLoadOperator(task_id="load", process="proc", **{{**LOAD, "transform": regions()}})
"""


@pytest.fixture
def dag_name() -> Iterator[str]:
    folder = Path(conf.get("core", "dags_folder"))
    folder.mkdir(parents=True, exist_ok=True)
    name = f"plan_{secrets.token_hex(4)}"
    file, broken = folder / f"{name}.py", folder / f"{name}_broken.py"
    file.write_text(DAG_FILE.format(name=name))
    broken.write_text("from airflow.sdk import DAG\n1 / 0\n")
    yield name
    file.unlink()
    broken.unlink()


def run(*arguments: str) -> str:
    found = CliRunner().invoke(app, ["plan", *arguments], catch_exceptions=False)
    assert found.exit_code == 0, found.output
    # Tests log to the standard output; the command line does not.
    text = found.stdout
    return text[text.index("{\n") :] if "--json" in arguments else text


def test_it_shows_what_a_run_would_do_and_touches_nothing(make_world: Worlds, dag_name: str) -> None:
    world = make_world(mode="overwrite")
    world.land(0, 1, 2)

    text = run(dag_name)

    assert "3 rows added in raw.events, first run" in text
    assert "at most 3 rows in 1 files" in text
    assert world.target.current_snapshot() is None
    steps.run(world.process())
    world.land(1.5, 7)
    head = world.target.metadata.model_dump_json()
    shown = json.loads(run(dag_name, "proc", "--json", "--conf", '{"factor": 10}'))
    assert (shown["plan"]["kind"], shown["units"], shown["reads"][0]["rows"]) == ("load", 2, 5)
    assert shown["plan"]["replaced"] == [
        "2024-01-01T01:00:00Z/2024-01-01T02:00:00Z",
        "2024-01-01T07:00:00Z/2024-01-01T08:00:00Z",
    ]
    asked = json.loads(run(dag_name, "--from", "2024-01-01T00:00:00Z", "--to", "2024-01-01T02:00:00Z", "--json"))
    assert (asked["plan"]["kind"], asked["units"], asked["files_replaced"]) == ("restatement", 2, 2)
    assert world.target.metadata.model_dump_json() == head


@pytest.mark.parametrize("shape", ["mapped", "group"])
def test_a_mapped_load_by_its_process(make_world: Worlds, dag_name: str, shape: str) -> None:
    world = make_world(mode="overwrite", target_fields=(("hour", "hour_ts"), ("identity", "region")))
    world.land(0, 1, region="eu")

    found = json.loads(run(f"{dag_name}_{shape}", "of_us", "--json"))

    assert found["plan"]["process"] == "of_us"
    assert found["reads"][0]["rows"] == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "there is no DAG 'nowhere'"),
        (["{dag}_broken"], "_broken.py: ZeroDivisionError: division by zero"),
        (["{dag}", "other"], "has no load of process 'other'"),
        (["{dag}_two"], "has 2 loads"),
        (["{dag}_two", "second"], "needs what only a run has: 'ds' is undefined"),
        (["{dag}_mapped"], "has 2 loads. Expected: one of its processes: 'of_eu', 'of_us'"),
        (["{dag}_mapped", "of_asia"], "no load of process 'of_asia'. Expected: one of its processes: 'of_eu', 'of_us'"),
        (["{dag}_crossed", "a"], "give each load a process of its own"),
        (["{dag}_none"], "has 0 loads. Expected: one of its processes: none. What to do: name a DAG with"),
        (["{dag}_in_a_run"], "what tasks load are mapped over is known only in a run"),
        (["{dag}_partly"], "what tasks load are mapped over is known only in a run"),
        (["{dag}_returned"], "transform of task 'load' is made of what regions returned"),
        (["{dag}", "--from", "2024-01-01T00:00:00Z"], "has --from and no --to"),
        (["{dag}", "--conf", "[1]"], "a JSON object of params"),
    ],
)
def test_bad_input_is_said_in_a_sentence(make_world: Worlds, dag_name: str, arguments: list[str], said: str) -> None:
    make_world(mode="overwrite")
    with pytest.raises(ArgumentError) as raised:
        run(*(argument.format(dag=dag_name) for argument in arguments))
    assert said in str(raised.value)
