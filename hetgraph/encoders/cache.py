"""Keeping on disk what an encoder has computed."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from hetgraph.errors import HetgraphError

from .base import Encoder, Nodes
from .media import Item, file_stamp

logger = logging.getLogger(__name__)

_ABANDONED_SECONDS = 3600.0


class Cached(Encoder):
    """An encoder that computes every content once and keeps the nodes in a folder.

    The key is a hash of the item's content (not of its path) and of the encoder's fingerprint, so a changed file,
    other settings or other weights never meet an old result. There is one safetensors file per item, with a
    checksum, in 256 sub-folders; a damaged one is computed again. Files appear by atomic rename, so any number
    of processes may share the folder, and one that is killed leaves at most an unfinished temporary file,
    which is removed when a cache is opened an hour later or more.

    Caching is an optimisation: if a file cannot be written (disk full, read-only folder), the nodes are returned
    all the same; the first failure is logged as a warning and ``write_errors`` counts them all.

    Args:
        encoder: computes what is not there yet, all of it in one call.
        folder: made if need be. May hold the results of several encoders.

    Attributes:
        hits, misses: how many items were found (on disk, or earlier in the same call) and how many computed.
        write_errors: how many results could not be kept.

    Raises:
        HetgraphError: the folder cannot be made.
    """

    def __init__(self, encoder: Encoder, folder: str | os.PathLike[str]) -> None:
        self.encoder = encoder
        self.folder = Path(folder)
        self.dim = encoder.dim
        self.fields = dict(encoder.fields)
        self.weights = encoder.weights
        self.least = encoder.least
        self.hits = self.misses = self.write_errors = 0
        self._fingerprint = encoder.fingerprint
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise HetgraphError(f"the cache folder {self.folder} cannot be made: {error}") from error
        self._remove_abandoned()

    def settings(self) -> dict[str, Any]:
        return self.encoder.settings()

    def fitted(self, items: Sequence[Any], names: Sequence[str] | None = None) -> Encoder:
        inside = self.encoder.fitted(items, names)
        return self if inside is self.encoder else Cached(inside, self.folder)

    def config(self) -> dict[str, Any]:
        """The config of the encoder inside: a cache changes no result."""
        return self.encoder.config()

    @property
    def fingerprint(self) -> str:
        return self.encoder.fingerprint

    def path_of(self, value: Any) -> Path | None:
        return self.encoder.path_of(value)

    def digest(self, item: Item) -> str:
        return self.encoder.digest(item)

    def encode(self, items: Sequence[Item]) -> list[Nodes]:
        stamps = [file_stamp(self.path_of(item.value)) for item in items]
        keys = [self._key(item) for item in items]
        found: dict[str, Nodes] = {}
        missing: dict[str, int] = {}
        for i, key in enumerate(keys):
            if key in found or key in missing:
                continue
            kept = self._load(key)
            if kept is None:
                missing[key] = i
            else:
                found[key] = kept
        self.misses += len(missing)
        self.hits += len(items) - len(missing)
        if missing:
            computed = self.encoder.run([items[i] for i in missing.values()])
            for (key, i), nodes in zip(missing.items(), computed, strict=True):
                found[key] = nodes
                # A file that was changed while it was read has a result that does not belong to the key.
                if stamps[i] == file_stamp(self.path_of(items[i].value)):
                    self._keep(key, nodes)
        repeated = len(found) < len(items)
        return [
            {name: tensor.clone() for name, tensor in found[key].items()} if repeated else found[key] for key in keys
        ]

    def fill(self, items: Iterable[Any], names: Sequence[str] | None = None) -> int:
        """Compute and keep what is not there yet, without reading what is; gives how many items were computed.

        For arguments and errors see :meth:`__call__`.
        """
        missing: dict[str, Item] = {}
        entries = self._entries(items, names)
        for item in entries:
            key = self._key(item)
            if key not in missing and not self._file(key).exists():
                missing[key] = item
        before = self.misses
        if missing:
            self.run(list(missing.values()))
        self.hits += len(entries) - len(missing)
        return self.misses - before

    def __repr__(self) -> str:
        return f"Cached({self.encoder!r}, {str(self.folder)!r})"

    def _key(self, item: Item) -> str:
        return hashlib.sha256(f"{self._fingerprint} {self.encoder.digest(item)}".encode()).hexdigest()

    def _file(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.safetensors"

    def _load(self, key: str) -> Nodes | None:
        from safetensors import SafetensorError, safe_open

        path = self._file(key)
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                # Copies, because the tensors of the file would keep it mapped.
                nodes = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
                sound = (file.metadata() or {}).get("checksum") == _checksum(nodes)
        except (SafetensorError, OSError) as error:
            logger.info("cache file %s cannot be read and is computed again: %s", path, error)
            return None
        if not sound or set(nodes) != {"x", *self.fields}:
            logger.info("cache file %s is damaged and is computed again", path)
            return None
        return nodes

    def _keep(self, key: str, nodes: Nodes) -> None:
        from safetensors.torch import save

        path = self._file(key)
        data = save(nodes, metadata={"checksum": _checksum(nodes)})
        try:
            path.parent.mkdir(exist_ok=True)
            _write(path, data)
        except OSError as error:
            self.write_errors += 1
            if self.write_errors == 1:
                logger.warning("the cache in %s cannot be written, results are not kept: %s", self.folder, error)

    def _remove_abandoned(self) -> None:
        limit = time.time() - _ABANDONED_SECONDS
        for path in self.folder.glob("??/*.tmp"):
            with contextlib.suppress(OSError):  # another process was faster, or the folder is read-only
                if path.stat().st_mtime < limit:
                    path.unlink()


def _write(path: Path, data: bytes) -> None:
    """All of a file or nothing, also if the process is interrupted."""
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def _checksum(nodes: Nodes) -> str:
    total = hashlib.sha256()
    for name in sorted(nodes):
        tensor = nodes[name].contiguous()
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        total.update(tensor.view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
