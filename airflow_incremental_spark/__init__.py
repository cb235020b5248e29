"""The part of airflow-incremental on a Spark driver: it binds a session's sources, runs the transform and writes the branch.

It is shipped with a job (``py-files``) and needs nothing but Python 3.8 and pyspark 3.5 or 4.x, classic or Connect; Airflow,
airflow-incremental itself and Iceberg's SQL extensions are not needed, and executors never import it. A Spark application of your
own uses it like this::

    from airflow_incremental_spark import open_job

    with open_job() as job:
        orders = job.source("orders")  # a DataFrame of exactly the rows that the session reads
        job.write(orders.groupBy("day").count())

What it wrote is not published by that: Airflow checks, seals, audits and publishes it when the application is over.
"""

from airflow_incremental_spark.errors import DriverError
from airflow_incremental_spark.job import Job, Step
from airflow_incremental_spark.run import main, open_job, run

__all__ = ["DriverError", "Job", "Step", "main", "open_job", "run"]
