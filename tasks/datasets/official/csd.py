"""Computational sequences of the CMU Multimodal SDK (Zadeh et al., ACL 2018): the official form of CMU-MOSI, CMU-MOSEI
and POM, an HDF5 file per modality. Needs the extra ``csd``.

To download: the files that the SDK (repository CMU-MultiComp-Lab/CMU-MultimodalSDK, ``mmsdk/mmdatasdk/dataset/
standard_datasets``) names; for CMU-MOSI ``CMU_MOSI_Opinion_Labels.csd``, ``CMU_MOSI_TimestampedWords.csd``,
``CMU_MOSI_TimestampedWordVectors.csd``, ``CMU_MOSI_COVAREP.csd``, ``CMU_MOSI_Visual_Facet_41.csd``. A file is
``<root>/data/<video>/{features [n, d], intervals [n, 2]}`` and ``<root>/metadata/<key>``; intervals are seconds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from ....errors import HetgraphError
from .layout import File, present, shown

TITLE = "CMU Multimodal SDK"
HOMEPAGE = "https://github.com/CMU-MultiComp-Lab/CMU-MultimodalSDK"


@dataclass(frozen=True, eq=False)
class Rows:
    """The n rows of a video: ``features`` [n, d] and the seconds ``intervals`` [n, 2] that they describe."""

    features: np.ndarray
    intervals: np.ndarray

    def __len__(self) -> int:
        return len(self.features)


class ComputationalSequence(Mapping[str, Rows]):
    """A .csd file: video -> rows, read when they are asked for. The file stays open until :meth:`close`.

    Raises:
        HetgraphError: h5py is not installed, no file, no HDF5, or not of this layout.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = present(TITLE, Path(path))
        try:
            import h5py
        except ImportError as error:
            raise HetgraphError(f"{TITLE}: {path} needs h5py: pip install 'hetgraph[csd]'") from error
        try:
            self._file = h5py.File(self.path, "r")
        except OSError as error:
            raise HetgraphError(f"{TITLE}: {path} cannot be read: {error}") from error
        try:
            self.root = self._root(h5py.Group)
        except HetgraphError:
            self.close()
            raise

    def _root(self, group: type) -> str:
        roots = list(self._file)
        if len(roots) != 1 or not isinstance(self._file[roots[0]], group):
            raise HetgraphError(f"{TITLE}: {self.path}: expected one group, the root, got {shown(roots)}")
        for name in ("data", "metadata"):
            if not isinstance(self._file[roots[0]].get(name), group):
                raise HetgraphError(f"{TITLE}: {self.path}: expected a group {name!r} in {roots[0]!r}")
        return roots[0]

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> ComputationalSequence:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @cached_property
    def videos(self) -> tuple[str, ...]:
        return tuple(self._file[self.root]["data"])

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """What the file says of itself. The SDK writes every value as JSON; what is none is given as text."""
        found = {}
        for key, value in self._file[self.root]["metadata"].items():
            text = value[()] if value.shape == () else value[0]
            text = text.decode("utf-8") if isinstance(text, bytes) else text
            try:
                found[key] = json.loads(text)
            except (TypeError, ValueError):
                found[key] = text
        return found

    def __len__(self) -> int:
        return len(self.videos)

    def __iter__(self) -> Iterator[str]:
        return iter(self.videos)

    def __getitem__(self, video: str) -> Rows:
        if video not in self._file[self.root]["data"]:
            raise KeyError(video)
        where = f"{TITLE}: {self.path}: video {video!r}"
        group = self._file[self.root]["data"][video]
        try:
            features, intervals = (np.asarray(group[name][()]) for name in ("features", "intervals"))
        except (KeyError, OSError, TypeError, ValueError) as error:
            raise HetgraphError(f"{where}: features and intervals cannot be read: {error}") from error
        if features.ndim != 2 or intervals.shape != (len(features), 2) or intervals.dtype.kind not in "fiu":
            raise HetgraphError(
                f"{where}: expected features [n, d] and intervals [n, 2], got "
                f"{features.dtype} {list(features.shape)} and {intervals.dtype} {list(intervals.shape)}"
            )
        wrong = ~(np.isfinite(intervals).all(1) & (intervals[:, 0] <= intervals[:, 1]))
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise HetgraphError(f"{where}: row {row}: an interval begins before it ends, got {intervals[row].tolist()}")
        return Rows(features, intervals)


