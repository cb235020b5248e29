"""Great Expectations' own data docs of one suite and one session, built from results that were found either way."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence
from pathlib import Path

import great_expectations
from great_expectations.core import ExpectationSuite, RunIdentifier
from great_expectations.core.expectation_validation_result import (
    ExpectationSuiteValidationResult,
    ExpectationValidationResult,
)
from great_expectations.data_context.types.base import DataContextConfig, InMemoryStoreBackendDefaults
from great_expectations.data_context.types.resource_identifiers import (
    ExpectationSuiteIdentifier,
    ValidationResultIdentifier,
)
from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

from airflow_incremental.audits.expectations.suite import Expectations
from airflow_incremental.audits.subject import Subject
from airflow_incremental.core.audit import AuditResult

_SITE = "incremental"


def build_docs(audit: Expectations, subject: Subject, found: Sequence[AuditResult]) -> Path:
    """Build the site and return its first page; what was there of an earlier session is replaced.

    :param found: the results of the suite's expectations, each with its standard Great Expectations result.
    """
    name = _safe(audit.name)
    folder = Path(audit.data_docs or "") / _safe(subject.process or "process") / name
    config = DataContextConfig(store_backend_defaults=InMemoryStoreBackendDefaults(), analytics_enabled=False)
    context = great_expectations.get_context(mode="ephemeral", project_config=config)
    context.add_data_docs_site(
        _SITE,
        {
            "class_name": "SiteBuilder",
            "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(folder)},
            "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
        },
    )
    standard = [r.full for r in found if r.full is not None]
    configurations = [ExpectationConfiguration(**full["expectation_config"]) for full in standard]
    context.suites.add(ExpectationSuite(name=name, expectations=[c.to_domain_obj() for c in configurations]))
    passed = sum(r.passed for r in found)
    now = dt.datetime.now(dt.timezone.utc)
    validation = ExpectationSuiteValidationResult(
        success=passed == len(found),
        results=[
            ExpectationValidationResult(
                success=full["success"],
                expectation_config=configuration,
                result=full["result"],
                meta=full["meta"],
                exception_info=full["exception_info"],
            )
            for full, configuration in zip(standard, configurations, strict=True)
        ],
        suite_name=name,
        statistics={
            "evaluated_expectations": len(found),
            "successful_expectations": passed,
            "unsuccessful_expectations": len(found) - passed,
            "success_percent": passed / len(found) * 100,
        },
        meta={
            "great_expectations_version": great_expectations.__version__,
            "run_id": RunIdentifier(run_name=subject.session or str(subject.snapshot_id), run_time=now),
            "validation_time": now.isoformat(),
            "active_batch_definition": {
                "datasource_name": subject.target,
                "data_asset_name": audit.over,
                "batch_identifiers": {"snapshot_id": str(subject.snapshot_id)},
            },
        },
    )
    key = ValidationResultIdentifier(
        expectation_suite_identifier=ExpectationSuiteIdentifier(name=name),
        run_id=validation.meta["run_id"],
        batch_identifier=f"{audit.over}-{subject.snapshot_id}",
    )
    context.validation_results_store.set(key, validation)
    context.clean_data_docs(site_name=_SITE)
    context.build_data_docs(site_names=[_SITE])
    if not any((folder / "validations").rglob("*.html")):  # what goes wrong with a page goes to its own log only
        raise FileNotFoundError
    return folder / "index.html"


def _safe(name: str) -> str:
    """Return a name for a folder, and for Great Expectations, which makes paths of it."""
    return re.sub(r"[^\w.-]+", "_", name).strip(".") or "_"
