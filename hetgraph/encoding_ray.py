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
import tempfile
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from .errors import HetgraphError

WINDOW = 1024
"""Pieces that Ray holds at once, so that memory is bounded whatever there is to do."""
LIVES = 4
"""How often a piece of work is begun on a machine: one that kills every worker is given up."""

_NOWHERE = "http://127.0.0.1:9"
ALONE = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray's own processes ask the machine's surroundings which cloud they are in
    **dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), _NOWHERE),
    **dict.fromkeys(("no_proxy", "NO_PROXY"), "127.0.0.1,localhost"),
}
"""What a Ray of our own is started with; its workers get the caller's environment back."""


def perform(job: Callable[[Any], Any], work: Iterable[Any], workers: int) -> Iterator[tuple[Any, Any]]:
    """Each piece of work with what the job makes of it, in order, by workers of one thread each.

    Args:
        job: can be pickled; classes of the main program travel as they are.
        work: read ``WINDOW`` pieces ahead of what is done.
        workers: actors, of one processor each.

    Raises:
        HetgraphError: no Ray, or it failed, or every worker died of the same piece. What the job raises is raised here,
            with the rest of the work undone.
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
            raise HetgraphError(f"Ray failed while it encoded ({first}); the same command goes on") from error


def _ray() -> Any:
    # read when Ray is imported: a cluster of one machine then lives on its loopback address
    if not os.environ.get("RAY_ADDRESS"):
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
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
    # a block per piece: what a worker is given at once, and what another one does again if it dies
    stage = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        _Stage,
        fn_constructor_args=(
            packed,
            os.getcwd(),
            {name: os.environ.get(name) for name in ALONE},
            uuid.uuid4().hex,
            LIVES,
        ),
        batch_size=1,
        concurrency=min(workers, len(rows)),
        num_cpus=1,
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
    """The job in a worker of Ray: numbered pieces in, what becomes of them out, errors included.

    Args:
        packed: the job.
        folder: where relative paths begin.
        environment: the caller's, put back where Ray was started with ``ALONE``.
        run: a name of its own for this run.
        lives: how often a piece is begun.
    """

    def __init__(self, packed: bytes, folder: str, environment: Mapping[str, str | None], run: str, lives: int) -> None:
        from .one_thread import keep_to_one_thread

        keep_to_one_thread()
        if os.environ.get("https_proxy") == _NOWHERE:
            _set(environment)
        os.chdir(folder)  # paths of a manifest may be relative
        self.job, self.run, self.lives = pickle.loads(packed), run, lives

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        number, piece = int(batch["number"][0]), pickle.loads(batch["piece"][0])
        # Ray begins again without end; what a dead worker has begun is marked here
        mark = Path(tempfile.gettempdir(), f"hetgraph-{self.run}-{number}")
        with mark.open("a") as file:
            file.write(".")
        try:
            if mark.stat().st_size > self.lives:
                often = "once" if self.lives == 1 else f"{self.lives} times"
                raise HetgraphError(
                    f"a worker died {often} while it encoded the same (not enough memory?); the same command goes on"
                )
            found = (True, self.job(piece))
        except Exception as error:  # to be raised in the process that asked, as it is
            found = (False, error)
        mark.unlink()
        return {"number": [number], "found": [pickle.dumps(found)]}


@contextmanager
def running(workers: int) -> Iterator[None]:
    """A Ray that runs: the one that is there, or one of our own for so many workers, which is stopped at the end.

    Raises:
        HetgraphError: Ray is not installed, or does not start.
    """
    ray = _ray()
    own = not ray.is_initialized()
    if own:
        address = os.environ.get("RAY_ADDRESS")
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        try:
            if address:
                ray.init(address, **quiet)
            else:
                with _environment(ALONE):
                    ray.init("local", num_cpus=workers, include_dashboard=False, **quiet)
        except Exception as error:  # Ray raises many kinds, a bare Exception if the machine is too busy to start it
            ray.shutdown()
            raise HetgraphError(f"Ray does not start: {error}") from error
    try:
        with _quiet():
            yield
    finally:
        if own:
            ray.shutdown()


@contextmanager
def _environment(values: Mapping[str, str | None]) -> Iterator[None]:
    """Environment variables for a while; None: not set."""
    before = {name: os.environ.get(name) for name in values}
    _set(values)
    try:
        yield
    finally:
        _set(before)


def _set(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@contextmanager
def _quiet() -> Iterator[None]:
    """No bars and no reports about how Ray Data does its work."""
    from ray.data import DataContext

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of settings that Ray makes itself
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
