"""Neighbour sampling: training steps on a graph that is too large for one (Hamilton, Ying, Leskovec, NIPS 2017).

From a batch of seed nodes, hop by hop, every node that was reached draws some of its incoming edges of every
type; only what was drawn is kept. With as many hops as a model has layers and all edges drawn, the states of
the seeds are those of the whole graph.
"""

from __future__ import annotations

import hashlib
import json
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .edges import Counts, Edges
from .errors import HetgraphError
from .graph import Graph
from .rules import AllPairs
from .sample import as_tensor
from .schema import EdgeKey

Ints = np.ndarray[Any, np.dtype[np.int64]]
FanOut = Sequence[int] | Mapping[EdgeKey | None, Sequence[int]]


@dataclass(frozen=True, eq=False)
class Subgraph:
    """What was sampled around some seed nodes.

    Attributes:
        graph: a graph of one sample and the schema of the big graph: the reached nodes with their features and
            fields, and the drawn edges as lists, whatever the rules say, with features and relation ids. Edges
            are sorted by destination, and into one node as in the big graph. It has no target.
        nodes: type -> int64 ``[n]``, the nodes as packed ids of the big graph. The seeds come first, in the
            order given; then the nodes of the first hop, in ascending order; and so on.
        seeds: type -> int64 ``[number of ids]``, row of every seed in ``nodes`` (empty for the other types). A
            seed that was given twice is one node with two entries here, so that the states
            ``out.nodes[t][seeds[t]]`` are in line with the ids, whatever repeats.
        edges: edge key -> int64 ``[e]``, the edges as places in ``edge_index[key]`` of the big graph.
    """

    graph: Graph
    nodes: Mapping[str, Tensor]
    seeds: Mapping[str, Tensor]
    edges: Mapping[EdgeKey, Tensor]


