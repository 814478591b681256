"""Reading triples strictly, and cutting subgraphs, against rdflib and networkx."""

from __future__ import annotations

import gzip
import io

import networkx as nx
import numpy as np
import pytest
import rdflib
from hypothesis import given, settings
from hypothesis import strategies as st

from hetgraph.errors import HetgraphError
from hetgraph.kg import triples
from hetgraph.kg.triples import TripleGraph, read_triples

RDFS = "http://www.w3.org/2000/01/rdf-schema#"
SKOS = "http://www.w3.org/2004/02/skos/core#"
TURTLE = f"""
@prefix : <http://x.org/> . @prefix rdfs: <{RDFS}> . @prefix skos: <{SKOS}> .
:cat a :Animal ; rdfs:label "cat"@en , "Katze"@de ; skos:prefLabel "house cat" , "cat" ; :legs 4 .
:cat :chases :mouse , :mouse . :mouse :fears :cat ; :home [ :in :wall ] .
""".encode()
NT = b"<u:a> <u:p> <u:b> .\n<u:b> <u:q> <u:c> .\n"


def edges_of(graph: TripleGraph) -> set[tuple[str, str, str]]:
    ids = zip(graph.heads, graph.relation_ids, graph.tails, strict=True)
    return {(graph.entities[h], graph.relations[r], graph.entities[t]) for h, r, t in ids}


def test_edges_and_labels_equal_those_of_rdflib() -> None:
    graph = read_triples(TURTLE, format="ttl")
    other = rdflib.Graph().parse(data=TURTLE, format="turtle")
    blanks = {n for t in other for n in t if isinstance(n, rdflib.BNode)}
    assert len(blanks) == 1
    name = dict.fromkeys(blanks, "_:b0")
    expected = {tuple(name.get(n, str(n)) for n in (s, p, o)) for s, p, o in other if not isinstance(o, rdflib.Literal)}
    assert edges_of(graph) == expected
    assert len(graph) == len(expected)
    assert graph.labels == {graph.index["http://x.org/cat"]: ["cat", "Katze", "house cat"]}
    assert graph.heads.dtype == graph.tails.dtype == graph.relation_ids.dtype == np.int64


NAMES = st.sampled_from("abcdefg")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(NAMES, st.sampled_from("pqr"), NAMES), max_size=25))
def test_a_file_means_the_set_of_its_triples(rows) -> None:
    text = "".join(f"<u:{s}> <u:{p}> <u:{o}> .\n" for s, p, o in rows).encode()
    graph = read_triples(text, format="nt")
    assert edges_of(graph) == {(f"u:{s}", f"u:{p}", f"u:{o}") for s, p, o in rows}
    assert len(graph) == len(set(rows))
    assert set(graph.entities) == {f"u:{n}" for s, _, o in rows for n in (s, o)}
    assert set(graph.relations) == {f"u:{p}" for _, p, _ in rows}


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), min_size=1, max_size=30),
    st.lists(st.integers(0, 30), max_size=4),
    st.integers(0, 3),
)
def test_subgraph_is_the_induced_graph_of_the_ball_that_networkx_finds(pairs, picks, hops) -> None:
    graph = read_triples("".join(f"<u:{s}> <u:p> <u:{o}> .\n" for s, o in pairs).encode(), format="nt")
    n = len(graph.entities)
    seeds = [p % n for p in picks]
    nodes, edges, relations = graph.subgraph(seeds, hops=hops, max_nodes=1000)
    whole = nx.MultiDiGraph(list(zip(graph.heads.tolist(), graph.tails.tolist(), strict=True)))
    ball = {m for s in seeds for m in nx.single_source_shortest_path_length(whole.to_undirected(), s, hops)}
    assert set(nodes.tolist()) == ball
    assert nodes.tolist()[: len(set(seeds))] == list(dict.fromkeys(seeds))
    assert sorted(map(tuple, nodes[edges].T.tolist())) == sorted(whole.subgraph(ball).edges())
    assert edges.shape == (2, len(relations))
    # Capped: what remains is the nearest, in the same order.
    cap = len(set(seeds)) + 2
    fewer, inner, _ = graph.subgraph(seeds, hops=hops, max_nodes=cap)
    assert fewer.tolist() == nodes.tolist()[:cap]
    assert sorted(map(tuple, fewer[inner].T.tolist())) == sorted(whole.subgraph(fewer.tolist()).edges())


