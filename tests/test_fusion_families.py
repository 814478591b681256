"""Every family: its equations, batching, missing modalities, groups, options, saving.

The equations are those of :mod:`fusion_reference`, written out node by node.
"""

from __future__ import annotations

import json
from itertools import chain, combinations

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from fusion_reference import FAMILIES, reference
from graphs import ORDER_FREE, World, close, scalar, worlds
from hypothesis import given, settings
from hypothesis import strategies as st
from test_fusion import TALKS, conversation, grouped, model_of, permuted, rows, run, same
from torch import Tensor

from hetgraph import EdgeType, Fusion, GraphBuilder, HetgraphError, NodeType, Sample, Schema, rules
from hetgraph.fusion import METHODS
from hetgraph.training import without

SUMS = ("graph", "sum", "attention", "self_attention", "coattention", "late")
"""Methods whose weights are the alphas of ``Z = sum_k alpha_k X_k``."""
VARIANTS = {name: {"method": name} for name in METHODS} | {
    "guided": {"method": "coattention", "coattention": "guided"},
    "lstm": {"method": "attention", "temporal": "lstm"},
    "gru": {"method": "graph", "temporal": "gru"},
    "shared": {"method": "cross_attention", "shared": True},
    "fallback": {"method": "graph", "fallback": "gated"},
}
THREE = Schema(
    [NodeType("image", 3), NodeType("text", 2), NodeType("sound", 4)],
    [
        EdgeType("image", "to", "text"),
        EdgeType("text", "to", "sound"),
        EdgeType("text", "next", "text", rule=rules.following),
    ],
)

every_variant = pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
every_method = pytest.mark.parametrize("method", METHODS)
some = settings(max_examples=5, deadline=None)


def present(sample: Sample, name: str) -> bool:
    return name in sample.nodes and len(sample.nodes[name]["x"]) > 0


def subsets(schema: Schema, seed: int = 0) -> list[Sample]:
    """A sample for every non-empty subset of the types."""
    rng = np.random.default_rng(seed)
    names = list(schema.nodes)
    chosen = chain.from_iterable(combinations(names, n) for n in range(1, len(names) + 1))
    return [
        Sample(
            id="+".join(some),
            nodes={n: {"x": rng.standard_normal((int(rng.integers(1, 4)), schema.nodes[n].dim))} for n in some},
        )
        for some in chosen
    ]


def test_the_eleven_methods_are_there_and_graph_comes_first_and_is_the_default() -> None:
    assert list(METHODS) == [
        "graph",
        "concat",
        "sum",
        "gated",
        "tensor",
        "attention",
        "self_attention",
        "cross_attention",
        "coattention",
        "adversarial",
        "late",
    ]
    assert isinstance(Fusion(THREE, 8).network, METHODS["graph"])
    assert set(FAMILIES) == set(METHODS) - {"graph"} | {"guided"}


@pytest.mark.parametrize("options", [{}, {"layers": 0}, {"layers": 3, "shared": True}], ids=str)
@pytest.mark.parametrize("method", FAMILIES)
@settings(max_examples=4, deadline=None)
@given(world=worlds(max_samples=3, max_nodes=3))
def test_a_family_computes_its_equations(method, options, world) -> None:
    if method == "guided":
        options = {**options, "method": "coattention", "coattention": "guided"}
    else:
        options = {**options, "method": method}
    if options.get("layers") == 0 and method == "cross_attention":
        options["layers"] = 1  # its last block has no place in the reference without layers
    model = model_of(world.schema, **options)
    with torch.no_grad():
        out = run(model, world.samples)
        for b, sample in enumerate(world.samples):
            z, weights, parts = reference(model, sample)
            close(out.z[b], z, 1e-9)
            for i, name in enumerate(world.schema.nodes):
                close(out.weights[name][b], weights.get(i, torch.zeros(()).double()), 1e-9)
                close(out.parts[name][b], parts.get(i, torch.zeros(6).double()), 1e-9)


