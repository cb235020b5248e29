from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.core.spark import SparkTransform
from airflow_incremental.spark.archive import digest, driver_folder, write_archive
from airflow_incremental.spark.code import Code, check_code, located

FUNCTION = "def transform(spark, sources, plan):\n    return sources['events']\n"


def test_the_archive_is_the_helper_package_and_the_authors_modules(tmp_path: Path) -> None:
    found = write_archive(tmp_path / "a.zip", {"orders": FUNCTION.encode()})
    names = zipfile.ZipFile(found).namelist()
    assert names == sorted(names)
    assert "orders.py" in names
    assert {"airflow_incremental_spark/" + path.name for path in driver_folder().glob("*.py")} <= set(names)
    code = "import orders; print(orders.transform(None, {'events': 7}, None))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(found)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "7\n"


def test_the_same_content_makes_the_same_archive(tmp_path: Path) -> None:
    modules = {"b": b"x = 1", "a": b"y = 2"}
    one = write_archive(tmp_path / "one.zip", modules).read_bytes()
    two = write_archive(tmp_path / "two.zip", dict(sorted(modules.items()))).read_bytes()
    assert one == two


def test_a_digest_tells_where_one_part_ends() -> None:
    assert digest(["ab", "c"]) != digest(["a", "bc"])
    assert digest(["ab"]) == digest([b"ab"])


def write(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_what_the_job_says_of_each_kind(tmp_path: Path) -> None:
    write(tmp_path, "jobs/orders.py", FUNCTION)
    write(tmp_path, "jobs/app.py", "from airflow_incremental_spark import open_job\n")
    folders = [str(tmp_path)]
    assert Code.of(SparkTransform("SELECT 1")).document == {"kind": "sql", "text": "SELECT 1"}
    shipped = Code.of(SparkTransform(function="jobs/orders.py:transform"), folders)
    assert shipped.document == {"kind": "function", "module": "orders", "name": "transform"}
    assert shipped.modules == {"orders": FUNCTION.encode()}
    there = Code.of(SparkTransform(function="company.orders:transform"), folders)
    assert there.document == {"kind": "function", "module": "company.orders", "name": "transform"}
    assert not there.modules
    own = Code.of(SparkTransform(application="jobs/app.py"), folders)
    assert own.document == {"kind": "application"}
    assert own.application == str(tmp_path / "jobs/app.py")
    assert Code.of(SparkTransform(application="s3://lake/app.py")).application == "s3://lake/app.py"


def test_a_correction_is_another_transform(tmp_path: Path) -> None:
    path = write(tmp_path, "orders.py", FUNCTION)
    helper = write(tmp_path, "helper.py", "x = 1\n")

    def found() -> str:
        return Code.of(SparkTransform(function=f"{path}:transform", py_files=[helper])).fingerprint

    before = found()
    assert found() == before
    write(tmp_path, "helper.py", "x = 2\n")
    after = found()
    assert after != before
    write(tmp_path, "orders.py", FUNCTION + "# corrected\n")
    assert found() not in (before, after)
    one, two = (Code.of(SparkTransform(sql)).fingerprint for sql in ("SELECT 1", "SELECT 2"))
    assert one != two


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import airflow\n" + FUNCTION, ["imports 'airflow'", "no Airflow where Spark runs it"]),
        ("from airflow.sdk import DAG\n" + FUNCTION, ["line 1", "imports 'airflow.sdk'"]),
        ("from . import x\n" + FUNCTION, ["imports from the package", "py_files"]),
        ("def other(spark):\n    pass\n", ["no function 'transform'", "it has 'other'"]),
        ("def transform(:\n", ["is no Python", "line 1"]),
    ],
)
def test_a_file_that_cannot_run_on_the_driver_is_refused(tmp_path: Path, text: str, words: list[str]) -> None:
    path = write(tmp_path, "orders.py", text)
    with pytest.raises(ArgumentError) as caught:
        check_code(SparkTransform(function=f"{path}:transform"), [])
    for word in words:
        assert word in str(caught.value)


def test_a_file_that_is_not_there_is_refused_and_a_template_waits(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"function names the file 'nope\.py', which is not there"):
        check_code(SparkTransform(function="nope.py:transform"), [str(tmp_path)])
    with pytest.raises(ArgumentError, match="application names the file"):
        check_code(SparkTransform(application="/nope/app.py"), [str(tmp_path)])
    check_code(SparkTransform(function="{{ params.file }}:transform"), [])
    check_code(SparkTransform(application="{{ params.file }}.py"), [])


def test_names_that_are_files_of_the_dags_folder_become_paths(tmp_path: Path) -> None:
    path = write(tmp_path, "lib/a.zip", "x")
    given = ["lib/a.zip", "lib/b.zip", "s3://lake/c.zip", "/opt/d.zip"]
    assert located(given, [str(tmp_path)]) == [path, *given[1:]]
