"""Edges left out or dealt out anew: by hand-made graphs, and over data sets."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from hetgraph import EdgeType, GraphBuilder, HetgraphError, NodeType, Sample, Schema, rules
from hetgraph.objectives import Classification
from hetgraph.tasks.ablations import EDGES, Shuffled, ablate
from hetgraph.tasks.datasets import Dataset

GIVEN = ("word", "says", "region")


def dataset() -> Dataset:
    schema = Schema(
        [NodeType("region", 3, fields={"pos": 2}), NodeType("word", 2)],
        [
            EdgeType("word", "next", "word", rule=rules.following),
            EdgeType("word", "any", "region"),
            EdgeType("region", "near", "region", rule=rules.nearest(2)),
            EdgeType(*GIVEN, rule=rules.given, features={"sure": 1}),
        ],
    )
    draw = torch.Generator().manual_seed(0)

    def sample(name: str, regions: int, words: int) -> Sample:
        index = torch.stack([torch.arange(words), torch.arange(words) % regions])
        return Sample(
            region={"x": torch.randn(regions, 3, generator=draw), "pos": torch.rand(regions, 2, generator=draw)},
            word={"x": torch.randn(words, 2, generator=draw)},
            edges={GIVEN: {"index": index, "sure": torch.rand(words, 1, generator=draw)}},
            target="yes",
            id=name,
        )

    parts = [[sample(f"{part}{i}", 5 + i, 3 + i) for i in range(4)] for part in ("train", "test")]
    return Dataset("made", schema, parts[0], None, parts[1], Classification(("yes", "no")))


def edges(data: Dataset) -> dict[tuple[str, str, str], torch.Tensor]:
    graph = GraphBuilder(data.schema)(data.test)
    return {key: graph.edge_index[key] for key in data.schema.edges}


@pytest.mark.parametrize(
    ("kind", "kept"),
    [
        ("all edges", {"next", "any", "near", "says"}),
        ("no cross-modal edges", {"next", "near"}),
        ("no within-modality edges", {"any", "says"}),
        ("shuffled edges", {"next", "any", "near", "says"}),
        ("no edges", set()),
    ],
)
def test_kinds_keep_what_they_say(kind: str, kept: set[str]) -> None:
    data = ablate(dataset(), kind)
    assert {key[1] for key in data.schema.edges} == kept
    assert {key[1] for key in edges(data)} == kept
    assert [s.id for s in data.test] == [s.id for s in dataset().test]
    assert data.valid is None


def test_the_table_above_has_every_kind() -> None:
    assert len(EDGES) == 5


def test_shuffled_edges_keep_how_many_and_change_which() -> None:
    true, dealt = edges(dataset()), edges(ablate(dataset(), "shuffled edges", seed=3))
    for key, index in true.items():
        assert index.shape == dealt[key].shape
        # every source keeps its number of edges
        assert index[0].bincount().tolist() == dealt[key][0].bincount().tolist()
        pairs, others = ({tuple(pair) for pair in value.T.tolist()} for value in (index, dealt[key]))
        assert (pairs == others) == (key[1] == "any"), key
    same = edges(ablate(dataset(), "shuffled edges", seed=3))
    assert all(torch.equal(dealt[key], same[key]) for key in dealt)
    other = edges(ablate(dataset(), "shuffled edges", seed=4))
    assert any(not torch.equal(dealt[key], other[key]) for key in dealt)


def test_a_sample_has_the_same_shuffled_edges_in_every_batch() -> None:
    data = ablate(dataset(), "shuffled edges")
    together = GraphBuilder(data.schema)(data.test)
    for i, sample in enumerate(data.test):
        alone = GraphBuilder(data.schema)([sample])
        for key in data.schema.edges:
            index = together.edge_index[key]
            starts = [int(together.counts[end][:i].sum()) for end in (key[0], key[2])]
            own = together.batch[key[0]][index[0]] == i
            moved = index[:, own] - torch.tensor(starts)[:, None]
            assert {tuple(p) for p in moved.T.tolist()} == {tuple(p) for p in alone.edge_index[key].T.tolist()}


def test_features_go_with_their_edges() -> None:
    def rule(src, dst):
        gap = (src["x"][..., :, None, :1] - dst["pos"][..., None, :, :1]).abs()
        return gap[..., 0] < 1.0, {"gap": gap}

    data = dataset()
    schema = Schema(data.schema.nodes.values(), [EdgeType("word", "gap", "region", rule=rule, features={"gap": 1})])
    bare = [Sample(nodes=s.nodes, id=s.id, target=s.target) for s in data.test]
    data = replace(data, schema=schema, train=bare, test=bare)
    key = ("word", "gap", "region")
    graphs = [GraphBuilder(d.schema)(bare) for d in (data, ablate(data, "shuffled edges"))]
    true, dealt = (sorted(g.edges[key].features["gap"].flatten().tolist()) for g in graphs)
    assert true == dealt
    assert isinstance(ablate(data, "shuffled edges").schema.edges[key].rule, Shuffled)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(HetgraphError, match="no ablation 'half'; known: all edges"):
        ablate(dataset(), "half")
