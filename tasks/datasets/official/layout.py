"""The files of a layout, what is wrong with those in a folder, and fields that are checked while they are read."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ....errors import HetgraphError

TEXT, WHOLE, NUMBER, LIST, OBJECT, ID = "text", "a whole number", "a finite number", "a list", "an object", "an id"
ANSWER = "text or a number"

_KINDS: dict[str, Callable[[Any], bool]] = {
    TEXT: lambda v: isinstance(v, str),
    WHOLE: lambda v: isinstance(v, int) and not isinstance(v, bool),
    NUMBER: lambda v: isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v),
    LIST: lambda v: isinstance(v, list),
    OBJECT: lambda v: isinstance(v, dict),
    ANSWER: lambda v: (isinstance(v, str) and v.strip() != "") or _KINDS[NUMBER](v),
    ID: lambda v: (isinstance(v, str) and v != "") or (isinstance(v, int) and not isinstance(v, bool)),
}


@dataclass(frozen=True)
class File:
    """A file of a layout.

    Attributes:
        name: path below the data set's folder.
        unit: what ``read`` gives, in the plural.
        read: the whole file; a HetgraphError if it is damaged.
        count: how many of the units the official file holds; None: not known, or it differs.
        needed: whether its absence is a fault.
    """

    name: str
    unit: str
    read: Callable[[Path], Sized]
    count: int | None = None
    needed: bool = True


@dataclass(frozen=True)
class Finding:
    """Something that is wrong with a file: it is missing or damaged, or does not hold as much as the official one."""

    file: str
    fault: Literal["missing", "damaged", "size"]
    text: str


Layouts = Mapping[str, Sequence[File]]
"""The layouts that a reader knows, by name; the first is the official one."""


def layout_of(folder: Path, layouts: Layouts) -> str:
    """The layout of which the largest share of the needed files is there; of equals the first."""

    def share(name: str) -> float:
        needed = [folder / file.name for file in layouts[name] if file.needed]
        return sum(path.is_file() for path in needed) / len(needed)

    return max(layouts, key=share)


def findings(folder: Path, files: Sequence[File]) -> list[Finding]:
    """What is wrong with the files of a layout. Every one that is there is read whole, one after the other."""
    found: list[Finding] = []
    for file in files:
        path = folder / file.name
        if not path.is_file():
            if file.needed:
                found.append(Finding(file.name, "missing", f"expected {_amount(file)}"))
            continue
        try:
            count = len(file.read(path))
        except HetgraphError as error:
            found.append(Finding(file.name, "damaged", str(error)))
            continue
        if file.count not in (None, count):
            found.append(Finding(file.name, "size", f"expected {_amount(file)}, got {count:,}"))
    return found


def _amount(file: File) -> str:
    return file.unit if file.count is None else f"{file.count:,} {file.unit}"


def take(record: Any, field: str, kind: str, where: str) -> Any:
    """A field of a JSON object.

    Raises:
        HetgraphError: no object, no such field, or not of the kind.
    """
    if not isinstance(record, dict):
        raise HetgraphError(f"{where} must be an object, got {shown(record)}")
    if field not in record:
        raise HetgraphError(f"{where}: field {field!r} is missing; there are {sorted(map(str, record))[:12]}")
    if not _KINDS[kind](record[field]):
        raise HetgraphError(f"{where}: field {field!r} must be {kind}, got {shown(record[field])}")
    return record[field]


def shown(value: Any) -> str:
    """A value as part of a message, cut off if it is long."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def new(name: str, seen: dict[str, int], where: str, what: str) -> None:
    """Note that ``name`` is taken. ``seen`` gives each name its number, from 1.

    Raises:
        HetgraphError: it was taken before.
    """
    if name in seen:
        raise HetgraphError(f"{where}: {what} {name!r} is there twice, before as number {seen[name]}")
    seen[name] = len(seen) + 1


def present(title: str, path: Path) -> Path:
    """The path.

    Raises:
        HetgraphError: there is no such file.
    """
    if not path.is_file():
        raise HetgraphError(f"{title}: no file {path}")
    return path


def lines(title: str, path: Path) -> Iterator[tuple[int, str]]:
    """Number, from 1, and text of every line of a file in UTF-8 that is not empty.

    Raises:
        HetgraphError: no file, or it is no UTF-8.
    """
    with present(title, path).open(encoding="utf-8-sig") as file:
        try:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line.rstrip("\n")
        except UnicodeDecodeError as error:
            raise HetgraphError(f"{title}: {path} cannot be read: {error}") from error


def table(
    title: str, path: Path, columns: Sequence[str], *, header: bool = True, delimiter: str = ",", strict: bool = True
) -> Iterator[tuple[int, dict[str, str]]]:
    """The number of the last line and the cells of every row.

    Args:
        title, path: for messages, and where.
        columns: those that must be there; without a header, all of them in their order.
        header: whether the first row names the columns.
        delimiter: a tab also means that quotation marks are ordinary characters.
        strict: refuse quotation marks that do not enclose a cell.

    Raises:
        HetgraphError: no file, no table, a column is missing, or a row has more or fewer cells than there are columns.
    """
    quoting: Literal[0, 3] = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
    with present(title, path).open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, delimiter=delimiter, quoting=quoting, strict=strict)
        try:
            names = next(reader, []) if header else list(columns)
            absent = [name for name in columns if name not in names]
            if absent:
                raise HetgraphError(f"{title}: {path} lacks the columns {absent}; it has {names[:12]}")
            for cells in reader:
                if not cells:
                    continue
                if len(cells) != len(names):
                    raise HetgraphError(
                        f"{title}: {path}: line {reader.line_num}: expected {len(names)} cells, got {len(cells)}"
                    )
                yield reader.line_num, dict(zip(names, cells, strict=True))
        except (csv.Error, UnicodeDecodeError) as error:
            raise HetgraphError(f"{title}: {path}: line {reader.line_num + 1} cannot be read: {error}") from error
