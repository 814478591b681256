"""Scores past fusion: a loop over rows, absent types, groups, and a predictor that keeps them."""

from __future__ import annotations

import pytest
import torch
from graphs import randomize
from torch.nn import functional

from hetgraph import EdgeType, Fusion, GraphBuilder, NodeType, Sample, Schema
from hetgraph.nn import DirectScores
from hetgraph.objectives import Classification
from hetgraph.predictor import Predictor

SCHEMA = Schema(
    [NodeType("a", 2, fields={"turn": 0}), NodeType("b", 3)],
    [EdgeType("a", "to", "b"), EdgeType("b", "to", "a")],
)
SAMPLES = [
    Sample(a={"x": [[1.0, 2.0], [0.5, -1.0], [2.0, 0.0]], "turn": [0, 1, 1]}, b=[[1.0, 0.0, 2.0]], target="x"),
    Sample(a={"x": [[3.0, 1.0]], "turn": [0]}, target="y"),
]


def by_loop(direct: DirectScores, rows: list[dict[str, torch.Tensor]]) -> torch.Tensor:
    """Of each row the features of every type that it has."""
    out = []
    for row in rows:
        states = [
            functional.gelu(norm(own(row[name].mean(0)))) if name in row else torch.zeros(direct.width)
            for name, own, norm in zip(direct.names, direct.own, direct.norm, strict=True)
        ]
        out.append(direct.out(functional.gelu(direct.join(torch.cat(states)))))
    return torch.stack(out)


@pytest.mark.parametrize("group", [None, "turn"])
@pytest.mark.parametrize("method", ["graph", "late"])
def test_what_goes_past_fusion_is_added_to_the_scores(method, group) -> None:
    objective = Classification(("x", "y"))
    fusion = Fusion(SCHEMA, 8, heads=2, method=method, group=group)
    model = Predictor(fusion, objective, direct=4).eval()
    randomize(model)
    graph = GraphBuilder(SCHEMA)(SAMPLES)
    model.fusion.standardize([graph])
    x = model.fusion.network.project.scaled(graph)
    close_to = {
        None: [{"a": x["a"][:3], "b": x["b"]}, {"a": x["a"][3:]}],
        "turn": [{"a": x["a"][:1]}, {"a": x["a"][1:3]}, {"a": x["a"][3:]}],
    }[group]
    assert model.direct is not None
    past = by_loop(model.direct, close_to)
    both = model(graph).scores
    model.direct = None
    torch.testing.assert_close(both, model(graph).scores + past, rtol=1e-4, atol=1e-5)


def test_features_are_standardised_and_an_absent_type_adds_nothing() -> None:
    model = Predictor(Fusion(SCHEMA, 8, heads=2), Classification(("x", "y")), direct=4).eval()
    graph = GraphBuilder(SCHEMA)(SAMPLES)
    model.fusion.standardize([graph])
    scaled = model.fusion.network.project.scaled(graph)["a"]
    torch.testing.assert_close(scaled.mean(0), torch.zeros(2), rtol=0, atol=1e-5)
    torch.testing.assert_close(scaled.std(0, correction=0), torch.ones(2))
    direct = model.direct
    assert direct is not None
    torch.nn.init.ones_(direct.norm[1].bias)
    x, rows = {"a": torch.ones(1, 2), "b": torch.zeros(0, 3)}, {"a": torch.zeros(1).long(), "b": torch.zeros(0).long()}
    torch.testing.assert_close(direct(x, rows, 1), direct(x, {"a": rows["a"]}, 1))


def test_a_kept_model_says_the_same_and_one_without_is_as_before(tmp_path) -> None:
    graph = GraphBuilder(SCHEMA)(SAMPLES)
    torch.manual_seed(0)
    plain = Predictor(Fusion(SCHEMA, 8, heads=2), Classification(("x", "y"))).eval()
    torch.manual_seed(0)
    model = Predictor(Fusion(SCHEMA, 8, heads=2), Classification(("x", "y")), direct=4).eval()
    assert "direct" not in plain.to_config()
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in plain.state_dict().items())
    model.save_pretrained(tmp_path)
    again = Predictor.from_pretrained(tmp_path).eval()
    assert torch.equal(again(graph).scores, model(graph).scores)
    assert not torch.allclose(again(graph).scores, plain(graph).scores)
