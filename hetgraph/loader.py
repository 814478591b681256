"""Graphs built in the background, in order, while the model works on earlier ones.

Worker processes come from a fork server, not from forking this process: a fork inherits the locks, but not the
threads, of OpenMP and of progress bars, and the first rule that runs on two threads in it waits for ever. The price:
samples and rules must be picklable, so rules are defined at the top of a module, and a script that uses workers
starts its work under ``if __name__ == "__main__":``.

Handing a graph over costs some milliseconds, whatever its size: workers are for samples that are read from files or
computed, for large graphs and for rules that take their time, not for a few hundred small nodes from memory.

In a worker torch has one thread. Where a rule's floating point depends on the number of threads, its last bit may too.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import pickle
import signal
import time
import traceback
from collections.abc import Generator, Iterable
from contextlib import suppress
from multiprocessing.context import BaseContext
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from .builder import GraphBuilder
from .errors import HetgraphError
from .graph import Graph
from .parcel import Parcel, pack, unpack
from .sample import Sample

TIMEOUT = 600.0
_POLL = 1.0  # seconds after which the workers are looked at to see whether they live


class GraphLoader:
    """Graphs of batches of samples, one after the other.

    Args:
        samples: anything with ``[key]`` that gives a :class:`~hetgraph.sample.Sample`.
        builder: makes the graphs.
        batches: lists of keys, one list for every graph; read only a little ahead of the graphs.
        workers: processes that build graphs in the background; 0: each graph is built when it is asked for.
        pin_memory: put graphs into page-locked memory. Default: where there is an accelerator to copy them to.
        prefetch: graphs that a worker may be ahead.
        timeout: seconds to wait for one graph of the workers.

    Iterating raises, after which (as after leaving the loop early) no worker is left:
        HetgraphError: a bad sample, as :class:`~hetgraph.builder.GraphBuilder` says it; samples or rules that
            cannot be sent to a worker; a worker that died or did not answer in time.
        Exception: whatever else reading a sample raises, of the same type and with the same message, wherever it
            was raised.

    Example:
        >>> loader = GraphLoader(samples, GraphBuilder(schema), [[0, 1], [2, 3]], workers=2)
        >>> [len(graph) for graph in loader]
        [2, 2]
    """

    def __init__(
        self,
        samples: Any,
        builder: GraphBuilder,
        batches: Iterable[list[Any]],
        *,
        workers: int = 0,
        pin_memory: bool | None = None,
        prefetch: int = 2,
        timeout: float = TIMEOUT,
    ) -> None:
        if workers < 0 or prefetch < 1 or not timeout > 0:
            raise HetgraphError(
                f"expected workers >= 0, prefetch >= 1 and timeout > 0, got {workers}, {prefetch} and {timeout}"
            )
        accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        accelerated = accelerator is not None and accelerator.type != "mps"  # which shares the memory anyway
        if pin_memory and not accelerated:
            raise HetgraphError("pin_memory is for copies to an accelerator, and there is none")
        self.samples, self.builder, self.batches = samples, builder, batches
        self.workers, self.prefetch, self.timeout = workers, prefetch, timeout
        self.pin_memory = accelerated if pin_memory is None else pin_memory

    def __iter__(self) -> Generator[Graph, None, None]:
        return self._in_background() if self.workers else self._here()

    def _here(self) -> Generator[Graph, None, None]:
        for keys in self.batches:
            graph = build(self.samples, self.builder, keys)
            yield graph.pin_memory() if self.pin_memory else graph

    def _in_background(self) -> Generator[Graph, None, None]:
        loader: DataLoader[Any] = DataLoader(
            _Built(_sent(self.samples, self.builder)),
            batch_size=None,
            sampler=self.batches,
            num_workers=self.workers,
            collate_fn=_as_it_is,
            pin_memory=self.pin_memory,
            prefetch_factor=self.prefetch,
            timeout=min(_POLL, self.timeout),
            multiprocessing_context=_context(),
            generator=torch.Generator(),  # its own, to leave the global one alone
        )
        shared = _shared(self.builder)
        parcels: Any = iter(loader)
        try:
            while True:
                # for whom it is made is not known: what arrives during a validation may be trained on later
                with torch.inference_mode(False):
                    parcel = self._next(parcels)
                    if parcel is None:
                        return
                    made = unpack(parcel, shared)
                if isinstance(made, Exception):
                    raise made
                yield made
        finally:
            # not left to garbage collection: tracebacks keep the iterator alive
            parcels._shutdown_workers()

    def _next(self, parcels: Any) -> Parcel | None:
        """The next parcel; None after the last one."""
        end = time.monotonic() + self.timeout
        while True:
            try:
                return next(parcels, None)
            except (RuntimeError, OSError, EOFError) as error:
                late = "timed out" in str(error)
                # a worker may be gone a moment before this is known of it
                multiprocessing.connection.wait([w.sentinel for w in parcels._workers], timeout=0 if late else _POLL)
                died = [_death(w) for w in parcels._workers if not w.is_alive()]
                if died:
                    raise HetgraphError(
                        f"{'; '.join(died)} instead of building graphs (not enough memory? a script without "
                        '`if __name__ == "__main__":`? a crash in a rule?)'
                    ) from error
                if not late:
                    raise
                if time.monotonic() > end:
                    raise HetgraphError(
                        f"{self.workers} workers gave no graph within {self.timeout:g} s; "
                        "expected a timeout that suits the slowest batch"
                    ) from error


def build(samples: Any, builder: GraphBuilder, keys: list[Any]) -> Graph:
    """The graph of the samples with these keys."""
    return builder([named(samples, key) for key in keys])


def named(samples: Any, key: Any) -> Sample:
    """Sample ``key``, called by its place in the whole sequence if it has no id."""
    sample = samples[key]
    if isinstance(sample, Sample) and sample.id is None:
        out = Sample(id=str(key), target=sample.target)
        out.nodes, out.edges = sample.nodes, sample.edges
        return out
    return sample


class _Built(Dataset[Parcel]):
    """In a worker: lists of keys to graphs, or to the exceptions that building them raised, as parcels."""

    def __init__(self, sent: Parcel) -> None:
        self.sent = sent
        self.made: tuple[Any, GraphBuilder] | None = None

    def __getitem__(self, keys: list[Any]) -> Parcel:
        try:
            if self.made is None:
                self.made = unpack(self.sent)
            samples, builder = self.made
            return pack(build(samples, builder, keys), _shared(builder))
        except Exception as error:
            return pack(_portable(error))


def _portable(error: Exception) -> Exception:
    """The exception with the worker's traceback as a note, in a form that survives the way to another process."""
    worker = get_worker_info()
    error.add_note(f"in worker {worker.id if worker else 0}:\n{traceback.format_exc()}")
    with suppress(Exception):
        if type(pickle.loads(pickle.dumps(error))) is type(error):
            return error
    plain = RuntimeError(f"{type(error).__name__}: {error}")
    plain.add_note(error.__notes__[-1])
    return plain


def _sent(samples: Any, builder: GraphBuilder) -> Parcel:
    try:
        return pack((samples, builder))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise HetgraphError(
            f"samples and rules cannot be sent to worker processes ({error}); "
            "expected rules that are defined at the top of a module, or workers=0"
        ) from error
    except RuntimeError as error:
        raise HetgraphError(f"samples do not fit into shared memory ({error}); workers=0 needs none") from error


def _shared(builder: GraphBuilder) -> dict[str, Any]:
    """What both sides have: the schema and its rules."""
    return {"schema": builder.schema, **{repr(key): edge.rule for key, edge in builder.schema.edges.items()}}


def _as_it_is(parcel: Any) -> Any:
    return parcel


def _context() -> BaseContext:
    """How worker processes are started (measured: with the libraries loaded beforehand as fast as a fork)."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    from multiprocessing import forkserver

    context = multiprocessing.get_context("forkserver")
    # somebody else's choice of what to load is left alone
    if getattr(forkserver._forkserver, "_preload_modules", None) == ["__main__"]:
        context.set_forkserver_preload(["__main__", __name__])
    return context


def _death(worker: Any) -> str:
    code = worker.exitcode
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"
    return f"worker process {worker.pid} {how}"
