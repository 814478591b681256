"""How much memory does one HGT layer need for forward and backward, beside PyG's HGTConv?

The number is the highest that the process's resident memory rises above its level when inputs, weights and edge
lists are in place. The kernel keeps that mark itself (``VmHWM`` of ``/proc/self/status``), page by page as memory is
mapped and unmapped, so it is a true peak and no sample; it is set back right before the measured step by writing to
``/proc/self/clear_refs``. It counts whoever allocates: torch, NumPy, numba, DGL, temporaries inside an operator and
what autograd saves, which neither torch's profiler (torch's allocator alone) nor a dispatch mode (outputs alone)
would. For freed memory not to be hidden or reused unseen, glibc is told to map every block of 64 KiB and more on its
own and to give it back at once. Every measurement has a fresh interpreter; one step on another graph of the same
size goes before it, so that code is loaded and compiled. What a layer derives from a graph and keeps (masks, sorted
edge lists) is made in the measured step and counts, as do the gradients of the weights. Linux only.

Results are checked for equality in the parent before anything is measured.

    python -m benchmarks.memory --json FILE [--quick]
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from hetgraph import Graph, HetgraphError

from .common import Setting, arguments, finish, sizes_of
from .peers import OURS, PYG, layer, layer_names, layers, peers_among, pyg_layer
from .standard import SAMPLES, large_graph, single_schema, standard_batch, summary, total

GRAPHS: dict[str, Callable[[int], Graph]] = {
    "standard batch": lambda seed: standard_batch(SAMPLES, seed),
    "small sparse graph": lambda seed: large_graph(single_schema(), 4_000, 250_000, seed),
    "four samples": lambda seed: standard_batch(4, seed),
}
MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": str(64 * 1024),
    "MALLOC_MMAP_MAX_": str(1_000_000),
    "MALLOC_TRIM_THRESHOLD_": "0",
    "MALLOC_TOP_PAD_": "0",
    "MALLOC_ARENA_MAX": "1",
}
"""glibc settings under which resident memory is live memory."""


def peak_bytes(run: Callable[[], object]) -> int:
    """How far resident memory rises above its present level while ``run`` runs, in bytes.

    Right to about a megabyte in a process that was started with :data:`MALLOC` in its environment.

    Raises:
        HetgraphError: the system does not keep the mark.
    """
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        before = _status("VmRSS")
        run()
        return max(_status("VmHWM") - before, 0)
    except (OSError, AttributeError) as error:
        raise HetgraphError(f"peak memory needs Linux with glibc and a writable /proc/self: {error}") from error


def _status(field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    if found is None:
        raise HetgraphError(f"/proc/self/status has no {field}")
    return int(found[1]) * 1024


def one_step(name: str, label: str, threads: int) -> int:
    """Peak of one candidate on one graph, in bytes; called in a process of its own."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)

    def prepare(seed: int) -> Callable[[], None]:
        graph = GRAPHS[label](seed)
        candidate = layer(name, graph, pyg_layer(graph))
        return lambda: total(candidate.forward(graph.x)).backward()

    prepare(1)()
    return peak_bytes(prepare(0))


def in_fresh_process(function: str, *values: str | int) -> Any:
    """What a function (``module:name``) answers in a new interpreter, arguments and answer going as JSON.

    Raises:
        RuntimeError: it failed.
    """
    module, name = function.split(":")
    program = f"import json, sys\nfrom {module} import {name} as f\nprint(json.dumps(f(*json.loads(sys.argv[1]))))"
    root = Path(__file__).resolve().parents[1]
    path = os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-W", "ignore", "-c", program, json.dumps(values)]
    environment = {**os.environ, **MALLOC, "PYTHONPATH": path}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{function}{values} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def main(argv: Sequence[str] | None = None) -> None:
    found = arguments(__doc__, argv, rounds=3)
    settings = []
    left_out: list[str] = []
    for label in ["four samples"] if found.quick else ["standard batch", "small sparse graph"]:
        # all pairs of the sparse graph's nodes are not what the dense backend is for
        names, left_out = layer_names(without=["dense"] if "sparse" in label else [])
        if found.quick:
            names = [PYG, OURS]
        graph = GRAPHS[label](0)
        layers(graph, names)
        measured: dict[str, list[float]] = {name: [] for name in names}
        for _ in range(1 if found.quick else found.rounds):
            for name in names:
                measured[name].append(in_fresh_process("benchmarks.memory:one_step", name, label, found.threads))
        values = {"forward + backward": {name: summary(peaks, 1e-6) for name, peaks in measured.items()}}
        settings.append(Setting(label, "MB", sizes_of(graph), OURS, peers_among(names), values))
    finish("memory", "Peak memory, HGT layer", found, settings, left_out)


if __name__ == "__main__":
    main()
