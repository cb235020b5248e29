"""The built wheel in clean environments of the newest and of the oldest Airflow: found, loaded, and its example DAGs parse.

Both environments are locked, so the result is the same on every machine until ``make lock`` is run.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import attrs
import pytest

pytestmark = pytest.mark.packaging

ROOT = Path(__file__).parents[2]
UV = ROOT / ".venv-tools" / "bin" / "uv"
LOCKS = {"newest": ROOT / "requirements.lock", "oldest": ROOT / "tests" / "packaging" / "oldest.lock"}

EXAMPLES = sorted(path.name for path in (ROOT / "dags").rglob("*.py"))


def run(*command: str | Path, **environment: str) -> str:
    """Run a command outside the checkout's own environment and return what it prints."""
    own = {
        name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW_", "PYTHON", "VIRTUAL_ENV"))
    }
    done = subprocess.run(
        [str(part) for part in command],
        env={**own, **environment},
        cwd=environment.get("AIRFLOW_HOME", ROOT),
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@attrs.frozen
class Deployment:
    """An environment with the wheel in it, and a home with a migrated database and the example DAGs."""

    environment: Path
    home: Path

    def airflow(self, *arguments: str) -> str:
        return run(
            self.environment / "bin" / "airflow",
            *arguments,
            AIRFLOW_HOME=str(self.home),
            AIRFLOW__CORE__LOAD_EXAMPLES="False",
        )

    def table(self, *arguments: str) -> list[dict[str, Any]]:
        """Return the rows of a command that can print JSON; the oldest Airflow prints log lines before it."""
        printed = self.airflow(*arguments, "--output", "json")
        rows: list[dict[str, Any]] = json.loads(printed[re.search(r"^\[", printed, re.MULTILINE).start() :])  # type: ignore[union-attr]
        return rows


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module", params=LOCKS)
def deployment(request: pytest.FixtureRequest, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    lock = LOCKS[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    run(UV, "venv", "--quiet", "--python", sys.executable, folder / "venv", UV_PYTHON_DOWNLOADS="never")
    run(UV, "pip", "install", "--quiet", "--python", folder / "venv" / "bin" / "python", "--constraint", lock, wheel)
    shutil.copytree(ROOT / "dags", folder / "home" / "dags", ignore=shutil.ignore_patterns("__pycache__"))
    deployment = Deployment(folder / "venv", folder / "home")
    deployment.airflow("db", "migrate")
    return deployment


def test_the_wheel_holds_the_package_alone(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {
        "airflow_incremental",
        "airflow_incremental_spark",
    }
    assert "airflow_incremental/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_airflow_lists_the_provider(deployment: Deployment, wheel: Path) -> None:
    providers = {row["package_name"]: row["version"] for row in deployment.table("providers", "list")}
    assert providers["airflow-incremental"] == wheel.name.split("-")[1]


def test_airflow_loads_the_plugin(deployment: Deployment) -> None:
    plugins = [row for row in deployment.table("plugins") if "airflow-incremental" in row["source"]]
    assert len(plugins) == 1, plugins


def test_every_example_dag_is_parsed_and_serialized(deployment: Deployment) -> None:
    log = deployment.airflow("dags", "reserialize")
    assert sorted(Path(row["fileloc"]).name for row in deployment.table("dags", "list")) == EXAMPLES, log


def test_every_public_name_is_there(deployment: Deployment) -> None:
    names = "import airflow_incremental as a; print(len([getattr(a, name) for name in a.__all__]))"
    printed = run(deployment.environment / "bin" / "python", "-c", names, AIRFLOW_HOME=str(deployment.home))
    assert int(printed.splitlines()[-1]) > 0
