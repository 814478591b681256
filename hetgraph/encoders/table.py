"""Tables to nodes: a node per cell or per row, by what training told of the columns."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hetgraph.errors import HetgraphError

from .base import Encoder, Nodes, whole
from .media import Item, is_bytes
from .read_table import Cell, Table, is_frame, read_table
from .table_columns import KINDS, Column, Observed, columns_of
from .text import hashed_vector

if TYPE_CHECKING:
    from typing import Self


class TableEncoder(Encoder):
    """Base of the encoders of tables.

    Items are paths or bytes of CSV or Parquet files, strings of several lines (CSV), mappings (a table of one row),
    lists of mappings, or data frames; see :func:`hetgraph.encoders.read_table.read_table`. Empty cells, ``NA``,
    ``NaN``, ``null`` and ``None`` are missing.

    An encoder is made without columns and :meth:`fitted` to the tables of the training samples, which gives an
    encoder that knows its columns; they are part of its settings. A column of later tables that training did not
    have is left aside, one that they lack is missing.

    Args:
        columns: what :meth:`fitted` found out, or columns described by hand (as ``Column`` or its JSON).
        kinds: kind of a column by its name, instead of what its cells suggest: number, category, date, or ignore.
        max_values: a column with more categories than that has hashed ones.
        buckets: width of a hashed category.
        max_rows: only the first rows of a larger table are used; the attribute ``truncated`` counts how many tables
            were cut, since the encoder was made.

    Raises:
        HetgraphError: a setting out of range, or columns that are none.
    """

    def __init__(
        self,
        columns: Sequence[Column | Mapping[str, Any]] | None,
        kinds: Mapping[str, str] | None,
        max_values: int,
        buckets: int,
        max_rows: int,
    ) -> None:
        owner = type(self).__name__
        self.columns = None if columns is None else columns_of(columns)
        self.kinds = dict(kinds or {})
        wrong = [kind for kind in self.kinds.values() if kind not in (*KINDS, "ignore")]
        if wrong:
            raise HetgraphError(f"{owner}: a kind is one of {', '.join(KINDS)}, ignore, got {wrong[0]!r}")
        self.max_values = whole(owner, "max_values", max_values, 1, 10_000)
        self.buckets = whole(owner, "buckets", buckets, 1, 4096)
        self.max_rows = whole(owner, "max_rows", max_rows, 1, 1_000_000)
        self.truncated = 0

    def settings(self) -> dict[str, Any]:
        return {
            "columns": None if self.columns is None else [column.to_json() for column in self.columns],
            "kinds": self.kinds,
            "max_values": self.max_values,
            "buckets": self.buckets,
            "max_rows": self.max_rows,
        }

    def fitted(self, items: Sequence[Any], names: Sequence[str] | None = None) -> Self:
        """An encoder with the columns of these tables, their kinds and statistics; itself if it has columns already.

        Raises:
            MediaError: a table cannot be read.
            HetgraphError: no tables, a kind that was asked for and is not that of the cells, or no column is left.
        """
        if self.columns is not None:
            return self
        seen: dict[str, Observed] = {}
        for item in self._entries(items, names):
            table = read_table(item, self.path_of(item.value), self.max_rows)
            for place, name in enumerate(table.columns):
                if self.kinds.get(name) != "ignore":
                    observed = seen.setdefault(name, Observed(name, self.max_values))
                    for row in table.rows:
                        observed.add(row[place])
        if not seen:
            raise HetgraphError(f"{type(self).__name__}: expected tables with columns to learn from, got none")
        columns = [observed.column(self.kinds.get(name), self.buckets) for name, observed in seen.items()]
        return type(self)(**{**self.settings(), "columns": columns})

    def path_of(self, value: Any) -> Path | None:
        return None if isinstance(value, str) and "\n" in value else super().path_of(value)

    def digest(self, item: Item) -> str:
        if self.path_of(item.value) is not None or is_bytes(item.value) or isinstance(item.value, str):
            return super().digest(item)
        table = read_table(item, None, self.max_rows)
        return hashlib.sha256(f"table\0{table!r}".encode("utf-8", "surrogatepass")).hexdigest()

    def encode(self, items: Sequence[Item]) -> list[Nodes]:
        return [self._nodes(self._known(item), item) for item in items]

    def _known(self, item: Item) -> Table:
        """The table with the encoder's columns and no others; one that it lacks is missing."""
        if self.columns is None:
            raise HetgraphError(f"{type(self).__name__} knows no columns yet: call fitted(tables) first")
        table = read_table(item, self.path_of(item.value), self.max_rows)
        self.truncated += table.cut
        places = {name: i for i, name in enumerate(table.columns)}
        names = [column.name for column in self.columns]
        if not places.keys() & set(names):
            raise item.error(f"expected at least one of the columns {names[:10]}, got {table.columns[:10]}")
        wanted = [places.get(name) for name in names]
        rows: list[list[Cell]] = [[None if i is None else row[i] for i in wanted] for row in table.rows]
        return Table(names, rows, table.cut)

    @abstractmethod
    def _nodes(self, table: Table, item: Item) -> Nodes:
        """Nodes of a table with the columns of the encoder."""

    def _entries(self, items: Iterable[Any], names: Sequence[str] | None) -> list[Item]:
        if is_frame(items):
            raise HetgraphError(f"{type(self).__name__} takes a list of items, got a single {type(items).__name__}")
        return super()._entries(items, names)

    def _features(self, column: Column, cell: Cell, row: int, item: Item) -> np.ndarray:
        try:
            return column.encode(cell)
        except ValueError as error:
            raise item.error(f"row {row + 1}, column {column.name!r}: {error}") from error