def test_subgraph_keeps_the_relation_of_every_edge() -> None:
    text = b"<u:a> <u:p> <u:b> .\n<u:a> <u:q> <u:b> .\n<u:c> <u:r> <u:a> .\n<u:c> <u:r> <u:d> .\n"
    graph = read_triples(text, format="nt")
    nodes, edges, relations = graph.subgraph([graph.index["u:b"], graph.index["u:a"]])
    found = [
        (graph.entities[nodes[h]], graph.relations[r], graph.entities[nodes[t]])
        for h, r, t in zip(edges[0], relations, edges[1], strict=True)
    ]
    assert found == [("u:a", "u:p", "u:b"), ("u:a", "u:q", "u:b"), ("u:c", "u:r", "u:a")]


@pytest.mark.parametrize(("seeds", "options"), [([9], {}), ([-1], {}), ([0, 1], {"max_nodes": 1}), ([0], {"hops": -1})])
def test_subgraph_refuses_unknown_seeds_and_impossible_limits(seeds, options) -> None:
    with pytest.raises(HetgraphError):
        read_triples(NT, format="nt").subgraph(seeds, **options)


def test_no_seeds_and_empty_files_give_empty_graphs() -> None:
    for empty in (b"", b"\n# nothing\n", b"\xef\xbb\xbf"):
        graph = read_triples(empty, format="nt")
        assert (graph.entities, graph.relations, len(graph), graph.labels) == ((), (), 0, {})
        nodes, edges, relations = graph.subgraph([])
        assert (nodes.shape, edges.shape, relations.shape) == ((0,), (2, 0), (0,))


def test_path_bytes_file_and_gzip_give_the_same_graph(tmp_path) -> None:
    (tmp_path / "g.nt").write_bytes(NT)
    (tmp_path / "g.nt.gz").write_bytes(gzip.compress(NT))
    sources = [str(tmp_path / "g.nt"), tmp_path / "g.nt", tmp_path / "g.nt.gz"]
    expected = edges_of(read_triples(NT, format="nt"))
    assert len(expected) == 2
    assert all(edges_of(read_triples(source)) == expected for source in sources)
    assert edges_of(read_triples(gzip.compress(NT), format="nt")) == expected
    assert edges_of(read_triples(io.BytesIO(NT), format="nt")) == expected
    with open(tmp_path / "g.nt", "rb") as stream:
        assert edges_of(read_triples(stream)) == expected
        assert not stream.closed
    quads = b"<u:a> <u:p> <u:b> <u:g1> .\n<u:a> <u:p> <u:b> <u:g2> .\n<u:b> <u:q> <u:c> .\n"
    assert edges_of(read_triples(quads, format="nq")) == expected


def test_one_byte_order_mark_is_stripped_and_not_two() -> None:
    mark = b"\xef\xbb\xbf"
    assert len(read_triples(mark + NT, format="nt")) == 2
    with pytest.raises(HetgraphError, match="line 1"):
        read_triples(mark + mark + NT, format="nt")


class _Trickle(io.BytesIO):
    def read(self, size: int | None = -1) -> bytes:
        return super().read(1)


def test_a_stream_may_come_byte_by_byte() -> None:
    assert len(read_triples(_Trickle(b"\xef\xbb\xbf" + NT), format="nt")) == 2


