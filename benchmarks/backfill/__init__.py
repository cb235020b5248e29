"""What ``benchmarks/backfills.py`` measures with: tables, an Airflow, and what its runs and their logs say."""
