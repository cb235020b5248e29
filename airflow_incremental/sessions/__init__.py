"""A session and its steps, as plain objects and functions that run without Airflow."""
