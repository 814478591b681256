"""Encoded samples in a few large files, read back sample by sample without loading them.

A folder holds, for every shard, ``NAME.safetensors`` with the tensors of its samples one after the other, and
``NAME.json`` with ids, targets and splits; ``index.json`` names the shards, their sizes and the schema. The index is
written last, so that a folder without one is unfinished. Tensors of a shard of B samples:

* ``count/TYPE`` int64 ``[B]``: nodes of each sample, -1 where it does not have the type;
* ``node/TYPE/FIELD`` ``[sum of counts, ...]``; ``has/TYPE/FIELD`` uint8 ``[B]`` where not every sample has the field;
* ``edges/K`` int64 ``[B]`` (-1: none given), ``edge/K/index`` ``[E, 2]`` and ``edge/K/NAME`` ``[E, ...]`` for edges
  that samples bring; ``NAME.json`` lists the keys by K.

With the format ``webdataset`` a shard is ``NAME.tar`` instead; see :mod:`hetgraph.shards_tar`.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, overload

import torch
from torch import Tensor

from .errors import HetgraphError
from .files import write_atomically
from .sample import Sample
from .schema import Schema
from .shards_tar import read_tar, write_tar

INDEX = "index.json"
FORMATS = {"safetensors": ("safetensors", "json"), "webdataset": ("tar",)}
"""Suffixes of a shard's files, by format."""


def write_shard(
    folder: str | Path,
    name: str,
    samples: Sequence[Sample],
    splits: Sequence[str | None] | None = None,
    format: str = "safetensors",
) -> None:
    """Write samples as one shard; their targets are text, numbers, lists of texts or None.

    Args:
        splits: of each sample.
        format: one of ``FORMATS``.

    Raises:
        HetgraphError: a target of another kind, an unknown format, or the files cannot be written.
    """
    parts = [None] * len(samples) if splits is None else list(splits)
    if format not in FORMATS:
        raise HetgraphError(f"unknown format of shards {format!r}; known: {', '.join(FORMATS)}")
    if format == "webdataset":
        each = (_packed(name, [sample], [part]) for sample, part in zip(samples, parts, strict=True))
        write_tar(Path(folder) / f"{name}.tar", each)
        return
    tensors, text = _packed(name, samples, parts)
    write_atomically(Path(folder) / f"{name}.safetensors", tensors)
    write_atomically(Path(folder) / f"{name}.json", text)


