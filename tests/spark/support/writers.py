"""A world's source as Spark makes it and writes to it, with the means that pyiceberg does not have."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import attrs

from tests.spark.support.catalogs import SharedCatalog
from tests.spark.support.spark_process import SparkProcess
from tests.support.world import SOURCE, Row, World, hour

COPY_ON_WRITE, MERGE_ON_READ = "copy-on-write", "merge-on-read"


@attrs.frozen(kw_only=True)
class SparkWriter:
    """Writes to the source of a world.

    :param world: one whose catalog is ``catalog``.
    """

    world: World
    catalog: SharedCatalog
    spark: SparkProcess

    def create(self, *, partitioned_by: str = "days(ts)", version: int = 2, **properties: str) -> None:
        """Make the source anew, as Spark makes a table; its metadata is compressed, as it may be."""
        own = {"format-version": str(version), "write.metadata.compression-codec": "gzip", **properties}
        listed = ", ".join(f"'{key}' = '{value}'" for key, value in own.items())
        partitioning = f"PARTITIONED BY ({partitioned_by})" if partitioned_by else ""
        self.world.catalog.drop_table(SOURCE)
        self.sql(
            f"CREATE TABLE {SOURCE} (id BIGINT, ts TIMESTAMP, region STRING, v BIGINT) USING iceberg {partitioning} "
            f"TBLPROPERTIES ({listed})"
        )

    def sql(self, *statements: str) -> None:
        """Run statements."""
        self.spark.sql(self.catalog, *statements)

    def append(self, *hours: float, regions: Iterable[str] = ("eu", "us")) -> list[Row]:
        """Append rows at these hours in one commit, in files as Spark makes them; regions take turns."""
        rows, names = [], list(regions)
        for at in hours:
            self.world.next_id += 1
            number = self.world.next_id
            rows.append((number, hour(at), names[number % len(names)], number))
        self.sql(f"INSERT INTO {SOURCE} VALUES {values(rows)}")
        return rows

    def add_files(self, folder: Path, rows: Iterable[Row]) -> None:
        """Take Parquet files that Spark has written without Iceberg, with times as it wrote them for most of its life."""
        self.sql(
            "SET spark.sql.parquet.outputTimestampType = INT96",
            f"CREATE OR REPLACE TEMPORARY VIEW old AS SELECT * FROM VALUES {values(rows)} AS r(id, ts, region, v)",
            f"INSERT OVERWRITE DIRECTORY '{folder}' USING parquet SELECT /*+ COALESCE(1) */ * FROM old",
            f"CALL {self.catalog.name}.system.add_files(table => '{SOURCE}', source_table => '`parquet`.`{folder}`')",
        )

    def mode(self, mode: str) -> None:
        """Choose how rows are changed: files of position deletes, or data files written anew."""
        kinds = ", ".join(f"'write.{kind}.mode' = '{mode}'" for kind in ("delete", "update", "merge"))
        self.sql(f"ALTER TABLE {SOURCE} SET TBLPROPERTIES ({kinds})")

    def update(self, change: str, where: str) -> None:
        """Change rows."""
        self.sql(f"UPDATE {SOURCE} SET {change} WHERE {where}")

    def delete(self, where: str) -> None:
        """Delete rows."""
        self.sql(f"DELETE FROM {SOURCE} WHERE {where}")

    def merge(self, rows: Iterable[Row], *, gone: int) -> None:
        """Update the rows whose ids are there, insert the others, and delete one, in one commit."""
        self.sql(
            f"MERGE INTO {SOURCE} t USING (SELECT * FROM VALUES {values(rows)}, ({gone}L, NULL, NULL, NULL) "
            "AS s(id, ts, region, v)) s ON t.id = s.id WHEN MATCHED AND s.ts IS NULL THEN DELETE WHEN MATCHED THEN UPDATE SET * "
            "WHEN NOT MATCHED AND s.ts IS NOT NULL THEN INSERT *"
        )

    def compact(self) -> None:
        """Write all data files anew (``rewrite_data_files``), which applies position deletes."""
        self._call("rewrite_data_files", "options => map('rewrite-all', 'true')")

    def rewrite_manifests(self) -> None:
        """Write the manifests anew."""
        self._call("rewrite_manifests")

    def expire(self) -> None:
        """Forget all snapshots but the last, and delete the files that only they had."""
        self._call("expire_snapshots", "older_than => TIMESTAMP '2999-01-01 00:00:00', retain_last => 1")

    def _call(self, procedure: str, *arguments: str) -> None:
        given = ", ".join([f"table => '{SOURCE}'", *arguments])
        self.sql(f"CALL {self.catalog.name}.system.{procedure}({given})")


def values(rows: Iterable[Row]) -> str:
    """Return rows as a list of SQL's VALUES."""
    return ", ".join(
        f"({number}L, TIMESTAMP '{'' if at is None else at:%Y-%m-%d %H:%M:%S.%f}', '{region}', {v}L)"
        for number, at, region, v in rows
    )
