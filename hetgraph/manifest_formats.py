"""The forms a manifest has on disk: JSON Lines, CSV and Parquet, each read a row at a time and from any row on.

A format scans its file once, giving every row with its place (a byte offset, in Parquet the row's number), and later
reads the rows at given places again. Memory is that of a row (Parquet: of some thousand rows), whatever the length.
"""

from __future__ import annotations

import csv
import json
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from .errors import ManifestError

Values = dict[str, Any]
MOST_FAULTS_SHOWN = 50
_BATCH = 4096


class Faults:
    """What is wrong with a manifest: the number of all faults, and the first ones by line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self._found: list[tuple[int, str | int | None, str]] = []

    def add(self, line: int, column: str | int | None, message: str = "") -> None:
        """A fault; without a column: the row has no medium at all (which there are is known at the end)."""
        self.count += 1
        self._found.append((line, column, message))
        if len(self._found) > 8 * MOST_FAULTS_SHOWN:
            self._found = self._first()

    def _first(self) -> list[tuple[int, str | int | None, str]]:
        return sorted(self._found, key=lambda fault: fault[0])[:MOST_FAULTS_SHOWN]

    def stop(self, columns: Iterable[str] = ()) -> None:
        """Raise what was found, if anything was.

        Args:
            columns: all media columns.
        """
        if not self.count:
            return
        named = list(columns)
        shown = [
            f"line {line}, column {column}: {message}"
            if column is not None
            else f"line {line}, column {named[0]}: expected at least one of {', '.join(named)}, got none"
            for line, column, message in self._first()
        ]
        more = [f"... and {self.count - len(shown)} more"] if self.count > len(shown) else []
        count = "1 fault" if self.count == 1 else f"{self.count} faults"
        raise ManifestError("\n  ".join([f"{self.path}: {count}", *shown, *more]))


class Format(Protocol):
    """One form of a manifest."""

    path: Path

    def scan(self, faults: Faults) -> Iterator[tuple[int, int, Values]]:
        """Place, line (counted from 1) and values of every row that can be read at all."""

    def read(self, places: Iterable[int]) -> Iterator[Values]:
        """The values of the rows at places that :meth:`scan` gave."""


class _Lines:
    """The lines of an open file as text; one that is not UTF-8 is a fault, and comes with signs in place of bytes.

    Attributes:
        number: lines given so far.
        place: byte offset of the next line.
        sound: whether all lines were UTF-8 since this was last set.
    """

    def __init__(self, file: BinaryIO, faults: Faults) -> None:
        self.file, self.faults = file, faults
        self.number = self.place = 0
        self.sound = True

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self.file.readline()
        if not line:
            raise StopIteration
        self.number += 1
        self.place += len(line)
        coding = "utf-8-sig" if self.number == 1 else "utf-8"
        try:
            return line.decode(coding)
        except UnicodeDecodeError as error:
            self.sound = False
            byte = f"expected UTF-8, got byte 0x{error.object[error.start]:02x}"
            self.faults.add(self.number, error.start + 1, byte)
            return line.decode(coding, errors="replace")


class JsonLines:
    """An object per line; blank lines are skipped."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def scan(self, faults: Faults) -> Iterator[tuple[int, int, Values]]:
        with self.path.open("rb") as file:
            lines = _Lines(file, faults)
            place = 0
            for text in lines:
                if lines.sound and text.strip() and (values := _object(text, lines.number, faults)) is not None:
                    yield place, lines.number, values
                place, lines.sound = lines.place, True

    def read(self, places: Iterable[int]) -> Iterator[Values]:
        with self.path.open("rb") as file:
            for place in places:
                file.seek(place)
                yield json.loads(file.readline().decode("utf-8" if place else "utf-8-sig"))


def _object(text: str, line: int, faults: Faults) -> Values | None:
    try:
        value = json.loads(text, parse_constant=_no_constant)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        faults.add(line, 1, "expected Unicode text, got an escape \\ud800 .. \\udfff without its other half")
    except json.JSONDecodeError as error:
        faults.add(line, error.colno, f"expected JSON: {error.msg}")
    except (ValueError, RecursionError) as error:
        faults.add(line, 1, f"expected JSON: {error}")
    else:
        if isinstance(value, dict):
            return value
        faults.add(line, 1, f"expected an object {{...}}, got {type(value).__name__}")
    return None


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")


