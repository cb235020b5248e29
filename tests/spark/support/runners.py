"""How tests run the jobs of sessions: in the Spark that all share, or by a driver of their own that may die."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs

from airflow_incremental.core.errors import TransformError
from tests.spark.support.catalogs import SharedCatalog
from tests.spark.support.drivers import Driver
from tests.spark.support.files import ROOT
from tests.spark.support.spark_process import CONF, SparkFailed, SparkProcess

#: The program that reads a job document and runs it.
APPLICATION = ROOT / "airflow_incremental_spark" / "run_job.py"


@attrs.define(kw_only=True)
class _Runner:
    """What both know of a job: the catalog as Spark is told of it, and the transform as the document has it."""

    shared: SharedCatalog
    transform: Mapping[str, Any]
    #: Every document that was run, in order.
    jobs: list[Mapping[str, Any]] = attrs.field(factory=list)

    @property
    def catalog(self) -> Mapping[str, Any]:
        """The catalog's name in Spark and its conf."""
        return {"name": self.shared.name, "conf": dict(self.shared.spark)}

    @property
    def fingerprint(self) -> str:
        """A digest of the transform."""
        return hashlib.sha256(json.dumps(self.transform, sort_keys=True).encode()).hexdigest()[:16]


@attrs.define(kw_only=True)
class SharedRunner(_Runner):
    """Runs jobs in the Spark that all tests share, each in a session of its own."""

    spark: SparkProcess

    def run(self, job: Mapping[str, Any]) -> None:
        """Run a job.

        :raises TransformError: it ended in an error.
        """
        self.jobs.append(job)
        try:
            self.spark.run(job)
        except SparkFailed as error:
            raise TransformError(str(error)) from error


@attrs.define(kw_only=True)
class FreshRunner(_Runner):
    """Runs each job by a ``spark-submit`` of its own.

    :param home: folder for the documents and what drivers write beside tables.
    :param master: as of ``Driver``.
    :param meanwhile: called with each driver as soon as it is started: to kill it, say.
    """

    home: Path
    master: str = CONF["spark.master"]
    meanwhile: Callable[[Driver], None] = lambda _driver: None
    _numbers: itertools.count[int] = attrs.field(factory=itertools.count, init=False)

    def driver(self, job: Mapping[str, Any]) -> Driver:
        """Return a driver for a job, not started."""
        home = self.home / f"driver{next(self._numbers)}"
        home.mkdir(parents=True)
        document = home / "job.json"
        document.touch(mode=0o600)
        document.write_text(json.dumps(job))
        return Driver(home, APPLICATION, "--job", str(document), master=self.master)

    def run(self, job: Mapping[str, Any]) -> None:
        """Run a job.

        :raises TransformError: its driver ended in an error, or was killed.
        """
        self.jobs.append(job)
        with self.driver(job) as driver:
            self.meanwhile(driver)
            code = driver.wait()
            if code:
                said = driver.log.read_text(errors="replace")[-3000:]
                raise TransformError(f"the driver ended with {code}: {said}")
