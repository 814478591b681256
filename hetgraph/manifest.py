"""Manifests: one line per sample, saying where its media lie and what is to be predicted.

JSON Lines (``.jsonl``) or CSV (``.csv``) with the columns

* ``id``: any unique text (default: the line number);
* ``image``, ``audio``, ``video``: a file, relative to the manifest; ``text``: the text itself. A second medium of a
  kind has a name behind a colon: ``audio:speech``, ``audio:effect``. Empty or null: the sample does not have it;
* ``table``: a CSV or Parquet file; in JSON Lines also a row ``{"age": 40, ...}`` or a list of rows;
* ``boxes``: places in the picture of the column ``image`` (``boxes:left``: of ``image:left``), a list of
  ``[x1, y1, x2, y2]`` in pixels or in shares of the picture (in CSV ``x1 y1 x2 y2`` separated by ``|``);
* ``entities``: entities of a knowledge graph, a list of names (in CSV separated by ``|``);
* ``label`` (or any other column named as the target): text, number, or a list of texts;
* ``split``: train, valid or test.

Other columns are kept in ``Row.extra`` and otherwise left alone. Everything is checked before anything runs,
and all faults are reported at once.
"""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import ManifestError

FILES = ("image", "audio", "video", "table")
KINDS = (*FILES, "text", "boxes")
NODE_NAMES = {
    "image": "region",
    "text": "token",
    "audio": "frame",
    "video": "video_frame",
    "table": "cell",
    "boxes": "object",
}
_SPLITS = {"train": "train", "training": "train", "test": "test"} | dict.fromkeys(
    ("valid", "validation", "val", "dev"), "valid"
)
MOST_FAULTS_SHOWN = 20


@dataclass(frozen=True)
class Row:
    """One sample of a manifest.

    Attributes:
        line: where it stands, counted from 1.
        media: column -> absolute path (image, audio, video, table), text, rows of a table, or path and boxes; absent
            media are left out.
        label: of the target column; None if there is none.
        split: train, valid, test, or None.
    """

    id: str
    line: int
    media: dict[str, Any]
    entities: tuple[str, ...] = ()
    label: Any = None
    split: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """All samples of a manifest.

    Attributes:
        columns: media columns in use -> kind (image, text, audio, video, table, boxes), in the order of the file.
        ignored: columns that mean nothing to hetgraph.
    """

    path: Path
    rows: list[Row]
    columns: dict[str, str]
    ignored: list[str]

    def split(self, name: str) -> list[Row]:
        """The rows of a split.

        Raises:
            ManifestError: there is none.
        """
        found = [row for row in self.rows if row.split == name]
        if not found:
            known = sorted({row.split or "samples without a split" for row in self.rows})
            raise ManifestError(f"{self.path}: no sample of split {name!r}; it has {', '.join(known)}")
        return found


def read_manifest(path: str | Path, *, target: str = "label") -> Manifest:
    """Read and check a manifest.

    Args:
        path: a ``.jsonl`` or ``.csv`` file in UTF-8.
        target: the column to predict; rows may lack it.

    Raises:
        ManifestError: listing every fault with line, column and what was expected.
    """
    path = Path(path)
    if not os.path.isfile(path):
        raise ManifestError(f"no manifest {path}" + (" (it is a folder)" if os.path.isdir(path) else ""))
    faults = _Faults(path)
    readers = dict.fromkeys((".jsonl", ".ndjson"), _json_lines) | dict.fromkeys((".csv", ".tsv"), _csv_lines)
    if path.suffix.lower() not in readers:
        raise ManifestError(f"{path}: a manifest is .jsonl or .csv, got {path.suffix or 'no suffix'}")
    try:
        raw = list(readers[path.suffix.lower()](path, faults))
    except OSError as error:
        raise ManifestError(f"{path} cannot be read: {error.strerror or error}") from error
    faults.stop()
    if not raw:
        raise ManifestError(f"{path}: no samples")
    names = list(dict.fromkeys(name for _, row in raw for name in row))
    columns = {name: kind for name in names if (kind := _kind(name)) is not None and name != target}
    if not columns:
        raise ManifestError(
            f"{path}: no column to learn from; expected one of {', '.join(KINDS)}, got {', '.join(names)}"
        )
    rows = [_row(path, line, values, columns, target, faults) for line, values in raw]
    seen: dict[str, int] = {}
    for row in rows:
        if row.id in seen:
            faults.add(row.line, "id", f"expected a unique id, got {row.id!r} again (first in line {seen[row.id]})")
        seen.setdefault(row.id, row.line)
    _same_kind_of_label(rows, target, faults)
    faults.stop()
    ignored = [n for n in names if n not in columns and n not in ("id", "entities", "split", target)]
    return Manifest(path, rows, columns, ignored)


