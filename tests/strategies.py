"""Random schemas and batches, and every edge rule once more as a plain loop over Python numbers.

Shared by the tests of schemas, samples, graphs and of what is built on them. ``worlds()`` draws a schema and a
batch in which any modality may be missing anywhere; ``looped_edges`` says which edges one sample must have,
without touching the library's rules, masks or edge lists. All coordinates are small multiples of 1/8 and
vectors have one entry that is a power of two, so that float32 is exact and ties are common.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

from hetgraph import EdgeType, Graph, NodeType, Sample, Schema, rules
from hetgraph.schema import EdgeKey

ODD_NAMES = (
    "img.region", "två ord", "7", "type", "__", "a__b", "id", "edges", "nodes", "target", "x", "y", "sample_id",
    "batch", "index", "self", "图像", "🦆", "keys", " ", "\n", "None", "0.1", "weight", "forward",
)  # fmt: skip
names = st.one_of(st.sampled_from(ODD_NAMES), st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6))

#: Fields with the width that rules expect; "free" fields have names that other libraries treat specially.
GEOMETRY = {"pos": 2, "box": 4, "time": 2, "vec": 3, "group": 0}
FREE_FIELDS = ("batch", "ptr", "num_nodes", "speaker_batch", "index", "edge_index", "type", "sample", "%62atch", "ü")
FREE_FEATURES = ("batch", "ptr", "edge_index", "token_index", "type", "key", "relation_id", "%69ndex", "x", "ü")


def warmer(src, dst):
    """A user-made rule without features: the first number of x is larger."""
    return src["x"][..., :, None, 0] > dst["x"][..., None, :, 0]


def within(src, dst):
    """A user-made rule with features, one of them a single number."""
    step = dst["pos"][..., None, :, :] - src["pos"][..., :, None, :]
    square = step.square().sum(-1)
    return square < 1.0, {"square": square, "step": step}


@st.composite
def node_types(draw: st.DrawFn, name: str) -> NodeType:
    fields: dict[str, int] = {}
    optional: dict[str, int] = {}
    for field, width in GEOMETRY.items():
        where = draw(st.sampled_from([None, fields, optional]))
        if where is not None:
            where[field] = width
    for field in draw(st.lists(st.sampled_from(FREE_FIELDS), max_size=2, unique=True)):
        draw(st.sampled_from([fields, optional]))[field] = draw(st.integers(0, 2))
    return NodeType(name, draw(st.integers(1, 3)), fields=fields, optional=optional)


@st.composite
def edge_types(draw: st.DrawFn, src: NodeType, dst: NodeType, relation: str) -> EdgeType:
    both = set(src.all_fields) & set(dst.all_fields)
    k = draw(st.integers(1, 3))
    before = draw(st.integers(-2, 3))
    plain: list[Any] = [
        rules.all_pairs,
        rules.following,
        rules.window(draw(st.integers(0, 2)), loops=draw(st.booleans())),
        rules.window(before=before, after=draw(st.integers(-before, 3))),
        warmer,
    ]
    if "pos" in both:
        plain += [
            rules.nearest(k),
            *(rules.Direction(side, "pos") for side in ("left", "right", "above", "below")),
            within,
        ]
    if "box" in both:
        plain += [rules.nearest(k, "box"), rules.left_of, rules.right_of, rules.above, rules.below]
        plain += [rules.inside, rules.overlapping]
    if "time" in both:
        plain += [rules.nearest(k, "time"), rules.Inside("time"), rules.Overlapping("time")]
    if "vec" in both:
        plain += [rules.similar(k, draw(st.sampled_from([-1.0, 0.5])), "vec")]
    if "group" in both:
        plain += [rules.same()]
    rule = draw(st.one_of(st.just(rules.given), st.sampled_from(plain)))
    features: dict[str, int] = {}
    relations: tuple[str, ...] = ()
    if rule is rules.given:
        for name in draw(st.lists(st.sampled_from(FREE_FEATURES), max_size=2, unique=True)):
            features[name] = draw(st.integers(0, 2))
        relations = tuple(draw(st.lists(names, max_size=3, unique=True)))
    elif rule is within:
        features = {"square": 0, "step": 2}
    return EdgeType(src.name, relation, dst.name, rule=rule, features=features, relations=relations)


@st.composite
def schemas(draw: st.DrawFn, most: int = 4) -> Schema:
    """1 to ``most`` node types and up to six edge types of any rule."""
    nodes = [draw(node_types(name)) for name in draw(st.lists(names, min_size=1, max_size=most, unique=True))]
    edges: dict[EdgeKey, EdgeType] = {}
    for relation in draw(st.lists(names, max_size=6)):
        src, dst = draw(st.sampled_from(nodes)), draw(st.sampled_from(nodes))
        edge = draw(edge_types(src, dst, relation))
        edges[edge.key] = edge
    return Schema(nodes, edges.values())


def random_field(rng: np.random.Generator, name: str, count: int, width: int) -> np.ndarray:
    """Values of a field: what the rules need for the known ones, floats for any other."""
    if name == "group":
        return rng.integers(0, 3, count)
    if name == "vec":
        out = np.zeros((count, width))
        out[np.arange(count), rng.integers(0, width, count)] = rng.choice([-2.0, -1.0, 0.0, 0.5, 1.0, 4.0], count)
        return out
    if name in ("box", "time"):
        low = rng.integers(0, 5, (count, width // 2))
        return np.concatenate([low, low + rng.integers(0, 4, (count, width // 2))], 1) / 8
    return rng.integers(-8, 9, (count, width) if width else count) / 8


def random_sample(
    rng: np.random.Generator,
    schema: Schema,
    sizes: dict[str, int | None],
    *,
    id: str | None = None,
    target: Any = None,
) -> Sample:
    """A sample with so many nodes of each type (None: the type is absent) and random edges where they are given."""
    nodes: dict[str, Any] = {}
    for name, size in sizes.items():
        if size is None:
            continue
        node = schema.nodes[name]
        values = {"x": rng.permutation(size * node.dim).reshape(size, node.dim) / 8 - 1}
        for field, width in node.all_fields.items():
            if field in node.fields or rng.random() < 0.6:
                values[field] = random_field(rng, field, size, width)
        nodes[name] = values
    edges: dict[EdgeKey, Any] = {}
    for key, edge in schema.edges.items():
        ends = sizes[edge.src] or 0, sizes[edge.dst] or 0
        if edge.rule is not rules.given or rng.random() < 0.3:
            continue
        count = int(rng.integers(0, 6)) if all(ends) else 0
        given: dict[str, Any] = {"index": [rng.integers(0, max(end, 1), count).tolist() for end in ends]}
        for name, width in edge.features.items():
            given[name] = rng.integers(-9, 9, (count, width) if width else count) / 8
        if edge.relations:
            ids = rng.integers(0, len(edge.relations), count).tolist()
            given["relation"] = [edge.relations[r] for r in ids] if rng.random() < 0.5 else ids
        edges[key] = given
    return Sample(id=id, target=target, nodes=nodes, edges=edges)


TARGETS: tuple[Callable[[int], Any], ...] = (
    lambda i: None,
    lambda i: i,
    lambda i: i / 4,
    lambda i: f"class {i}",
    lambda i: torch.tensor(i),
    lambda i: torch.full((2, 3), float(i)),
    lambda i: torch.full((i,), float(i)),
    lambda i: None if i % 2 else "odd one out",
    lambda i: [i, "mixed"] if i else torch.zeros(1, 2),
    lambda i: {"a": i},
)


@st.composite
def batches(draw: st.DrawFn, schema: Schema, most: int = 4) -> list[Sample]:
    """1 to ``most`` samples; types may be absent or empty anywhere, also everywhere, but no sample is void."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    # None: the type may have nodes; otherwise it has none, in any sample
    missing = {name: draw(st.sampled_from(["", "", "", "absent", "empty"])) for name in schema.nodes}
    alive = [name for name, how in missing.items() if not how]
    if not alive:
        alive = [draw(st.sampled_from(list(schema.nodes)))]
        missing[alive[0]] = ""
    target = draw(st.sampled_from(TARGETS))
    ids = draw(st.one_of(st.none(), st.just("utt-")))
    out = []
    for i in range(draw(st.integers(1, most))):
        sizes: dict[str, int | None] = {}
        for name, how in missing.items():
            size = draw(st.sampled_from([None, 0, 1, 2, 3, 5]))
            sizes[name] = {"": size, "absent": None, "empty": 0}[how]
        if not any(sizes.values()):
            sizes[draw(st.sampled_from(alive))] = draw(st.integers(1, 4))
        out.append(random_sample(rng, schema, sizes, id=ids and f"{ids}{i}", target=target(i)))
    return out


