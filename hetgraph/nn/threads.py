"""Compiled kernels on as many threads as torch has, and where possible on torch's own.

Torch's OpenMP threads wait for their next work in a spin. Threads beside them would share the processors with that
spin, and run at two thirds of their speed; so a kernel is handed to the same team of threads, through the function
that compilers call for a parallel region. Where torch comes with another OpenMP, Python's threads are used.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor

FIELDS = 6
"""Numbers that a task says of an array: its address and five dimensions."""


@dataclass(frozen=True)
class Kernel:
    """A compiled kernel in its two forms.

    Attributes:
        run: ``run(begin, end, *arrays)`` does the pieces of work ``begin`` to ``end - 1``; releases Python's lock.
        task: dtype of the first array -> address of the same as a C function; see :mod:`hetgraph.nn._tasks`.
    """

    run: Callable[..., None]
    task: Callable[[str], int]


def in_pieces(kernel: Kernel, pieces: int, *tensors: Tensor) -> None:
    """Run a kernel over all its pieces of work. Tensors must be contiguous where it writes to them."""
    arrays = [tensor.detach().contiguous().numpy() for tensor in tensors]
    threads = min(torch.get_num_threads(), pieces)
    if threads < 2:
        kernel.run(0, pieces, *arrays)
    elif _openmp() is not None:
        numbers = [0, pieces]
        for array in arrays:
            numbers += [array.ctypes.data, *array.shape, *[0] * (FIELDS - 1 - array.ndim)]
        task = np.array(numbers, np.int64)
        _openmp()(kernel.task(str(arrays[0].dtype)), task.ctypes.data, threads, 0)
    else:
        bounds = [pieces * i // threads for i in range(threads + 1)]
        rest = [_pool().submit(kernel.run, bounds[i], bounds[i + 1], *arrays) for i in range(1, threads)]
        kernel.run(bounds[0], bounds[1], *arrays)
        for done in rest:
            done.result()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """While kernels multiply matrices on several threads, the BLAS that numba calls must not start threads of its own.

    Only OpenBLAS would (and warns that it may hang); others see that they are called from a parallel region.
    """
    with _limits.lock:
        if not _limits.users:
            _limits.before = [(library, library.get_num_threads()) for library in _openblas()]
            for library, _ in _limits.before:
                library.set_num_threads(1)
        _limits.users += 1
    try:
        yield
    finally:
        with _limits.lock:
            _limits.users -= 1
            if not _limits.users:
                for library, threads in _limits.before:
                    library.set_num_threads(threads)


class _Limits:
    """Who asked for one thread: the number is the whole process's, and is given back when the last is done."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.lock = Lock()
        self.users = 0
        self.before: list[tuple[Any, int]] = []


_limits = _Limits()


@cache
def _openblas() -> list[Any]:
    from threadpoolctl import ThreadpoolController

    import_module("scipy.linalg.cython_blas")  # numba's way to BLAS; loaded, so that the controller sees it
    return [lib for lib in ThreadpoolController().lib_controllers if lib.internal_api == "openblas"]


@cache
def _openmp() -> Any:
    """GNU OpenMP's ``GOMP_parallel(function, data, threads, flags)`` of the library that torch has loaded, or None."""
    for path in (Path(torch.__file__).parent / "lib").glob("libgomp*.so*"):
        try:
            region = ctypes.CDLL(str(path)).GOMP_parallel
        except (OSError, AttributeError):
            continue
        region.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
        region.restype = None
        return region
    return None


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(os.cpu_count() or 1, 2), thread_name_prefix="hetgraph-kernel")


if hasattr(os, "register_at_fork"):
    # a forked process has the pool, but not its threads, and a lock that nobody may be left to open
    os.register_at_fork(after_in_child=_pool.cache_clear)
    os.register_at_fork(after_in_child=_limits.reset)
