"""Reading one table, whatever form it comes in, as rows of plain values; only as much of it as is wanted."""

from __future__ import annotations

import csv
import datetime
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from hetgraph.errors import HetgraphError

from .media import Item, is_bytes, open_file
from .pretrained import is_installed

Cell = None | bool | int | float | str | datetime.date

MISSING = frozenset({"", "na", "n/a", "nan", "null", "none"})
"""Texts that mean that there is no value, in any case."""

MOST_COLUMNS = 4096
_LONGEST_LINE = 1 << 20
_LONGEST_CELL = 1 << 17
_LARGEST_GROUP = 1 << 30


@dataclass(frozen=True)
class Table:
    """Names of the columns, the rows of as many cells, and whether more rows were left out."""

    columns: list[str]
    rows: list[list[Cell]]
    cut: bool


def read_table(item: Item, path: Path | None, max_rows: int) -> Table:
    """The first rows of a table.

    Args:
        item: a file or bytes (Parquet, or else CSV in UTF-8 with a line of column names; of comma, semicolon, tab
            and ``|`` the one most frequent in that line stands between the cells), a string of several lines (CSV),
            a mapping (one row), a list of mappings, or a data frame (pandas, polars, pyarrow).
        path: the file that the item stands for, if it does.
        max_rows: more are left out.

    Raises:
        MediaError: unreadable, damaged, ragged, without rows, repeated column names, or cells that are no text,
            number, date or nothing. HetgraphError: Parquet, and pyarrow is not installed.
    """
    value = item.value
    if path is not None or is_bytes(value):
        with open_file(path, item) if path is not None else io.BytesIO(bytes(value)) as source:
            table = _from_file(source, item, max_rows)
    elif isinstance(value, str):
        table = _from_csv(io.BytesIO(value.encode("utf-8", "surrogatepass")), item, max_rows)
    elif isinstance(value, Mapping):
        table = _from_mappings([value], item, max_rows)
    elif is_frame(value):
        table = _from_frame(value, item, max_rows)
    elif isinstance(value, Sequence) and value and all(isinstance(row, Mapping) for row in value):
        table = _from_mappings(value, item, max_rows)
    else:
        raise item.error(f"expected a table (a path, CSV, rows as dicts, a data frame), got {type(value).__name__}")
    if not table.columns or not table.rows:
        raise item.error("the table has no rows" if table.columns else "the table has no columns")
    if len(table.columns) > MOST_COLUMNS:
        raise item.error(f"expected at most {MOST_COLUMNS} columns, got {len(table.columns)}")
    seen: set[str] = set()
    for name in table.columns:
        if name in seen:
            raise item.error(f"expected different column names, got {name!r} twice")
        seen.add(name)
    return table


def is_frame(value: Any) -> bool:
    """Whether something is a data frame of pandas, polars or pyarrow, by what it can do."""
    return hasattr(value, "columns") and any(hasattr(value, f) for f in ("itertuples", "iter_rows", "to_pylist"))


def _from_file(source: BinaryIO, item: Item, max_rows: int) -> Table:
    head = source.read(4)
    source.seek(0)
    if not head:
        raise item.error("expected a table, got 0 bytes")
    return _from_parquet(source, item, max_rows) if head == b"PAR1" else _from_csv(source, item, max_rows)


def _from_csv(source: BinaryIO, item: Item, max_rows: int) -> Table:
    lines = _lines(source, item)
    first = next((line for line in lines if line.strip()), "")
    delimiter = max(",;\t|", key=first.count)
    reader = csv.reader((line for part in ([first], lines) for line in part), delimiter=delimiter, strict=True)
    try:
        header = [name.strip() or f"column {i}" for i, name in enumerate(next(reader, []), 1)]
        rows: list[list[Cell]] = []
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(header):
                raise item.error(f"line {reader.line_num}: expected {len(header)} cells, got {len(cells)}")
            if len(rows) == max_rows:
                return Table(header, rows, True)
            rows.append([_text(cell) for cell in cells])
    except csv.Error as error:
        raise item.error(f"line {reader.line_num}: expected CSV: {error}") from error
    return Table(header, rows, False)


def _lines(source: BinaryIO, item: Item) -> Iterator[str]:
    number = 0
    try:
        while line := source.readline(_LONGEST_LINE + 1):
            number += 1
            if len(line) > _LONGEST_LINE:
                raise item.error(f"line {number}: longer than {_LONGEST_LINE} bytes")
            if b"\0" in line:
                raise item.error(f"line {number}: expected CSV, got a NUL character (a binary file?)")
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise item.error(f"line {number}: expected UTF-8, got byte {error.object[error.start]:#04x}") from error
    except OSError as error:
        raise item.error(f"the file cannot be read: {error.strerror or error}") from error


