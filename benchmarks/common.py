"""What every speed benchmark shares: arguments, candidates, checks for equality, tables, the JSON form.

A benchmark gives a list of :class:`Setting`; each holds, per kind of measurement, the median and the quartiles of
every candidate, and which candidate is ours and which are the peers it is compared with.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from hetgraph.files import write_atomically

from .standard import alternate, summary, total

Forward = Callable[[dict[str, Tensor]], dict[str, Tensor]]
Values = dict[str, dict[str, float]]
"""Candidate -> median, low, high."""


@dataclass
class Candidate:
    """One way to compute a layer: states ``{type: [N, width]}`` -> the same."""

    name: str
    module: nn.Module
    forward: Forward


@dataclass
class Setting:
    """One table of a benchmark.

    Attributes:
        label: what was measured, in words.
        unit: of all values.
        sizes: what the size of it was (samples, nodes, edges ...).
        ours: the candidate that the peers are compared with.
        peers: column of the report (``PyG``, ``DGL``, ``DGL kernels``, others) -> candidate.
        values: kind of measurement -> candidate -> median, low, high.
        axis: if the kinds are the sizes of a sweep, what they count.
    """

    label: str
    unit: str
    sizes: dict[str, int]
    ours: str
    peers: dict[str, str]
    values: dict[str, Values] = field(default_factory=dict)
    axis: str | None = None

    def growth(self) -> dict[str, float]:
        """For a sweep: the last value over the first, of the sizes (under the axis's name) and of every candidate."""
        if self.axis is None:
            return {}
        first, *_, last = self.values
        common = [name for name in self.values[first] if name in self.values[last]]
        grown = {name: self.values[last][name]["median"] / self.values[first][name]["median"] for name in common}
        return {self.axis: int(last) / int(first), **grown}

    def ratios(self) -> dict[str, dict[str, dict[str, float]]]:
        """Kind -> candidate -> peer -> the peer's median divided by the candidate's."""
        return {
            kind: {
                name: {
                    peer: found[theirs]["median"] / own["median"]
                    for peer, theirs in self.peers.items()
                    if theirs in found
                }
                for name, own in found.items()
            }
            for kind, found in self.values.items()
        }


def arguments(doc: str | None, argv: Sequence[str] | None, rounds: int) -> argparse.Namespace:
    """Parse the command line that all speed benchmarks have, and fix the number of threads and the seed."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--quick", action="store_true", help="small sizes and two rounds: a trial, not a measurement")
    parser.add_argument("--json", type=Path, help="write the results here")
    found = parser.parse_args(argv)
    if found.threads < 1 or found.rounds < 1:
        parser.error("--threads and --rounds must be positive")
    if found.quick:
        found.rounds = min(found.rounds, 2)
    torch.set_num_threads(found.threads)
    torch.manual_seed(0)
    return found


def check_equal(reference: Candidate, candidate: Candidate, x: Mapping[str, Tensor]) -> None:
    """Compare outputs and input gradients.

    Raises:
        AssertionError: they differ by more than 1e-5 of the reference's largest entry (gradients: 1e-4).
    """
    found = []
    for one in (reference, candidate):
        inputs = {name: value.clone().requires_grad_() for name, value in x.items()}
        out = one.forward(inputs)
        total(out).backward()
        one.module.zero_grad()
        found.append((out, {name: value.grad for name, value in inputs.items()}))
    for place, what, tolerance in ((0, "output", 1e-5), (1, "gradient", 1e-4)):
        expected, got = found[0][place], found[1][place]
        if set(expected) != set(got):
            raise AssertionError(f"{candidate.name}: {what} of {sorted(got)}, expected {sorted(expected)}")
        for kind, value in expected.items():
            check_close(got[kind], value, tolerance, f"{candidate.name}: {what} of {kind}")


def check_close(found: Tensor | None, expected: Tensor | None, tolerance: float, what: str) -> None:
    """Compare two tensors, relative to the largest entry of ``expected``.

    Raises:
        AssertionError: they differ by more, or are not finite.
    """
    if found is None or expected is None or found.shape != expected.shape:
        raise AssertionError(f"{what}: expected {_shape(expected)}, got {_shape(found)}")
    if not expected.numel():
        return
    difference = float((found.detach() - expected.detach()).abs().max())
    largest = float(expected.detach().abs().max())
    # so that nan fails too
    if not difference <= tolerance * max(largest, 1e-12) or not math.isfinite(largest):
        raise AssertionError(f"{what}: differs by {difference:.2e} where the largest entry is {largest:.2e}")


def _shape(value: Tensor | None) -> str:
    return "nothing" if value is None else str(list(value.shape))


def compare_layers(candidates: Sequence[Candidate], x: dict[str, Tensor], rounds: int) -> dict[str, Values]:
    """Milliseconds of one layer, forward alone and with the backward pass to all weights."""

    def only_forward(one: Candidate) -> Callable[[], None]:
        def run() -> None:
            with torch.no_grad():
                one.forward(x)

        return run

    def both(one: Candidate) -> Callable[[], None]:
        def run() -> None:
            total(one.forward(x)).backward()
            one.module.zero_grad()

        return run

    kinds = {"forward": only_forward, "forward + backward": both}
    return {
        kind: {n: summary(s) for n, s in alternate({c.name: make(c) for c in candidates}, rounds).items()}
        for kind, make in kinds.items()
    }


def show(title: str, setting: Setting, threads: int) -> None:
    """Print one setting: per candidate the median with quartiles, and the first peer's value divided by it."""
    sizes = ", ".join(f"{count:,} {what}" for what, count in setting.sizes.items())
    peer = next(iter(setting.peers), None)
    caption = f"median {setting.unit} (quartiles)"
    table = Table(title=f"{title}: {setting.label} ({sizes}), {threads} threads")
    names = list(dict.fromkeys(name for found in setting.values.values() for name in found))
    ratios = setting.ratios()
    cells = {
        (kind, name): "{} ({}-{})".format(*map(number, found[name].values())) if name in found else ""
        for kind, found in setting.values.items()
        for name in names
    }
    table.add_column(setting.axis or "", overflow="fold", justify="right" if setting.axis else "left")
    if setting.axis:
        for name in names:
            table.add_column(name, justify="right")
        for kind in setting.values:
            table.add_row(f"{int(kind):,}", *(cells[kind, name] for name in names))
        grown = ", ".join(f"{name} {number(ratio)}" for name, ratio in setting.growth().items())
        caption += f"; last over first: {grown}"
    else:
        for kind in setting.values:
            table.add_column(kind, justify="right")
        for kind in setting.values if peer else ():
            table.add_column(kind, justify="right")
        for name in names:
            over = [ratios[kind].get(name, {}).get(peer) for kind in setting.values] if peer else []
            beside = ("" if ratio is None else number(ratio) for ratio in over)
            table.add_row(name, *(cells[kind, name] for kind in setting.values), *beside)
        caption += f"; on the right {setting.peers[peer]} / it" if peer else ""
    table.caption = caption
    Console().print(table)


def number(value: float) -> str:
    """About three digits, without exponents."""
    digits = 0 if value == 0 else max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(digits, 4)}f}"


