"""When a DAG runs, and for which interval of time."""