@every_variant
@some
@given(world=worlds(placed=True), data=st.data())
def test_a_batch_equals_its_samples_one_by_one_in_any_order(options, world, data) -> None:
    model = model_of(world.schema, **options)
    order = data.draw(st.permutations(range(len(world.samples))))
    moved = World(world.schema, [world.samples[i] for i in order])
    with torch.no_grad():
        together, shuffled = run(model, world.samples), run(model, moved.samples)
        for place, i in enumerate(order):
            alone = World(world.schema, [world.samples[i]])
            expected = rows(run(model, alone.samples), alone, 0)
            same(rows(together, world, i), expected)
            same(rows(shuffled, moved, place), expected)


@every_variant
def test_a_sample_with_long_sequences_of_large_numbers_beside_it_changes_nothing(options) -> None:
    model = model_of(THREE, **options)
    samples = subsets(THREE)
    long = Sample(image=np.full((9, 3), 1e3), text=np.full((17, 2), -1e3), sound=np.full((6, 4), 1e3))
    before, after = run(model, samples), run(model, [samples[0], long, *samples[1:]])
    kept = [0, *range(2, len(samples) + 1)]
    close(after.z[kept], before.z, 1e-9)
    for name in THREE.nodes:
        close(after.weights[name][kept], before.weights[name], 1e-9)
        close(after.parts[name][kept], before.parts[name], 1e-9)


@every_variant
@some
@given(world=worlds(placed=True))
def test_weights_are_shares_of_what_is_there_and_everything_is_finite(options, world) -> None:
    model = model_of(world.schema, dropout=0.3, **options).train()
    out = run(model, world.samples)
    (scalar({"z": out.z}) + sum(out.losses.values())).backward()
    values = [out.z, *out.nodes.values(), *out.parts.values(), *out.losses.values()]
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(bool(v.isfinite().all()) for v in [*values, *grads])
    weights = torch.stack(list(out.weights.values()))
    assert bool((weights >= 0).all())
    close(weights.sum(0), torch.ones_like(weights[0]), 1e-12)
    for name in world.schema.nodes:
        for i, sample in enumerate(world.samples):
            assert (out.weights[name][i] > 0) == present(sample, name)
            assert bool((out.parts[name][i] == 0).all()) or present(sample, name)
    if options["method"] in SUMS and "fallback" not in options:
        close(out.z, sum(out.weights[n][:, None] * out.parts[n] for n in out.weights), 1e-12)


@every_variant
@some
@given(world=worlds(), data=st.data())
def test_a_missing_modality_equals_taking_its_nodes_out(options, world, data) -> None:
    gone = data.draw(st.sampled_from(list(world.schema.nodes)))
    model = model_of(world.schema, **options)
    kept = [s for s in (without(s, gone) for s in world.samples) if any(present(s, n) for n in s.nodes)]
    if not kept:
        return
    empty = {gone: {"x": np.zeros((0, world.schema.nodes[gone].dim))}}
    emptied = [Sample(id=s.id, nodes={**s.nodes, **empty}, edges=s.edges) for s in kept]
    found, expected = run(model, emptied), run(model, kept)
    same({"z": found.z, **found.weights}, {"z": expected.z, **expected.weights}, 1e-12)
    assert bool((expected.weights[gone] == 0).all())


@every_variant
def test_gradients_reach_every_modality_that_is_present_and_none_that_is_absent(options) -> None:
    samples = subsets(THREE)
    for chosen in [*([s] for s in samples), samples]:
        model = model_of(THREE, **options)
        out = run(model, chosen)
        assert bool(out.z.isfinite().all())
        scalar({"z": out.z}).backward()
        networks = [model.network] if model.fallback is None else [model.network, model.fallback]
        for i, name in enumerate(THREE.nodes):
            grads = [network.project.features[i].weight.grad for network in networks]
            reached = any(g is not None and bool((g != 0).any()) for g in grads)
            assert reached == any(present(s, name) for s in chosen), (name, [s.id for s in chosen])


