"""Engines: run a transform over what a plan says to read. They see reads, plans and Arrow data, never a table."""
