"""What a column of a table is (numbers, categories, dates), and its cells as numbers."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from hetgraph.errors import HetgraphError

from .read_table import Cell
from .text import hashed_vector

KINDS = ("number", "category", "date")
DATE_DIM = 9
LIMIT = 20.0
"""Standardised numbers are cut off here, so that one absurd cell does not drown the others."""

_LONGEST_VALUE = 200
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?(Z|[+-]\d{2}:?\d{2})?)?", re.ASCII)


@dataclass(frozen=True)
class Column:
    """A column and what training told of it.

    Attributes:
        kind: ``number``: the value minus ``mean``, divided by ``std`` (1 wide). ``category``: a place for each of
            ``values`` and one for all others, or, with more values than were to be kept, a pseudo-random vector of
            the value, ``buckets`` wide. ``date``: years from 2000 in units of 50; sine and cosine of the month in the
            year, the day in the month, the day in the week and the time in the day (9 wide).
    """

    name: str
    kind: str
    mean: float = 0.0
    std: float = 1.0
    values: tuple[str, ...] | None = None
    buckets: int = 0

    @property
    def width(self) -> int:
        if self.kind == "number":
            return 1
        if self.kind == "date":
            return DATE_DIM
        return self.buckets if self.values is None else len(self.values) + 1

    def encode(self, cell: Cell) -> np.ndarray:
        """A cell that is not missing as ``[width]``.

        Raises:
            ValueError: not of this kind; says what was expected and what came.
        """
        if self.kind == "number":
            standard = (as_number(cell) - self.mean) / self.std
            return np.array([min(max(standard, -LIMIT), LIMIT)])
        if self.kind == "date":
            return _of_date(as_date(cell))
        if self.values is None:
            return hashed_vector(as_category(cell), self.buckets)
        value = as_category(cell)
        place = self.values.index(value) if value in self.values else len(self.values)
        return np.eye(len(self.values) + 1)[place]

    def to_json(self) -> dict[str, Any]:
        used = {"number": ("mean", "std"), "date": (), "category": ("buckets",) if self.values is None else ("values",)}
        own = {key: value for key, value in asdict(self).items() if key in ("name", "kind", *used[self.kind])}
        return {**own, "values": list(self.values)} if "values" in own and self.values is not None else own

    @classmethod
    def from_json(cls, data: Any) -> Column:
        """What :meth:`to_json` gave.

        Raises:
            HetgraphError: something else.
        """
        try:
            column = cls(**{**data, "values": None if data.get("values") is None else tuple(data["values"])})
            good = isinstance(column.name, str) and column.kind in KINDS and column.width > 0
            good = good and math.isfinite(column.mean) and 0 < column.std < math.inf
            good = good and all(isinstance(value, str) for value in column.values or ())
        except (TypeError, AttributeError) as error:
            raise HetgraphError(f"expected a column of a table as to_json() gives it, got {data!r}") from error
        if not good:
            raise HetgraphError(f"expected a column of a table as to_json() gives it, got {data!r}")
        return column


@dataclass
class Observed:
    """What is known of a column while training cells pass by; it does not grow with their number.

    Means and variances by the method of Welford (Technometrics, 1962).
    """

    name: str
    most_values: int
    kinds: set[str] = field(default_factory=lambda: set(KINDS))
    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    values: set[str] | None = field(default_factory=set)

    def add(self, cell: Cell) -> None:
        if cell is None:
            return
        self.count += 1
        if "number" in self.kinds:
            try:
                value = as_number(cell)
            except ValueError:
                self.kinds.discard("number")
            else:
                change = value - self.mean
                self.mean += change / self.count
                self.squares += change * (value - self.mean)
        if "date" in self.kinds:
            try:
                as_date(cell)
            except ValueError:
                self.kinds.discard("date")
        if self.values is not None:
            text = as_category(cell)
            self.values.add(text)
            if len(self.values) > self.most_values or len(text) > _LONGEST_VALUE:
                self.values = None

    def column(self, kind: str | None, buckets: int) -> Column:
        """The column; its kind is that given, else the first that all cells allow (of none: category).

        Raises:
            HetgraphError: the cells are not of the given kind, or numbers too large to have a variance.
        """
        kind = kind or (
            next(k for k in ("number", "date", "category") if k in self.kinds) if self.count else "category"
        )
        if kind not in self.kinds:
            raise HetgraphError(f"column {self.name!r} is to hold a {kind} in every cell, and does not in training")
        if kind == "number":
            std = (self.squares / max(1, self.count)) ** 0.5
            if not (math.isfinite(self.mean) and math.isfinite(std)):
                raise HetgraphError(f"column {self.name!r}: its numbers are too large to have a mean and a variance")
            return Column(self.name, kind, mean=self.mean, std=std or 1.0)
        if kind == "date":
            return Column(self.name, kind)
        if self.values is None:
            return Column(self.name, kind, buckets=buckets)
        return Column(self.name, kind, values=tuple(sorted(self.values)))


def as_number(cell: Cell) -> float:
    """Raises ValueError if the cell is no finite number."""
    if isinstance(cell, str) and _NUMBER.fullmatch(cell):
        cell = float(cell)
    if isinstance(cell, int | float) and not isinstance(cell, bool):
        try:
            if math.isfinite(cell):
                return float(cell)
        except OverflowError:  # a whole number beyond what a float can hold
            pass
    raise ValueError(f"expected a finite number, got {_short(cell)}")


def as_date(cell: Cell) -> datetime.datetime:
    """Raises ValueError if the cell is no date; a time zone is left aside."""
    if isinstance(cell, datetime.datetime):
        return cell.replace(tzinfo=None)
    if isinstance(cell, datetime.date):
        return datetime.datetime(cell.year, cell.month, cell.day)
    if isinstance(cell, str) and _DATE.fullmatch(cell):
        try:
            return datetime.datetime.fromisoformat(cell).replace(tzinfo=None)
        except ValueError:  # the 31st of February
            pass
    raise ValueError(f"expected a date like 2020-12-31 or 2020-12-31 23:59, got {_short(cell)}")


def as_category(cell: Cell) -> str:
    """A text for any cell; 3 and 3.0 are the same."""
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)


def _of_date(when: datetime.datetime) -> np.ndarray:
    seconds = when.hour * 3600 + when.minute * 60 + when.second + when.microsecond / 1e6
    turns = [(when.month - 1) / 12, (when.day - 1) / 31, when.weekday() / 7, seconds / 86400]
    waves = [wave(2 * math.pi * turn) for turn in turns for wave in (math.sin, math.cos)]
    return np.array([(when.year - 2000) / 50, *waves])


def _short(cell: Any) -> str:
    text = repr(cell)
    return text if len(text) <= 60 else f"{text[:57]}..."


def columns_of(given: Sequence[Column | Mapping[str, Any]]) -> tuple[Column, ...]:
    """Columns as they are or from JSON, of different names.

    Raises:
        HetgraphError: something else, or a name twice.
    """
    if not isinstance(given, Sequence) or isinstance(given, str) or not given:
        raise HetgraphError(f"expected a list of columns of a table, got {given!r}")
    columns = tuple(c if isinstance(c, Column) else Column.from_json(c) for c in given)
    names = [column.name for column in columns]
    if len(set(names)) != len(names):
        raise HetgraphError(f"columns of a table need different names, got {names}")
    return columns