@every_variant
def test_in_a_batch_of_mixed_subsets_every_node_has_a_gradient(options) -> None:
    model = model_of(THREE, **options)
    graph = GraphBuilder(THREE, torch.float64)(subsets(THREE))
    for x in graph.x.values():
        x.requires_grad_(True)
    scalar({"z": model(graph).z}).backward()
    assert all(bool((x.grad != 0).any(1).all()) for x in graph.x.values())


def widened(wide: Fusion, narrow: Fusion) -> None:
    """Give the model of an extended schema the weights of the model it extends; new types keep their start values."""
    state = wide.state_dict()
    for name, value in narrow.state_dict().items():
        state[name][tuple(slice(0, n) for n in value.shape)] = value


@every_variant
@some
@given(world=worlds())
def test_a_node_type_that_no_sample_has_changes_no_weight(options, world) -> None:
    narrow = model_of(world.schema, **options)
    schema = world.schema.extend(NodeType("new", 2), EdgeType("new", "to", next(iter(world.schema.nodes))))
    wide = Fusion(schema, width=6, layers=2, heads=2, **options).double().eval()
    widened(wide, narrow)
    before, after = run(narrow, world.samples), run(wide, world.samples)
    for name in world.schema.nodes:
        close(after.weights[name], before.weights[name], 1e-9)
        close(after.parts[name], before.parts[name], 1e-9)
    assert bool((after.weights["new"] == 0).all())
    if options["method"] != "adversarial":  # there it is imagined
        close(after.z, before.z, 1e-9)


PERMUTABLE = [name for name in VARIANTS if name not in ("lstm", "gru")]


@pytest.mark.parametrize("name", PERMUTABLE)
@some
@given(world=worlds(ORDER_FREE, placed=True), seed=st.integers(0, 2**32 - 1))
def test_permuting_the_nodes_leaves_z(name, world, seed) -> None:
    model = model_of(world.schema, **VARIANTS[name])
    rng = np.random.default_rng(seed)
    moved = [permuted(sample, rng)[0] for sample in world.samples]
    close(run(model, moved).z, run(model, world.samples).z, 1e-9)


@every_variant
def test_groups_of_a_batch_equal_those_of_its_samples(options) -> None:
    schema = conversation(EdgeType("word", "to", "face"), EdgeType("word", "next", "word", rule=rules.following))
    model = model_of(schema, group="group", **options)
    samples = grouped(TALKS, np.random.default_rng(1))
    out = run(model, samples)
    assert out.sample.tolist() == [0, 0, 0, 1, 1, 2, 2]
    close(out.z, torch.cat([run(model, [sample]).z for sample in samples]), 1e-10)
    there = {"word": [1, 1, 1, 0, 0, 1, 1], "face": [0, 1, 1, 1, 1, 0, 0]}
    for name, rows_with in there.items():
        assert (out.weights[name] > 0).int().tolist() == rows_with
    close(sum(out.weights.values()), torch.ones(7, dtype=torch.float64), 1e-12)


@every_variant
def test_one_group_per_sample_equals_no_groups(options) -> None:
    schema = conversation(EdgeType("word", "to", "face"))
    one = {name: [[0] * len(groups) for groups in talks] for name, talks in TALKS.items()}
    samples = grouped(one, np.random.default_rng(2))
    plain = model_of(schema, **options)
    by_group = model_of(schema, group="group", **options)
    same({"z": run(by_group, samples).z}, {"z": run(plain, samples).z}, 1e-12)


@every_variant
def test_a_type_without_the_group_field_is_absent_from_all_groups_but_heard_by_attention(options) -> None:
    schema = Schema([NodeType("word", 2, fields={"group": 0}), NodeType("fact", 2)], [EdgeType("fact", "to", "word")])
    model = model_of(schema, group="group", **options)
    x = np.random.default_rng(0).standard_normal((3, 2))
    samples = [Sample(word={"x": x, "group": np.array([0, 1, 1])}, fact=x[:k]) for k in (0, 2)]
    out = run(model, samples)
    assert out.weights["fact"].tolist() == [0.0] * 4
    hears = {"graph", "self_attention", "cross_attention", "coattention"}
    assert (not torch.allclose(out.z[:2], out.z[2:])) == (options["method"] in hears)


