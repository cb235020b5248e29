"""What planning, committing, idling, parsing and loading cost: ``python -m benchmarks``."""
