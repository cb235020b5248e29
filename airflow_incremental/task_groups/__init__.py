"""Loads as task groups."""
