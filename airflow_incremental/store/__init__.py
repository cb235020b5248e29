"""Signals and the session log, in a database: SQLite by default, PostgreSQL in production.

Loads never depend on what is in here: the tables they write say everything that has to be known of them.
"""