class Table:
    """Comma-separated values (tab-separated in .tsv) with a header; quoted texts may go on over several lines."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
        self.header: list[str] = []

    def scan(self, faults: Faults) -> Iterator[tuple[int, int, Values]]:
        with self.path.open("rb") as file:
            lines = _Lines(file, faults)
            reader = csv.reader(lines, delimiter=self.delimiter, strict=True)
            try:
                self.header = [name.strip() for name in next(reader, [])]
            except csv.Error as error:
                faults.add(1, 1, f"expected CSV: {error}")
                return
            doubled = sorted({name for name in self.header if self.header.count(name) > 1})
            if doubled:
                faults.add(1, doubled[0], "expected different column names, got this one twice")
                return
            while True:
                # a row is called by its first line
                place, line, lines.sound = lines.place, lines.number + 1, True
                try:
                    cells = next(reader)
                except StopIteration:
                    return
                except csv.Error as error:
                    faults.add(line, 1, f"expected CSV: {error}")
                    continue
                if not cells or not lines.sound:
                    continue
                if len(cells) != len(self.header):
                    faults.add(line, len(cells), f"expected {len(self.header)} cells, got {len(cells)}")
                    continue
                yield place, line, self._values(cells)

    def read(self, places: Iterable[int]) -> Iterator[Values]:
        with self.path.open("rb") as file:
            for place in places:
                file.seek(place)
                lines = (line.decode() for line in iter(file.readline, b""))
                yield self._values(next(csv.reader(lines, delimiter=self.delimiter, strict=True)))

    def _values(self, cells: list[str]) -> Values:
        return {name: _cell(name, cell) for name, cell in zip(self.header, cells, strict=True)}


def _cell(name: str, cell: str) -> Any:
    if not cell.strip():
        return None
    if name == "entities":
        return [part.strip() for part in cell.split("|") if part.strip()]
    if name.partition(":")[0] == "boxes":
        return [[_number(number) for number in part.split()] for part in cell.split("|")]
    if name.partition(":")[0] == "words":
        return [_word(part.split()) for part in cell.split("|")]
    return cell


def _word(parts: list[str]) -> Any:
    if len(parts) != 3:  # reported with the row
        return " ".join(parts)
    return {"word": parts[0], "start": _number(parts[1]), "end": _number(parts[2])}


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:  # reported with the row
        return text


class Parquet:
    """A Parquet file (extra ``parquet``); a row's line is its number, counted from 1."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def _open(self) -> Any:
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError as error:
            raise ManifestError(f"{self.path}: Parquet needs pyarrow: pip install 'hetgraph[parquet]'") from error
        try:
            return parquet.ParquetFile(self.path, pre_buffer=False, buffer_size=1 << 20)
        except (pyarrow.ArrowException, OSError) as error:
            raise ManifestError(f"{self.path}: expected Parquet: {error}") from error

    def scan(self, faults: Faults) -> Iterator[tuple[int, int, Values]]:
        with self._open() as file:
            names = file.schema_arrow.names
            doubled = sorted({name for name in names if names.count(name) > 1})
            if doubled:
                faults.add(1, doubled[0], "expected different column names, got this one twice")
                return
            place = 0
            try:
                for batch in file.iter_batches(_BATCH):
                    for values in batch.to_pylist():
                        yield place, place + 1, values
                        place += 1
            except (ValueError, OSError) as error:  # damaged pages; Arrow's own errors are among them
                faults.add(place + 1, 1, f"expected Parquet: {error}")

    def read(self, places: Iterable[int]) -> Iterator[Values]:
        with self._open() as file:
            groups = range(file.num_row_groups)
            starts = [0, *accumulate(file.metadata.row_group(g).num_rows for g in groups)]
            batches: Iterator[Any] = iter(())
            rows: list[Values] = []
            first = end = 0
            group = -1
            for place in places:
                if not first <= place < end:
                    wanted = bisect_right(starts, place) - 1
                    if place < first or wanted != group:
                        group, end = wanted, starts[wanted]
                        batches = file.iter_batches(_BATCH, row_groups=[group])
                    while place >= end:
                        rows = next(batches).to_pylist()
                        first, end = end, end + len(rows)
                yield rows[place - first]


FORMATS: dict[str, type[JsonLines] | type[Table] | type[Parquet]] = {
    ".jsonl": JsonLines,
    ".ndjson": JsonLines,
    ".csv": Table,
    ".tsv": Table,
    ".parquet": Parquet,
}