class _Faults:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.found: list[str] = []

    def add(self, line: int, column: str | int, message: str) -> None:
        self.found.append(f"line {line}, column {column}: {message}")

    def stop(self) -> None:
        if self.found:
            rest = len(self.found) - MOST_FAULTS_SHOWN
            more = [f"... and {rest} more"] if rest > 0 else []
            count = "1 fault" if len(self.found) == 1 else f"{len(self.found)} faults"
            raise ManifestError("\n  ".join([f"{self.path}: {count}", *self.found[:MOST_FAULTS_SHOWN], *more]))


def _kind(name: str) -> str | None:
    kind, colon, suffix = name.partition(":")
    return kind if kind in KINDS and (suffix or not colon) else None


def _text(path: Path, faults: _Faults) -> Iterator[tuple[int, str]]:
    """Lines with their number; a line that is not UTF-8 is a fault."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                faults.add(number, error.start + 1, f"expected UTF-8, got byte 0x{line[error.start]:02x}")
                continue
            yield number, text


def _json_lines(path: Path, faults: _Faults) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in _text(path, faults):
        if not line.strip():
            continue
        try:
            value = json.loads(line, parse_constant=_no_constant)
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            faults.add(number, 1, "expected Unicode text, got an escape \\ud800 .. \\udfff without its other half")
            continue
        except json.JSONDecodeError as error:
            faults.add(number, error.colno, f"expected JSON: {error.msg}")
            continue
        except (ValueError, RecursionError) as error:
            faults.add(number, 1, f"expected JSON: {error}")
            continue
        if not isinstance(value, dict):
            faults.add(number, 1, f"expected an object {{...}}, got {type(value).__name__}")
            continue
        yield number, value


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")


def _csv_lines(path: Path, faults: _Faults) -> Iterator[tuple[int, dict[str, Any]]]:
    lines = [text for _, text in _text(path, faults)]
    faults.stop()
    reader = csv.reader(lines, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True)
    before = 0
    try:
        header = [name.strip() for name in next(reader, [])]
        doubled = sorted({name for name in header if header.count(name) > 1})
        if doubled:
            faults.add(1, doubled[0], "expected different column names, got this one twice")
            return
        before = reader.line_num
        for cells in reader:
            # a quoted text may go on over several lines; the row is called by its first
            line, before = before + 1, reader.line_num
            if not cells:
                continue
            if len(cells) != len(header):
                faults.add(line, len(cells), f"expected {len(header)} cells, got {len(cells)}")
                continue
            yield line, {name: _cell(name, cell) for name, cell in zip(header, cells, strict=True)}
    except csv.Error as error:
        faults.add(before + 1, 1, f"expected CSV: {error}")


def _cell(name: str, cell: str) -> Any:
    if not cell.strip():
        return None
    if name == "entities":
        return [part.strip() for part in cell.split("|") if part.strip()]
    if _kind(name) == "boxes":
        return [[_number(number) for number in part.split()] for part in cell.split("|")]
    return cell


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:  # reported with the row
        return text


def _row(path: Path, line: int, values: dict[str, Any], columns: dict[str, str], target: str, faults: _Faults) -> Row:
    name = None if values.get("id") == "" else values.get("id")
    if name is not None and (isinstance(name, bool) or not isinstance(name, str | int)):
        faults.add(line, "id", f"expected text, got {name!r}")
    media: dict[str, Any] = {}
    broken = False
    for column, kind in columns.items():
        value = values.get(column)
        if value is None or value == "" or (value == [] and kind in ("table", "boxes")):
            continue
        if kind == "boxes":
            continue  # they need the path of their picture
        if kind == "table" and _is_rows(value):
            media[column] = value
        elif not isinstance(value, str):
            faults.add(line, column, f"expected {'a text' if kind == 'text' else 'a file name'}, got {value!r}")
            broken = True
        elif kind == "text":
            if value.strip():
                media[column] = value
        else:
            # not Path.is_file, which raises on names that are too long
            file = path.parent / value
            if os.path.isfile(file):
                media[column] = file
            else:
                found = "a folder" if os.path.isdir(file) else "nothing"
                faults.add(line, column, f"expected a file, found {found} at {value!r}")
                broken = True
    for column in (name for name, kind in columns.items() if kind == "boxes" and values.get(name)):
        picture = "image" + column[len("boxes") :]
        if not _is_boxes(values[column]):
            faults.add(line, column, f"expected a list of [x1, y1, x2, y2], got {values[column]!r}")
            broken = True
        elif picture in media:
            media[column] = (media[picture], values[column])
        elif not values.get(picture):
            faults.add(line, column, f"expected the picture of the boxes in column {picture}, got none")
            broken = True
    entities = values.get("entities") or []
    if not isinstance(entities, list) or not all(isinstance(e, str) for e in entities):
        faults.add(line, "entities", f"expected a list of names, got {entities!r}")
        entities = []
    if not media and not entities and not broken:
        faults.add(line, next(iter(columns)), f"expected at least one of {', '.join(columns)}, got none")
    split = None if values.get("split") == "" else values.get("split")
    if split is not None and (not isinstance(split, str) or split.lower() not in _SPLITS):
        faults.add(line, "split", f"expected train, valid or test, got {split!r}")
        split = None
    label = _label(line, target, values.get(target), faults)
    known = {"id", "entities", "split", target, *columns}
    return Row(
        id=str(name) if name is not None else f"line-{line}",
        line=line,
        media=media,
        entities=tuple(entities),
        label=label,
        split=None if split is None else _SPLITS[split.lower()],
        extra={key: value for key, value in values.items() if key not in known},
    )


def _is_rows(value: Any) -> bool:
    """Whether a value is a row of a table, or a list of rows."""
    return isinstance(value, dict) or (isinstance(value, list) and all(isinstance(row, dict) for row in value))


def _is_boxes(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(box, list)
        and len(box) == 4
        and all(isinstance(n, int | float) and not isinstance(n, bool) and _finite(n) for n in box)
        for box in value
    )


def _label(line: int, target: str, value: Any, faults: _Faults) -> Any:
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) or (isinstance(value, int | float) and _finite(value)):
        return value
    if isinstance(value, list) and all(isinstance(v, str) for v in value):
        return value
    faults.add(line, target, f"expected text, a finite number or a list of texts, got {value!r}")
    return None


def _finite(value: int | float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond what a float can hold
        return False


def _same_kind_of_label(rows: list[Row], target: str, faults: _Faults) -> None:
    """All labels are texts, or all numbers, or all lists; the odd ones out are faults."""
    kinds: dict[str, list[Row]] = {}
    for row in rows:
        if row.label is not None:
            kind = (
                "a list of texts"
                if isinstance(row.label, list)
                else "text"
                if isinstance(row.label, str)
                else "a number"
            )
            kinds.setdefault(kind, []).append(row)
    if len(kinds) > 1:
        usual = max(kinds, key=lambda kind: len(kinds[kind]))
        for kind, odd in kinds.items():
            if kind != usual:
                for row in odd:
                    faults.add(row.line, target, f"expected {usual} as in the other lines, got {row.label!r}")
