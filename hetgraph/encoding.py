"""All media of a manifest into the cache, by several processes, going on where a killed run stopped.

The work is cut into units: so many media of one column, in the order of the manifest. Every process has one thread of
torch, and a unit goes through its encoder in one call, so the cache holds the same bits whatever the number of
processes. What a killed run has kept is not encoded again; a network that finds only the rest of a unit to do may
differ from an undisturbed run in the last bits of float32, the encoders without a network do not.
"""

from __future__ import annotations

import json
import multiprocessing
import multiprocessing.connection
import os
import pickle
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from .encoders import Cached, Encoder, Nodes, encoder_from_config
from .encoders.configs import is_built_in
from .errors import HetgraphError
from .manifest import Manifest, Row
from .one_thread import keep_to_one_thread, one_thread
from .pipeline import Medium, Pipeline, Record
from .quarantine import Quarantine, Unreadable, encode_readable
from .shards import write_index, write_shard

UNIT = {"text": 256, "image": 32}
"""Media of a unit, by kind; texts are many, so that those of similar length can share a batch."""
OTHER_UNIT = 16
SHARD = 1000


@dataclass(frozen=True)
class Unit:
    """Some media of one column: sample ids and what the encoder takes."""

    column: str
    samples: tuple[str, ...]
    items: tuple[Any, ...]


@dataclass
class Encoded:
    """What :func:`encode_manifest` did, by column.

    Attributes:
        computed: media that were encoded now.
        found: media that were in the cache already, or have the content of another one of the same unit.
    """

    computed: dict[str, int] = field(default_factory=dict)
    found: dict[str, int] = field(default_factory=dict)


def encode_manifest(
    manifest: Manifest,
    pipeline: Pipeline,
    *,
    workers: int = 1,
    engine: str = "local",
    quarantine: Quarantine | None = None,
    progress: Callable[[int], object] | None = None,
) -> Encoded:
    """Fill the cache of a pipeline's encoders with all media of a manifest.

    Args:
        pipeline: with a cache.
        workers: processes that encode side by side; 1: this one.
        engine: local (processes of this machine) or ray (:mod:`hetgraph.encoding_ray`); the cache is the same.
        quarantine: takes media that cannot be read.
        progress: called with the number of media whenever some are done.

    Raises:
        MediaError: a medium cannot be read and there is no quarantine.
        HetgraphError: no cache, or it cannot be written; a process died.
    """
    encoders = {}
    for medium in pipeline.media:
        if not isinstance(medium.encoder, Cached):
            raise HetgraphError(f"column {medium.column!r}: encoding ahead needs an encoder with a cache")
        encoders[medium.column] = medium.encoder
    done = Encoded(dict.fromkeys(encoders, 0), dict.fromkeys(encoders, 0))
    work = (unit for unit in units(manifest, pipeline))
    for unit, (computed, aside) in engine_of(engine)(_Fill(encoders, quarantine is not None), work, workers):
        done.computed[unit.column] += computed
        done.found[unit.column] += len(unit.items) - computed - len(aside)
        if quarantine is not None:
            quarantine.found += aside
        if progress is not None:
            progress(len(unit.items))
    return done


def units(manifest: Manifest, pipeline: Pipeline) -> Iterator[Unit]:
    """The work on a manifest, in an order that follows from it alone."""
    sizes = {medium.column: UNIT.get(medium.kind, OTHER_UNIT) for medium in pipeline.media}
    waiting: dict[str, list[tuple[str, Any]]] = {column: [] for column in sizes}
    for row in manifest.rows:
        for column, rows in waiting.items():
            if column in row.media:
                rows.append((row.id, row.media[column]))
                if len(rows) == sizes[column]:
                    yield Unit(column, *zip(*rows, strict=True))
                    rows.clear()
    for column, rows in waiting.items():
        if rows:
            yield Unit(column, *zip(*rows, strict=True))