def finish(
    name: str, title: str, found: argparse.Namespace, settings: Sequence[Setting], skipped: Sequence[str]
) -> None:
    """Print all settings and what was skipped; write the JSON file if one is asked for."""
    for setting in settings:
        show(title, setting, found.threads)
    for line in skipped:
        Console().print(f"left out: {line}", markup=False)
    if found.json:
        data = {
            "benchmark": name,
            "title": title,
            "threads": found.threads,
            "rounds": found.rounds,
            "quick": found.quick,
            "versions": versions(),
            "cpu": cpu(),
            "settings": [{**asdict(s), "ratios": s.ratios(), "growth": s.growth()} for s in settings],
            "left_out": list(skipped),
        }
        write_atomically(found.json, json.dumps(data, indent=2, allow_nan=False) + "\n")


def versions() -> dict[str, str]:
    """Versions of what takes part; what is not installed is left out."""
    found: dict[str, str] = {"python": platform.python_version()}
    for name in ("hetgraph", "torch", "torch-geometric", "dgl", "numba"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def sizes_of(graph: Any) -> dict[str, int]:
    """Samples, nodes, edge types and edges of a graph."""
    return {
        "samples": len(graph),
        "nodes": graph.num_nodes,
        "edge types": len(graph.edges),
        "edges": sum(len(edges) for edges in graph.edges.values()),
    }
