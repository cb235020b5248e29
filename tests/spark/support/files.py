"""Where what ``make setup-spark`` has made is."""

from __future__ import annotations

from demo.spark_home import PYTHON, ROOT, spark_jars

__all__ = ["PYTHON", "ROOT", "spark_jars"]