def test_relative_names_need_a_base() -> None:
    with pytest.raises(HetgraphError, match="line 1"):
        read_triples(b"<a> <p> <b> .", format="ttl")
    assert read_triples(b"<a> <p> <b> .", format="ttl", base="http://x.org/").entities == (
        "http://x.org/a",
        "http://x.org/b",
    )
    with pytest.raises(HetgraphError, match="base"):
        read_triples(b"<a> <p> <b> .", format="ttl", base="nowhere")


BAD = {
    "no object": b"<u:a> <u:p> .",
    "space in a name": b"<u:a b> <u:p> <u:c> .",
    "bad UTF-8": b'<u:a> <u:p> "\xff" .',
    "lone surrogate": b'<u:a> <u:p> "\\uD800" .',
    "cut off": b"<u:a> <u:p> <u:",
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
def test_a_malformed_line_is_named_with_its_file_and_nothing_is_kept(tmp_path, bad) -> None:
    path = tmp_path / "broken.nt"
    path.write_bytes(NT + bad + b"\n" + NT)
    with pytest.raises(HetgraphError, match=r"broken\.nt: .*line 3"):
        read_triples(path)


@pytest.mark.parametrize("size", [triples.MAX_LITERAL + 1, 17 << 20])
def test_a_literal_over_one_mebibyte_is_refused(size) -> None:
    with pytest.raises(HetgraphError, match="bytes"):
        read_triples(b'<u:a> <u:p> "' + b"x" * size + b'" .', format="nt")


def test_a_literal_of_exactly_one_mebibyte_is_read_and_counted_in_bytes() -> None:
    label = RDFS.encode() + b"label"
    graph = read_triples(b"<u:a> <" + label + b'> "' + b"x" * triples.MAX_LITERAL + b'" .', format="nt")
    assert len(graph.labels[0][0]) == triples.MAX_LITERAL
    with pytest.raises(HetgraphError, match="bytes"):
        read_triples(b'<u:a> <u:p> "' + "é".encode() * (triples.MAX_LITERAL // 2 + 1) + b'" .', format="nt")


@pytest.mark.parametrize("name", ["g.rdf", "g.owl", "g.xml", "g.jsonld", "g.json"])
def test_unsafe_forms_are_refused_before_they_are_opened(tmp_path, name) -> None:
    (tmp_path / name).write_bytes(NT)
    with pytest.raises(HetgraphError, match="unsafe"):
        read_triples(tmp_path / name)
    with pytest.raises(HetgraphError, match="unsafe"):
        read_triples(NT, format=name[2:])


def test_other_bad_sources_are_refused(tmp_path, monkeypatch) -> None:
    with pytest.raises(HetgraphError, match="format="):
        read_triples(NT)
    with pytest.raises(HetgraphError, match="csv"):
        read_triples(NT, format="csv")
    with pytest.raises(HetgraphError, match="gone"):
        read_triples(tmp_path / "gone.nt")
    with pytest.raises(HetgraphError, match="int"):
        read_triples(7)  # type: ignore[arg-type]
    with pytest.raises(HetgraphError, match="binary"):
        read_triples(io.StringIO("<u:a>"), format="nt")  # type: ignore[arg-type]
    with pytest.raises(HetgraphError, match="statement"):
        read_triples(b"<u:a> <u:p> <<( <u:a> <u:b> <u:c> )>> .", format="nt")
    (tmp_path / "cut.nt.gz").write_bytes(gzip.compress(NT * 100)[:-9])
    with pytest.raises(HetgraphError, match=r"cut\.nt\.gz"):
        read_triples(tmp_path / "cut.nt.gz")
    (tmp_path / "fake.nt.gz").write_bytes(NT)
    with pytest.raises(HetgraphError, match="gzip"):
        read_triples(tmp_path / "fake.nt.gz")
    monkeypatch.setattr(triples, "MAX_UNPACKED", 1000)
    with pytest.raises(HetgraphError, match="unpacks to more than 1000"):
        read_triples(gzip.compress(NT * 100), format="nt")