class NeighborSampler:
    """Draws subgraphs around seed nodes.

    Hop h draws, for every node that hop h - 1 reached for the first time, ``fan_out[h]`` of its incoming edges
    of every edge type, uniformly, or all of them where there are not more. Edges that repeat are drawn one by one.
    A draw depends on ``seed``, ``epoch`` and the ids (in their order) alone, not on what was drawn before, and is
    the same in every process.

    Rules are not evaluated again: a subgraph goes through layers, Fusion and ``to_pyg`` as it is. Taken apart by
    ``subgraph.graph[0]`` it loses the edges whose rule is not ``given``, like any graph. Z and ``Fusion(group=...)``
    are about whole samples; of a subgraph read the states of its seeds.

    Args:
        graph: the big graph, of one sample or several; fields and features are read from it, not copied.
        fan_out: edges per node and type, one number per hop; -1: all. Or a mapping edge key -> such a list,
            all of the same length; the entry ``None``, if there is one, is for the edge types left out.
        seed: of all draws.
        replace: draw with replacement; an edge that is drawn twice is there twice, and counts so.

    Raises:
        HetgraphError: a fan-out for an unknown edge type, for too few of them, with unequal numbers of hops, or
            that holds something else than -1 and positive integers.

    Example:
        >>> sampler = NeighborSampler(graph, [10, 10])  # as many hops as the model has layers
        >>> model, head = Fusion(graph.schema, layers=2), torch.nn.Linear(128, classes)
        >>> optimizer = torch.optim.AdamW([*model.parameters(), *head.parameters()])
        >>> for epoch in range(20):
        ...     for part in sampler.batches("paper", train_ids, 1024, epoch=epoch):
        ...         rows = part.seeds["paper"]
        ...         scores = head(model(part.graph).nodes["paper"][rows])
        ...         loss = cross_entropy(scores, labels[part.nodes["paper"][rows]])
        ...         optimizer.zero_grad()
        ...         loss.backward()
        ...         optimizer.step()
    """

    def __init__(self, graph: Graph, fan_out: FanOut, *, seed: int = 0, replace: bool = False) -> None:
        if not isinstance(graph, Graph):
            raise HetgraphError(f"a sampler takes a Graph, got {type(graph).__name__}")
        self.graph = graph
        self.seed = _whole("seed", seed)
        self.replace = bool(replace)
        self.hops, self.fan_out = _read_fan_out(fan_out, list(graph.edges))
        self._incoming = {key: _Incoming(edges) for key, edges in graph.edges.items()}

    def __call__(self, node_type: str, ids: Any, epoch: int = 0) -> Subgraph:
        """Draw one subgraph.

        Args:
            node_type: the type of the seeds.
            ids: the seeds, integers ``[n]``, as packed ids of the big graph.
            epoch: other epochs draw other neighbours.

        Raises:
            HetgraphError: unknown type; ids that are no list of integers, empty or out of range.
        """
        wanted = self._read_ids(node_type, ids)
        stream = _stream(["draw", self.seed, _whole("epoch", epoch), node_type], wanted)
        unique, first, place = np.unique(wanted, return_index=True, return_inverse=True)
        by_appearance = np.argsort(first)
        row = np.empty_like(by_appearance)
        row[by_appearance] = np.arange(len(row))

        none = np.zeros(0, np.int64)
        nodes: dict[str, list[Ints]] = {name: [none] for name in self.graph.layout}
        nodes[node_type].append(unique[by_appearance])
        known = {**dict.fromkeys(nodes, none), node_type: unique}
        drawn: dict[EdgeKey, list[tuple[Ints, Ints, Ints]]] = {key: [(none, none, none)] for key in self._incoming}
        for hop in range(self.hops):
            heard: dict[str, list[Ints]] = {name: [none] for name in nodes}
            for key, incoming in self._incoming.items():
                new = nodes[key[2]][-1]
                before = len(known[key[2]]) - len(new)
                at, edge, source = incoming.draw(stream, new, self.fan_out[key][hop], self.replace)
                drawn[key].append((edge, source, before + at))
                heard[key[0]].append(source)
            for name, sources in heard.items():
                reached = np.setdiff1d(np.concatenate(sources), known[name])
                nodes[name].append(reached)
                known[name] = np.union1d(known[name], reached)
        seeds = {name: row[place.reshape(-1)] if name == node_type else none for name in nodes}
        joined = {key: [np.concatenate(column) for column in zip(*parts, strict=True)] for key, parts in drawn.items()}
        return self._cut({name: np.concatenate(parts) for name, parts in nodes.items()}, seeds, joined)

    def batches(
        self, node_type: str, ids: Any, batch_size: int, *, shuffle: bool = True, epoch: int = 0
    ) -> Iterator[Subgraph]:
        """Subgraphs around ``batch_size`` seeds at a time, the last of them around what is left.

        Args:
            node_type: the type of the seeds.
            ids: the seeds, integers ``[n]``.
            batch_size: seeds of a subgraph.
            shuffle: in an order that depends on the sampler's seed and ``epoch``; otherwise as given.
            epoch: of the order and of the draws.

        Raises:
            HetgraphError: as for a single draw, at once; or a batch size that is not positive.
        """
        wanted = self._read_ids(node_type, ids)
        epoch = _whole("epoch", epoch)
        if _whole("batch_size", batch_size) < 1:
            raise HetgraphError(f"batch_size must be positive, got {batch_size}")
        if shuffle:
            stream = _stream(["shuffle", self.seed, epoch, node_type], wanted)
            wanted = wanted[np.argsort(stream.random_raw(len(wanted)), kind="stable")]
        return (self(node_type, wanted[i : i + batch_size], epoch) for i in range(0, len(wanted), batch_size))

    def _read_ids(self, node_type: str, ids: Any) -> Ints:
        layout = self.graph.layout
        if node_type not in layout:
            raise HetgraphError(f"unknown node type {node_type!r}; the graph has {list(layout)}")
        where = f"ids of node type {node_type!r}"
        read = as_tensor(ids, where)
        if read.numel() == 0:
            raise HetgraphError(f"{where}: expected at least one, got none")
        if read.dim() != 1 or read.is_floating_point() or read.dtype == torch.bool:
            raise HetgraphError(f"{where} must be integers [n], got {read.dtype} {list(read.shape)}")
        low, high, total = int(read.min()), int(read.max()), layout[node_type].total
        if low < 0 or high >= total:
            raise HetgraphError(f"{where} must lie in 0 .. {total - 1}, got {low} .. {high}")
        return read.cpu().numpy().astype(np.int64)

    def _cut(
        self, nodes: Mapping[str, Ints], seeds: Mapping[str, Ints], drawn: Mapping[EdgeKey, Sequence[Ints]]
    ) -> Subgraph:
        """The graph of these nodes and edges; of every edge: place, source (both in the big graph), row of its end."""
        big, device = self.graph, self.graph.device
        at = {name: torch.from_numpy(ids).to(device) for name, ids in nodes.items()}
        layout = {name: Counts.of(torch.tensor([len(ids)], device=device)) for name, ids in nodes.items()}
        order = {name: np.argsort(ids) for name, ids in nodes.items()}
        edges, kept = {}, {}
        for key, (edge, source, end) in drawn.items():
            begin = order[key[0]][np.searchsorted(nodes[key[0]], source, sorter=order[key[0]])]
            kept[key] = torch.from_numpy(edge).to(device)
            edges[key] = Edges(
                layout[key[0]],
                layout[key[2]],
                index=torch.from_numpy(np.stack([begin, end])).to(device),
                features={name: value.index_select(0, kept[key]) for name, value in big.edges[key].features.items()},
                relation=_rows(big.edges[key].relation, kept[key]),
            )
        graph = Graph(
            big.schema,
            {name: value.index_select(0, at[name]) for name, value in big.x.items()},
            layout,
            {n: {f: v.index_select(0, at[n]) for f, v in values.items()} for n, values in big.fields.items()},
            edges,
            [None],
            ["subgraph"],
        )
        return Subgraph(graph, at, {name: torch.from_numpy(rows).to(device) for name, rows in seeds.items()}, kept)

    def __repr__(self) -> str:
        return f"NeighborSampler({self.graph}, {self.hops} hops, seed={self.seed})"


