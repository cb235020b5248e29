"""What runs a load as Airflow tasks: it translates between Airflow and a session, and decides nothing itself."""