@every_variant
def test_a_saved_model_comes_back_bit_for_bit(options, tmp_path) -> None:
    model = Fusion(THREE, 8, layers=1, heads=2, **options).eval()
    graph = GraphBuilder(THREE)(subsets(THREE))
    model.standardize([graph])
    model.save_pretrained(tmp_path)
    again = Fusion.from_pretrained(tmp_path).eval()
    assert again.settings == model.settings
    assert torch.equal(again(graph).z, model(graph).z)


def test_a_model_saved_before_there_were_other_methods_still_loads(tmp_path) -> None:
    model = Fusion(THREE, 8, layers=1, heads=2).eval()
    model.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    with safetensors.safe_open(path, "pt") as file:
        config = json.loads(file.metadata()["hetgraph"])
    for name in ("temporal", "fallback", "coattention"):
        del config["settings"][name]
    safetensors.torch.save_file(model.state_dict(), path, {"hetgraph": json.dumps(config)})
    graph = GraphBuilder(THREE)(subsets(THREE))
    assert torch.equal(Fusion.from_pretrained(tmp_path).eval()(graph).z, model(graph).z)


@every_method
def test_standardize_makes_z_independent_of_the_unit_of_the_features(method) -> None:
    x = np.random.default_rng(0).standard_normal((5, 2))
    schema = Schema([NodeType("a", 2)], [EdgeType("a", "to", "a")])
    in_metres, in_feet = World(schema, [Sample(a=x)]).graph(), World(schema, [Sample(a=x * 3.28 + 7)]).graph()
    model = model_of(schema, method=method)
    model.standardize([in_metres])
    z = model(in_metres).z
    model.standardize([in_feet])
    close(model(in_feet).z, z, 1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "concat", "fallback": "sum"}, "'concat' needs no edges and takes no fallback"),
        ({"fallback": "graph"}, r"unknown fallback 'graph'; known: concat, .*late"),
        ({"temporal": "rnn"}, "unknown temporal encoder 'rnn'; known: lstm, gru"),
        ({"method": "coattention", "coattention": "serial"}, "unknown co-attention 'serial'; known: parallel, guided"),
        ({"method": "late", "width": 10}, "multiple of heads, got width 10 and 4 heads"),
    ],
)
def test_what_cannot_be_is_refused(options, message) -> None:
    with pytest.raises(HetgraphError, match=message):
        Fusion(THREE, **options)


@pytest.mark.parametrize("method", [m for m in METHODS if m != "graph"])
def test_only_graph_has_attention_over_edges(method) -> None:
    graph = GraphBuilder(THREE)(subsets(THREE))
    with pytest.raises(HetgraphError, match="no attention over edges"):
        Fusion(THREE, 8, method=method).attention(graph)


@every_variant
def test_half_precision_stays_close(options) -> None:
    model = Fusion(THREE, 16, layers=1, heads=2, **options).eval()
    graph = GraphBuilder(THREE)(subsets(THREE))
    with torch.no_grad():
        expected = model(graph).z
        with torch.autocast("cpu", torch.bfloat16):
            found = model(graph).z
    close(found.float(), expected, 0.05)


# ---- fallback ---------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(world=worlds())
def test_edges_are_counted_per_sample_without_listing_them(world) -> None:
    graph, listed = world.graph(), world.graph()
    for key, edges in graph.edges.items():
        sample = listed.layout[key[2]].batch[listed.edge_index[key][1]].tolist()
        assert edges.per_sample.tolist() == [sample.count(i) for i in range(len(world.samples))]


@pytest.mark.parametrize("method", ["attention", "late", "adversarial"])
@some
@given(world=worlds(min_edge_types=1))
def test_samples_without_edges_are_made_by_the_fallback_and_the_output_says_which(method, world) -> None:
    model = model_of(world.schema, fallback=method)
    out = run(model, world.samples)
    for i, sample in enumerate(world.samples):
        alone = World(world.schema, [sample])
        graph = alone.graph()
        lonely = sum(index.shape[1] for index in graph.edge_index.values()) == 0
        assert out.fallback is not None
        assert bool(out.fallback[i]) == lonely
        expected = (model.fallback if lonely else model.network)(graph)
        same(rows(out, world, i), rows(expected, alone, 0))