def _from_mappings(rows: Sequence[Mapping[Any, Any]], item: Item, max_rows: int) -> Table:
    kept = rows[:max_rows]
    columns = list(dict.fromkeys(name for row in kept for name in row))
    odd = [name for name in columns if not isinstance(name, str)]
    if odd:
        raise item.error(f"expected text as names of columns, got {odd[0]!r}")
    cells = _plain(([row.get(name) for name in columns] for row in kept), columns, item)
    return Table(columns, cells, len(rows) > max_rows)


def _from_frame(value: Any, item: Item, max_rows: int) -> Table:
    columns = getattr(value, "column_names", None) or value.columns
    names = [str(name) for name in columns]
    try:
        if hasattr(value, "itertuples"):
            rows: Iterable[Any] = islice(value.itertuples(index=False, name=None), max_rows)
        elif hasattr(value, "iter_rows"):
            rows = islice(value.iter_rows(), max_rows)
        else:
            rows = ([row[name] for name in names] for row in value.slice(0, max_rows).to_pylist())
        return Table(names, _plain(rows, names, item), len(value) > max_rows)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        if isinstance(error, HetgraphError):
            raise
        raise item.error(f"this {type(value).__name__} cannot be read as a table: {error}") from error


def _from_parquet(source: BinaryIO, item: Item, max_rows: int) -> Table:
    if not is_installed("pyarrow"):
        raise HetgraphError(f"{item.name}: Parquet needs the package pyarrow: pip install 'hetgraph[parquet]'")
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    try:
        first = pq.ParquetFile(source)
        schema, groups = first.schema_arrow, first.metadata
        sizes = [groups.row_group(i).total_byte_size for i in range(groups.num_row_groups)]
        if groups.num_columns > MOST_COLUMNS or max(sizes, default=0) > _LARGEST_GROUP:
            raise item.error(f"a group of rows is larger than {_LARGEST_GROUP} bytes or {MOST_COLUMNS} columns")
        texts = [field.name for field in schema if pa.types.is_string(field.type) or pa.types.is_binary(field.type)]
        source.seek(0)
        # one long text that every row repeats stays one text this way
        file = pq.ParquetFile(source, read_dictionary=texts)
        names = [name for name in schema.names if not name.startswith("__index_level_")]
        rows: list[list[Cell]] = []
        for batch in file.iter_batches(batch_size=min(max_rows, 1024), columns=names):
            for column in batch.columns:
                if pa.types.is_dictionary(column.type) and len(column.dictionary):
                    longest = pc.max(pc.binary_length(column.dictionary)).as_py() or 0
                    if longest > _LONGEST_CELL:
                        raise item.error(f"a cell of {longest} bytes is longer than {_LONGEST_CELL}")
            values = [_without_nanoseconds(column).to_pylist() for column in batch.columns]
            rows += _plain(islice(zip(*values, strict=True), max_rows - len(rows)), names, item, len(rows))
            if len(rows) == max_rows:
                break
        return Table(names, rows, groups.num_rows > max_rows)
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        if isinstance(error, HetgraphError):
            raise
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise item.error(f"the Parquet file is damaged or not supported: {first_line}") from error


def _without_nanoseconds(column: Any) -> Any:
    import pyarrow as pa

    return column.cast(pa.timestamp("us"), safe=False) if pa.types.is_timestamp(column.type) else column


def _plain(rows: Iterable[Sequence[Any]], columns: Sequence[str], item: Item, before: int = 0) -> list[list[Cell]]:
    found: list[list[Cell]] = []
    for number, row in enumerate(rows, before + 1):
        cells = []
        for name, value in zip(columns, row, strict=True):
            try:
                cells.append(_cell(value))
            except TypeError as error:
                raise item.error(f"row {number}, column {name!r}: {error}") from error
        found.append(cells)
    return found


def _cell(value: Any) -> Cell:
    if isinstance(value, np.datetime64):
        value = value.astype("datetime64[us]").item()
    elif isinstance(value, np.generic):
        value = value.item()
    if value is None or type(value).__name__ in ("NaTType", "NAType"):
        return None
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, Decimal):
        value = float(value)
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if isinstance(value, bool | int | datetime.date):
        return value
    raise TypeError(f"expected a text, a number, a date or nothing, got {type(value).__name__}")


def _text(cell: str) -> Cell:
    stripped = cell.strip()
    return None if stripped.lower() in MISSING else stripped