@dataclass
class World:
    schema: Schema
    samples: list[Sample]


@st.composite
def worlds(draw: st.DrawFn, most_types: int = 4, most_samples: int = 4) -> World:
    """A random schema and a batch of it."""
    schema = draw(schemas(most_types))
    return World(schema, draw(batches(schema, most_samples)))


# ---- the rules as plain loops ----------------------------------------------------------------------------------


def _rows(values: dict[str, Tensor], field: str, node: NodeType) -> list[list[float]]:
    """A field of one sample as lists; NaN where an optional one is missing."""
    width = node.dim if field == "x" else node.all_fields[field]
    if field not in values:
        return [[math.nan] * max(width, 1) for _ in range(len(values["x"]))]
    return [row if isinstance(row, list) else [row] for row in values[field].tolist()]


def _middle(row: list[float], field: str) -> list[float]:
    if field == "time":
        return [sum(row) / 2]
    return [(row[0] + row[2]) / 2, (row[1] + row[3]) / 2] if len(row) == 4 else row


def _best(cost: Callable[[int, int], float], k: int, sources: int, targets: int, same: bool) -> set[tuple[int, int]]:
    """Of every target the k cheapest sources, all that are as cheap as the k-th included."""
    found = set()
    for j in range(targets):
        known = [(cost(i, j), i) for i in range(sources) if not (same and i == j) and not math.isnan(cost(i, j))]
        known.sort()
        if known:
            limit = known[min(k, len(known)) - 1][0]
            found |= {(i, j) for price, i in known if price <= limit}
    return found


