"""What reaches other systems through an Airflow connection."""
