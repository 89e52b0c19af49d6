"""Records as Arrow batches, for Parquet, CSV and pandas; what does not fit a column is told."""

import importlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from crawler.errors import SettingsError
from crawler.exports.columns import Column, Kind, take_columns
from crawler.record import Record

if TYPE_CHECKING:
    import pyarrow as pa

_HALF = re.compile("[\ud800-\udfff]")
_LARGEST = 2**63


class Batches:
    """Turns records into Arrow batches of one schema.

    Attributes:
        schema: The Arrow schema.
        misfits: Values by column that could not be held in it and are null instead.
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        """Prepare for these columns.

        Raises:
            SettingsError: pyarrow is not installed.
        """
        self._arrow = arrow = import_extra("pyarrow")
        self._columns = columns
        types = {
            "integer": arrow.int64(),
            "text": arrow.string(),
            "yes_no": arrow.bool_(),
            "time": arrow.timestamp("us", "UTC"),
            "loose": arrow.string(),
            "json": arrow.string(),
        }
        self.schema = arrow.schema([(column.name, types[column.kind]) for column in columns])
        self.misfits = Counter[str]()

    def batch(self, records: Sequence[Record]) -> "pa.RecordBatch":
        """Make one batch of records, in their order."""
        taken = take_columns(self._columns, records)
        arrays = [
            self._array(column, values, field.type)
            for column, values, field in zip(self._columns, taken, self.schema, strict=True)
        ]
        return self._arrow.RecordBatch.from_arrays(arrays, schema=self.schema)

    def _array(self, column: Column, values: list[Any], arrow_type: Any) -> Any:
        if column.kind in ("json", "loose"):
            values = [_as_text(value, column.kind) for value in values]
        try:
            return self._arrow.array(values, arrow_type)
        except (self._arrow.ArrowException, OverflowError, UnicodeEncodeError, TypeError):
            fitted = [fit(value, column.kind) for value in values]
            self.misfits[column.name] += sum(
                after is None and before is not None
                for before, after in zip(values, fitted, strict=True)
            )
            return self._arrow.array(fitted, arrow_type)


def fit(value: Any, kind: Kind) -> Any:
    r"""Make a value fit a kind of column, or None where it cannot.

    Half of a surrogate pair, which UTF-8 cannot hold, becomes six characters such as `\ud83d`.
    """
    if kind in ("text", "loose", "json"):
        return _HALF.sub(lambda half: f"\\u{ord(half[0]):04x}", value) if _is(value, str) else None
    if kind == "integer":
        is_whole = _is(value, int) and not _is(value, bool)
        return value if is_whole and -_LARGEST <= value < _LARGEST else None
    wanted = bool if kind == "yes_no" else datetime
    return value if _is(value, wanted) else None


def import_extra(name: str) -> Any:
    """Import a package that only some people need.

    Raises:
        SettingsError: It is not installed; the message says how to.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise SettingsError(
            "extra_missing",
            package,
            f"{package} is not installed: pip install pandas pyarrow, or export to .jsonl",
        ) from error


def _is(value: Any, kind: type) -> bool:
    return isinstance(value, kind)


def _as_text(value: Any, kind: Kind) -> str | None:
    if value is None or (kind == "loose" and isinstance(value, str)):
        return value
    try:
        return msgspec.json.encode(value).decode()
    except UnicodeEncodeError:  # half a surrogate pair: with escapes
        return json.dumps(value, separators=(",", ":"))
