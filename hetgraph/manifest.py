"""Manifests: one line per sample, saying where its media lie and what is to be predicted.

JSON Lines (``.jsonl``), CSV (``.csv``) or Parquet (``.parquet``) with the columns

* ``id``: any unique text (default: the line number);
* ``image``, ``audio``, ``video``: a file, relative to the manifest; ``text``: the text itself. A second medium of a
  kind has a name behind a colon: ``audio:speech``, ``audio:effect``. Empty or null: the sample does not have it;
* ``table``: a CSV or Parquet file; in JSON Lines also a row ``{"age": 40, ...}`` or a list of rows;
* ``boxes``: places in the picture of the column ``image`` (``boxes:left``: of ``image:left``), a list of
  ``[x1, y1, x2, y2]`` in pixels or in shares of the picture (in CSV ``x1 y1 x2 y2`` separated by ``|``);
* ``words``: what is said in ``audio`` or ``video`` (``words:left``: in ``audio:left`` or ``video:left``), and when: a
  list of ``{"word": "dog", "start": 0.4, "end": 0.75}`` in seconds (in CSV ``dog 0.4 0.75`` separated by ``|``);
* ``entities``: entities of a knowledge graph, a list of names (in CSV separated by ``|``);
* ``label`` (or any other column named as the target): text, number, or a list of texts;
* ``split``: train, valid or test.

Other columns are kept in ``Row.extra`` and otherwise left alone. Everything is checked before anything runs,
and all faults are reported at once. A manifest may have any length: its rows stay in the file and are read when they
are asked for; kept of each are some 20 bytes that say where it is.
"""

from __future__ import annotations

import math
import os
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

import numpy as np

from .errors import ManifestError
from .manifest_formats import FORMATS, MOST_FAULTS_SHOWN, Faults, Format, Values

FILES = ("image", "audio", "video", "table")
KINDS = (*FILES, "text", "words", "boxes")
NODE_NAMES = {
    "image": "region",
    "text": "token",
    "words": "word",
    "audio": "frame",
    "video": "video_frame",
    "table": "cell",
    "boxes": "object",
}
_SPLITS = {"train": "train", "training": "train", "test": "test"} | dict.fromkeys(
    ("valid", "validation", "val", "dev"), "valid"
)
_PARTS = (None, "train", "valid", "test")


@dataclass(frozen=True)
class Row:
    """One sample of a manifest.

    Attributes:
        line: where it stands, counted from 1.
        media: column -> absolute path (image, audio, video, table), text, words with times, rows of a table, or path
            and boxes; absent media are left out.
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
        columns: media columns in use -> kind (image, text, words, audio, video, table, boxes), as the file has them.
        ignored: columns that mean nothing to hetgraph.
        counts: media column -> how many rows have it.
    """

    path: Path
    rows: Sequence[Row]
    columns: dict[str, str]
    ignored: list[str]
    counts: dict[str, int] = field(default_factory=dict)

    def split(self, name: str) -> Sequence[Row]:
        """The rows of a split.

        Raises:
            ManifestError: there is none.
        """
        rows = self.rows
        found = rows.of_split(name) if isinstance(rows, Rows) else [row for row in rows if row.split == name]
        if not found:
            splits = rows.splits if isinstance(rows, Rows) else {row.split for row in rows}
            known = sorted({split or "samples without a split" for split in splits})
            raise ManifestError(f"{self.path}: no sample of split {name!r}; it has {', '.join(known)}")
        return found


@dataclass(frozen=True)
class _Reading:
    """How a row's values become a :class:`Row`."""

    folder: Path
    columns: dict[str, str]
    target: str


