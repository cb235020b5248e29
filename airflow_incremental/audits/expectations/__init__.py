"""Great Expectations suites as audits: read and checked when the DAG is parsed, run by DuckDB where that is proven equal."""
