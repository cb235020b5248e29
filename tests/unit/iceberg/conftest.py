"""A catalog of its own for each test."""

from __future__ import annotations

from pathlib import Path

import pytest
from pyiceberg.catalog import Catalog

from tests.support.tables import sql_catalog


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return sql_catalog(tmp_path)