class Rows(Sequence[Row]):
    """Rows that lie in a manifest's file and are read when they are asked for; best in turn.

    Args:
        file: the manifest.
        reading: how values become rows.
        places, lines, parts: of all rows of the file, where they are, their line, their split's place in ``_PARTS``.
        chosen: which of them these are, int64 ``[n]``.
        stamp: size and time of change of the file when it was checked.

    Reading raises:
        ManifestError: the file is not the one that was checked.
    """

    def __init__(
        self,
        file: Format,
        reading: _Reading,
        places: np.ndarray,
        lines: np.ndarray,
        parts: np.ndarray,
        chosen: np.ndarray,
        stamp: tuple[int, int],
    ) -> None:
        self._file, self._reading, self._stamp = file, reading, stamp
        self._places, self._lines, self._parts, self._chosen = places, lines, parts, chosen

    def __len__(self) -> int:
        return len(self._chosen)

    def __iter__(self) -> Iterator[Row]:
        if _stamp(self._file.path) != self._stamp:
            raise ManifestError(f"{self._file.path} has changed since it was checked")
        values = self._file.read(int(self._places[i]) for i in self._chosen)
        for i, found in zip(self._chosen, values, strict=True):
            yield _row(self._reading, int(self._lines[i]), found)

    @overload
    def __getitem__(self, key: int) -> Row: ...
    @overload
    def __getitem__(self, key: slice) -> Rows: ...
    def __getitem__(self, key: int | slice) -> Row | Rows:
        if isinstance(key, slice):
            return self._of(self._chosen[key])
        return next(iter(self._of(self._chosen[[key]])))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or len(other) != len(self):
            return False
        return all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Rows({len(self)} of {self._file.path})"

    def __reduce__(self) -> tuple[Any, ...]:
        """To other processes these rows go alone, without those they are a part of."""
        kept = (array[self._chosen] for array in (self._places, self._lines, self._parts))
        return Rows, (self._file, self._reading, *kept, np.arange(len(self)), self._stamp)

    @property
    def splits(self) -> set[str | None]:
        """The splits that occur."""
        return {_PARTS[i] for i in np.unique(self._parts[self._chosen])}

    def of_split(self, name: str) -> Rows:
        """The rows of a split."""
        part = _PARTS.index(name) if name in _PARTS else -1
        return self._of(self._chosen[self._parts[self._chosen] == part])

    def only(self, chosen: np.ndarray) -> Rows:
        """Those at the places ``chosen`` (int64 ``[n]``) of these."""
        return self._of(self._chosen[chosen])

    def _of(self, chosen: np.ndarray) -> Rows:
        return Rows(self._file, self._reading, self._places, self._lines, self._parts, chosen, self._stamp)


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = os.stat(path)
    except OSError as error:
        raise ManifestError(f"{path} cannot be read: {error.strerror or error}") from error
    return found.st_size, found.st_mtime_ns


def read_manifest(path: str | Path, *, target: str = "label", check_files: bool = True) -> Manifest:
    """Read and check a manifest.

    Args:
        path: a ``.jsonl``, ``.csv`` or ``.parquet`` file, texts in UTF-8.
        target: the column to predict; rows may lack it.
        check_files: media files that are not there are faults. False leaves it to whoever reads them.

    Raises:
        ManifestError: listing every fault with line, column and what was expected (the first 50, and how many more).
    """
    path = Path(path)
    if not os.path.isfile(path):
        raise ManifestError(f"no manifest {path}" + (" (it is a folder)" if os.path.isdir(path) else ""))
    if path.suffix.lower() not in FORMATS:
        raise ManifestError(f"{path}: a manifest is .jsonl, .csv or .parquet, got {path.suffix or 'no suffix'}")
    file: Format = FORMATS[path.suffix.lower()](path)
    faults = Faults(path)
    reading = _Reading(path.parent, {}, target)
    names: dict[str, None] = {}
    labels = _Labels(target)
    counts: Counter[str] = Counter()
    places, lines, parts, ids = array("q"), array("q"), array("b"), array("q")
    stamp = _stamp(path)
    try:
        for place, line, values in file.scan(faults):
            for name in values:
                if name not in names:
                    names[name] = None
                    if (kind := _kind(name)) is not None and name != target:
                        reading.columns[name] = kind
            row = _row(reading, line, values, faults, check_files)
            labels.add(line, row.label)
            counts.update(row.media.keys())
            places.append(place)
            lines.append(line)
            parts.append(_PARTS.index(row.split))
            ids.append(hash(row.id))
    except OSError as error:
        raise ManifestError(f"{path} cannot be read: {error.strerror or error}") from error
    columns = reading.columns
    if names and not columns:
        raise ManifestError(
            f"{path}: no column to learn from; expected one of {', '.join(KINDS)}, got {', '.join(names)}"
        )
    kept = (np.asarray(places), np.asarray(lines), np.asarray(parts))
    rows = Rows(file, reading, *kept, np.arange(len(places)), stamp)
    _no_repeated_ids(rows, np.asarray(ids), faults)
    labels.check(faults)
    faults.stop(columns)
    if not places:
        raise ManifestError(f"{path}: no samples")
    ignored = [n for n in names if n not in columns and n not in ("id", "entities", "split", target)]
    return Manifest(path, rows, columns, ignored, {name: counts[name] for name in columns})


