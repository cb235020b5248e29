"""What every test needs: how many random histories, and an Airflow home of its own."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

_TESTS = Path(__file__).parent

# The same histories on every run and machine, so that what passes here passes in CI. No deadline: files are written.
settings.register_profile("ci", max_examples=100, deadline=None, derandomize=True, print_blob=True)
# Other histories every time: this one is for finding what nobody has thought of.
settings.register_profile("long", max_examples=2_000, deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

# Importing Airflow writes its configuration to its home, and a test may migrate a database there: never into a
# developer's own. Set here because some test module may import Airflow as soon as it is collected.
_AIRFLOW_HOME = tempfile.mkdtemp(prefix="airflow-home-")
os.environ["AIRFLOW_HOME"] = _AIRFLOW_HOME
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"


@pytest.hookimpl(tryfirst=True)  # before the groups are looked at
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep together what shares a server or a file's fixtures, where two processes share the tests.

    The tests of ``property`` take a minute each and share nothing, so they are dealt out one by one.
    """
    for item in items:
        folders = item.path.relative_to(_TESTS).parts
        if folders[0] == "property":
            continue
        group = "/".join(folders)
        if folders[0] == "integration":
            group = "dagtest" if folders[1] == "dagtest" else "servers"
        item.add_marker(pytest.mark.xdist_group(group))


def pytest_sessionstart() -> None:
    """End a terminated run as an interrupted one: a whole Airflow and a PostgreSQL server may have to be stopped."""
    this_process = os.getpid()

    def stop(number: int, _: object) -> None:
        if os.getpid() == this_process:
            pytest.exit("terminated", returncode=128 + number)
        signal.signal(number, signal.SIG_DFL)  # a forked child
        os.kill(os.getpid(), number)

    signal.signal(signal.SIGTERM, stop)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the home; all that used it has ended."""
    del config
    shutil.rmtree(_AIRFLOW_HOME, ignore_errors=True)
