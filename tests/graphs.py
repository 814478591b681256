"""Random schemas with samples, and the layer's equations written out edge by edge.

Nothing here uses the library's own edge lists, masks or attention: :func:`connections` reads the samples
and :func:`reference` loops over single edges.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from hetgraph import EdgeType, Graph, GraphBuilder, NodeType, Sample, Schema, rules
from hetgraph.nn import HGTLayer
from hetgraph.schema import EdgeKey

# the tensors of these tests are tiny: a second thread only costs, and one thread repeats exactly
torch.set_num_threads(1)

PLAIN_NAMES = ("token", "region", "frame", "entity")
ODD_NAMES = ("img.region", "type", "två ord", "weight")
RELATIONS = ("is", "has", "part of")
ORDER_FREE = ("given", "given+features", "relations", "relations+features", "all_pairs", "warmer", "warmer+features")
WITHOUT_EXTRAS = ("given", "all_pairs", "window", "following", "warmer")
KINDS = (*ORDER_FREE, "window", "following")


def warmer(src, dst):
    """A user-made rule: the source's first feature is larger."""
    return src["x"][..., :, None, 0] > dst["x"][..., None, :, 0]


def warmer_by(src, dst):
    """The same with two edge features."""
    step = src["x"][..., :, None, :1] - dst["x"][..., None, :, :1]
    return step[..., 0] > 0, {"step": step, "both": torch.cat([step.square(), step.cos()], -1)}


FEATURES = {"step": 0, "both": 2}


def edge_type(kind: str, src: str, relation: str, dst: str) -> EdgeType:
    """An edge type of one of the KINDS."""
    key = (src, relation, dst)
    features = FEATURES if kind.endswith("features") else {}
    if kind.startswith("given"):
        return EdgeType(*key, rule=rules.given, features=features)
    if kind.startswith("relations"):
        return EdgeType(*key, rule=rules.given, features=features, relations=RELATIONS)
    if kind == "all_pairs":
        return EdgeType(*key)
    if kind == "window":
        return EdgeType(*key, rule=rules.window(before=2, after=1, loops=False))
    if kind == "following":
        return EdgeType(*key, rule=rules.following)
    return EdgeType(*key, rule=warmer_by if features else warmer, features=features)


@dataclass
class World:
    """A schema and samples of it."""

    schema: Schema
    samples: list[Sample]

    def graph(self, dtype: torch.dtype = torch.float64) -> Graph:
        return GraphBuilder(self.schema, dtype)(self.samples)

    def __repr__(self) -> str:
        edges = [(*key, type(e.rule).__name__, e.relations != ()) for key, e in self.schema.edges.items()]
        return f"World({self.schema}, {edges}, {self.samples})"


@st.composite
def worlds(
    draw: st.DrawFn,
    kinds: Sequence[str] = KINDS,
    names: Sequence[str] = ODD_NAMES,
    max_samples: int = 4,
    max_nodes: int = 4,
    min_edge_types: int = 0,
    placed: bool = False,
) -> World:
    """Schemas of 1 to 4 node types and up to 6 edge types, with samples that lack any of them."""
    used = names[: draw(st.integers(1, len(names)))]
    nodes = []
    for name in used:
        optional = {"pos": 2} if placed and draw(st.booleans()) else {}
        nodes.append(NodeType(name, draw(st.integers(1, 3)), optional=optional))
    ends = st.tuples(st.sampled_from(used), st.sampled_from(used), st.sampled_from(kinds))
    edges = [
        edge_type(kind, src, f"r{i}", dst)
        for i, (src, dst, kind) in enumerate(draw(st.lists(ends, min_size=min_edge_types, max_size=6)))
    ]
    schema = Schema(nodes, edges)
    counts = draw(
        st.lists(
            st.lists(st.integers(0, max_nodes), min_size=len(used), max_size=len(used)).filter(any),
            min_size=1,
            max_size=max_samples,
        )
    )
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return World(schema, [random_sample(schema, row, rng, f"s{i}") for i, row in enumerate(counts)])