def _packed(name: str, samples: Sequence[Sample], splits: Sequence[str | None]) -> tuple[bytes, str]:
    """Samples as a safetensors file, and what JSON says of them."""
    from safetensors.torch import save

    tensors: dict[str, Tensor] = {}
    keys = list(dict.fromkeys(key for sample in samples for key in sample.edges))
    for kind in dict.fromkeys(kind for sample in samples for kind in sample.nodes):
        parts = [sample.nodes.get(kind) for sample in samples]
        tensors[f"count/{kind}"] = torch.tensor([-1 if part is None else len(part["x"]) for part in parts])
        _pack(tensors, f"node/{kind}", parts)
    for k, key in enumerate(keys):
        edges = [sample.edges.get(key) for sample in samples]
        tensors[f"edges/{k}"] = torch.tensor([-1 if part is None else part["index"].shape[1] for part in edges])
        _pack(tensors, f"edge/{k}", [None if p is None else {**p, "index": p["index"].T} for p in edges])
    about = {
        "ids": [sample.id for sample in samples],
        "targets": [sample.target for sample in samples],
        "splits": list(splits),
        "edges": keys,
    }
    try:
        text = json.dumps(about, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise HetgraphError(f"shard {name}: a target cannot be kept as JSON: {error}") from error
    return save(tensors), text


def _pack(tensors: dict[str, Tensor], place: str, parts: Sequence[dict[str, Any] | None]) -> None:
    """Each field of all samples in one tensor, and which samples have it if not all do."""
    there = [part for part in parts if part is not None]
    for name in dict.fromkeys(name for part in there for name in part):
        tensors[f"{place}/{name}"] = torch.cat([part[name] for part in there if name in part]).contiguous()
        if any(name not in part for part in there):
            has = [part is not None and name in part for part in parts]
            tensors[f"has/{place}/{name}"] = torch.tensor(has, dtype=torch.uint8)


def write_index(
    folder: str | Path, shards: Sequence[tuple[str, int]], schema: Schema, format: str = "safetensors"
) -> None:
    """Make the shards (name, samples) the content of a folder; other shards are removed."""
    entries = [{"name": name, "samples": count} for name, count in shards]
    index = {"format": 1, "files": format, "schema": schema.to_json(), "shards": entries}
    write_atomically(Path(folder) / INDEX, json.dumps(index, indent=1))
    kept = {f"{name}.{suffix}" for name, _ in shards for suffix in FORMATS[format]}
    for path in Path(folder).glob("shard-*-of-*.*"):
        if path.name not in kept:
            path.unlink(missing_ok=True)


class Shards(Sequence[Sample]):
    """The samples of a folder of shards, read when asked for from files that are mapped into memory.

    Tensors are views of the files (written to, they are copied page by page; the files never change). Anything that
    takes a sequence of samples takes this: :func:`hetgraph.training.fit`, :class:`hetgraph.loader.GraphLoader` with
    workers, which open the files themselves.

    Args:
        folder: what ``hetgraph encode --output`` wrote.
        split: only the samples of this split; None: all.
        empty: also the samples without a node, which no graph can be made of.
        target: turns a label into what the objective reads; default: as it is.

    Attributes:
        schema: of the samples.

    Raises:
        HetgraphError: no index, or a file that is missing or damaged.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        split: str | None = None,
        empty: bool = False,
        target: Callable[[Any], Any] | None = None,
    ) -> None:
        self.folder, self.target = Path(folder), target
        index = _json(self.folder / INDEX)
        try:
            self.schema = Schema.from_json(index["schema"])
            names = [str(entry["name"]) for entry in index["shards"]]
            sizes = [int(entry["samples"]) for entry in index["shards"]]
            kinds: dict[str, type[_Shard] | type[_TarShard]] = {"safetensors": _Shard, "webdataset": _TarShard}
            kind = kinds[index.get("files", "safetensors")]
        except (KeyError, TypeError, ValueError) as error:
            raise HetgraphError(f"{self.folder / INDEX}: not an index of shards: {error!r}") from error
        self._shards = [kind(self.folder, name, size) for name, size in zip(names, sizes, strict=True)]
        self._starts = [0, *accumulate(sizes)]
        self._chosen: Sequence[int] = range(self._starts[-1])
        if split is not None or not empty:
            start = zip(self._starts[:-1], self._shards, strict=True)
            self._chosen = [first + i for first, shard in start for i in shard.having(split, empty)]

    def __len__(self) -> int:
        return len(self._chosen)

    @overload
    def __getitem__(self, key: int) -> Sample: ...
    @overload
    def __getitem__(self, key: slice) -> list[Sample]: ...
    def __getitem__(self, key: int | slice) -> Sample | list[Sample]:
        if isinstance(key, slice):
            return [self[i] for i in range(*key.indices(len(self)))]
        place = self._chosen[key]
        shard = bisect_right(self._starts, place) - 1
        return self._shards[shard].sample(place - self._starts[shard], self.target)

    @property
    def ids(self) -> Iterator[str | None]:
        """The samples' ids, in order, without reading the samples."""
        for place in self._chosen:
            shard = bisect_right(self._starts, place) - 1
            yield self._shards[shard].about["ids"][place - self._starts[shard]]


class _Shard:
    """One shard; opened when it is first read, in every process for itself."""

    def __init__(self, folder: Path, name: str, size: int) -> None:
        self.folder, self.name, self.size = folder, name, size
        self._about: dict[str, Any] | None = None
        self._tensors: dict[str, Tensor] | None = None
        self._ends: dict[str, list[int]] = {}

    def __getstate__(self) -> tuple[Path, str, int]:
        return self.folder, self.name, self.size

    def __setstate__(self, state: tuple[Path, str, int]) -> None:
        self.__init__(*state)  # type: ignore[misc]

    @property
    def about(self) -> dict[str, Any]:
        if self._about is None:
            self._about = self.checked(_json(self.folder / f"{self.name}.json"))
        return self._about

    def checked(self, about: dict[str, Any]) -> dict[str, Any]:
        """What the JSON of a shard says.

        Raises:
            HetgraphError: it is not of as many samples.
        """
        if not all(len(about.get(key, ())) == self.size for key in ("ids", "targets", "splits")):
            raise HetgraphError(f"{self.folder / self.name}.json: expected {self.size} samples")
        return about

    @property
    def tensors(self) -> dict[str, Tensor]:
        if self._tensors is None:
            self._tensors = _mapped(self.folder / f"{self.name}.safetensors")
        return self._tensors

    def having(self, split: str | None, empty: bool) -> list[int]:
        """The samples of a split, those without nodes only if ``empty``."""
        counts = [counts for name, counts in self.tensors.items() if name.startswith("count/")]
        nodes = torch.stack(counts).amax(0).tolist() if counts else [-1] * self.size
        splits = self.about["splits"]
        return [i for i in range(self.size) if split in (None, splits[i]) and (empty or nodes[i] >= 0)]

    def sample(self, i: int, target: Callable[[Any], Any] | None) -> Sample:
        nodes = {}
        for kind in [name[6:] for name in self.tensors if name.startswith("count/")]:
            fields = self._fields(i, f"count/{kind}", f"node/{kind}/")
            if fields is not None:
                nodes[kind] = fields
        edges = {}
        for k, key in enumerate(self.about["edges"]):
            fields = self._fields(i, f"edges/{k}", f"edge/{k}/")
            if fields is not None:
                edges[tuple(key)] = {**fields, "index": fields["index"].T}
        label = self.about["targets"][i]
        return Sample(
            id=self.about["ids"][i], target=label if target is None else target(label), nodes=nodes, edges=edges
        )

    def _fields(self, i: int, counts: str, prefix: str) -> dict[str, Tensor] | None:
        """Views of sample ``i``'s rows of all tensors with this prefix; None if it has none."""
        count = int(self.tensors[counts][i])
        if count < 0:
            return None
        out = {}
        for name, value in self.tensors.items():
            if not name.startswith(prefix):
                continue
            has = self.tensors.get(f"has/{name}")
            if has is not None and not has[i]:
                continue
            if name not in self._ends:
                rows = self.tensors[counts].clamp(min=0)
                self._ends[name] = (rows if has is None else rows * has).cumsum(0).tolist()
            end = self._ends[name][i]
            out[name[len(prefix) :]] = value[end - count : end]
        return out


class _TarShard:
    """A shard of the format ``webdataset``: every sample a shard of its own, which lies in the mapped tar file."""

    def __init__(self, folder: Path, name: str, size: int) -> None:
        self.folder, self.name, self.size = folder, name, size
        self._samples: list[_Shard] | None = None

    def __getstate__(self) -> tuple[Path, str, int]:
        return self.folder, self.name, self.size

    def __setstate__(self, state: tuple[Path, str, int]) -> None:
        self.__init__(*state)  # type: ignore[misc]

    @property
    def samples(self) -> list[_Shard]:
        if self._samples is None:
            path = self.folder / f"{self.name}.tar"
            found = read_tar(path, self.size)
            whole = _bytes_of(path)
            self._samples = []
            for i, (about, start, end) in enumerate(found):
                one = _Shard(self.folder, f"{self.name}/{i:09d}", 1)
                one._about, one._tensors = one.checked(about), _views(whole[start:end], path)
                self._samples.append(one)
        return self._samples

    @property
    def about(self) -> dict[str, Any]:
        return {key: [one.about[key][0] for one in self.samples] for key in ("ids", "targets", "splits")}

    def having(self, split: str | None, empty: bool) -> list[int]:
        return [i for i, one in enumerate(self.samples) if one.having(split, empty)]

    def sample(self, i: int, target: Callable[[Any], Any] | None) -> Sample:
        return self.samples[i].sample(0, target)


_DTYPES = {"F32": torch.float32, "F64": torch.float64, "F16": torch.float16, "BF16": torch.bfloat16}
_DTYPES |= {"I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8}
_DTYPES |= {"BOOL": torch.bool}


def _mapped(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file as views of the file.

    Raises:
        HetgraphError: missing or damaged.
    """
    return _views(_bytes_of(path), path)


def _bytes_of(path: Path) -> Tensor:
    """A file mapped into memory, uint8."""
    try:
        return torch.from_file(str(path), shared=False, size=path.stat().st_size, dtype=torch.uint8)
    except (OSError, RuntimeError) as error:
        raise HetgraphError(f"{path} cannot be read: {error}") from error


def _views(whole: Tensor, path: Path) -> dict[str, Tensor]:
    """The tensors of what lies in a file in the form of safetensors."""
    try:
        size = len(whole)
        length = int.from_bytes(whole[:8].numpy().tobytes(), "little")
        header = json.loads(whole[8 : 8 + length].numpy().tobytes())
        out = {}
        for name, entry in header.items():
            if name != "__metadata__":
                start, end = (8 + length + place for place in entry["data_offsets"])
                if not 0 <= start <= end <= size:
                    raise ValueError(f"tensor {name!r} lies outside the file")
                out[name] = whole[start:end].view(_DTYPES[entry["dtype"]]).view(entry["shape"])
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise HetgraphError(f"{path} cannot be read: {error}") from error
    return out


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise HetgraphError(f"{path} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise HetgraphError(f"{path}: expected an object, got {type(found).__name__}")
    return found
