"""Pure values and rules of incremental loading: standard library and attrs only."""
