"""What the package tells Airflow about itself is true, and in the form Airflow asks for."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
from pathlib import Path

import airflow
import jsonschema
import pytest

import airflow_incremental
from airflow_incremental.plugin import IncrementalPlugin
from airflow_incremental.provider_info import get_provider_info

SCHEMA = Path(airflow.__file__).parent / "provider_info.schema.json"


def test_the_metadata_have_airflows_form() -> None:
    jsonschema.validate(get_provider_info(), json.loads(SCHEMA.read_text(encoding="utf-8")))


@pytest.mark.parametrize("kind", ["operators", "sensors", "triggers"])
def test_every_module_it_names_is_there_and_none_is_left_out(kind: str) -> None:
    named = [module for item in get_provider_info()[kind] for module in item["python-modules"]]
    folder = Path(airflow_incremental.__file__).parent / kind
    heads = (f"{kind[:-1].title()}(Base", "LoadOperator(IncrementalLoadOperator")
    with_classes = [
        f"airflow_incremental.{kind}.{path.stem}"
        for path in sorted(folder.glob("*.py"))
        if any(head in path.read_text(encoding="utf-8") for head in heads)
    ]
    assert named == with_classes
    for module in named:
        importlib.import_module(module)


def test_the_links_are_registered_twice_the_same() -> None:
    named = get_provider_info()["extra-links"]
    assert named == [
        f"{type(link).__module__}.{type(link).__qualname__}" for link in IncrementalPlugin.operator_extra_links
    ]


def test_the_version_is_the_distributions() -> None:
    """The package states it once; the build reads it from there."""
    assert importlib.metadata.version("airflow-incremental") == airflow_incremental.__version__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = airflow_incremental.Nothing
    assert set(airflow_incremental.__all__) == set(dir(airflow_incremental))
