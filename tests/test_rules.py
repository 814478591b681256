"""Every rule says what a plain loop says, never takes padding for a neighbour, and keeps its contract."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch
from contract import check_node_type, check_rule
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import _best, looped_edges, pairs_of, warmer, within

from hetgraph import EdgeType, GraphBuilder, HetgraphError, NodeType, Sample, Schema, rules
from hetgraph.rules import NodeSet

FIELDS = {"pos": 3, "box": 4, "time": 2, "group": 0}
A, B = NodeType("a", 2, fields=FIELDS), NodeType("b", 2, fields=FIELDS)


def edges_of(rule, a: dict, b: dict | None = None) -> list[tuple[int, int]]:
    """The edges that a rule makes in one sample, from ``a`` to ``b`` or within ``a``."""
    types = [NodeType(n, len(v["x"][0]), fields=_widths(v)) for n, v in (("a", a), ("b", b)) if v is not None]
    key = ("a", "r", "a" if b is None else "b")
    sample = Sample(a=a, b=b)
    return pairs_of(GraphBuilder(Schema(types, [EdgeType(*key, rule=rule)]))([sample]).edge_index[key])


def _widths(values: dict) -> dict[str, int]:
    return {f: len(v[0]) if isinstance(v[0], list) else 0 for f, v in values.items() if f != "x"}


def points(*pos) -> dict:
    return {"x": [[0.0]] * len(pos), "pos": [list(map(float, p)) for p in pos]}


def boxes(*box) -> dict:
    return {"x": [[0.0]] * len(box), "box": [list(map(float, b)) for b in box]}


# ---- structured rules -------------------------------------------------------------------------------------------


@given(
    before=st.integers(-6, 6),
    after=st.integers(-6, 6),
    loops=st.booleans(),
    sources=st.lists(st.integers(0, 6), min_size=1, max_size=3),
    targets=st.lists(st.integers(0, 6), min_size=1, max_size=3),
)
def test_a_window_reaches_from_before_to_after(before: int, after: int, loops: bool, sources, targets) -> None:
    assume(before + after >= 0)
    rule = rules.window(before=before, after=after, loops=loops)
    sizes = [(s, t) for s, t in zip(sources, targets, strict=False) if s + t]
    assume(sizes)
    schema = Schema([NodeType("a", 1), NodeType("b", 1)], [EdgeType("a", "r", "b", rule=rule)])
    graph = GraphBuilder(schema)([Sample(a=torch.zeros(s, 1), b=torch.zeros(t, 1)) for s, t in sizes])
    expected, first = [], [0, 0]
    for s, t in sizes:
        for j in range(t):
            near = [i for i in range(s) if j - before <= i <= j + after and (loops or i != j)]
            expected += [(i + first[0], j + first[1]) for i in near]
        first = [first[0] + s, first[1] + t]
    edges = graph.edges["a", "r", "b"]
    assert len(edges) == len(expected)
    assert pairs_of(edges.index) == sorted(expected)
    assert pairs_of(edges.index) == [
        (graph.layout["a"].offset[b].item() + i, graph.layout["b"].offset[b].item() + j)
        for b, i, j in edges.mask.nonzero().tolist()
    ]


def test_a_window_of_one_size_reaches_equally_far_on_both_sides() -> None:
    assert rules.window(2) == rules.Window(2, 2) == rules.window(before=2, after=2)
    assert edges_of(rules.window(1), points(*[[0]] * 3)) == [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (2, 1), (2, 2)]
    assert edges_of(rules.window(1, loops=False), points(*[[0]] * 3)) == [(0, 1), (1, 0), (1, 2), (2, 1)]
    assert edges_of(rules.window(0, loops=False), points(*[[0]] * 3)) == []


def test_following_goes_from_every_node_to_the_next() -> None:
    assert edges_of(rules.following, points(*[[0]] * 4)) == [(0, 1), (1, 2), (2, 3)]
    assert edges_of(rules.following, points([0])) == []


def test_negative_reach_leaves_the_nearest_out() -> None:
    assert edges_of(rules.window(before=3, after=-2), points(*[[0]] * 5)) == [(0, 2), (0, 3), (1, 3), (1, 4), (2, 4)]
    assert edges_of(rules.window(before=-1, after=1), points(*[[0]] * 3)) == [(1, 0), (2, 1)]


def test_all_pairs_connects_every_node_to_every_node() -> None:
    assert edges_of(rules.all_pairs, points([0], [0])) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert edges_of(rules.all_pairs, points([0], [0]), points([0])) == [(0, 0), (1, 0)]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: rules.window(before=-2, after=1), "before=-2 and after=1"),
        (lambda: rules.window(-1), "before=-1"),
        (lambda: rules.window(2, before=1), "not both"),
        (lambda: rules.window(before=1.5), "1.5"),
        (lambda: rules.window(before=True), "True"),
        (lambda: rules.nearest(0), "got 0"),
        (lambda: rules.nearest(2.0), "got 2.0"),
        (lambda: rules.similar(-1), "got -1"),
        (lambda: rules.similar(True), "got True"),
        (lambda: rules.similar(1, "high"), "'high'"),
        (lambda: rules.similar(1, math.nan), "nan"),
        (lambda: rules.Direction("north"), "'north'"),
    ],
)
def test_impossible_arguments_are_refused(make, words: str) -> None:
    with pytest.raises(HetgraphError, match=words):
        make()


# ---- ranks ------------------------------------------------------------------------------------------------------


def test_nearest_keeps_all_ties_and_never_the_node_itself() -> None:
    square = points((0, 0), (1, 0), (0, 1), (1, 1))
    assert edges_of(rules.nearest(1), square) == sorted(
        (i, j) for i, j in [(0, 1), (0, 2), (1, 0), (1, 3), (2, 0), (2, 3), (3, 1), (3, 2)]
    )
    assert edges_of(rules.nearest(1), points((0, 0), (0, 0), (0, 0))) == [
        (i, j) for i in range(3) for j in range(3) if i != j
    ]


def test_nearest_of_two_types_includes_nodes_at_the_same_place() -> None:
    assert edges_of(rules.nearest(1), points((0, 0), (5, 5)), points((5, 5), (1, 0))) == [(0, 1), (1, 0)]


@pytest.mark.parametrize("k", [1, 2, 3, 7])
def test_fewer_than_k_nodes_are_all_neighbours(k: int) -> None:
    near = edges_of(rules.nearest(k), points((0, 0), (1, 0), (5, 0)))
    assert edges_of(rules.nearest(k), points((0, 0))) == []
    assert [sum(j == target for _, j in near) for target in range(3)] == [min(k, 2)] * 3


def test_nearest_reads_centres_of_boxes_middles_of_times_and_single_numbers() -> None:
    assert edges_of(rules.nearest(1, "box"), boxes((0, 0, 2, 2), (2, 2, 4, 4), (9, 9, 9, 9))) == [
        (0, 1),
        (1, 0),
        (1, 2),
    ]
    times = {"x": [[0.0]] * 3, "time": [[0.0, 10.0], [4.0, 5.0], [0.0, 1.0]]}
    assert edges_of(rules.nearest(1, "time"), times) == [(0, 1), (1, 0), (1, 2)]
    numbers = {"x": [[0.0]] * 3, "level": [1.0, 2.0, 4.0]}
    assert edges_of(rules.nearest(1, "level"), numbers) == [(0, 1), (1, 0), (1, 2)]


@given(st.integers(0, 10**6), st.integers(1, 4), st.sampled_from([-1.0, 0.0, 0.6]))
def test_similar_ranks_by_cosine(seed: int, k: int, threshold: float) -> None:
    draw = random.Random(seed)
    rows = [[draw.uniform(-1, 1) for _ in range(5)] for _ in range(draw.randint(1, 8))]
    rows += rows[: draw.randint(0, 3)]
    cosine = {
        (i, j): sum(p * q for p, q in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)
        for i, a in enumerate(rows)
        for j, b in enumerate(rows)
        if i != j
    }
    found = set(edges_of(rules.similar(k, threshold), {"x": rows}))
    for j in range(len(rows)):
        prices = sorted((c for (_, t), c in cosine.items() if t == j), reverse=True)
        limit = max(prices[min(k, len(prices)) - 1], threshold) if prices else 2.0
        for i in range(len(rows)):
            # within rounding of the limit float32 may decide either way
            if i != j and abs(cosine[i, j] - limit) > 1e-5:
                assert ((i, j) in found) == (cosine[i, j] > limit)
            elif i == j:
                assert (i, j) not in found


def test_similar_keeps_equal_sources_and_opposite_ones() -> None:
    rows = torch.randn(50, 37, generator=torch.Generator().manual_seed(0))
    for row in rows.tolist():
        found = edges_of(rules.similar(3), {"x": [row, row, row, [-v for v in row]]})
        assert found == [(i, j) for i in range(4) for j in range(4) if i != j]


@given(
    st.integers(0, 10**6),
    st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(0, 9)),
    st.integers(1, 12),
    st.booleans(),
)
def test_the_compiled_choice_of_the_nearest_is_that_of_torch_and_of_a_loop(
    seed: int, shape, k: int, same: bool
) -> None:
    rng = np.random.default_rng(seed)
    samples, sources, targets = shape
    targets = sources if same else targets
    # few values, so that many tie
    values = rng.choice([0.0, 0.25, 0.5, 1.0, math.nan, math.inf], (samples, sources, targets))
    distance = torch.from_numpy(values.astype(np.float32))
    src = rules.NodeSet({}, torch.from_numpy(rng.random((samples, sources)) < 0.8))
    dst = src if same else rules.NodeSet({}, torch.ones(samples, targets, dtype=torch.bool))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rules, "_LEAST_PAIRS", 1)
        found = rules._keep_k(distance, k, src, dst)
        assert torch.equal(found, rules._keep_k(distance.mT.contiguous().mT, k, src, dst))
    assert torch.equal(found, rules._keep_k_plain(distance, k, src, dst))
    for b in range(samples):

        def cost(i: int, j: int, b: int = b) -> float:
            return float(values[b, i, j]) if src.valid[b, i] else math.nan

        pairs = _best(cost, k, sources, targets, same)
        assert {(i, j) for i, j in found[b].nonzero().tolist()} == pairs


def test_many_nodes_have_the_neighbours_that_a_loop_finds() -> None:
    rng = np.random.default_rng(0)
    pos = rng.integers(0, 30, (130, 2)).astype(float)
    assert len(pos) ** 2 >= rules._LEAST_PAIRS

    def cost(i: int, j: int) -> float:
        return float(((pos[i] - pos[j]) ** 2).sum())

    for k in (3, rules._MOST_KEPT + 1):
        expected = _best(cost, k, len(pos), len(pos), True)
        assert edges_of(rules.nearest(k), points(*pos.tolist())) == sorted(expected)


@given(st.integers(0, 10**6), st.sampled_from([1, 2, 3, 4, 5]), st.integers(1, 12), st.booleans(), st.booleans())
def test_nearest_compiled_is_to_the_last_bit_that_of_torch(
    seed: int, width: int, k: int, same: bool, rough: bool
) -> None:
    rng = np.random.default_rng(seed)

    def nodes(name: str) -> NodeSet:
        pos = rng.normal(size=(3, 11, width)) * 10.0 ** rng.integers(-20, 21)
        pos = pos.round(1) if rough else pos
        pos[rng.random((3, 11)) < 0.1] = math.nan
        return NodeSet({"pos": lambda: torch.from_numpy(pos)}, torch.from_numpy(rng.random((3, 11)) < 0.8), name)

    src = nodes("a")
    dst = src if same else nodes("b")
    found = []
    for least in (1, 2**62):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(rules, "_LEAST_PAIRS", least)
            found.append(rules.nearest(k)(src, dst))
    assert torch.equal(*found)


# ---- geometry ---------------------------------------------------------------------------------------------------


def test_the_four_directions_partition_what_is_not_diagonal() -> None:
    # a cross around the first box
    cross = boxes((4, 4, 6, 6), (0, 4, 2, 6), (8, 4, 10, 6), (4, 0, 6, 2), (4, 8, 6, 10))
    sides = {1: rules.left_of, 2: rules.right_of, 3: rules.above, 4: rules.below}
    for other, rule in sides.items():
        assert [i for i, j in edges_of(rule, cross) if j == 0] == [other]


def test_a_diagonal_neighbour_is_on_both_sides() -> None:
    two = boxes((0, 0, 2, 2), (2, 2, 4, 4))
    assert edges_of(rules.left_of, two) == edges_of(rules.above, two) == [(0, 1)]
    assert edges_of(rules.right_of, two) == edges_of(rules.below, two) == [(1, 0)]


def test_inside_counts_equal_boxes_but_not_the_node_itself() -> None:
    assert edges_of(rules.inside, boxes((1, 1, 2, 2), (0, 0, 4, 4), (0, 0, 4, 4), (3, 3, 5, 5))) == [
        (0, 1),
        (0, 2),
        (1, 2),
        (2, 1),
    ]
    assert edges_of(rules.inside, boxes((1, 1, 2, 2)), boxes((1, 1, 2, 2))) == [(0, 0)]


def test_overlapping_needs_more_than_a_shared_side() -> None:
    assert edges_of(rules.overlapping, boxes((0, 0, 2, 2), (2, 0, 4, 2), (1, 1, 3, 3), (1, 1, 1, 1))) == [
        (0, 2),
        (1, 2),
        (2, 0),
        (2, 1),
    ]
    times = {"x": [[0.0]] * 3, "time": [[0.0, 1.0], [1.0, 2.0], [0.5, 1.5]]}
    assert edges_of(rules.Overlapping("time"), times) == [(0, 2), (1, 2), (2, 0), (2, 1)]


def test_same_compares_numbers_and_rows_exactly() -> None:
    big = 2**40
    assert edges_of(rules.same(), {"x": [[0.0]] * 3, "group": [big, big + 1, big]}) == [(0, 2), (2, 0)]
    assert edges_of(rules.same("pos"), points((0, 1), (0, 2), (0, 1))) == [(0, 2), (2, 0)]
    assert edges_of(rules.same("pos"), points((0, 1)), points((0, 2), (0, 1))) == [(0, 1)]


def test_large_numbers_stay_apart_beside_a_sample_that_lacks_the_field() -> None:
    schema = Schema([NodeType("a", 1, optional={"group": 0})], [EdgeType("a", "r", "a", rule=rules.same())])
    samples = [Sample(a={"x": torch.zeros(2, 1), "group": [2**24, 2**24 + 1]}), Sample(a=torch.zeros(2, 1))]
    for batch in (samples[:1], samples):
        assert len(GraphBuilder(schema)(batch).edges["a", "r", "a"]) == 0


@pytest.mark.parametrize(
    "rule", [rules.left_of, rules.inside, rules.overlapping, rules.nearest(2, "box"), rules.same("box")]
)
def test_a_missing_optional_field_connects_nothing(rule) -> None:
    schema = Schema([NodeType("a", 1, optional={"box": 4})], [EdgeType("a", "r", "a", rule=rule)])
    box = torch.tensor([[0.0, 0, 1, 1], [0, 0, 1, 1], [-2, 0, -1, 1]])
    graph = GraphBuilder(schema)([Sample(a=torch.zeros(3, 1)), Sample(a={"x": torch.zeros(3, 1), "box": box})])
    index = graph.edge_index["a", "r", "a"]
    assert index.shape[1] > 0
    assert graph.batch["a"][index[0]].unique().tolist() == [1]


def test_a_field_of_the_wrong_form_is_refused_by_name() -> None:
    level = {"x": [[0.0]] * 2, "level": [1.0, 2.0]}
    for rule in (rules.Inside("level"), rules.Overlapping("level"), rules.Direction("left", "level")):
        with pytest.raises(HetgraphError, match=r"'a'.*'level'"):
            edges_of(rule, level)
    with pytest.raises(HetgraphError, match="'a' has no field 'box'"):
        edges_of(rules.left_of, level)


def test_given_edges_are_never_asked_for() -> None:
    nodes = NodeSet({}, torch.ones(1, 1, dtype=torch.bool))
    with pytest.raises(HetgraphError, match="come with the sample"):
        rules.given(nodes, nodes)


# ---- padding and contracts --------------------------------------------------------------------------------------

BUILT_IN = [
    rules.all_pairs,
    rules.following,
    rules.window(2, loops=False),
    rules.nearest(1),
    rules.nearest(3, "box"),
    rules.nearest(2, "time"),
    rules.similar(2),
    rules.similar(1, 0.2, "pos"),
    rules.left_of,
    rules.right_of,
    rules.above,
    rules.below,
    rules.inside,
    rules.overlapping,
    rules.Inside("time"),
    rules.Overlapping("time"),
    rules.Spatial("inside"),
    rules.Spatial("south_east", 1.5),
    rules.before(),
    rules.after(0.5),
    rules.same(),
    rules.same("pos"),
    rules.given,
]


@pytest.mark.parametrize("rule", [*BUILT_IN, warmer, within], ids=lambda rule: getattr(rule, "__name__", str(rule)))
def test_every_rule_keeps_the_contract(rule) -> None:
    check_rule(rule, A, A)
    check_rule(rule, A, B)
    if getattr(rule, "field", None) != "x":
        far = NodeType("far", 2, optional=FIELDS)
        check_rule(rule, far, far)
        check_rule(rule, A, far)


def test_node_types_keep_the_contract() -> None:
    for node in (A, NodeType("å.b 1", 1), NodeType("id", 2, optional=FIELDS), NodeType("x", 3, {"a": 0}, {"b": 2})):
        check_node_type(node)


def _gap(src, dst):
    return (src["pos"][..., :, None, :] - dst["pos"][..., None, :, :]).square().sum(-1)


def nearest_of_all(src, dst):
    gap = _gap(src, dst)
    return gap <= gap.amin(-2, keepdim=True)


def below_the_mean_of_the_batch(src, dst):
    gap = _gap(src, dst)
    real = src.valid[..., :, None] & dst.valid[..., None, :]
    return gap < gap[real].mean()


def first_sample_only(src, dst):
    mask = _gap(src, dst) < 0.5
    mask[1:] = False
    return mask


def earlier(src, dst):
    i = torch.arange(src.valid.shape[1])[:, None]
    return (i < torch.arange(dst.valid.shape[1])).expand(len(src.valid), -1, -1)


def moody(src, dst):
    return torch.rand(_gap(src, dst).shape) < 0.5


def turned_over(src, dst):
    return (_gap(src, dst) < 0.5).transpose(1, 2)


def unbatched(src, dst):
    return (_gap(src, dst) < 0.5)[0]


def weights_for_a_mask(src, dst):
    return (_gap(src, dst) < 0.5).float()


def an_array(src, dst):
    return (_gap(src, dst) < 0.5).numpy()


def a_list_of_features(src, dst):
    return _gap(src, dst) < 0.5, [_gap(src, dst)]


def features_of_sources(src, dst):
    return _gap(src, dst) < 0.5, {"pos": src["pos"]}


def features_that_break(src, dst):
    gap = _gap(src, dst)
    return gap < 0.5, {"nearness": (0.25 - gap).log()}


def features_of_the_batch(src, dst):
    gap = _gap(src, dst)
    return gap < 0.5, {"share": gap / src["pos"].amax()}


def vandal(src, dst):
    src["pos"].mul_(2)
    return _gap(src, dst) < 0.5


@pytest.mark.parametrize(
    ("rule", "fault"),
    [
        (nearest_of_all, "it looks at padding"),
        (below_the_mean_of_the_batch, "it depends on the other samples of the batch"),
        (first_sample_only, "it depends on the order of the batch"),
        (earlier, "it does not permute with its nodes"),
        (moody, "changes"),
        (turned_over, r"the mask has shape \[5, 6, 5\], not \[5, 5, 6\]"),
        (unbatched, "the mask has shape"),
        (weights_for_a_mask, "the mask is torch.float32, not bool"),
        (an_array, "the mask is a ndarray"),
        (a_list_of_features, "a mask and a dict"),
        (features_of_sources, "feature 'pos' has shape"),
        (features_that_break, "feature 'nearness' is not finite"),
        (features_of_the_batch, "feature 'share' changes"),
        (vandal, "it changes the field 'pos'"),
    ],
)
def test_the_contract_finds_rules_that_break_it(rule, fault: str) -> None:
    c = NodeType("c", 2, fields={"pos": 3})
    with pytest.raises(AssertionError, match=fault):
        check_rule(rule, A, c)


def test_the_contract_finds_node_types_that_break_it() -> None:
    def short(node, count, generator):
        return {"x": torch.zeros(count, node.dim + 1)}

    with pytest.raises((AssertionError, HetgraphError)):
        check_node_type(NodeType("c", 2), short)


def test_the_loops_used_by_other_tests_find_nothing_without_nodes() -> None:
    schema = Schema([A, B], [EdgeType("a", "r", "b")])
    assert looped_edges(schema.edges["a", "r", "b"], schema, Sample(a=torch.zeros(1, 2))) == []