def random_sample(schema: Schema, counts: Sequence[int], rng: np.random.Generator, name: str) -> Sample:
    """Nodes and given edges at random: repeated edges, self-loops and empty edge lists all occur."""
    size = dict(zip(schema.nodes, counts, strict=True))
    nodes: dict[str, Any] = {}
    for node in schema.nodes.values():
        if size[node.name] == 0 and rng.random() < 0.7:
            continue  # absent; otherwise there, but empty
        values = {"x": rng.standard_normal((size[node.name], node.dim))}
        for field, width in node.all_fields.items():
            if rng.random() < 0.7:
                shape = (size[node.name], width) if width else size[node.name]
                values[field] = rng.standard_normal(shape) if width else rng.integers(0, 3, shape)
        nodes[node.name] = values
    edges: dict[EdgeKey, Any] = {}
    for key, edge in schema.edges.items():
        if edge.rule != rules.given or not (size[key[0]] and size[key[2]]) or rng.random() < 0.15:
            continue
        count = int(rng.integers(0, 7))
        index = np.stack([rng.integers(0, size[key[0]], count), rng.integers(0, size[key[2]], count)])
        if count and rng.random() < 0.5:
            index = np.concatenate([index, index[:, :1], index[:, :1]], 1)
        given: dict[str, Any] = {"index": index}
        for feature, width in edge.features.items():
            given[feature] = rng.standard_normal((index.shape[1], max(width, 1)))
        if edge.relations:
            given["relation"] = rng.integers(0, len(edge.relations), index.shape[1])
        edges[key] = given
    return Sample(id=name, nodes=nodes, edges=edges)


