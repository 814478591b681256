"""What holds for Z whatever the samples lack: batching, order, permutation, absent types, finiteness."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from graphs import KINDS, ORDER_FREE, World, close, edge_type, random_sample, randomize, worlds
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hetgraph import EdgeType, Fusion, FusionOutput, GraphBuilder, HetgraphError, NodeType, Sample, Schema, rules
from hetgraph.builders import image_text_audio
from hetgraph.training import without

BACKENDS = ("dense", "sparse")


def model_of(schema: Schema, layers: int = 2, **options) -> Fusion:
    model = Fusion(schema, width=6, layers=layers, heads=2, **options).double().eval()
    randomize(model)
    return model


def run(model: Fusion, samples: list[Sample], backend: str = "auto") -> FusionOutput:
    return model(GraphBuilder(model.schema, torch.float64)(samples), backend)


def rows(out: FusionOutput, world: World, i: int) -> dict[str, Tensor]:
    """Everything that belongs to sample ``i``."""
    found = {"z": out.z[i]}
    for name in world.schema.nodes:
        sizes = [len(s.nodes[name]["x"]) if name in s.nodes else 0 for s in world.samples]
        found[f"nodes {name}"] = out.nodes[name].split(sizes)[i]
        found[f"alpha {name}"] = out.weights[name][i]
        found[f"part {name}"] = out.parts[name][i]
    return found


def same(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = 1e-9) -> None:
    assert set(found) == set(expected)
    for name, value in expected.items():
        close(found[name], value, tolerance)


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=30, deadline=None)
@given(world=worlds(placed=True), data=st.data())
def test_a_batch_equals_its_samples_one_by_one_in_any_order(backend, world, data) -> None:
    model = model_of(world.schema)
    order = data.draw(st.permutations(range(len(world.samples))))
    moved = World(world.schema, [world.samples[i] for i in order])
    together, shuffled = run(model, world.samples, backend), run(model, moved.samples, backend)
    assert together.z.shape == (len(world.samples), 6)
    assert together.sample.tolist() == list(range(len(world.samples)))
    for place, i in enumerate(order):
        alone = World(world.schema, [world.samples[i]])
        expected = rows(run(model, alone.samples, backend), alone, 0)
        same(rows(together, world, i), expected)
        same(rows(shuffled, moved, place), expected)


@settings(max_examples=30, deadline=None)
@given(world=worlds(placed=True))
def test_z_and_all_gradients_are_finite_and_the_alphas_are_shares_of_what_is_there(world) -> None:
    model = model_of(world.schema, dropout=0.3).train()
    out = run(model, world.samples)
    out.z.square().sum().backward()
    assert bool(out.z.isfinite().all())
    assert all(bool(value.isfinite().all()) for value in out.nodes.values())
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)
    alpha = torch.stack(list(out.weights.values()))
    assert bool((alpha >= 0).all())
    close(alpha.sum(0), torch.ones_like(alpha[0]), 1e-12)
    mixed = sum(out.weights[name][:, None] * out.parts[name] for name in out.weights)
    close(out.z, mixed, 1e-12)
    for name in world.schema.nodes:
        for i, sample in enumerate(world.samples):
            if name not in sample.nodes or not len(sample.nodes[name]["x"]):
                assert out.weights[name].tolist()[i] == 0.0


def permuted(sample: Sample, rng: np.random.Generator) -> tuple[Sample, dict[str, Tensor]]:
    """The sample with the nodes of every type shuffled: row ``n`` is the old row ``order[n]``."""
    order = {n: torch.from_numpy(rng.permutation(len(v["x"]))) for n, v in sample.nodes.items()}
    nodes = {n: {f: value[order[n]] for f, value in v.items()} for n, v in sample.nodes.items()}
    edges = {}
    for key, given_edges in sample.edges.items():
        new = dict(given_edges)
        back = {end: order[end].argsort() for end in (key[0], key[2])}
        src, dst = given_edges["index"]
        new["index"] = torch.stack([back[key[0]][src], back[key[2]][dst]])
        edges[key] = new
    return Sample(id=sample.id, nodes=nodes, edges=edges), order


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=30, deadline=None)
@given(world=worlds(ORDER_FREE, placed=True), seed=st.integers(0, 2**32 - 1))
def test_permuting_the_nodes_permutes_their_states_and_leaves_z(backend, world, seed) -> None:
    model = model_of(world.schema)
    rng = np.random.default_rng(seed)
    shuffled, orders = zip(*(permuted(sample, rng) for sample in world.samples), strict=True)
    moved = World(world.schema, list(shuffled))
    before, after = run(model, world.samples, backend), run(model, moved.samples, backend)
    for i, order in enumerate(orders):
        expected = rows(before, world, i)
        for name, index in order.items():
            expected[f"nodes {name}"] = expected[f"nodes {name}"][index]
        same(rows(after, moved, i), expected)


def copy_weights(wide: Fusion, narrow: Fusion) -> None:
    """Give the model of an extended schema the weights of the model it extends.

    New types come last, so whatever is stacked by type keeps its first rows and new members of lists keep
    their own start values. Lists over relations or features are in the order of the edge types too.
    """
    old = narrow.state_dict()
    state = wide.state_dict()
    for name, value in old.items():
        part = state[name]
        if part.shape == value.shape:
            state[name] = value
        else:
            assert part.shape[1:] == value.shape[1:]
            state[name] = torch.cat([value, part[len(value) :]])
    wide.load_state_dict(state)


@settings(max_examples=40, deadline=None)
@given(world=worlds(), data=st.data())
def test_declaring_a_node_type_that_no_sample_has_changes_nothing(world, data) -> None:
    ends = st.sampled_from(["new", *world.schema.nodes])
    kinds = st.sampled_from(KINDS)
    drawn = data.draw(st.lists(st.tuples(ends, kinds, st.booleans()), max_size=5))
    extra = [
        edge_type(kind, "new", f"n{i}", end) if sends else edge_type(kind, end, f"n{i}", "new")
        for i, (end, kind, sends) in enumerate(drawn)
    ]
    narrow = model_of(world.schema)
    wide = model_of(world.schema.extend(NodeType("new", 2), *extra))
    copy_weights(wide, narrow)
    before, after = run(narrow, world.samples), run(wide, world.samples)
    for i in range(len(world.samples)):
        same(rows(after, world, i), rows(before, world, i), 1e-12)
    assert after.weights["new"].tolist() == [0.0] * len(world.samples)


@settings(max_examples=30, deadline=None)
@given(world=worlds(), data=st.data())
def test_a_missing_modality_equals_taking_its_nodes_out(world, data) -> None:
    gone = data.draw(st.sampled_from(list(world.schema.nodes)))
    model = model_of(world.schema)
    kept = [without(s, gone) for s in world.samples]
    kept = [s for s in kept if any(len(v["x"]) for v in s.nodes.values())]
    if not kept:
        return
    emptied = []
    for sample in kept:
        empty = {gone: np.zeros((0, world.schema.nodes[gone].dim))}
        emptied.append(Sample(id=sample.id, nodes={**sample.nodes, **empty}, edges=sample.edges))
    same({"z": run(model, emptied).z}, {"z": run(model, kept).z}, 1e-12)
    assert all(run(model, kept).weights[gone] == 0)


def grouped(counts: dict[str, list[list[int]]], rng: np.random.Generator) -> list[Sample]:
    """Samples of a conversation: type -> group number of every node, sample by sample."""
    samples = []
    for i in range(len(next(iter(counts.values())))):
        nodes = {
            name: {"x": rng.standard_normal((len(groups[i]), 2)), "group": np.array(groups[i], dtype=np.int64)}
            for name, groups in counts.items()
            if groups[i]
        }
        samples.append(Sample(id=f"talk {i}", nodes=nodes))
    return samples


TALKS = {"word": [[0, 0, 1, 2], [], [1, 0]], "face": [[1, 2, 2], [0, 1], []]}


def conversation(*edges: EdgeType) -> Schema:
    fields = {"group": 0}
    return Schema([NodeType("word", 2, fields=fields), NodeType("face", 2, fields=fields)], edges)


def test_z_per_group_equals_one_sample_per_group_where_no_edge_crosses_groups() -> None:
    same_group = rules.same()
    schema = conversation(
        EdgeType("word", "with", "face", rule=same_group), EdgeType("face", "with", "word", rule=same_group)
    )
    model = model_of(schema, group="group")
    samples = grouped(TALKS, np.random.default_rng(0))
    out = run(model, samples)
    assert out.sample.tolist() == [0, 0, 0, 1, 1, 2, 2]
    alone, place = [], []
    for i, sample in enumerate(samples):
        for g in sorted({int(v) for values in sample.nodes.values() for v in values["group"]}):
            nodes = {}
            for name, values in sample.nodes.items():
                keep = values["group"] == g
                if bool(keep.any()):
                    nodes[name] = {"x": values["x"][keep], "group": torch.zeros(int(keep.sum()), dtype=torch.long)}
            alone.append(Sample(nodes=nodes))
            place.append(i)
    assert place == out.sample.tolist()
    one_by_one = torch.cat([run(model, [sample]).z for sample in alone])
    close(out.z, one_by_one, 1e-10)
    per_sample = model_of(schema)
    close(out.z, run(per_sample, alone).z, 1e-10)


def test_groups_of_a_batch_equal_those_of_its_samples_with_edges_across_groups() -> None:
    schema = conversation(EdgeType("word", "to", "face"), EdgeType("word", "next", "word", rule=rules.following))
    model = model_of(schema, group="group")
    samples = grouped(TALKS, np.random.default_rng(1))
    together = run(model, samples)
    close(together.z, torch.cat([run(model, [sample]).z for sample in samples]), 1e-10)
    assert len(together.z) == 7
    alpha = torch.stack(list(together.weights.values()))
    close(alpha.sum(0), torch.ones(7, dtype=torch.float64), 1e-12)


def test_groups_stay_countable_where_a_type_with_the_field_is_absent_from_all_samples() -> None:
    model = model_of(conversation(), group="group")
    samples = grouped({"word": [[0, 1], [0]]}, np.random.default_rng(0))
    assert run(model, samples).z.shape == (3, 6)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"word": [[0, 2]]}, r"sample 'talk 0': .*0 \.\. n-1"),
        ({"word": [[0], [-1, 0]]}, "sample 'talk 1': .*negative"),
    ],
)
def test_group_numbers_with_gaps_or_below_zero_are_refused(counts, message) -> None:
    with pytest.raises(HetgraphError, match=message):
        run(model_of(conversation(), group="group"), grouped(counts, np.random.default_rng(0)))


def test_a_group_field_that_no_type_has_is_refused_by_name() -> None:
    schema = Schema([NodeType("word", 2)])
    with pytest.raises(HetgraphError, match="no node type has the field 'utterance'"):
        run(model_of(schema, group="utterance"), [Sample(word=[[1.0, 2.0]])])


def test_attention_lists_a_weight_per_edge_head_and_layer_that_sums_to_one() -> None:
    rng = np.random.default_rng(2)
    schema = Schema([NodeType("a", 2), NodeType("b", 1)], [edge_type(kind, "a", kind, "b") for kind in KINDS])
    world = World(schema, [random_sample(schema, row, rng, str(row)) for row in [(3, 2), (0, 1), (2, 0)]])
    model = model_of(schema, layers=3)
    graph = world.graph()
    found = model.attention(graph)
    assert len(found) == 3
    for weights in found:
        assert set(weights) == set(schema.edges)
        total = torch.zeros(3, 2, dtype=torch.float64)
        for key, value in weights.items():
            assert value.shape == (len(graph.edges[key]), 2)
            total.index_add_(0, graph.edge_index[key][1], value.detach())
        close(total, torch.tensor([1.0, 1.0, 0.0])[:, None].expand(-1, 2).double(), 1e-12)


def test_unknown_method_schema_or_heads_are_refused() -> None:
    schema = Schema([NodeType("a", 1)])
    with pytest.raises(HetgraphError, match=r"unknown fusion method 'magic'; known: .*graph"):
        Fusion(schema, method="magic")
    with pytest.raises(HetgraphError, match="schema must be a Schema, got dict"):
        Fusion({"a": 1})
    with pytest.raises(HetgraphError, match="multiple of heads, got width 10 and 4 heads"):
        Fusion(schema, width=10, heads=4)


def test_a_graph_of_another_schema_is_refused_by_the_name_of_what_differs() -> None:
    schema = Schema([NodeType("a", 1)], [EdgeType("a", "near", "a", rule=rules.nearest(3))])
    model = Fusion(schema, width=8)
    other = Schema([NodeType("a", 2)], [EdgeType("a", "near", "a", rule=rules.nearest(4))])
    sample = Sample(a=[[1.0, 2.0]])
    with pytest.raises(HetgraphError, match=r"another schema than the model: .*node type 'a'"):
        model(GraphBuilder(Schema([NodeType("a", 2)]))([sample]))
    with pytest.raises(HetgraphError, match=r"'k': 4.*expected.*'k': 3"):
        model(GraphBuilder(Schema([NodeType("a", 1, optional={"pos": 2})], other.edges.values()))([Sample(a=[[1.0]])]))


def test_an_equal_schema_made_anew_is_taken() -> None:
    def schema() -> Schema:
        return Schema([NodeType("a", 1)], [EdgeType("a", "next", "a", rule=rules.window(2))])

    model = Fusion(schema(), width=8)
    assert model(GraphBuilder(schema())([Sample(a=[[1.0]])])).z.shape == (1, 8)


def test_standardize_makes_z_independent_of_the_unit_of_the_features() -> None:
    schema = Schema([NodeType("a", 2)], [EdgeType("a", "to", "a")])
    x = np.random.default_rng(0).standard_normal((5, 2))
    in_metres, in_feet = World(schema, [Sample(a=x)]).graph(), World(schema, [Sample(a=x * 3.28 + 7)]).graph()
    model = model_of(schema)
    model.standardize([in_metres])
    z = model(in_metres).z
    model.standardize([in_feet])
    close(model(in_feet).z, z, 1e-6)


def test_zero_layers_read_out_the_projection() -> None:
    schema = Schema([NodeType("a", 2)], [EdgeType("a", "to", "a")])
    out = run(model_of(schema, layers=0), [Sample(a=[[1.0, 2.0]])])
    assert bool(out.z.isfinite().all())


def test_shared_layers_are_one_block_run_several_times() -> None:
    schema = image_text_audio(region=6, token=5, frame=4)
    sample = Sample(region={"x": torch.randn(4, 6), "box": torch.rand(4, 4)}, token=torch.randn(3, 5))
    graph = GraphBuilder(schema)([sample])
    one = Fusion(schema, 8, layers=3, heads=2, shared=True)
    three = Fusion(schema, 8, layers=3, heads=2)
    assert sum(".blocks." in name and ".blocks.0." not in name for name in one.state_dict()) == 0
    weights = one.state_dict()
    three.load_state_dict(
        {name: weights[re.sub(r"\.blocks\.\d+\.", ".blocks.0.", name)] for name in three.state_dict()}
    )
    torch.testing.assert_close(one(graph).z, three(graph).z)
    assert len(one.attention(graph)) == 3
