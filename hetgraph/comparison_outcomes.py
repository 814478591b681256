"""The outcomes of a comparison's runs: how they come about, here or in processes side by side, and how they are kept.

A :class:`Run` and the content of its data decide everything about its outcome; their digest is the key under which
the outcome is kept. So an interrupted comparison finds what it has done, and no changed setting finds it.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import pickle
import signal
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .comparison_runs import Data, Run, Source, execute, modalities
from .errors import CheckpointError, HetgraphError
from .files import write_atomically
from .sample import Sample


@dataclass(frozen=True)
class Failure:
    """A run that ended in an error."""

    run: Run
    error: str


class Digest:
    """A digest of whatever a sample may hold."""

    def __init__(self, *things: Any) -> None:
        self.state = hashlib.blake2b(digest_size=16)
        self.add(things)

    def add(self, thing: Any) -> None:
        if isinstance(thing, np.ndarray):
            thing = torch.from_numpy(thing)
        if isinstance(thing, Tensor):
            plain = thing.detach().cpu().contiguous()
            self._mark("tensor", plain.dtype, tuple(plain.shape))
            self.state.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes())
        elif isinstance(thing, Sample):
            self._mark("sample")
            self.add((thing.id, thing.target, thing.nodes, thing.edges))
        elif isinstance(thing, Mapping):
            self._mark("mapping", len(thing))
            for name in sorted(thing, key=repr):
                self.add(name)
                self.add(thing[name])
        elif isinstance(thing, (list, tuple)):
            self._mark("sequence", len(thing))
            for one in thing:
                self.add(one)
        elif isinstance(thing, (set, frozenset)):
            self.add(sorted(thing, key=repr))
        else:
            self._mark(repr(thing))

    def _mark(self, *words: Any) -> None:
        self.state.update(repr(words).encode() + b"\n")

    @property
    def hex(self) -> str:
        return self.state.hexdigest()


def samples_digest(samples: Sequence[Sample]) -> str:
    """A digest of all samples."""
    digest = Digest(len(samples))
    for i in range(len(samples)):
        digest.add(samples[i])
    return digest.hex


def learning_digest(data: Data) -> str:
    """A digest of all that tuning may see: everything but the test part."""
    valid = None if data.valid is None else samples_digest(data.valid)
    about = (data.name, data.schema.fingerprint, data.objective.to_json(), data.group, data.standardize)
    return Digest(about, samples_digest(data.train), valid, modalities(data)).hex


def key_of(run: Run, data_digest: str) -> str:
    """The key of a run's outcome: a digest of the run, its data and the versions of what computes it."""
    from . import __version__

    about = {"run": asdict(run), "data": data_digest, "hetgraph": __version__, "torch": torch.__version__}
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Store:
    """The folder of finished runs, a file each."""

    folder: Path

    def path(self, run: Run, key: str) -> Path:
        kind = "final" if run.final else "tuning"
        return self.folder / "runs" / f"{run.method}-{kind}-{run.seed}-{key[:20]}.json"

    def find(self, run: Run, key: str) -> dict[str, Any] | None:
        """The outcome kept under a key, if there is one.

        Raises:
            CheckpointError: the file is damaged.
        """
        path = self.path(run, key)
        if not path.is_file():
            return None
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            if kept["key"] != key:
                raise KeyError("key")
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise CheckpointError(f"{path} is damaged ({error!r}); delete it and the run is done again") from error
        return dict(kept["outcome"])

    def keep(self, run: Run, key: str, outcome: Mapping[str, Any]) -> None:
        write_atomically(self.path(run, key), json.dumps({"key": key, "outcome": outcome}, indent=1) + "\n")


Done = tuple[Run, "dict[str, Any] | Failure"]


def perform(runs: Sequence[Run], source: Source, workers: int) -> Iterator[Done]:
    """Outcomes as they come; an error ends its own run only.

    Args:
        workers: processes that train side by side, with a thread each; 0: here, one after the other. ``source``
            must then be picklable.
    """
    if not workers:
        for run in runs:
            yield run, _guarded(source, run)
        return
    packed = pickle.dumps(source)
    # the runs that were under way when a process died: which of them killed it shows when each has one to itself
    suspects: list[Run] = []
    waiting = list(runs)
    while waiting:
        yield from _pool(waiting, packed, workers, suspects)
    for run in suspects:
        dead: list[Run] = []
        yield from _pool([run], packed, 1, dead)
        for one in dead:
            yield one, Failure(one, "its process died (killed, or out of memory)")


def _pool(waiting: list[Run], packed: bytes, workers: int, suspects: list[Run]) -> Iterator[Done]:
    """Take runs off the list and do them in processes until the list is empty or a process dies."""
    before = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _start, (packed,))
    pending: dict[Future[dict[str, Any] | Failure], Run] = {}
    finished = False
    try:
        while waiting or pending:
            # no more than can be under way, so that few are suspected
            while waiting and len(pending) < workers:
                pending[pool.submit(_work, waiting[0])] = waiting[0]
                del waiting[0]
            for future in wait(pending, return_when=FIRST_COMPLETED).done:
                outcome = future.result()
                yield pending.pop(future), outcome
        finished = True
    except BrokenProcessPool:
        suspects += pending.values()
    finally:
        if not finished:
            for child in set(multiprocessing.active_children()) - before:
                child.terminate()
        pool.shutdown(cancel_futures=True)


_source: Source | None = None


def _start(packed: bytes) -> None:
    """Prepare a process: one thread; an interruption is the parent's to deal with."""
    global _source
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    _source = Held(pickle.loads(packed))


def _work(run: Run) -> dict[str, Any] | Failure:
    assert _source is not None
    return _guarded(_source, run)


def _guarded(source: Source, run: Run) -> dict[str, Any] | Failure:
    try:
        return execute(source(run.seed), run)
    # whatever a method raises must not end the others; the comparison reports it and fails at its end
    except Exception as error:
        return Failure(run, str(error) if isinstance(error, HetgraphError) else f"{type(error).__name__}: {error}")


class Held:
    """A source that keeps what it gave last."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.last: tuple[int, Data] | None = None

    def __call__(self, seed: int) -> Data:
        if self.last is None or self.last[0] != seed:
            self.last = seed, self.source(seed)
        return self.last[1]
