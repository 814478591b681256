"""The benchmark of knowledge graphs runs, and refuses to time what is not equal."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from benchmarks import knowledge_graph as benchmark
from hetgraph.kg import KHopRetriever, PPRRetriever


def test_both_libraries_have_to_read_the_same_triples(tmp_path, monkeypatch) -> None:
    path = tmp_path / "g.nt"
    benchmark.write_triples(path, 20, 200)
    benchmark.check_loaded(path)
    read = benchmark.read
    other = tmp_path / "h.nt"
    benchmark.write_triples(other, 21, 200)
    monkeypatch.setattr(benchmark, "read", lambda n, p: read(n, str(other) if n == benchmark.OURS else p))
    with pytest.raises(AssertionError, match="arcs, rdflib has"):
        benchmark.check_loaded(path)


def test_subgraphs_are_compared_and_timed(monkeypatch) -> None:
    graph = benchmark.random_graph(500, 3000)
    sets = benchmark.seed_sets(500, 3)
    for measure, peer in ((benchmark.hops, benchmark.PYG), (benchmark.pagerank, benchmark.SCIPY)):
        values = measure(graph, sets, 2).values["subgraph"]
        assert set(values) == {peer, benchmark.OURS, benchmark.NUMPY}
        assert all(v["median"] > 0 for v in values.values())

    def one_hop(**options: Any) -> KHopRetriever:
        return KHopRetriever(**{**options, "hops": 1})

    monkeypatch.setattr(benchmark, "KHopRetriever", one_hop)
    with pytest.raises(AssertionError, match="PyG has"):
        benchmark.hops(graph, sets, 1)
    monkeypatch.setattr(benchmark, "PPRRetriever", lambda **options: replace(PPRRetriever(**options), eps=0.05))
    with pytest.raises(AssertionError, match="scores differ"):
        benchmark.pagerank(graph, sets, 1)


def test_linkers_have_to_find_the_same_names(monkeypatch) -> None:
    setting = benchmark.linking(300, 50, 2)
    assert set(setting.values["a text"]) == {benchmark.PLAIN, benchmark.OURS}
    assert setting.sizes["links"] > 100
    names, texts = benchmark.names_and_texts(300, 50)
    assert len(set(names)) == 300
    assert {len(text.split()) for text in texts} == {benchmark.TEXT_WORDS}
    monkeypatch.setattr(benchmark, "LONGEST", 1)
    monkeypatch.setattr(benchmark, "names_and_texts", lambda *_: (names, texts))
    with pytest.raises(AssertionError, match="by brute force"):
        benchmark.linking(300, 50, 1)