def _no_repeated_ids(rows: Rows, hashes: np.ndarray, faults: Faults) -> None:
    """Ids that repeat are faults. Those of equal hashes are read again and compared."""
    order = np.argsort(hashes, kind="stable")
    run = np.flatnonzero(np.diff(hashes[order], prepend=~hashes[order[:1]]) != 0)
    first = np.empty_like(order)
    first[order] = np.repeat(order[run], np.diff(run, append=len(order)))
    again = np.flatnonzero(first != np.arange(len(first)))
    if not len(again):
        return
    for row, before in zip(rows.only(again), rows.only(first[again]), strict=True):
        if row.id == before.id:
            message = f"expected a unique id, got {row.id!r} again (first in line {before.line})"
            faults.add(row.line, "id", message)


def _kind(name: str) -> str | None:
    kind, colon, suffix = name.partition(":")
    return kind if kind in KINDS and (suffix or not colon) else None


def _row(reading: _Reading, line: int, values: Values, faults: Faults | None = None, check_files: bool = False) -> Row:
    """The row of these values; with ``faults`` they are checked."""
    faults = faults or Faults(reading.folder)
    columns, target = reading.columns, reading.target
    name = None if values.get("id") == "" else values.get("id")
    if name is not None and (isinstance(name, bool) or not isinstance(name, str | int)):
        faults.add(line, "id", f"expected text, got {name!r}")
    media: dict[str, Any] = {}
    broken = False
    for column, kind in columns.items():
        value = values.get(column)
        if value is None or value == "" or (value == [] and kind in ("table", "boxes", "words")):
            continue
        if kind == "boxes":
            continue  # they need the path of their picture
        if kind == "table" and _is_rows(value):
            media[column] = value
        elif kind == "words":
            if is_words(value):
                media[column] = value
            else:
                expected = 'a list of {"word": a text, "start": seconds, "end": seconds}'
                faults.add(line, column, f"expected {expected}, got {value!r:.200}")
                broken = True
        elif not isinstance(value, str):
            faults.add(line, column, f"expected {'a text' if kind == 'text' else 'a file name'}, got {value!r}")
            broken = True
        elif kind == "text":
            if value.strip():
                media[column] = value
        else:
            # not Path.is_file, which raises on names that are too long
            file = reading.folder / value
            if not check_files or os.path.isfile(file):
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
        faults.add(line, None)
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


def is_words(value: Any) -> bool:
    """Whether a value is a list of words with times."""
    return isinstance(value, list) and all(
        isinstance(one, Mapping)
        and isinstance(one.get("word"), str)
        and bool(one["word"].strip())
        and all(_is_number(one.get(name)) for name in ("start", "end"))
        and 0 <= one["start"] <= one["end"]
        for one in value
    )


def _is_boxes(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(box, list) and len(box) == 4 and all(map(_is_number, box)) for box in value
    )


def _label(line: int, target: str, value: Any, faults: Faults) -> Any:
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


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and _finite(value)


def _finite(value: int | float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond what a float can hold
        return False


class _Labels:
    """Sees to it that all labels are texts, or all numbers, or all lists; the odd ones out are faults."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.count: dict[str, int] = {}
        self.first: dict[str, list[tuple[int, Any]]] = {}

    def add(self, line: int, label: Any) -> None:
        if label is None:
            return
        kind = "a list of texts" if isinstance(label, list) else "text" if isinstance(label, str) else "a number"
        self.count[kind] = self.count.get(kind, 0) + 1
        if self.count[kind] <= MOST_FAULTS_SHOWN:
            self.first.setdefault(kind, []).append((line, label))

    def check(self, faults: Faults) -> None:
        usual = max(self.count, key=lambda kind: self.count[kind], default=None)
        for kind, shown in self.first.items():
            if kind != usual:
                for line, label in shown:
                    faults.add(line, self.target, f"expected {usual} as in the other lines, got {label!r}")
                faults.count += self.count[kind] - len(shown)