def randomize(module: nn.Module, seed: int = 0, scale: float = 0.5) -> None:
    """Give every parameter a value that is not its start value (zero biases and ones hide mistakes)."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * scale)


@dataclass
class Connection:
    """One edge: packed ids, the place of its relation, its features side by side."""

    src: int
    dst: int
    relation: int | None
    features: list[float]


def connections(world: World, key: EdgeKey) -> Iterator[Connection]:
    """The edges of a type, read off the samples and the meaning of the rule."""
    edge = world.schema.edges[key]
    kind = edge.rule
    at_src = at_dst = 0
    for sample in world.samples:
        none = {"x": torch.zeros(0, 1)}
        a, b = sample.nodes.get(key[0], none)["x"], sample.nodes.get(key[2], none)["x"]
        if kind == rules.given:
            given = sample.edges.get(key, {"index": torch.zeros(2, 0)})
            for e, (i, j) in enumerate(given["index"].T.tolist()):
                values = [v for name in edge.features for v in given[name][e].reshape(-1).tolist()]
                relation = int(given["relation"][e]) if edge.relations else None
                yield Connection(int(at_src + i), int(at_dst + j), relation, values)
        else:
            for i in range(len(a)):
                for j in range(len(b)):
                    step = float(a[i, 0] - b[j, 0])
                    if kind in (warmer, warmer_by):
                        there = bool(a[i, 0] > b[j, 0])
                    elif kind == rules.all_pairs:
                        there = True
                    elif kind == rules.following:
                        there = i == j - 1
                    else:
                        there = i in (j - 2, j - 1, j + 1)
                    if there:
                        named = {"step": [step], "both": [step**2, math.cos(step)]}
                        values = [v for name in edge.features for v in named[name]]
                        yield Connection(at_src + i, at_dst + j, None, values)
        at_src, at_dst = at_src + len(a), at_dst + len(b)


def reference(layer: HGTLayer, world: World, x: dict[str, Tensor]) -> dict[str, Tensor]:
    """Equations 3 to 5 of the paper with the bias of edge features, one edge after the other."""
    schema, width, heads = layer.schema, layer.width, layer.heads
    d = width // heads
    types = {name: i for i, name in enumerate(schema.nodes)}

    def project(name: str, part: int) -> Tensor:
        rows = slice(part * width, (part + 1) * width)
        i = types[name]
        return (x[name] @ layer.kqv_weight[i][rows].T + layer.kqv_bias[i][rows]).reshape(-1, heads, d)

    plain = [key for key, edge in schema.edges.items() if not edge.relations]
    many = [key for key, edge in schema.edges.items() if edge.relations]
    featured = [key for key, edge in schema.edges.items() if edge.features]

    def matrices(key: EdgeKey, relation: int | None) -> tuple[Tensor, Tensor, Tensor]:
        if relation is None:
            at = plain.index(key)
            return layer.att[at], layer.msg[at], layer.mu[at]
        at = many.index(key)
        bases = range(len(layer.att_basis[at]))
        att = sum(layer.mixing[at][0, relation, b] * layer.att_basis[at][b] for b in bases)
        msg = sum(layer.mixing[at][1, relation, b] * layer.msg_basis[at][b] for b in bases)
        return att, msg, layer.mu_many[at][relation]

    k, q, v = ({name: project(name, part) for name in types} for part in range(3))
    logit: dict[tuple[str, int], list[Tensor]] = {}
    message: dict[tuple[str, int], list[Tensor]] = {}
    for key in schema.edges:
        for edge in connections(world, key):
            att, msg, mu = matrices(key, edge.relation)
            for_node = (key[2], edge.dst)
            scores, values = [], []
            for h in range(heads):
                score = (k[key[0]][edge.src, h] @ att[h]) @ q[key[2]][edge.dst, h] * mu[h] / math.sqrt(d)
                for place, value in enumerate(edge.features):
                    score = score + value * layer.edge_weight[featured.index(key)][place, h]
                scores.append(score)
                values.append(v[key[0]][edge.src, h] @ msg[h])
            logit.setdefault(for_node, []).append(torch.stack(scores))
            message.setdefault(for_node, []).append(torch.stack(values))

    out: dict[str, Tensor] = {}
    for name, i in types.items():
        reached = any(key[2] == name for key in schema.edges)
        if not reached:
            if layer.in_dims[name] == width:
                out[name] = x[name]
            continue
        rows = []
        for node in range(len(x[name])):
            heard = torch.zeros(heads, d, dtype=x[name].dtype)
            if (name, node) in logit:
                share = torch.stack(logit[name, node]).softmax(0)
                heard = sum(a[:, None] * m for a, m in zip(share, message[name, node], strict=True))
            new = layer.out_weight[i] @ nn.functional.gelu(heard.flatten()) + layer.out_bias[i]
            if layer.skip is not None and layer.in_dims[name] == width:
                gate = 1 / (1 + (-layer.skip[i]).exp())
                new = gate * new + (1 - gate) * x[name][node]
            rows.append(new)
        out[name] = torch.stack(rows) if rows else x[name].new_zeros(0, width)
    return out


def states(graph: Graph, dims: dict[str, int], seed: int = 0, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Random node states that want a gradient."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(counts.total, dims[name], generator=generator, dtype=torch.float64)
        .to(dtype)
        .requires_grad_(True)
        for name, counts in graph.layout.items()
    }


def scalar(out: dict[str, Tensor], seed: int = 1) -> Tensor:
    """A number that depends on every entry in its own way, to take gradients of."""
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros(())
    for name in sorted(out):
        weight = torch.randn(out[name].shape, generator=generator, dtype=torch.float64).to(out[name].dtype)
        total = total + (weight * out[name]).sum()
    return total


def close(a: Tensor, b: Tensor, tolerance: float) -> None:
    """Equal to ``tolerance`` of the larger of one and the largest entry."""
    assert a.shape == b.shape, (a.shape, b.shape)
    assert bool(a.isfinite().all())
    assert bool(b.isfinite().all())
    if a.numel():
        scale = max(1.0, float(b.detach().abs().max()))
        worst = float((a.detach() - b.detach()).abs().max())
        assert worst <= tolerance * scale, f"differ by {worst} at scale {scale}"