@dataclass(frozen=True, eq=False)
class Aligned:
    """Features of M intervals: ``features`` float64 [M, d], ``count`` int64 [M], how many rows each is the mean of.
    Where nothing overlaps the features are 0 and so is the count."""

    features: np.ndarray
    count: np.ndarray


def align(sequences: Mapping[str, Mapping[str, Rows]], to: str, video: str) -> dict[str, Aligned]:
    """The features of every sequence on the intervals of one, as the SDK aligns them with the mean as its function.

    A row belongs to every interval with which it shares more than a point; a row without length (a word at one
    moment) to the interval that it lies in, its end left out. Values that are not finite count as 0, as in the SDK.

    Args:
        sequences: name -> video -> rows.
        to: name of the sequence whose intervals are kept.
        video: which video.

    Returns:
        name -> features on the intervals of ``to``; its own included, which are then a mean over its own overlaps.

    Raises:
        HetgraphError: no such sequence or video, or features that are no numbers.
    """
    if to not in sequences:
        raise HetgraphError(f"{TITLE}: no sequence {to!r}; there are {', '.join(sequences)}")
    absent = [name for name, sequence in sequences.items() if video not in sequence]
    if absent:
        raise HetgraphError(f"{TITLE}: sequence {absent[0]!r} has no video {video!r}")
    targets = sequences[to][video].intervals.astype(np.float64)
    return {name: _means(sequence[video], targets, f"{TITLE}: {name!r}") for name, sequence in sequences.items()}


def _means(rows: Rows, targets: np.ndarray, where: str) -> Aligned:
    if rows.features.dtype.kind not in "fiu":
        raise HetgraphError(f"{where}: features must be numbers to be averaged, got {rows.features.dtype}")
    values = np.nan_to_num(rows.features.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    start, end = rows.intervals.astype(np.float64).T
    features, count = np.zeros((len(targets), values.shape[1])), np.zeros(len(targets), np.int64)
    for i, (begin, stop) in enumerate(targets):
        inside = np.where(
            start < end, np.maximum(start, begin) < np.minimum(end, stop), (begin <= start) & (start < stop)
        )
        count[i] = inside.sum()
        if count[i]:
            features[i] = values[inside].mean(0)
    return Aligned(features, count)


def read_all(path: Path) -> list[Rows]:
    """The rows of every video of a file."""
    with ComputationalSequence(path) as sequence:
        return list(sequence.values())


_NAMES = ("Opinion_Labels", "TimestampedWords", "TimestampedWordVectors", "COVAREP", "Visual_Facet_41")
LAYOUTS = {
    "official": tuple(
        File(f"CMU_MOSI_{name}.csd", "videos", read_all, 93 if not i else None, needed=not i)
        for i, name in enumerate(_NAMES)
    )
}


class Sequences(Mapping[str, ComputationalSequence]):
    """The .csd files of a folder by name without ending, opened when they are asked for."""

    def __init__(self, folder: Path) -> None:
        self._paths = {path.stem: path for path in sorted(folder.glob("*.csd"))}
        self._open: dict[str, ComputationalSequence] = {}
        if not self._paths:
            raise HetgraphError(f"{TITLE}: no .csd file in {folder}")

    def __len__(self) -> int:
        return len(self._paths)

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __getitem__(self, name: str) -> ComputationalSequence:
        if name not in self._open:
            self._open[name] = ComputationalSequence(self._paths[name])
        return self._open[name]

    def close(self) -> None:
        while self._open:
            self._open.popitem()[1].close()

    def counts(self) -> dict[str, dict[str, int]]:
        """Of each file, how many videos and rows."""
        return {
            name: {"videos": len(sequence), "rows": sum(map(len, sequence.values()))} for name, sequence in self.items()
        }


def read(folder: Path) -> Sequences:
    """All .csd files of a folder."""
    return Sequences(folder)
