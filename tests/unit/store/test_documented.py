from __future__ import annotations

from pathlib import Path

from airflow_incremental.store.documented import document

PAGE = Path(__file__).parents[3] / "docs" / "store.md"


def test_the_page_is_what_the_tables_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == document(), "write it anew: make docs-store"
