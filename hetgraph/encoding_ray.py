"""The engine ``ray`` of ``hetgraph encode``: pieces of work as a stage of Ray Data, on this machine or on a cluster.

A piece is what it is for the processes of :mod:`hetgraph.encoding`, and goes through the same job in one call, so that
caches and shards are the same whoever does what. A worker that dies is started again and its pieces are given out once
more: every file of a job appears whole or not at all, so that doing a piece twice changes nothing.

Needs the extra ``ray``. Ray is started for this machine alone, on its loopback address, without dashboard and usage
statistics, and stopped at the end. One that runs already is used and left running; the environment variable
``RAY_ADDRESS`` names a cluster, whose machines must see the same files under the same paths.
"""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

from .errors import HetgraphError

WINDOW = 1024
"""Pieces that Ray holds at once, so that memory is bounded whatever there is to do."""
LIVES = 4
"""How often a worker may die, or a piece of work be begun: one that kills every worker is given up."""


def perform(job: Callable[[Any], Any], work: Iterable[Any], workers: int) -> Iterator[tuple[Any, Any]]:
    """Each piece of work with what the job makes of it, in order, by workers of one thread each.

    Args:
        job: can be pickled; classes of the main program travel as they are.
        work: read ``WINDOW`` pieces ahead of what is done.
        workers: actors, of one processor each.

    Raises:
        HetgraphError: no Ray, or it gave up. What the job raises is raised here, with the rest of the work undone.
    """
    if workers < 1:
        raise HetgraphError(f"expected at least 1 worker, got {workers}")
    ray = _ray()
    try:
        packed = ray.cloudpickle.dumps(job)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise HetgraphError(f"an encoder cannot be sent to other processes ({error}); use the engine local") from error
    rest = iter(work)
    with running(workers):
        try:
            while window := list(islice(rest, WINDOW)):
                yield from _in_window(packed, window, workers)
        except ray.exceptions.RayError as error:
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise HetgraphError(f"Ray gave up while it encoded ({first}); the same command goes on") from error


def _ray() -> Any:
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise HetgraphError("the engine ray needs Ray Data: pip install 'hetgraph[ray]'") from error
    return ray


def _in_window(packed: bytes, window: list[Any], workers: int) -> Iterator[tuple[Any, Any]]:
    """:func:`perform` for as many pieces as Ray holds at once."""
    import ray.data

    rows = [{"number": k, "piece": pickle.dumps(piece)} for k, piece in enumerate(window)]
    # a block per piece: what a worker is given at once, and what is done again if it dies
    stage = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        _Stage,
        fn_constructor_args=(packed, os.getcwd()),
        batch_size=1,
        concurrency=min(workers, len(rows)),
        num_cpus=1,
        max_restarts=LIVES - 1,
        max_task_retries=LIVES - 1,
    )
    found: dict[int, Any] = {}
    due = 0
    for row in stage.iter_rows():
        found[int(row["number"])] = pickle.loads(row["found"])
        while due in found:
            made, value = found.pop(due)
            if not made:
                raise value
            yield window[due], value
            due += 1


class _Stage:
    """The job in a worker of Ray: numbered pieces in, what becomes of them out, errors included."""

    def __init__(self, packed: bytes, folder: str) -> None:
        import torch

        torch.set_num_threads(1)
        os.chdir(folder)  # paths of a manifest may be relative
        self.job = pickle.loads(packed)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        try:
            found = (True, self.job(pickle.loads(batch["piece"][0])))
        except Exception as error:  # to be raised in the process that asked, as it is
            found = (False, error)
        return {"number": [batch["number"][0]], "found": [pickle.dumps(found)]}


@contextmanager
def running(workers: int) -> Iterator[None]:
    """A Ray that runs: the one that is there, or one of our own for so many workers, which is stopped at the end.

    Raises:
        HetgraphError: Ray is not installed, or does not start.
    """
    ray = _ray()
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    own = not ray.is_initialized()
    if own:
        here = {"num_cpus": workers, "include_dashboard": False, "_node_ip_address": "127.0.0.1"}
        address = os.environ.get("RAY_ADDRESS")
        try:
            ray.init(address or "local", log_to_driver=False, logging_level=logging.ERROR, **({} if address else here))
        except (RuntimeError, ConnectionError, ValueError) as error:
            raise HetgraphError(f"Ray does not start: {error}") from error
    try:
        with _quiet():
            yield
    finally:
        if own:
            ray.shutdown()


@contextmanager
def _quiet() -> Iterator[None]:
    """No bars and no reports about how Ray Data does its work."""
    from ray.data import DataContext

    context = DataContext.get_current()
    logger = logging.getLogger("ray.data")
    before = context.enable_progress_bars, logger.level
    context.enable_progress_bars = False
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        context.enable_progress_bars = before[0]
        logger.setLevel(before[1])
