"""What a transform reads by name, made when it asks: sources, what changed in them, the plan's ranges, the target's state."""

from __future__ import annotations

import re
from typing import Any, Callable, Iterator, Mapping

from airflow_incremental_spark.changes import changes
from airflow_incremental_spark.document import quote
from airflow_incremental_spark.errors import DriverError, during
from airflow_incremental_spark.keys import Keys
from airflow_incremental_spark.reads import SourceReader
from airflow_incremental_spark.settings import functions_of
from airflow_incremental_spark.times import Ranges

#: Relation with the plan's ranges.
PLAN_RANGES = "plan_ranges"
#: Relation with the target's rows before a step.
STATE = "state"


class Sources(Mapping[str, Any]):
    """A mapping of names to DataFrames, which are made when they are asked for and then kept."""

    def __init__(self, makers: Mapping[str, Callable[[], Any]]) -> None:
        self._makers = makers
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._makers:
            raise DriverError(
                f"the transform asks for {name!r}",
                expected="one of the names this transform can read: {}".format(", ".join(self._makers)),
                hint=f"declare {name!r} in sources, or correct the name",
                where="transform",
            )
        if name not in self._made:
            with during("read"):
                self._made[name] = self._makers[name]()
        return self._made[name]

    def __contains__(self, name: object) -> bool:
        return name in self._makers

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)

    def mentioned(self, sql: str) -> list[str]:
        """Return the names that occur in a query's text, whatever they stand for there."""
        return [n for n in self._makers if re.search(rf"(?<!\w){re.escape(n)}(?!\w)", sql, re.IGNORECASE)]


class Binder:
    """Makes the names of each part of a job.

    :param keys: what a ``merge`` job computes, found when a source is asked for.
    """

    def __init__(self, spark: Any, document: Mapping[str, Any]) -> None:
        self.spark = spark
        self.document = document
        self.keys: Keys | None = None
        catalog = document["catalog"]["name"]
        self.readers = {n: SourceReader(spark, catalog, s) for n, s in document["sources"].items()}
        #: Read whole, and without changes; of a driver they may be left out of the document, if the transform does not name them.
        self._lookups = {s["name"] for s in document["plan"]["sources"] if s["derivation"] == "lookup"}
        steps = document.get("steps") or {}
        _check_names(document["sources"], [PLAN_RANGES, *([STATE] if steps.get("state") else [])])

    def find_keys(self) -> Keys | None:
        """Find the keys that are computed, once; None for a job that computes none."""
        if self.keys is None:
            with during("read"):
                self.keys = Keys.of(self.document, self.readers)
        return self.keys

    def sources(self, part: Ranges | None, state: Callable[[], Any] | None) -> Sources:
        """Return the names of one part.

        :param part: the event times of a step; None for all that is planned.
        :param state: makes the target's state before it; None if the process asks for none.
        """
        makers: dict[str, Callable[[], Any]] = {}
        for name, source in self.document["sources"].items():
            makers[name] = _call(self._rows, name, part)
            if name in self._lookups:
                continue
            if source["added"] is not None:
                makers.setdefault(f"{name}_changes", _call(self._changed, name))
            makers.setdefault(f"{name}_ranges", _call(Ranges.read(source["ranges"]).frame, self.spark))
            if source.get("bounds"):
                makers.setdefault(f"{name}_bounds", _call(self._bounds, name))
        ranges = part if part is not None else Ranges.read(self.document["plan_ranges"])
        makers[PLAN_RANGES] = _call(ranges.frame, self.spark)
        if state is not None:
            makers[STATE] = state
        return Sources(makers)

    def _rows(self, name: str, part: Ranges | None) -> Any:
        source, reader = self.document["sources"][name], self.readers[name]
        frame = reader.frame(source["rows"])
        if name in self._lookups:
            return frame
        if part is not None and reader.time is not None:
            return reader.time.inside(frame, part)
        keys = self.find_keys()
        if keys is None:
            return frame
        wanted = self.document["keys"]
        within = (wanted.get("within") or {}).get(name)
        if within is not None and reader.time is not None:
            frame = reader.time.inside(frame, Ranges.read(within))
        return keys.rows(frame, wanted["sources"][name])

    def _changed(self, name: str) -> Any:
        source, reader = self.document["sources"][name], self.readers[name]
        removed = reader.frame(source["removed"]) if source["removed"] else None
        return changes(name, reader.frame(source["added"]), removed)

    def _bounds(self, name: str) -> Any:
        source = self.document["sources"][name]
        functions = functions_of(self.spark)
        columns = []
        for column, ends in source["bounds"].items():
            for which, value in zip(("min", "max"), ends or (None, None)):
                text = None if value is None else str(value)
                typed = functions.lit(text).cast(source["bounds_types"][column])
                columns.append(typed.alias(f"{which}_{column}"))
        return self.spark.range(1).select(*columns)


def _call(function: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
    return lambda: function(*arguments)


def _check_names(sources: Mapping[str, Any], reserved: list[str]) -> None:
    """Refuse names that Spark's SQL, which ignores case, cannot tell apart.

    :raises DriverError: there are some.
    """
    taken = set(reserved)
    for name in sources:
        if name.lower() in taken:
            raise DriverError(
                f"the source name {name!r} is taken",
                expected="names that differ by more than case, and not {}".format(
                    " or ".join(repr(r) for r in reserved)
                ),
                hint="rename the source in the DAG and in the transform",
                where="bind",
            )
        taken.add(name.lower())


class Views:
    """Temporary views of the names that a query mentions, which are there while the context is open.

    They have to be until its rows are written: Spark Connect looks names up again whenever a DataFrame is used.
    """

    def __init__(self, spark: Any, sources: Sources, sql: str) -> None:
        self._spark = spark
        self._sources = sources
        self._names = sources.mentioned(sql)

    def __enter__(self) -> None:
        for name in self._names:
            self._sources[name].createOrReplaceTempView(quote(name))

    def __exit__(self, *_: object) -> None:
        for name in self._names:
            self._spark.catalog.dropTempView(name)