class _Incoming:
    """The edges of one type by destination.

    Attributes:
        first: int64 ``[N + 1]``; the edges into node ``i`` have the numbers ``first[i]`` to ``first[i + 1] - 1``.
        order: int64 ``[E]``, number -> place in the edge list; ``None`` where they are the same.
        source: int64 ``[E]``, place in the edge list -> source; ``None`` for all pairs, which are never listed:
            there the sources of node ``i`` are ``base[i]`` onward.
    """

    def __init__(self, edges: Edges) -> None:
        self.order: Ints | None = None
        self.source: Ints | None = None
        self.base: Ints | None = None
        if type(edges.structure) is AllPairs:
            sample = edges.dst.batch
            degree = edges.src.per_sample[sample].cpu().numpy()
            self.base = edges.src.offset[sample].cpu().numpy()
        else:
            self.source, end = edges.index.cpu().numpy()
            degree = np.bincount(end, minlength=edges.dst.total)
            if bool((end[1:] < end[:-1]).any()):
                self.order = np.argsort(end, kind="stable")
        self.first = np.concatenate([np.zeros(1, np.int64), degree.cumsum(dtype=np.int64)])

    def draw(self, stream: np.random.Philox, nodes: Ints, count: int, replace: bool) -> tuple[Ints, Ints, Ints]:
        """Draw edges into each of ``nodes``: the place of its node in ``nodes``, its place in the edge list and its
        source, of every edge; sorted by the first two."""
        first = self.first[nodes]
        row, step = _choose(stream, self.first[nodes + 1] - first, count, replace)
        number = first[row] + step
        edge = number if self.order is None else self.order[number]
        if self.source is not None:
            return row, edge, self.source[edge]
        assert self.base is not None
        return row, edge, self.base[nodes][row] + step