def test_without_a_fallback_the_output_says_nothing_about_one() -> None:
    out = run(model_of(THREE), subsets(THREE))
    assert out.fallback is None
    assert bool(out.z.isfinite().all())


def test_groups_of_a_talk_without_edges_all_come_from_the_fallback() -> None:
    schema = conversation(EdgeType("word", "to", "face"))
    out = run(model_of(schema, group="group", fallback="concat"), grouped(TALKS, np.random.default_rng(0)))
    assert out.fallback is not None
    assert out.fallback.tolist() == [False] * 3 + [True] * 4


def test_standardize_reaches_the_fallback() -> None:
    model = model_of(THREE, fallback="sum")
    model.standardize([GraphBuilder(THREE, torch.float64)(subsets(THREE))])
    assert model.fallback is not None
    for i in range(3):
        scale = model.network.project.get_buffer(f"scale_{i}")
        assert bool((scale[0] != 0).all())
        assert torch.equal(model.fallback.project.get_buffer(f"scale_{i}"), scale)


# ---- temporal ---------------------------------------------------------------------------------------------------


def recurrence(cell: torch.nn.Module, direction: str, x: Tensor) -> Tensor:
    """A recurrent network written out, ``[N, D] -> [N, half]``."""
    w, u = getattr(cell, f"weight_ih_l0{direction}"), getattr(cell, f"weight_hh_l0{direction}")
    b, c = getattr(cell, f"bias_ih_l0{direction}"), getattr(cell, f"bias_hh_l0{direction}")
    half = cell.hidden_size
    h = memory = x.new_zeros(half)
    out = {}
    order = range(len(x)) if not direction else reversed(range(len(x)))
    for n in order:
        a, r = w @ x[n] + b, u @ h + c
        if isinstance(cell, torch.nn.LSTM):
            i, f, g, o = (a + r).split(half)
            memory = torch.sigmoid(f) * memory + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(memory)
        else:
            (ar, az, an), (rr, rz, rn) = a.split(half), r.split(half)
            reset, keep = torch.sigmoid(ar + rr), torch.sigmoid(az + rz)
            h = (1 - keep) * torch.tanh(an + reset * rn) + keep * h
        out[n] = h
    return torch.stack([out[n] for n in range(len(x))])


@pytest.mark.parametrize("timed", [True, False])
@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_the_temporal_encoder_runs_both_ways_in_the_order_of_time(kind, timed) -> None:
    fields = {"time": 2} if timed else {}
    schema = Schema([NodeType("frame", 3, fields=fields), NodeType("absent", 1)])
    model = model_of(schema, temporal=kind, method="sum", positions=())
    rng = np.random.default_rng(0)
    starts = [[0.0, 1.0, 2.0], [5.0], [3.0, 1.0, 2.0, 0.0]]
    samples = [
        Sample(
            frame={"x": rng.standard_normal((len(s), 3))}
            | ({"time": np.array([[t, t + 1] for t in s])} if timed else {})
        )
        for s in starts
    ]
    graph = GraphBuilder(schema, torch.float64)(samples)
    found = model.network.inputs(graph)["frame"].split([len(s) for s in starts])
    encoder = model.network.temporal
    for sample, start, state in zip(samples, starts, found, strict=True):
        x = model.network.project.features[0](torch.as_tensor(sample.nodes["frame"]["x"]))
        order = sorted(range(len(start)), key=lambda i: start[i]) if timed else list(range(len(start)))
        both = [recurrence(encoder.recurrent[0], way, x[order]) for way in ("", "_reverse")]
        heard = torch.cat(both, 1) @ encoder.join[0].weight.T + encoder.join[0].bias
        expected = x.clone()
        expected[order] = expected[order] + heard
        close(state, expected, 1e-10)
