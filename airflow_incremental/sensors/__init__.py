"""Sensors: tasks that wait for data or for signals."""
