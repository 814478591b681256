"""From links to nodes: what is added to a sample, and that nothing is where nothing is linked."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from torch import nn

from hetgraph import EdgeType, Fusion, GraphBuilder, HetgraphError, NodeType, Sample, Schema
from hetgraph.builders import conversation, image_text, image_text_audio, with_knowledge
from hetgraph.encoders import HashWords
from hetgraph.fusion import METHODS
from hetgraph.kg import (
    AliasLinker,
    KHopRetriever,
    Knowledge,
    KnowledgeGraph,
    Link,
    PPRRetriever,
    RegionLinker,
    load_kg,
)

TURTLE = b"""
@prefix : <u:> . @prefix rdfs: <http://www.w3.org/2000/01/rdf-schema#> .
:cat rdfs:label "cat" ; :chases :mouse ; :is :animal . :mouse rdfs:label "house mouse", "mouse" ; :is :animal .
:mouse :eats :cheese . :dog rdfs:label "dog" ; :chases :cat ; :is :animal . :animal rdfs:label "animal" .
:cheese rdfs:label " " . :moon :near :sun .
"""
TEXT = "The cat, a house mouse and the moon"
FACT = ("entity", "fact", "entity")


@pytest.fixture(scope="module")
def kg() -> KnowledgeGraph:
    return load_kg(TURTLE, format="ttl")


def sample_of(text: str = TEXT, regions: int = 3) -> Sample:
    generator = torch.Generator().manual_seed(len(text))
    x = torch.rand(regions, 6, generator=generator)
    box = torch.rand(regions, 4, generator=generator)
    return Sample(id="s", target=1, token=HashWords(8)([text])[0], region={"x": x, "box": box})


SCHEMA = image_text(region=6, token=8)


def names_of(kg: KnowledgeGraph, sample: Sample) -> list[str]:
    return [kg.entities[i].removeprefix("u:") for i in sample.nodes["entity"]["id"].tolist()]


def test_the_words_of_a_sample_and_the_facts_around_them_become_nodes_and_edges(kg) -> None:
    knowledge = Knowledge(SCHEMA, kg, HashWords(16), retriever=KHopRetriever(hops=1, max_nodes=9))
    before = sample_of()
    links = AliasLinker(kg).link(TEXT) + RegionLinker(AliasLinker(kg)).link(["dog", "tree", "cat"], [0.5, 1.0, 0.25])
    sample = knowledge(before, links)
    assert (sample.id, sample.target, set(before.nodes), before.edges) == ("s", 1, {"token", "region"}, {})
    names = names_of(kg, sample)
    assert set(names) == {"cat", "mouse", "dog", "animal", "cheese"}
    assert names[:3] == ["cat", "mouse", "dog"]  # seeds, the surest first

    words = TEXT.split()
    expected = {(1, "cat"): 1.0, (4, "mouse"): 1.0, (5, "mouse"): 1.0}
    assert words[1].startswith("cat")
    mentions = sample.edges["token", "mentions", "entity"]
    found = {
        (i, names[j]): s for (i, j), s in zip(mentions["index"].T.tolist(), mentions["score"].tolist(), strict=True)
    }
    assert found == expected
    depicts = sample.edges["region", "depicts", "entity"]
    shown = {(i, names[j]): s for (i, j), s in zip(depicts["index"].T.tolist(), depicts["score"].tolist(), strict=True)}
    assert shown == {(0, "dog"): 0.5, (2, "cat"): 0.25}
    for key, back in ((("token", "mentions", "entity"), "mentioned"), (("region", "depicts", "entity"), "depicted")):
        inverse = sample.edges["entity", back, key[0]]
        assert torch.equal(inverse["index"], sample.edges[key]["index"].flip(0))
        assert torch.equal(inverse["score"], sample.edges[key]["score"])

    relations = knowledge.schema.edges[FACT].relations
    facts = sample.edges[FACT]
    said = {
        (names[h], relations[r], names[t])
        for (h, t), r in zip(facts["index"].T.tolist(), facts["relation"], strict=True)
    }
    true = {(h[2:], r, t[2:]) for h, r, t in kg.arcs() if h[2:] in names and t[2:] in names}
    assert len(facts["relation"]) == len(said)
    assert said == true | {(t, f"^{r}", h) for h, r, t in true}

    label = {"mouse": "house mouse", "cheese": "u:cheese"}
    for name, x in zip(names, sample.nodes["entity"]["x"], strict=True):
        assert torch.allclose(x, HashWords(16)([label.get(name, name)])[0]["x"].mean(0))
    graph = GraphBuilder(knowledge.schema)([sample, before])
    assert graph.counts["entity"].tolist() == [5, 0]
    assert torch.equal(graph.fields["entity"]["id"], sample.nodes["entity"]["id"])


def test_features_may_be_any_matrix_and_relations_any_choice(kg) -> None:
    table = np.random.default_rng(0).normal(size=(kg.num_entities, 5))
    knowledge = Knowledge(SCHEMA, kg, table, relations=["u:is", "u:chases"], inverse=False)
    assert knowledge.schema.edges[FACT].relations == ("u:is", "u:chases")
    sample = knowledge(sample_of(), AliasLinker(kg).link(TEXT))
    names = names_of(kg, sample)
    assert torch.equal(sample.nodes["entity"]["x"], torch.from_numpy(table).float()[sample.nodes["entity"]["id"]])
    facts = sample.edges[FACT]
    said = {
        (names[h], ["is", "chases"][r], names[t])
        for (h, t), r in zip(facts["index"].T.tolist(), facts["relation"], strict=True)
    }
    assert said == {(h[2:], r[2:], t[2:]) for h, r, t in kg.arcs() if r in ("u:is", "u:chases")}
    assert "cheese" in names  # it is a node, without the relation that led to it
    none = Knowledge(SCHEMA, kg, table, relations=["u:near"])(sample_of(), AliasLinker(kg).link("cat"))
    assert set(none.edges) == {("token", "mentions", "entity"), ("entity", "mentioned", "token")}


@pytest.mark.parametrize("features", [None, HashWords(4), np.eye(7)])
def test_it_can_be_sent_to_the_workers_of_a_loader(kg, features) -> None:
    assert kg.num_entities == 7
    knowledge = Knowledge(SCHEMA, kg, features, context="token")
    again = pickle.loads(pickle.dumps(knowledge))
    links = AliasLinker(kg).link(TEXT)
    one, other = (GraphBuilder(made.schema)([made(sample_of(), links)]) for made in (knowledge, again))
    assert again.schema == knowledge.schema
    assert all(torch.equal(one.x[name], other.x[name]) for name in one.x)
    assert all(torch.equal(one.edge_index[key], other.edge_index[key]) for key in one.edges)


def test_only_so_many_seeds_the_best_ones(kg) -> None:
    knowledge = Knowledge(SCHEMA, kg, seeds=2, retriever=PPRRetriever(max_nodes=2))
    cat, dog, mouse = (kg.entities.index(f"u:{name}") for name in ("cat", "dog", "mouse"))
    links = [Link(e, s, "x", "region", (0, 1)) for e, s in ((cat, 0.2), (dog, 0.9), (mouse, 0.5), (dog, 0.3))]
    sample = knowledge(sample_of(), links)
    assert names_of(kg, sample) == ["dog", "mouse"]
    assert sample.edges["region", "depicts", "entity"]["index"].tolist() == [[0, 0], [0, 1]]
    assert sample.edges["region", "depicts", "entity"]["score"].tolist() == pytest.approx([0.9, 0.5])
    assert sample.nodes["entity"]["x"].tolist() == [[0.0], [0.0]]


def test_a_context_node_is_joined_to_all_entities(kg) -> None:
    knowledge = Knowledge(SCHEMA, kg, HashWords(4), context="token")
    linked, bare = sample_of(), sample_of("no animals of any kind here")
    without = Sample(id="r", region=linked.nodes["region"])
    links = AliasLinker(kg).link(TEXT)
    samples = [
        knowledge(linked, links),
        knowledge(bare, []),
        knowledge(without, RegionLinker(AliasLinker(kg)).link(["cat"])),
    ]
    assert torch.equal(samples[0].nodes["context"]["x"], linked.nodes["token"]["x"].mean(0, keepdim=True))
    assert samples[1] is bare
    graph = GraphBuilder(knowledge.schema)(samples)
    assert graph.counts["context"].tolist() == [1, 0, 0]
    count = int(graph.counts["entity"][0])
    assert graph.edge_index["context", "with", "entity"].tolist() == [[0] * count, list(range(count))]
    assert graph.edge_index["entity", "with", "context"].tolist() == [list(range(count)), [0] * count]


def test_words_that_carry_no_spans_are_found_by_their_numbers(kg) -> None:
    words = TEXT.replace(",", "").split()
    sample = Sample(token=torch.rand(len(words), 8))
    made = Knowledge(SCHEMA, kg)(sample, AliasLinker(kg).link_words(words))
    names = names_of(kg, made)
    pairs = made.edges["token", "mentions", "entity"]["index"].T.tolist()
    assert {(words[i], names[j]) for i, j in pairs} == {("cat", "cat"), ("house", "mouse"), ("mouse", "mouse")}


@pytest.mark.parametrize(
    ("links", "said"),
    [
        ([Link(0, 1.0, "x", "frame", (0, 1))], "'frame', of which there are none"),
        ([Link(0, 1.0, "x", "region", (2, 4))], "'region' 2 .. 3; there are 3"),
        ([Link(0, 1.0, "x", "region", (1, 1))], "'region' 1 .. 0"),
        ([Link(99, 1.0, "x", "region", (0, 1))], "99 is not one of"),
    ],
)
def test_links_that_lead_nowhere_are_named(kg, links, said) -> None:
    with pytest.raises(HetgraphError, match=said.replace("..", r"\.\.")):
        Knowledge(SCHEMA, kg)(sample_of(), links)


def test_what_does_not_fit_is_refused(kg) -> None:
    for wrong in (np.zeros((2, 3)), np.zeros(kg.num_entities)):
        with pytest.raises(HetgraphError, match=f"features must be .{kg.num_entities}, dim"):
            Knowledge(SCHEMA, kg, wrong)
    with pytest.raises(HetgraphError, match="seeds"):
        Knowledge(SCHEMA, kg, seeds=0)
    knowledge = Knowledge(SCHEMA, kg, mentions=["token"], depicts=[])
    with pytest.raises(HetgraphError, match="sample 's': nodes of type 'region' neither mention nor depict"):
        knowledge(sample_of(), [Link(0, 1.0, "x", "region", (0, 1))])
    once = knowledge(sample_of(), [Link(0, 1.0, "x", "token", (0, 1), (0, 3))])
    with pytest.raises(HetgraphError, match="entities already"):
        knowledge(once, [Link(0, 1.0, "x", "token", (0, 1), (0, 3))])
    for options in (
        {"relations": ["u:none"]},
        {"mentions": ["word"]},
        {"depicts": ["token"]},
        {"context": "word"},
    ):
        with pytest.raises(HetgraphError):
            with_knowledge(SCHEMA, kg, **options)
    with pytest.raises(HetgraphError, match="by name"):
        with_knowledge(SCHEMA, kg, ["u:is"])
    for parts in ((), ("token",)):
        with pytest.raises(HetgraphError, match="list of names"):
            with_knowledge(SCHEMA, 4, *parts)


def test_node_types_mention_or_depict_by_what_they_are(kg) -> None:
    schema = with_knowledge(image_text_audio(region=6, token=8, frame=3), kg, dim=4)
    added = {key for key in schema.edges if "entity" in key}
    assert added == {
        FACT,
        ("token", "mentions", "entity"),
        ("entity", "mentioned", "token"),
        *((name, "depicts", "entity") for name in ("region", "frame")),
        *(("entity", "depicted", name) for name in ("region", "frame")),
    }
    assert len(schema.edges[FACT].relations) == 2 * kg.num_relations
    chosen = with_knowledge(conversation(text=2, audio=3), kg, dim=4, mentions=["text"], depicts=["audio"])
    assert {key for key in chosen.edges if key[2] == "entity"} == {
        FACT,
        ("text", "mentions", "entity"),
        ("audio", "depicts", "entity"),
    }
    bare = with_knowledge(SCHEMA, load_kg(b'<u:a> <http://www.w3.org/2000/01/rdf-schema#label> "a" .', format="nt"))
    assert FACT not in bare.edges


def test_a_graph_of_labels_alone_has_entities_without_facts() -> None:
    labels = load_kg(b'<u:a> <http://www.w3.org/2000/01/rdf-schema#label> "cat" .', format="nt")
    sample = Knowledge(SCHEMA, labels)(sample_of(), AliasLinker(labels).link(TEXT))
    assert set(sample.edges) == {("token", "mentions", "entity"), ("entity", "mentioned", "token")}


# --- without links there is no difference -------------------------------------------------------------------


def take_over(small: nn.Module, large: nn.Module) -> None:
    """Give a model the weights that a model of a larger schema has for what both have: new types come last."""
    theirs = dict(large.named_parameters()) | dict(large.named_buffers())
    with torch.no_grad():
        for name, value in [*small.named_parameters(), *small.named_buffers()]:
            value.copy_(theirs[name][tuple(slice(size) for size in value.shape)])


@pytest.mark.parametrize("context", [None, "token"])
@pytest.mark.parametrize("features", ["labels", "learned"])
@pytest.mark.parametrize("backend", ["dense", "sparse", "plain"])
def test_a_sample_without_links_has_exactly_the_z_of_no_knowledge(kg, context, features, backend) -> None:
    knowledge = Knowledge(SCHEMA, kg, HashWords(8) if features == "labels" else None, context=context)
    torch.manual_seed(0)
    large = Fusion(knowledge.schema, 16, layers=2, heads=2).eval()
    small = Fusion(SCHEMA, 16, layers=2, heads=2).eval()
    with torch.no_grad():
        for value in large.parameters():
            value.add_(0.1 * torch.randn_like(value))
    take_over(small, large)
    bare = [sample_of("nothing of interest"), sample_of("nor here", regions=5), Sample(token=torch.rand(4, 8))]
    linker = AliasLinker(kg)
    same = [knowledge(sample, linker.link("nothing")) for sample in bare]
    assert all(a is b for a, b in zip(same, bare, strict=True))
    graph = GraphBuilder(knowledge.schema)(same)
    assert graph.counts["entity"].tolist() == [0, 0, 0]
    with torch.no_grad():
        out, expected = large(graph, backend), small(GraphBuilder(SCHEMA)(bare), backend)
        assert torch.equal(out.z, expected.z)
        for name in SCHEMA.nodes:
            assert torch.equal(out.nodes[name], expected.nodes[name])
            assert torch.equal(out.weights[name], expected.weights[name])
        assert not out.weights["entity"].any()
        # beside a sample that has entities; padding may round otherwise
        linked = knowledge(sample_of(), linker.link(TEXT))
        mixed = large(GraphBuilder(knowledge.schema)([bare[0], linked, *bare[1:]]), backend)
        assert torch.allclose(mixed.z[[0, 2, 3]], expected.z, atol=1e-6)
        assert not torch.allclose(mixed.z[1], small(GraphBuilder(SCHEMA)([sample_of()]), backend).z[0], atol=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_takes_samples_with_and_without_entities(kg, method) -> None:
    knowledge = Knowledge(SCHEMA, kg, context="token")
    samples = [knowledge(sample_of(), AliasLinker(kg).link(TEXT)), sample_of("nothing")]
    torch.manual_seed(0)
    model = Fusion(knowledge.schema, 8, layers=1, heads=2, method=method).eval()
    z = model(GraphBuilder(knowledge.schema)(samples)).z
    assert z.shape == (2, 8)
    assert bool(z.isfinite().all())
    z.sum().backward()
    alone = model(GraphBuilder(knowledge.schema)(samples[1:])).z
    assert torch.allclose(z[1:], alone, atol=1e-5)


# --- learned vectors ----------------------------------------------------------------------------------------


def test_every_category_has_a_vector_of_its_own_that_is_added() -> None:
    schema = Schema([NodeType("a", 2, {"kind": 0}, {"tone": 0}, {"kind": 3, "tone": 5}), NodeType("b", 1)])
    torch.manual_seed(0)
    model = Fusion(schema, 4, heads=1, layers=0)
    x = torch.rand(4, 2)
    toned = Sample(a={"x": x, "kind": [0, 2, -1, 2], "tone": [4, -1, 0, 4]}, b=torch.rand(1, 1))
    plain = Sample(a={"x": x, "kind": [1, 1, 1, 1]})
    project = model.network.project
    out = project(GraphBuilder(schema)([toned, plain]))["a"]
    kind, tone = (table.weight for table in project.tables)
    base = torch.nn.functional.linear(x, project.features[0].weight, project.features[0].bias)
    added = torch.stack([kind[0] + tone[4], kind[2], tone[0], kind[2] + tone[4]])
    assert torch.allclose(out, torch.cat([base + added, base + kind[1]]), atol=1e-6)
    for wrong in ([3, 0, 0, 0], [-2, 0, 0, 0]):
        with pytest.raises(HetgraphError, match=r"node type 'a': 'kind' must be -1 or in 0 \.\. 2"):
            project(GraphBuilder(schema)([Sample(a={"x": x, "kind": wrong})]))
    assert project(GraphBuilder(schema)([Sample(b=[[1.0]])]))["a"].shape == (0, 4)


def test_learned_vectors_train_and_are_saved(kg, tmp_path) -> None:
    knowledge = Knowledge(SCHEMA, kg)
    torch.manual_seed(0)
    model = Fusion(knowledge.schema, 8, layers=1, heads=2)
    sample = knowledge(sample_of(), AliasLinker(kg).link(TEXT))
    graph = GraphBuilder(knowledge.schema)([sample])
    model(graph).z.square().sum().backward()
    (table,) = model.network.project.tables
    used = torch.zeros(kg.num_entities, dtype=torch.bool)
    used[sample.nodes["entity"]["id"]] = True
    assert torch.equal(table.weight.grad.abs().sum(1) > 0, used)
    model.eval().save_pretrained(tmp_path)
    again = Fusion.from_pretrained(tmp_path).eval()
    assert again.schema == knowledge.schema
    assert torch.equal(again(graph).z, model(graph).z)


def test_categories_are_a_part_of_a_schema_and_older_schemas_stay_as_they_were() -> None:
    node = NodeType("a", 2, {"kind": 0}, categories={"kind": 3})
    schema = Schema([node], [EdgeType("a", "to", "a")])
    assert Schema.from_json(schema.to_json()) == schema
    assert "categories" not in NodeType("a", 2, {"kind": 0}).to_json()
    assert schema != Schema([NodeType("a", 2, {"kind": 0})], [EdgeType("a", "to", "a")])
    assert hash(node) != hash(NodeType("a", 2, {"kind": 0}))
    for wrong in ({"kind": 0}, {"none": 3}, {"pos": 3}):
        with pytest.raises(HetgraphError, match="categories need a field of width 0"):
            NodeType("a", 2, {"kind": 0, "pos": 2}, categories=wrong)