class TableCells(TableEncoder):
    """One node per cell, row by row; the field ``column [N]`` is the number of its column.

    ``x``: 1 if the cell is missing; a part for each kind of column that there is (number, category, date), zero but
    for the cell's own kind; and a pseudo-random vector of the column's name, so that equal cells of different columns
    differ.

    Args:
        name_dim: width of the vector of the column's name.
        others: see :class:`TableEncoder`.
    """

    def __init__(
        self,
        columns: Sequence[Column | Mapping[str, Any]] | None = None,
        kinds: Mapping[str, str] | None = None,
        max_values: int = 64,
        buckets: int = 32,
        max_rows: int = 100,
        name_dim: int = 16,
    ) -> None:
        super().__init__(columns, kinds, max_values, buckets, max_rows)
        self.name_dim = whole("TableCells", "name_dim", name_dim, 1, 4096)
        self.fields = {"column": 0}
        self._starts: dict[str, int] = {}
        self.dim = 0
        if self.columns is not None:
            end = 1
            for kind in KINDS:
                self._starts[kind] = end
                end += max((column.width for column in self.columns if column.kind == kind), default=0)
            self.dim = end + self.name_dim

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "name_dim": self.name_dim}

    def _nodes(self, table: Table, item: Item) -> Nodes:
        columns = self.columns or ()
        x = np.zeros((len(table.rows), len(columns), self.dim), dtype=np.float32)
        for place, column in enumerate(columns):
            x[:, place, -self.name_dim :] = hashed_vector(column.name, self.name_dim)
            start = self._starts[column.kind]
            for number, row in enumerate(table.rows):
                if row[place] is None:
                    x[number, place, 0] = 1.0
                else:
                    x[number, place, start : start + column.width] = self._features(column, row[place], number, item)
        column_ids = torch.arange(len(columns)).repeat(len(table.rows))
        return {"x": torch.from_numpy(x.reshape(-1, self.dim)), "column": column_ids}


class TableRows(TableEncoder):
    """One node per row: the cells side by side, each led by 1 if it is missing.

    Args: see :class:`TableEncoder`.
    """

    def __init__(
        self,
        columns: Sequence[Column | Mapping[str, Any]] | None = None,
        kinds: Mapping[str, str] | None = None,
        max_values: int = 64,
        buckets: int = 32,
        max_rows: int = 1000,
    ) -> None:
        super().__init__(columns, kinds, max_values, buckets, max_rows)
        self.fields = {}
        self.dim = sum(1 + column.width for column in self.columns or ())

    def _nodes(self, table: Table, item: Item) -> Nodes:
        x = np.zeros((len(table.rows), self.dim), dtype=np.float32)
        start = 0
        for place, column in enumerate(self.columns or ()):
            for number, row in enumerate(table.rows):
                if row[place] is None:
                    x[number, start] = 1.0
                else:
                    x[number, start + 1 : start + 1 + column.width] = self._features(column, row[place], number, item)
            start += 1 + column.width
        return {"x": torch.from_numpy(x)}