def looped_edges(edge: EdgeType, schema: Schema, sample: Sample) -> list[tuple[int, int]]:
    """The edges of one type that one sample must have, ``(source, destination)`` inside the sample, sorted."""
    rule: Any = edge.rule
    src, dst = sample.nodes.get(edge.src), sample.nodes.get(edge.dst)
    if src is None or dst is None:
        return []
    if rule is rules.given:
        index = sample.edges.get(edge.key, {"index": torch.zeros(2, 0)})["index"]
        return sorted((int(i), int(j)) for i, j in zip(*index.tolist(), strict=True))
    same = edge.src == edge.dst
    sources, targets = len(src["x"]), len(dst["x"])
    pairs = [(i, j) for i in range(sources) for j in range(targets)]

    def rows(field: str) -> tuple[list[list[float]], list[list[float]]]:
        return _rows(src, field, schema.nodes[edge.src]), _rows(dst, field, schema.nodes[edge.dst])

    if isinstance(rule, rules.AllPairs):
        return pairs
    if isinstance(rule, rules.Window):
        return [(i, j) for i, j in pairs if j - rule.before <= i <= j + rule.after and (rule.loops or i != j)]
    if rule is warmer:
        a, b = rows("x")
        return [(i, j) for i, j in pairs if a[i][0] > b[j][0]]
    if rule is within:
        a, b = rows("pos")
        return [(i, j) for i, j in pairs if (b[j][0] - a[i][0]) ** 2 + (b[j][1] - a[i][1]) ** 2 < 1]
    a, b = rows(rule.field)
    if isinstance(rule, rules.Nearest):
        return sorted(
            _best(
                lambda i, j: sum(
                    (p - q) ** 2 for p, q in zip(_middle(a[i], rule.field), _middle(b[j], rule.field), strict=True)
                ),
                rule.k,
                sources,
                targets,
                same,
            )
        )
    if isinstance(rule, rules.Similar):

        def cosine(i: int, j: int) -> float:
            norm = math.hypot(*a[i]) * math.hypot(*b[j])
            dot = sum(p * q for p, q in zip(a[i], b[j], strict=True))
            return dot / norm if norm else norm + dot

        best = _best(lambda i, j: -cosine(i, j), rule.k, sources, targets, same)
        return sorted((i, j) for i, j in best if cosine(i, j) >= rule.threshold)
    if isinstance(rule, rules.Direction):

        def lies(i: int, j: int) -> bool:
            p, q = _middle(a[i], rule.field), _middle(b[j], rule.field)
            right, down = p[0] - q[0], p[1] - q[1]
            return {
                "left": right < 0 and -right >= abs(down),
                "right": right > 0 and right >= abs(down),
                "above": down < 0 and -down >= abs(right),
                "below": down > 0 and down >= abs(right),
            }[rule.side]

        return [(i, j) for i, j in pairs if lies(i, j)]
    other = [(i, j) for i, j in pairs if not (same and i == j)]
    if isinstance(rule, rules.Same):
        return [(i, j) for i, j in other if all(p == q for p, q in zip(a[i], b[j], strict=True))]
    half = len(a[0]) // 2 if a else 0
    axes = range(half)
    if isinstance(rule, rules.Inside):
        return [(i, j) for i, j in other if all(a[i][d] >= b[j][d] and a[i][d + half] <= b[j][d + half] for d in axes)]
    assert isinstance(rule, rules.Overlapping)
    return [
        (i, j)
        for i, j in other
        if all(
            a[i][d] < b[j][d + half] and b[j][d] < a[i][d + half] and _long(a[i], d) and _long(b[j], d) for d in axes
        )
    ]


