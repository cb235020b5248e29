"""What Airflow asks a provider package about itself."""

from __future__ import annotations

from typing import Any


def get_provider_info() -> dict[str, Any]:
    """Return the provider's metadata, in the form of Airflow's ``provider_info.schema.json``.

    The plugin is not named here: Airflow loads it through its entry point, in every component.
    """
    name = "Airflow Incremental"
    return {
        "package-name": "airflow-incremental",
        "name": name,
        "description": (
            "Watermark-driven incremental loads over Apache Iceberg: late data is loaded right, and nothing unaudited is published."
        ),
        "integrations": [
            {"integration-name": name, "external-doc-url": "https://iceberg.apache.org/", "tags": ["software"]},
        ],
        "operators": [
            {
                "integration-name": name,
                "python-modules": [
                    "airflow_incremental.operators.chunk",
                    "airflow_incremental.operators.emit",
                    "airflow_incremental.operators.load",
                    "airflow_incremental.operators.maintain",
                    "airflow_incremental.operators.matches",
                    "airflow_incremental.operators.rollback",
                    "airflow_incremental.operators.spark_load",
                ],
            }
        ],
        "sensors": [
            {
                "integration-name": name,
                "python-modules": ["airflow_incremental.sensors.signal", "airflow_incremental.sensors.watermark"],
            }
        ],
        "hooks": [{"integration-name": name, "python-modules": ["airflow_incremental.hooks.store"]}],
        "connection-types": [
            {
                "connection-type": "incremental",
                "hook-class-name": "airflow_incremental.hooks.store.IncrementalStoreHook",
                "hook-name": "Airflow Incremental store",
                "ui-field-behaviour": {
                    "hidden-fields": [],
                    "relabeling": {"schema": "Database", "host": "Host, or path of a SQLite file"},
                    "placeholders": {
                        "host": "postgres.example.com",
                        "port": "5432",
                        "schema": "incremental",
                        "extra": '{"sslmode": "require"}',
                    },
                },
            }
        ],
        "triggers": [
            {
                "integration-name": name,
                "python-modules": [
                    "airflow_incremental.triggers.iceberg",
                    "airflow_incremental.triggers.lock",
                    "airflow_incremental.triggers.signal",
                    "airflow_incremental.triggers.subscription",
                    "airflow_incremental.triggers.watermark",
                ],
            }
        ],
        "extra-links": [
            "airflow_incremental.operators.links.SessionPlanLink",
            "airflow_incremental.operators.links.SignalsLink",
        ],
        "config": {
            "incremental": {
                "description": "Options of airflow-incremental.",
                "options": {
                    "deployment": {
                        "description": (
                            "Identity of this Airflow deployment. It is written into the lock that a running session holds on "
                            "its target; sessions of another deployment are never taken over. Deployments that load the same "
                            "tables must differ in it. Default: the value of [api] base_url.\n"
                        ),
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "production",
                        "default": None,
                    },
                },
            },
        },
    }
