"""How long does it take to turn ready arrays into a batched graph, beside PyG's HeteroData and collate?

The nodes of the standard batch, regions with boxes, frames with times. Two settings: 24 edge types made by the
nearest, window and all-pairs rules and by given edges; and those plus four user-written rules that each compute
all distances. PyG gets the rules as its user would write them, per sample, and in another column edges that lay
ready beforehand; DGL likewise, if it is there. Our candidates are the builder alone, which keeps windows and all
pairs as rules (the layers read them so), and the builder with every edge listed as PyG has it. Making the
``Sample`` and ``HeteroData`` objects counts. The edges are checked to be equal first.

    python -m benchmarks.graph_building --json FILE [--quick]
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hetgraph import EdgeType, Graph, GraphBuilder, HetgraphError, NodeType, Sample, Schema, rules

from .common import Setting, arguments, finish
from .peers import load_dgl
from .standard import EDGES_PER_SAMPLE, SIZES, WIDTH, alternate, standard_schema, summary

EdgeKey = tuple[str, str, str]
Fields = Mapping[str, Tensor]
Indices = dict[EdgeKey, Tensor]
REACH = 0.4

NEAREST = {("region", "first", "region"): (4, "box"), ("frame", "second", "frame"): (3, "time")}
WINDOW = {("frame", "first", "frame"): 2, ("token", "first", "token"): 1}
ALL_PAIRS = [
    *(("region", "first", "token"), ("token", "first", "region")),
    *(("entity", "first", "token"), ("token", "first", "entity")),
    *(("region", "first", "entity"), ("entity", "first", "region")),
]


def _steps(src: Fields, dst: Fields) -> tuple[Tensor, Tensor]:
    """Distances ``[..., S, D]`` of all pairs of centres, and the steps ``[..., S, D, 2]`` between them."""
    a, b = ((box["box"][..., :2] + box["box"][..., 2:]) / 2 for box in (src, dst))
    step = b[..., None, :, :] - a[..., :, None, :]
    return step.square().sum(-1).sqrt(), step


# shapes have any leading dimensions, so that the same functions serve a padded batch and PyG's single samples
def near_left(src: Fields, dst: Fields) -> Tensor:
    distance, step = _steps(src, dst)
    return (distance < REACH) & (step[..., 0] > step[..., 1].abs())


def near_right(src: Fields, dst: Fields) -> Tensor:
    distance, step = _steps(src, dst)
    return (distance < REACH) & (-step[..., 0] > step[..., 1].abs())


def near_above(src: Fields, dst: Fields) -> Tensor:
    distance, step = _steps(src, dst)
    return (distance < REACH) & (step[..., 1] > step[..., 0].abs())


def near_below(src: Fields, dst: Fields) -> Tensor:
    distance, step = _steps(src, dst)
    return (distance < REACH) & (-step[..., 1] > step[..., 0].abs())


USER = {("region", f.__name__, "region"): f for f in (near_left, near_right, near_above, near_below)}


def schema_of(*, user: bool) -> Schema:
    """24 edge types with built-in rules, and four more with user-written ones."""
    made: dict[EdgeKey, Any] = {key: rules.nearest(k, field) for key, (k, field) in NEAREST.items()}
    made.update({key: rules.window(size) for key, size in WINDOW.items()})
    made.update(dict.fromkeys(ALL_PAIRS, rules.all_pairs))
    keys = {key: made.get(key, rules.given) for key in standard_schema().edges}
    fields = {"region": {"box": 4}, "frame": {"time": 2}}
    return Schema(
        [NodeType(name, WIDTH, fields.get(name, {})) for name in SIZES],
        [EdgeType(*key, rule=rule) for key, rule in (keys | (USER if user else {})).items()],
    )


@dataclass
class Arrays:
    """The ready arrays of one sample."""

    nodes: dict[str, dict[str, Tensor]]
    given: Indices


def ready_arrays(schema: Schema, samples: int) -> list[Arrays]:
    """Random features, boxes, times and given edges."""
    room = {key: SIZES[key[0]] * SIZES[key[2]] for key in standard_schema().edges}
    share = EDGES_PER_SAMPLE / sum(room.values())
    found = []
    for _ in range(samples):
        nodes = {name: {"x": torch.randn(size, WIDTH)} for name, size in SIZES.items()}
        corner = torch.rand(SIZES["region"], 2)
        nodes["region"]["box"] = torch.cat([corner, corner + torch.rand(SIZES["region"], 2)], 1)
        start = torch.rand(SIZES["frame"], 1).sort(0).values
        nodes["frame"]["time"] = torch.cat([start, start + 0.1], 1)
        given = {}
        for key, edge in schema.edges.items():
            if edge.rule == rules.given:
                chosen = torch.randperm(room[key])[: round(room[key] * share)]
                given[key] = torch.stack([chosen // SIZES[key[2]], chosen % SIZES[key[2]]])
        found.append(Arrays(nodes, given))
    return found


def edges_by_rule(arrays: Arrays, schema: Schema) -> Indices:
    """All edges of one sample, as a user of PyG makes them in torch."""
    out = {}
    for key in schema.edges:
        src, dst = arrays.nodes[key[0]], arrays.nodes[key[2]]
        if key in NEAREST:
            k, field = NEAREST[key]
            half = src[field].shape[1] // 2
            centre = (src[field][:, :half] + src[field][:, half:]) / 2
            # by subtraction, because the faster matrix product rounds near neighbours into another order
            distance = torch.cdist(centre, centre, compute_mode="donot_use_mm_for_euclid_dist")
            closest = distance.fill_diagonal_(torch.inf).topk(k, dim=0, largest=False).indices
            out[key] = torch.stack([closest.flatten(), torch.arange(len(centre)).repeat(k)])
        elif key in WINDOW:
            places = torch.arange(len(src["x"]))[:, None]
            sources = places + torch.arange(-WINDOW[key], WINDOW[key] + 1)
            inside = (sources >= 0) & (sources < len(places))
            out[key] = torch.stack([sources[inside], places.expand_as(sources)[inside]])
        elif key in ALL_PAIRS:
            out[key] = torch.cartesian_prod(torch.arange(len(src["x"])), torch.arange(len(dst["x"]))).T
        elif key in USER:
            out[key] = USER[key](src, dst).nonzero().T
        else:
            out[key] = arrays.given[key]
    return out


def pyg_batch(samples: Sequence[Arrays], edges: Sequence[Indices]) -> Any:
    """A ``HeteroData`` per sample and PyG's collate."""
    from torch_geometric.data import Batch, HeteroData

    parts = []
    for arrays, indices in zip(samples, edges, strict=True):
        data = HeteroData()
        for name, fields in arrays.nodes.items():
            for field, value in fields.items():
                data[name][field] = value
        for key, index in indices.items():
            data[key].edge_index = index
        parts.append(data)
    return Batch.from_data_list(parts)