def _long(row: list[float], axis: int) -> bool:
    return row[axis] < row[axis + len(row) // 2]


def packed_edges(key: EdgeKey, schema: Schema, samples: Sequence[Sample]) -> list[tuple[int, int]]:
    """The same for a whole batch, in packed node ids, sorted."""
    out, first = [], [0, 0]
    for sample in samples:
        out += [(i + first[0], j + first[1]) for i, j in looped_edges(schema.edges[key], schema, sample)]
        for side, name in enumerate((key[0], key[2])):
            first[side] += len(sample.nodes[name]["x"]) if name in sample.nodes else 0
    return sorted(out)


def pairs_of(index: Tensor) -> list[tuple[int, int]]:
    """An edge index as sorted pairs."""
    return sorted(map(tuple, index.T.tolist()))


# ---- equality ---------------------------------------------------------------------------------------------------


def same_numbers(a: Tensor, b: Tensor) -> bool:
    """Equal shapes and values, NaN equal to itself, whatever the dtype."""
    return a.shape == b.shape and torch.equal(a.double().nan_to_num(nan=1e9), b.double().nan_to_num(nan=1e9))


def same_target(a: Any, b: Any) -> bool:
    """Equal, where a number and a tensor without axes are the same."""
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return same_numbers(torch.as_tensor(a), torch.as_tensor(b))
    return a == b


def assert_same_graph(a: Graph, b: Graph) -> None:
    """Same samples, nodes, fields, edges (in order), edge features and relation ids."""
    assert a.ids == b.ids
    assert list(a.x) == list(b.x)
    for name in a.x:
        assert same_numbers(a.x[name], b.x[name]), name
        assert torch.equal(a.counts[name], b.counts[name]), name
        assert list(a.fields[name]) == list(b.fields[name]), name
        for field, value in a.fields[name].items():
            assert same_numbers(value, b.fields[name][field]), (name, field)
    assert list(a.edges) == list(b.edges)
    for key, edges in a.edges.items():
        assert torch.equal(edges.index, b.edge_index[key]), key
        assert list(edges.features) == list(b.edges[key].features), key
        for feature, value in edges.features.items():
            assert same_numbers(value, b.edges[key].features[feature]), (key, feature)
        ids, others = edges.relation, b.edges[key].relation
        assert (ids is None) == (others is None), key
        assert ids is None or torch.equal(ids, others), key
    assert len(a.target) == len(b.target)
    assert all(same_target(t, u) for t, u in zip(a.target, b.target, strict=True))
