"""The demonstration: real flights land late in an Iceberg table, real Airflow loads them, and every row is checked.

``python -m demo`` runs it. ``demo.stack`` is a whole Airflow in child processes that can be used on its own, as the
tests do.
"""
