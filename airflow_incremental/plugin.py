"""What Airflow loads in every component; it must stay light."""

from __future__ import annotations

from typing import Any, ClassVar

from airflow_incremental.compat import AirflowPlugin, BaseOperatorLink
from airflow_incremental.operators.links import SessionPlanLink, SignalsLink
from airflow_incremental.timetables.catch_up import CatchUpTimetable


class IncrementalPlugin(AirflowPlugin):
    """Registers what Airflow looks up by name: the links of this package's operators, and its timetable."""

    name = "incremental"
    operator_extra_links: ClassVar[list[BaseOperatorLink]] = [SessionPlanLink(), SignalsLink()]  # type: ignore[misc]  # as every plugin does
    timetables: ClassVar[list[Any]] = [CatchUpTimetable]  # type: ignore[misc]  # As above.
