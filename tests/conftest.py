"""What every test needs: how many random histories, and an Airflow home of its own."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import sys
import tempfile
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

# The same histories on every run and machine, so that what passes here passes in CI. No deadline: files are written.
settings.register_profile("ci", max_examples=100, deadline=None, derandomize=True, print_blob=True)
# Other histories every time: this one is for finding what nobody has thought of.
settings.register_profile("long", max_examples=2_000, deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

if os.environ.get("PYTEST_XDIST_WORKER"):
    # A worker's main module has no file, which pyspark's client takes for its own doctests, and ends the process.
    vars(sys.modules["__main__"]).setdefault("__file__", pytest.__file__)

# Importing Airflow writes its configuration to its home, and a test may migrate a database there: never into a
# developer's own. Set here because some test module may import Airflow as soon as it is collected.
_AIRFLOW_HOME = tempfile.mkdtemp(prefix="airflow-home-")
os.environ["AIRFLOW_HOME"] = _AIRFLOW_HOME
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"

# What Airflow and pyiceberg import is very many objects, and garbage collection would look at all of them again and again: a sixth
# of the time of all tests.
gc.set_threshold(20_000, 20, 50)

#: Fixtures that the tests of several folders share.
pytest_plugins = ("tests.support.stores",)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Where two processes share the tests, keep together what shares a server or a file's fixtures."""
    return _Scheduler(config, log)


class _Scheduler(LoadScopeScheduling):
    def _split_scope(self, nodeid: str) -> str:
        """Return what a test has to stay with: its file, but the tests of ``property`` share nothing and take a minute each."""
        file = nodeid.split("::", maxsplit=1)[0]
        if file.startswith("tests/property/"):
            return nodeid
        if file.startswith("tests/integration/"):
            return "dagtest" if file.startswith("tests/integration/dagtest/") else "servers"
        return file


def pytest_collection_finish() -> None:
    """Leave what is imported by now out of garbage collection."""
    gc.collect()
    gc.freeze()


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
    gc.unfreeze()  # else some extension modules take what is left at the exit for a leak
    shutil.rmtree(_AIRFLOW_HOME, ignore_errors=True)
