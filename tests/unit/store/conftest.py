from __future__ import annotations

from tests.support.stores import store, store_server, store_url

__all__ = ["store", "store_server", "store_url"]
