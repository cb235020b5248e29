"""What a transform returned, made to fit the target: columns by name, types without loss, or an error that shows the difference."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import pyarrow as pa

from airflow_incremental.core.errors import TransformError
from airflow_incremental.engines.conversions import Convert, Mismatch, Unfit, fields


@attrs.frozen
class Fitter:
    """Turns batches of the transform's columns into batches of the target's schema."""

    have: pa.Schema
    want: pa.Schema
    _steps: tuple[Convert, ...]

    @classmethod
    def between(cls, have: pa.Schema, want: pa.Schema) -> Fitter:
        """Match columns by name, in any order.

        :raises TransformError: with a table of every column that is missing, unexpected or of a type that does not fit.
        """
        doubled = sorted({name for name in have.names if have.names.count(name) > 1})
        if doubled:
            raise TransformError(
                f"the transform returns {', '.join(repr(d) for d in doubled)} more than once",
                expected="every column once",
                hint="name columns with AS",
            )
        wrong: list[Mismatch] = []
        steps = fields(list(have), list(want), "", wrong)
        if wrong:
            raise mismatch(wrong)
        return cls(have, want, tuple(steps))

    def fit(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Convert one batch.

        :raises TransformError: values do not fit, or a column the target requires holds nulls.
        """
        arrays = []
        for field, step in zip(self.want, self._steps, strict=True):
            try:
                array = step(batch.column(field.name))
            except Unfit as error:
                raise TransformError(
                    f"the transform returned rows that do not fit the target: {error} (in a batch of {batch.num_rows:,} rows)",
                    expected="values the target's column can hold, exactly",
                    hint="convert or filter them in the transform",
                ) from None
            if not field.nullable and array.null_count:
                raise TransformError(
                    f"the transform returned {array.null_count:,} nulls in column {field.name!r} "
                    f"(in a batch of {batch.num_rows:,} rows)",
                    expected=f"no nulls: the target requires {field.name!r}",
                    hint="fill or filter them in the transform, or make the column optional",
                )
            arrays.append(array)
        return pa.RecordBatch.from_arrays(arrays, schema=self.want)


def mismatch(wrong: Sequence[Mismatch]) -> TransformError:
    """Return the error that shows every column that does not fit, as a table."""
    rows = [("column", "transform returns", "target has")]
    rows += [(m.column, m.have or "(missing)", m.want or "(no such column)") for m in wrong]
    widths = [max(len(r[i]) for r in rows) for i in range(2)]
    table = "\n".join(f"  {a:<{widths[0]}}  {b:<{widths[1]}}  {c}" for a, b, c in rows)
    missing = {m.column.lower(): m.column for m in wrong if m.have is None}
    renamed = {m.column: missing.pop(m.column.lower()) for m in wrong if m.have and m.column.lower() in missing}
    hints = [f"return {m.advice} AS {m.column}" for m in wrong if m.advice and "." not in m.column]
    hints += [f"rename {old} to {new}" for old, new in renamed.items()]
    # Whether a field inside a column is to come or to go is for whoever made the column to say.
    more = [column for column in missing.values() if "." not in column]
    less = [m.column for m in wrong if m.want is None and m.column not in renamed and "." not in m.column]
    hints += [f"return {', '.join(more)} too"] if more else []
    hints += [f"leave {', '.join(less)} out"] if less else []
    return TransformError(
        f"the transform's columns do not fit the target:\n{table}\n",
        expected="the target's columns by name, in any order, with types that fit without loss",
        hint=", ".join(hints) or "return exactly the target's columns, or change the target's schema",
    )
