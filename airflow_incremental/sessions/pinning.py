"""After a publish: the pins on its sources follow its watermark."""

from __future__ import annotations

import logging

from airflow_incremental.core.errors import IncrementalError
from airflow_incremental.core.watermark import Published
from airflow_incremental.iceberg.pins import pin
from airflow_incremental.sessions.process import Process

log = logging.getLogger(__name__)


def pin_sources(process: Process, published: Published | None) -> None:
    """Move the tags on the sources that ask for one to what was published last.

    What is published is published: a pin that cannot be moved is a warning, and the next run tries again.
    """
    if published is None:
        return
    for name, source in process.spec.drivers.items():
        position = published.watermark.positions.get(name)
        if not source.pin or position is None:
            continue
        try:
            pin(process.catalog, source.table, process=process.spec.process, source=name, position=position)
        except (IncrementalError, ValueError, OSError) as error:
            log.warning("the pin on source %r (%s) stays where it is: %s", name, source.table, error)