def dgl_batch(dgl: Any, samples: Sequence[Arrays], edges: Sequence[Indices]) -> Any:
    """A heterograph per sample and DGL's batch."""
    parts = []
    for arrays, indices in zip(samples, edges, strict=True):
        graph = dgl.heterograph({key: tuple(index) for key, index in indices.items()}, num_nodes_dict=SIZES)
        for name, fields in arrays.nodes.items():
            for field, value in fields.items():
                graph.nodes[name].data[field] = value
        parts.append(graph)
    return dgl.batch(parts)


def our_graph(builder: GraphBuilder, samples: Sequence[Arrays]) -> Graph:
    """``Sample`` objects and the builder."""
    return builder([Sample(nodes=arrays.nodes, edges=arrays.given) for arrays in samples])


def listed(graph: Graph) -> Graph:
    """The graph with the edges of every type listed."""
    for key in graph.edges:
        graph.edge_index[key]
    return graph


def check_edges(graph: Graph, other: Mapping[EdgeKey, Tensor], whose: str) -> None:
    """Compare the edges of a batch, as sets of packed node ids (which say the sample too).

    Raises:
        AssertionError: they are not the same.
    """
    for key in graph.edges:
        mine, theirs = (Counter(map(tuple, index.T.tolist())) for index in (graph.edge_index[key], other[key]))
        if mine != theirs:
            few = list((mine - theirs).keys())[:3], list((theirs - mine).keys())[:3]
            raise AssertionError(f"edges of {key} differ from {whose}: only ours {few[0]}, only theirs {few[1]}")


def measure(label: str, schema: Schema, count: int, rounds: int) -> tuple[Setting, list[str]]:
    """Check and time one schema."""
    samples = ready_arrays(schema, count)
    builder = GraphBuilder(schema)
    ready = [edges_by_rule(arrays, schema) for arrays in samples]
    graph = our_graph(builder, samples)
    check_edges(graph, pyg_batch(samples, ready).edge_index_dict, "PyG's")
    candidates: dict[str, Callable[[], object]] = {
        "PyG, rules per sample": lambda: pyg_batch(samples, [edges_by_rule(arrays, schema) for arrays in samples]),
        "PyG, edges lie ready": lambda: pyg_batch(samples, ready),
        "hetgraph": lambda: our_graph(builder, samples),
        "hetgraph, all edges listed": lambda: listed(our_graph(builder, samples)),
    }
    peers = {"PyG": "PyG, rules per sample", "PyG, edges lie ready": "PyG, edges lie ready"}
    left_out = []
    try:
        dgl = load_dgl()
    except HetgraphError as error:
        left_out.append(f"DGL: {error}")
    else:
        batched = dgl_batch(dgl, samples, ready)
        check_edges(graph, {key: torch.stack(batched.edges(etype=key)) for key in schema.edges}, "DGL's")
        candidates["DGL, rules per sample"] = lambda: dgl_batch(
            dgl, samples, [edges_by_rule(arrays, schema) for arrays in samples]
        )
        peers["DGL"] = "DGL, rules per sample"
    times = alternate(candidates, rounds)
    values = {"build + batch": {name: summary(seconds, 1e3 / count) for name, seconds in times.items()}}
    edges = sum(len(e) for e in graph.edges.values())
    sizes = {"samples": count, "nodes": graph.num_nodes, "edge types": len(schema.edges), "edges": edges}
    return Setting(label, "ms per sample", sizes, "hetgraph", peers, values), left_out


def main(argv: Sequence[str] | None = None) -> None:
    found = arguments(__doc__, argv, rounds=15)
    count = 4 if found.quick else 64
    settings = []
    left_out: list[str] = []
    for label, user in (("built-in rules", False), ("built-in and four own rules", True)):
        setting, left_out = measure(label, schema_of(user=user), count, found.rounds)
        settings.append(setting)
    finish("graph_building", "Building graphs", found, settings, left_out)


if __name__ == "__main__":
    main()
