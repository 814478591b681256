"""The benchmark of questions about pictures: what each condition sees, and that runs are kept and tabulated."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
import torch
from rich.console import Console

from benchmarks.runs import difference, spread
from benchmarks.vqa import CONDITIONS, PICTURE, QUESTION, conditioned, majority, outcome, table
from hetgraph import EdgeType, NodeType, Sample, Schema
from hetgraph.objectives import Answering
from hetgraph.tasks.datasets import Dataset
from hetgraph.tasks.running import TaskSettings
from hetgraph.training import TrainingSettings


def dataset() -> Dataset:
    """Yes if the sign of the question is that of the picture."""
    schema = Schema(
        [NodeType("token", 2), NodeType("region", 2)],
        [EdgeType("token", "asks", "region"), EdgeType("region", "shows", "region")],
    )
    draw = torch.Generator().manual_seed(0)

    def sample(name: str) -> Sample:
        token, region = torch.randn(1, 2, generator=draw), torch.randn(2, 2, generator=draw)
        return Sample(id=name, target="yes" if token[0, 0] * region[0, 0] > 0 else "no", token=token, region=region)

    parts = [[sample(f"{part}{i}") for i in range(20)] for part in ("train", "valid", "test")]
    about = {str(s.id): {"question": "?", "image": "i", "kind": "", "picture": None} for part in parts for s in part}
    return Dataset("toy", schema, *parts, Answering(("no", "yes")), about=about)


@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_condition_has_its_nodes_and_edges(condition: str) -> None:
    data, method = conditioned(dataset(), condition, 0)
    assert method == condition.split(",")[0]
    nodes = {QUESTION: {"token"}, PICTURE: {"region"}}.get(condition, {"token", "region"})
    assert set(data.schema.nodes) == nodes
    assert all(set(sample.nodes) == nodes for sample in data.test)
    edges = {
        QUESTION: set(),
        PICTURE: {"shows"},
        "graph, no edges": set(),
        "graph, no cross-modal edges": {"shows"},
        "graph, no within-modality edges": {"asks"},
    }.get(condition, {"asks", "shows"})
    assert {key[1] for key in data.schema.edges} == edges


def test_facts_are_left_out_alone() -> None:
    data = dataset()
    more = Schema([*data.schema.nodes.values(), NodeType("fact", 2)], [EdgeType("token", "with", "fact")])
    for sample in (*data.train, *data.valid, *data.test):
        sample.nodes["fact"] = {"x": torch.zeros(3, 2)}
    with_facts = replace(data, schema=more)
    assert set(conditioned(with_facts, QUESTION, 0)[0].schema.nodes) == {"token"}
    left, method = conditioned(with_facts, "graph, no facts", 0)
    assert method == "graph"
    assert set(left.schema.nodes) == {"token", "region"}
    assert not left.schema.edges
    assert all(set(sample.nodes) == {"token", "region"} for sample in left.train)


def test_methods_have_about_as_many_parameters_and_end_up_in_the_table() -> None:
    data = dataset()
    settings = TaskSettings(width=16, layers=1, heads=2, training=TrainingSettings(epochs=1))
    runs = [
        {"condition": condition, "seed": seed, **outcome(data, condition, seed, settings, None)}
        for condition in ("graph", "concat", QUESTION)
        for seed in (0, 1)
    ]
    sizes = {run["condition"]: run["parameters"] for run in runs}
    assert abs(sizes["concat"] / sizes["graph"] - 1) < 0.3
    right = [[one.target for one in part].count("yes") for part in (data.train, data.test)]
    share = right[1] / 20 if right[0] > 10 else 1 - right[1] / 20
    assert majority(data) == pytest.approx(share)
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(table({"data": "toy", "majority": majority(data), "runs": runs}))
    shown = console.export_text()
    scores = [[run["test"]["accuracy"] for run in runs if run["condition"] == name] for name in ("graph", "concat")]
    assert spread(scores[0]) in shown
    gaps = torch.tensor(scores[0]) - torch.tensor(scores[1])
    assert difference(float(gaps.mean()), float(gaps.std() / 2**0.5)) in shown
    assert f"{majority(data):.3f}" in shown


def test_one_seed_has_no_standard_error() -> None:
    assert difference(0.0214, None) == "+0.021"
    assert difference(-0.5, 0.25) == "-0.500 ± 0.250"
    assert spread([0.5]) == "0.500"