def _choose(stream: np.random.Philox, degree: Ints, count: int, replace: bool) -> tuple[Ints, Ints]:
    """Choose ``count`` (-1: all) of ``degree[i]`` things for every i: the i and the thing, sorted, of every choice."""
    if count == -1:
        size, partly = degree, np.zeros(0, np.int64)
    elif replace:
        size, partly = np.where(degree > 0, count, 0), (degree > 0).nonzero()[0]
    else:
        size, partly = np.minimum(degree, count), (degree > count).nonzero()[0]
    first = size.cumsum() - size
    row = np.repeat(np.arange(len(degree)), size)
    step = np.arange(len(row)) - first[row]
    if len(partly):
        chosen = _floyd(stream, degree[partly], count) if not replace else _repeatedly(stream, degree[partly], count)
        step[first[partly] + np.arange(count)[:, None]] = np.sort(chosen, 0)
    return row, step


def _floyd(stream: np.random.Philox, degree: Ints, count: int) -> Ints:
    """A uniform subset of ``count`` below ``degree[i]`` for every i, ``[count, n]`` (Bentley and Floyd, CACM 1987).

    Costs count^2 / 2 comparisons a column and nothing that grows with the degree.
    """
    chosen = np.empty((count, len(degree)), np.int64)
    for i in range(count):
        last = degree - count + i
        drawn = _below(stream, last + 1)
        chosen[i] = np.where((chosen[:i] == drawn).any(0), last, drawn)
    return chosen


def _repeatedly(stream: np.random.Philox, degree: Ints, count: int) -> Ints:
    """``count`` numbers below ``degree[i]`` for every i, independent of each other, ``[count, n]``."""
    return _below(stream, np.tile(degree, count)).reshape(count, -1)


def _below(stream: np.random.Philox, limit: Ints) -> Ints:
    """A uniform integer below each of ``limit`` (to limit / 2^53)."""
    # raw numbers, because numpy keeps the stream of a bit generator across versions, but not that of Generator
    unit = (stream.random_raw(len(limit)) >> np.uint64(11)) * 2.0**-53
    return (unit * limit).astype(np.int64)


def _stream(about: list[Any], ids: Ints) -> np.random.Philox:
    """Random numbers that depend on the arguments alone."""
    content = json.dumps(about).encode() + b"\0" + ids.astype("<i8").tobytes()
    return np.random.Philox(key=int.from_bytes(hashlib.blake2b(content, digest_size=16).digest(), "little"))


def _rows(value: Tensor | None, at: Tensor) -> Tensor | None:
    return None if value is None else value.index_select(0, at)


def _whole(what: str, value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError as error:
        raise HetgraphError(f"{what} must be an integer, got {value!r}") from error


def _read_fan_out(fan_out: Any, keys: Sequence[EdgeKey]) -> tuple[int, dict[EdgeKey, tuple[int, ...]]]:
    """Number of hops, and one tuple per edge type."""
    if not isinstance(fan_out, Mapping):
        fan_out = {None: fan_out}
    unknown = [key for key in fan_out if key is not None and key not in keys]
    if unknown:
        raise HetgraphError(f"fan_out: unknown edge type {unknown[0]!r}; the graph has {list(keys)}")
    if not fan_out:
        raise HetgraphError("fan_out is empty; give a list, or lists by edge key with a default under None")
    read: dict[EdgeKey | None, tuple[int, ...]] = {}
    for key, numbers in fan_out.items():
        where = "fan_out" if key is None else f"fan_out of {key}"
        if isinstance(numbers, (str, bytes)) or not hasattr(numbers, "__iter__"):
            raise HetgraphError(f"{where} must be a list of integers, one per hop, got {numbers!r}")
        given = list(numbers)
        read[key] = tuple(_whole(where, number) for number in given)
        if not given or any(n == 0 or n < -1 for n in read[key]) or any(isinstance(n, bool) for n in given):
            raise HetgraphError(f"{where} must hold positive integers or -1 (all), one per hop, got {given}")
    hops = {len(numbers) for numbers in read.values()}
    if len(hops) > 1:
        lengths = {key: len(numbers) for key, numbers in read.items()}
        raise HetgraphError(f"fan_out: every edge type needs the same number of hops, got {lengths}")
    missing = [key for key in keys if key not in read and None not in read]
    if missing:
        raise HetgraphError(f"fan_out: nothing for edge type {missing[0]}, and no default under None")
    return hops.pop(), {key: read[key] if key in read else read[None] for key in keys}
