"""What a knowledge graph adds: a toy where only the graph knows the answer, and what the controls must not know."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import knowledge_gain
from benchmarks.knowledge_data import Linked, dictionary, senses
from benchmarks.knowledge_gain import CONDITIONS, gain, measure, outcome, table, values
from hetgraph import HetgraphError, NodeType, Sample, Schema
from hetgraph.kg import KHopRetriever, KnowledgeGraph, Link, load_kg
from hetgraph.objectives import Classification
from hetgraph.tasks.datasets import Dataset
from hetgraph.tasks.running import TaskSettings
from hetgraph.training import TrainingSettings

TOLD = [
    (0, "fleur", "fr"),
    (0, "flower", "en"),
    (1, "fleur", "fr"),
    (1, "rose", "fr"),
    (2, "tree", "en"),
    (3, "ki", "eu"),
]
TRAINING = TrainingSettings(epochs=12, batch_size=16, lr=5e-3, patience=12)
SETTINGS = TaskSettings(width=16, layers=2, heads=2, dropout=0.0, training=TRAINING)


def toy(seed: int, count: int = 90) -> Linked:
    """Each sample names a word of its own; the word means "yes" or "no" and is confused with the other."""
    rng = np.random.default_rng(seed)
    answers = rng.integers(0, 2, count)
    words = np.arange(count) + 2
    heads, tails = np.repeat(words, 2), np.stack([answers, 1 - answers], 1).reshape(-1)
    names = ["a:no", "a:yes", *(f"w:{i:03}" for i in range(count))]
    graph = KnowledgeGraph.from_arcs(heads, np.tile([0, 1], count), tails, names, ["means", "not"])
    samples = [
        Sample(id=f"s{i}", target=("no", "yes")[answers[i]], nodes={"token": {"x": torch.ones(2, 4)}})
        for i in range(count)
    ]
    base = Dataset(
        "toy",
        Schema([NodeType("token", 4)], []),
        samples[:60],
        samples[60:70],
        samples[70:],
        Classification(("no", "yes")),
    )
    links = {f"s{i}": [Link(int(words[i]), 1.0, "alias", "token", (0, 1))] for i in range(count)}
    features = np.zeros((graph.num_entities, 3), np.float32)
    features[0, 0] = features[1, 1] = features[2:, 2] = 1
    options = {
        "features": features,
        "retriever": KHopRetriever(hops=1, direction="out"),
        "mentions": ("token",),
        "relations": ["means", "not"],
    }
    return Linked("toy", base, graph, links, options, {"late": frozenset(s.id for s in samples[80:])}, "a toy")


def test_only_the_true_graph_answers() -> None:
    source = toy(0)
    found = {condition: outcome(source, condition, 0, SETTINGS) for condition in CONDITIONS}
    assert found["graph"]["scores"]["all"]["accuracy"] == 1.0
    assert set(found["graph"]["scores"]) == {"all", "late"}
    for condition in ("none", "relations permuted", "random"):
        assert found[condition]["scores"]["all"]["accuracy"] < 0.9
    # the same weights to train, whatever the samples hold
    assert len({one["parameters"] for one in found.values()}) == 1
    assert found["none"]["entities"] == found["none"]["linked"] == 0
    assert found["graph"]["entities"] == 3
    assert found["graph"]["linked"] == 1


def test_a_measurement_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, told = tmp_path / "gain.json", list[str]()
    few = replace(SETTINGS, training=replace(TRAINING, epochs=1))
    first = measure(toy, [0], few, path, ["none", "graph"], told.append)
    again = measure(toy, [0, 1], few, path, ["none", "graph"], told.append)
    assert told == [
        "1 of 2: condition none, seed 0",
        "2 of 2: condition graph, seed 0",
        "3 of 4: condition none, seed 1",
        "4 of 4: condition graph, seed 1",
    ]
    assert again["runs"][:2] == first["runs"]
    assert json.loads(path.read_text()) == again
    own, other = values(again, "graph"), values(again, "none")
    differences = [own[seed] - other[seed] for seed in ("0", "1")]
    mean, error = gain(again, "graph")
    assert mean == pytest.approx(np.mean(differences))
    assert error == pytest.approx(np.std(differences, ddof=1) / np.sqrt(2))
    assert table(again).row_count == 2
    picture = tmp_path / "gain.png"
    knowledge_gain.draw(again, picture)
    assert picture.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(HetgraphError, match="other settings"):
        measure(toy, [0], SETTINGS, path)
    assert json.loads(path.read_text()) == again


def test_smaller_errors_are_gains() -> None:
    runs = [
        {"condition": condition, "seed": seed, "scores": {"all": {"mae": value}}}
        for condition, some in {"none": (1.0, 1.2), "graph": (0.8, 0.8)}.items()
        for seed, value in enumerate(some)
    ]
    assert gain({"metric": "mae", "larger_is_better": False, "runs": runs}, "graph")[0] == pytest.approx(0.3)


def test_senses_are_as_likely_as_they_are_frequent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = {("box", "n"): ["00000001-n", "00000002-n", "00000003-n"], ("box", "v"): ["00000004-v"]}
    monkeypatch.setattr("benchmarks.knowledge_data.read_senses", lambda: index)
    base = "http://wordnet-rdf.princeton.edu/wn30/"
    names = [f"{base}0000000{i}-{'nnnv'[i - 1]}" for i in range(1, 5)]
    graph = KnowledgeGraph.from_arcs([0], [0], [1], names, ["hypernym"])
    assert senses(graph, "n") == [("box", 0, 1.0), ("boxes", 0, 1.0), ("box", 1, 0.5), ("boxes", 1, 0.5)]
    assert senses(graph, "v") == [("box", 3, 1.0)]


def test_a_dictionary_leads_from_words_to_what_they_mean_and_on_to_other_words() -> None:
    label = "<http://www.w3.org/2000/01/rdf-schema#label>"
    lines = [f'<u:{i}> {label} "{text}"@{language} .' for i, text, language in TOLD]
    kg = load_kg("\n".join([*lines, "<u:0> <urn:inCategory> <u:9> ."]).encode(), format="nt")
    graph, texts = dictionary(kg, "fr", "en")
    assert set(graph.arcs()) == {
        ("label:fr:fleur", "names", "u:0"),
        ("label:fr:fleur", "names", "u:1"),
        ("label:fr:rose", "names", "u:1"),
        ("u:0", "label", "label:en:flower"),
        ("u:2", "label", "label:en:tree"),
    }
    assert [text for text in texts if text] == ["flower", "tree", "fleur", "rose"]
    assert [text for name, text in zip(graph.entities, texts, strict=True) if name.startswith("u:")] == [""] * 3