def write_samples(
    manifest: Manifest,
    pipeline: Pipeline,
    folder: str | Path,
    *,
    shards: int | None = None,
    format: str = "safetensors",
    workers: int = 1,
    engine: str = "local",
    skip: bool = False,
    progress: Callable[[int], object] | None = None,
) -> int:
    """Write all samples of a manifest as shards that :class:`~hetgraph.shards.Shards` reads; gives how many samples.

    Args:
        pipeline: what is in its cache is taken from there; without one everything is encoded anew.
        folder: gets the shards, and at the end the index that makes them valid.
        shards: into how many files; default: of a thousand samples each.
        format: safetensors or webdataset.
        workers: processes that write side by side; with a knowledge graph it is this one, whatever the engine.
        engine: local or ray, as for :func:`encode_manifest`; the shards are the same.
        skip: samples stay without media that cannot be read, some of them without a node.
        progress: called with the number of samples whenever some are done.

    Raises:
        MediaError: a medium cannot be read, and ``skip`` is False.
        HetgraphError: a file cannot be written; a process died; more shards than samples.
    """
    count = len(manifest.rows)
    shards = -(-count // SHARD) if shards is None else shards
    if not 1 <= shards <= count:
        raise HetgraphError(f"expected 1 to {count} shards for {count} samples, got {shards}")
    bounds = [count * k // shards for k in range(shards + 1)]
    work = [(f"shard-{k:05d}-of-{shards:05d}", manifest.rows[a:b]) for k, (a, b) in enumerate(pairwise(bounds))]
    job = _Shard(pipeline, Path(folder), format, skip)
    run = engine_of(engine)
    for (_, rows), _ in run(job, work, workers) if pipeline.graph is None else perform(job, work, 1):
        if progress is not None:
            progress(len(rows))
    write_index(folder, [(name, len(rows)) for name, rows in work], pipeline.schema, format)
    return count


class _Shard:
    """Encodes some rows and writes them as one shard."""

    def __init__(self, pipeline: Pipeline, folder: Path, format: str, skip: bool) -> None:
        self.pipeline, self.folder, self.format, self.skip = pipeline, folder, format, skip

    def __call__(self, work: tuple[str, Sequence[Row]]) -> None:
        name, rows = work
        found = list(rows)
        records = [Record(row.id, row.media, row.entities, row.label) for row in found]
        samples = self.pipeline(records, aside=_drop if self.skip else None)
        write_shard(self.folder, name, samples, [row.split for row in found], self.format)

    def __getstate__(self) -> dict[str, Any]:
        media = [
            (m.column, m.kind, m.node, *_with_folder(m.encoder))  # no knowledge graph travels
            for m in self.pipeline.media
        ]
        return {"media": media, "folder": self.folder, "format": self.format, "skip": self.skip}

    def __setstate__(self, state: dict[str, Any]) -> None:
        made: dict[str | Encoder, Encoder] = {}
        media = []
        for column, kind, node, folder, sent in state["media"]:
            encoder = made[sent] = made.get(sent) or _received(sent)
            media.append(Medium(column, kind, node, encoder if folder is None else Cached(encoder, folder)))
        self.pipeline, self.folder = Pipeline(media), state["folder"]
        self.format, self.skip = state["format"], state["skip"]


def _drop(one: Unreadable) -> None:
    """For what :func:`encode_manifest` has reported already."""


def _with_folder(encoder: Encoder) -> tuple[str | None, str | Encoder]:
    inner = encoder.encoder if isinstance(encoder, Cached) else encoder
    return str(encoder.folder) if isinstance(encoder, Cached) else None, _sent(inner)


class _Fill:
    """Encodes units into the cache: how many were computed, and what could not be read."""

    def __init__(self, encoders: dict[str, Cached], skip: bool) -> None:
        self.encoders, self.skip = encoders, skip

    def __call__(self, unit: Unit) -> tuple[int, list[Unreadable]]:
        filling = _Filling(self.encoders[unit.column])
        aside: list[Unreadable] = []
        encode_readable(filling, unit.items, unit.samples, unit.column, aside.append if self.skip else None)
        if filling.cached.write_errors:
            raise HetgraphError(f"the cache in {filling.cached.folder} cannot be written")
        return filling.computed, aside

    def __getstate__(self) -> dict[str, Any]:
        encoders = {column: (str(c.folder), _sent(c.encoder)) for column, c in self.encoders.items()}
        return {"encoders": encoders, "skip": self.skip}

    def __setstate__(self, state: dict[str, Any]) -> None:
        made: dict[str | Encoder, Encoder] = {}
        self.skip = state["skip"]
        self.encoders = {}
        for column, (folder, sent) in state["encoders"].items():
            if sent not in made:
                made[sent] = _received(sent)
            self.encoders[column] = Cached(made[sent], folder)


class _Filling:
    """A cache as an encoder that gives nothing back: what is there need not be read."""

    def __init__(self, cached: Cached) -> None:
        self.cached = cached
        self.path_of = cached.path_of
        self.computed = 0

    def __call__(self, items: Sequence[Any], names: Sequence[str]) -> list[Nodes]:
        self.computed += self.cached.fill(items, names)
        return [{}] * len(items)


def _sent(encoder: Encoder) -> str | Encoder:
    """An encoder on its way to another process: as its configuration where that is enough, to leave weights behind."""
    return json.dumps(encoder.config()) if is_built_in(encoder) else encoder


def _received(sent: str | Encoder) -> Encoder:
    return sent if isinstance(sent, Encoder) else encoder_from_config(json.loads(sent))


# --- units in processes --------------------------------------------------------------------------------------

ENGINES = ("local", "ray")


@contextmanager
def engine_running(name: str, workers: int) -> Iterator[None]:
    """Keep an engine running over several calls, where starting it takes a while; without this, each starts its own.

    Raises:
        HetgraphError: there is no such engine, it is not installed, or does not start.
    """
    engine_of(name)
    if name == "local":
        yield
        return
    from . import encoding_ray

    with encoding_ray.running(workers):
        yield


def engine_of(name: str) -> Callable[[Callable[[Any], Any], Iterable[Any], int], Iterator[tuple[Any, Any]]]:
    """What does the work: :func:`perform`, or the function of that name for another engine.

    Raises:
        HetgraphError: there is no such engine.
    """
    if name not in ENGINES:
        raise HetgraphError(f"unknown engine {name!r}; known: {', '.join(ENGINES)}")
    if name == "local":
        return perform
    from . import encoding_ray

    return encoding_ray.perform


def perform(job: Callable[[Any], Any], work: Iterable[Any], workers: int) -> Iterator[tuple[Any, Any]]:
    """Each piece of work with what the job makes of it, in order, by processes of one thread each.

    Args:
        job: can be pickled, unless ``workers`` is 1.
        work: read only a little ahead of what is done.
        workers: 1: this process.

    Raises:
        HetgraphError: a process died. What the job raises is raised here, with the rest of the work undone.
    """
    if workers < 1:
        raise HetgraphError(f"expected at least 1 worker, got {workers}")
    if workers == 1:
        with one_thread():
            for piece in work:
                yield piece, job(piece)
        return
    try:
        packed = pickle.dumps(job)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise HetgraphError(f"an encoder cannot be sent to other processes ({error}); use 1 worker") from error
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _start, (packed,))
    pending: deque[tuple[Any, Future[Any]]] = deque()
    try:
        for piece in work:
            pending.append((piece, pool.submit(_work, piece)))
            if len(pending) > 3 * workers:
                first, future = pending.popleft()
                yield first, future.result()
        while pending:
            first, future = pending.popleft()
            yield first, future.result()
    except BrokenProcessPool as error:
        raise HetgraphError(
            "a process died while it encoded (killed, or not enough memory?); the same command goes on"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


_job: Callable[[Any], Any] | None = None


def _start(packed: bytes) -> None:
    """Prepare a process: one thread; an interruption is the parent's to deal with; without a parent it ends."""
    global _job
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _job = pickle.loads(packed)
    keep_to_one_thread()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)


def _work(piece: Any) -> Any:
    assert _job is not None
    return _job(piece)


def default_workers(media: int) -> int:
    """A process per core, but none for fewer than a few units' worth of media."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, media // 64))


def report_of(manifest: Path) -> Path:
    """Where the report of unreadable media goes if nobody says otherwise."""
    return manifest.with_suffix(".unreadable.jsonl")
