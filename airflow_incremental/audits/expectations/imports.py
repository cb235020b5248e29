"""The first import of Great Expectations, which fails in some processes if it is left to itself."""

from __future__ import annotations

import importlib
import sys


def import_great_expectations() -> None:
    """Import Great Expectations, before modules that need it are.

    It imports pyspark where that is installed, and pyspark's client takes a process whose main module has no file (``python -c``, a
    spawned worker) for its own doctests, and ends it. So the main module gets one for as long as that takes.
    """
    main = sys.modules["__main__"]
    nameless = getattr(main, "__spec__", None) is None and not hasattr(main, "__file__")
    if nameless:
        main.__file__ = "<main>"
    try:
        importlib.import_module("great_expectations")
    finally:
        if nameless:
            del main.__file__
