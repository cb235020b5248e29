"""Rules of the repository that no other tool checks."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]

# Written in pieces, so that this file does not break its own rule.
FORBIDDEN = {
    "a folder of somebody's machine": re.compile(
        "|".join(
            ["/" + "work/", "/" + "tmp/w/", "/" + "home/[a-z]", "/" + "root/", "/" + "Users/", r"[A-Z]:\\" + "Users"]
        )
    ),
    "a package registry's host": re.compile(
        "|".join(
            [
                "pypi" + r"\.org",
                "python" + "hosted",
                "npmjs" + r"\.",
                "crates" + r"\.io",
                "maven" + r"\.org",
                "deb" + r"\.debian",
            ]
        )
    ),
}
MOST_LINES, MOST_LINES_OF_TESTS = 400, 500


def tracked(*patterns: str) -> list[Path]:
    """Return what git tracks, and what it would if it were added; a file deleted in the working tree is not there."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *patterns],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return [path for name in sorted(set(listed.split("\0"))) if name and (path := ROOT / name).is_file()]


def lines_of(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        return []  # a picture


@pytest.fixture(scope="module")
def text_lines() -> list[tuple[str, str]]:
    found = [(f"{path.relative_to(ROOT)}:{n}", line) for path in tracked() for n, line in enumerate(lines_of(path), 1)]
    assert len(found) > 1_000, "git lists no files"
    return found


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_tracked_file_names(what: str, text_lines: list[tuple[str, str]]) -> None:
    assert [f"{place}: {line.strip()[:120]}" for place, line in text_lines if FORBIDDEN[what].search(line)] == []


def test_modules_hold_one_idea() -> None:
    lengths = {str(path.relative_to(ROOT)): len(lines_of(path)) for path in tracked("*.py")}
    most = {name: MOST_LINES_OF_TESTS if name.startswith("tests/") else MOST_LINES for name in lengths}
    assert {name: length for name, length in lengths.items() if length > most[name]} == {}


def anchors_of(page: Path) -> set[str]:
    """Return what a heading can be linked by: its words in lower case, with hyphens between them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_links_of_the_documentation_lead_somewhere() -> None:
    broken = []
    for page in tracked("*.md"):
        text = re.sub(r"`[^`]*`", "", page.read_text(encoding="utf-8"))  # code is no link
        links = re.findall(r"\]\(([^)\s]+)\)", text)
        for link in links:
            if "://" in link:
                continue
            name, _, anchor = link.partition("#")
            found = (page.parent / name).resolve() if name else page
            if not found.exists() or (anchor and anchor not in anchors_of(found)):
                broken.append(f"{page.relative_to(ROOT)}: {link}")
    assert broken == []


def test_code_in_the_documentation_is_python() -> None:
    blocks = [
        (page, code)
        for page in tracked("*.md")
        for code in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    ]
    assert len(blocks) > 3
    for page, code in blocks:
        compile(code, str(page), "exec")


def required(*groups: str) -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    lines = project["project"]["dependencies"] + [line for g in groups for line in project["dependency-groups"][g]]
    return [Requirement(line) for line in lines]


def test_the_lock_holds_what_is_required() -> None:
    """A requirement that is added or changed without ``make lock`` shows here, and not on somebody else's machine."""
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    for requirement in required("dev"):
        versions = re.findall(rf"^{re.escape(requirement.name)}==([^ ;]+)", lock, re.MULTILINE)
        assert versions, requirement
        assert all(version in requirement.specifier for version in versions), (requirement, versions)


def modules_imported_by(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


def modules_of(requirement: Requirement) -> set[str]:
    if requirement.name == "apache-airflow":
        return {"airflow"}  # it holds nothing itself and stands for the packages that do
    if requirement.name == "apache-airflow-providers-apache-spark":
        # Brings pyspark by one of the two packages that hold it (sites choose which), and what its client speaks.
        return {"airflow", "pyspark", "grpc"}
    if requirement.marker and not requirement.marker.evaluate():
        return {requirement.name}
    return {file.parts[0].removesuffix(".py") for file in distribution(requirement.name).files or ()}


@pytest.mark.parametrize(
    ("folder", "groups"),
    [("airflow_incremental", ()), ("dags", ()), ("demo", ("dev",)), ("benchmarks", ("dev",)), ("tests", ("dev",))],
)
def test_what_is_imported_is_required(folder: str, groups: tuple[str, ...]) -> None:
    """What another package happens to bring along today may be gone tomorrow."""
    own = {"airflow_incremental", "airflow_incremental_spark", "benchmarks", "demo", "tests", *sys.stdlib_module_names}
    declared = {module for requirement in required(*groups) for module in modules_of(requirement)}
    if folder in ("benchmarks", "tests"):
        # What a driver's Python has, which is another than that of the tests.
        declared |= set(re.findall(r"^[a-z]+", (ROOT / "tests/spark/requirements.in").read_text(), re.MULTILINE))
    missing = {
        f"{path.relative_to(ROOT)}: {module}"
        for path in tracked(f"{folder}/*.py")
        for module in modules_imported_by(path)
        if module.partition(".")[0] not in own | declared
    }
    assert missing == set()
