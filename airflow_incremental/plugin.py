"""What Airflow loads in every component; it must stay light."""

from __future__ import annotations

from typing import ClassVar

from airflow_incremental.compat import AirflowPlugin, BaseOperatorLink
from airflow_incremental.operators.links import SessionPlanLink, SignalsLink


class IncrementalPlugin(AirflowPlugin):
    """Registers the links of this package's operators."""

    name = "incremental"
    operator_extra_links: ClassVar[list[BaseOperatorLink]] = [SessionPlanLink(), SignalsLink()]  # type: ignore[misc]  # as every plugin does
