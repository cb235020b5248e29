"""Which settings hold what must not be shown."""

from __future__ import annotations

import re

_SECRET = re.compile(
    r"credential$|credentials-json$|secret(?!keyref|s\.)|password$|token$|key$|^adls\.(sas-token|connection-string)|^header\.auth",
    re.IGNORECASE,
)


def is_secret(key: str) -> bool:
    """Say whether a setting of this name holds a secret, as far as names of settings of Iceberg, Hadoop and Spark tell."""
    return _SECRET.search(key) is not None
