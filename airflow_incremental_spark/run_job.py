"""The main program of a Spark job that Airflow submits: ``run_job.py --job <document>``."""

import sys

from airflow_incremental_spark.run import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
