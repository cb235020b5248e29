"""What a Spark application needs to be told, found or explained: plain values, without Spark, Airflow or pyiceberg."""
