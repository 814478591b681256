"""Loading knowledge graphs: the same graph from every format, in any order, against rdflib; saved, mapped, shared."""

from __future__ import annotations

import gzip
import io
import json
import multiprocessing
import pickle
import random
import zipfile

import networkx as nx
import numpy as np
import pytest
import rdflib
from hypothesis import given, settings
from hypothesis import strategies as st

from hetgraph.kg import (
    EmptyGraphWarning,
    KnowledgeError,
    KnowledgeGraph,
    Linker,
    Literal,
    TripleStore,
    from_networkx,
    from_rdflib,
    load_kg,
    read_triples,
    to_networkx,
    to_pyg,
    to_rdflib,
)

RDFS = "http://www.w3.org/2000/01/rdf-schema#"
SKOS = "http://www.w3.org/2004/02/skos/core#"
XSD = "http://www.w3.org/2001/XMLSchema#"
TURTLE = f"""
@prefix : <http://x.org/> . @prefix rdfs: <{RDFS}> . @prefix skos: <{SKOS}> .
:cat a :Animal ; rdfs:label "cat"@en , "Katze"@de , "plain" ; skos:prefLabel "house cat"@en ; skos:altLabel "puss"@en .
:cat :legs 4 ; :born "007"^^<{XSD}integer> ; :chases :mouse , :mouse . :mouse :fears :cat ; :home [ :in :wall ] .
""".encode()


def arcs(graph: KnowledgeGraph) -> set[tuple[str, str, str]]:
    return set(graph.arcs())


def same(a: KnowledgeGraph, b: KnowledgeGraph) -> bool:
    from hetgraph.kg.saved import arrays_of

    one, other = arrays_of(a), arrays_of(b)
    return all(one[k].dtype == other[k].dtype and np.array_equal(one[k], other[k]) for k in one)


def test_arcs_labels_and_literals_equal_those_of_rdflib() -> None:
    graph = load_kg(TURTLE, format="ttl")
    other = rdflib.Graph().parse(data=TURTLE, format="turtle")
    (blank,) = {n for t in other for n in t if isinstance(n, rdflib.BNode)}
    name = {blank: "_:b0"}
    expected = {tuple(name.get(n, str(n)) for n in t) for t in other if not isinstance(t[2], rdflib.Literal)}
    assert arcs(graph) == expected
    assert len(graph) == len(expected)
    cat = "http://x.org/cat"
    assert {v for v in graph.values(cat) if v.attribute == f"{RDFS}label"} == {
        Literal(f"{RDFS}label", "cat", "en"),
        Literal(f"{RDFS}label", "Katze", "de"),
        Literal(f"{RDFS}label", "plain"),
    }
    # the lexical form is kept: rdflib makes 7 of it
    assert Literal("http://x.org/born", "007", datatype=f"{XSD}integer") in graph.values(cat)
    assert graph.labels_of(cat) == ["house cat", "plain", "Katze", "cat", "puss"]
    assert graph.labels_of(cat, ["de", ""]) == ["Katze", "plain"]
    assert graph.label(cat, ["fr"]) == "house cat"
    assert graph.label("http://x.org/mouse") == "mouse"
    assert graph.report.statements == 13
    assert Linker(graph).link("a House  cat and a katze")[0][2] == graph.entities.index(cat)


NAMES = st.sampled_from(["u:a", "u:b", "u:c", "u:d", "u:é", "u:z/9"])
VALUES = st.tuples(st.text(max_size=4), st.sampled_from(["", "en", "de"]))
ROWS = st.lists(st.tuples(NAMES, st.sampled_from(["u:p", "u:q"]), st.one_of(NAMES, VALUES)), max_size=25)


def line(row) -> str:
    subject, predicate, value = row
    if isinstance(value, str):
        return f"<{subject}> <{predicate}> <{value}> ."
    text, language = value
    return f"<{subject}> <{predicate}> {rdflib.Literal(text, lang=language or None).n3()} .".replace('"""', '"')


@settings(max_examples=25, deadline=None)
@given(ROWS, st.randoms(use_true_random=False))
def test_a_file_means_the_set_of_its_statements_in_any_order(rows, shuffler) -> None:
    import pyoxigraph as ox

    def term(value):
        return ox.NamedNode(value) if isinstance(value, str) else ox.Literal(value[0], language=value[1] or None)

    quads = [ox.Quad(ox.NamedNode(s), ox.NamedNode(p), term(o)) for s, p, o in rows]
    text = [f"{quad} ." for quad in quads]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", lambda *_, **__: None)
        graph = load_kg("\n".join(text).encode(), format="nt")
        shuffler.shuffle(text)
        assert same(graph, load_kg("\n".join([*text, *text[:3]]).encode(), format="nt"))
    assert arcs(graph) == {(s, p, o) for s, p, o in rows if isinstance(o, str)}
    assert list(graph.entities) == sorted({n for s, _, o in rows for n in (s, o) if isinstance(n, str)})
    for name in graph.entities:
        found = [(v.attribute, v.text, v.language) for v in graph.values(name)]
        assert len(found) == len(set(found))
        assert set(found) == {(p, *o) for s, p, o in rows if s == name and not isinstance(o, str)}
    into = set()
    for tail in range(graph.num_entities):
        begin, end = graph.into.offsets[tail], graph.into.offsets[tail + 1]
        ends = zip(graph.into.nodes[begin:end], graph.into.types[begin:end], strict=True)
        into |= {(graph.entities[int(h)], graph.relations[int(r)], graph.entities[tail]) for h, r in ends}
    assert into == arcs(graph)


def test_numbers_that_do_not_fit_one_key_are_sorted_by_columns(monkeypatch) -> None:
    from hetgraph.kg import building

    generator = np.random.default_rng(0)
    columns = tuple(generator.integers(0, 5, 200) for _ in range(3))
    plain = building._distinct(columns, (5, 5, 5))
    wide = building._distinct(columns, (2**31, 2**31, 2**31))
    expected = sorted(set(zip(*(c.tolist() for c in columns), strict=True)))
    assert list(zip(*(c.tolist() for c in plain), strict=True)) == expected
    assert list(zip(*(c.tolist() for c in wide), strict=True)) == expected


def test_every_format_gives_the_same_graph(tmp_path) -> None:
    whole = rdflib.Graph().parse(data=TURTLE, format="turtle")
    expected = load_kg(TURTLE, format="ttl")
    lines = whole.serialize(format="nt")
    forms = {
        "nt": lines,
        "ttl": whole.serialize(format="turtle"),
        "rdf": whole.serialize(format="pretty-xml"),
        "jsonld": whole.serialize(format="json-ld"),
        "nq": lines.replace(" .\n", " <u:g> .\n"),
        "trig": f"<u:g> {{ {lines} }}",
    }
    # rdflib normalises 007 to 7 as it reads
    whole_as_read = from_rdflib(whole)
    for suffix, text in forms.items():
        path = tmp_path / f"g.{suffix}"
        path.write_text(text, encoding="utf-8")
        packed = tmp_path / f"h.{suffix}.gz"
        packed.write_bytes(gzip.compress(text.encode()))
        with open(path, "rb") as stream:
            found = [load_kg(path), load_kg(str(packed)), load_kg(stream), load_kg(text.encode(), format=suffix)]
            assert not stream.closed
        for graph in found:
            assert arcs(graph) == arcs(expected) == arcs(whole_as_read), suffix
            assert {v.text for v in graph.values("http://x.org/cat")} >= {"cat", "Katze", "house cat", "4"}, suffix


def test_named_graphs_are_merged_or_chosen() -> None:
    quads = b"<u:a> <u:p> <u:b> <u:g1> .\n<u:a> <u:p> <u:c> <u:g2> .\n<u:a> <u:p> <u:d> .\n<u:a> <u:p> <u:b> <u:g2> .\n"

    def tails(**options) -> set[str]:
        return {t for _, _, t in load_kg(quads, format="nq", **options).arcs()}

    assert tails() == {"u:b", "u:c", "u:d"}
    assert tails(named_graphs="default") == {"u:d"}
    assert tails(named_graphs=["u:g2"]) == {"u:b", "u:c"}
    with pytest.raises(KnowledgeError, match="named_graphs"):
        tails(named_graphs="u:g2")


def test_languages_leave_other_literals_out_and_are_counted() -> None:
    graph = load_kg(TURTLE, format="ttl", languages=["DE"])
    assert {v.text for v in graph.values("http://x.org/cat")} == {"Katze", "plain", "4", "007"}
    assert graph.report.other_languages == 3
    assert graph.languages() == {"": 3, "de": 1}


def test_blank_nodes_of_different_sources_stay_apart() -> None:
    text = b"_:x <u:p> <u:a> .\n"
    assert load_kg([text, text], format="nt").num_entities == 3
    assert load_kg([text + text], format="nt").num_entities == 2
    store = TripleStore()
    assert store.load(text, format="nt") == store.load(text, format="nt") == 1


@pytest.mark.parametrize(("suffix", "sign"), [("csv", ","), ("tsv", "\t")])
def test_tables_of_names(tmp_path, suffix, sign) -> None:
    rows = [("head", "relation", "tail"), ("/m/1", "likes", "b c"), ("b c", "is", "é"), ("/m/1", "likes", "b c")]
    path = tmp_path / f"t.{suffix}"
    path.write_text("\n".join(sign.join(row) for row in rows), encoding="utf-8")
    graph = load_kg(path)
    assert arcs(graph) == set(rows[1:])
    with pytest.raises(KnowledgeError, match="base="):
        to_rdflib(graph)
    other = to_rdflib(graph, base="http://x.org/")
    assert (rdflib.URIRef("http://x.org/b%20c"), rdflib.URIRef("http://x.org/is"), None) in other
    path.write_text(f"a{sign}b{sign}c\na{sign}b\n")
    with pytest.raises(KnowledgeError, match=r"t\..sv: expected head, relation and tail, got 2 columns.*line 2"):
        load_kg(path)
    skipped = load_kg(path, on_error="skip")
    assert (len(skipped), skipped.report.skipped) == (1, 1)


def test_quotes_belong_to_csv_alone() -> None:
    assert arcs(load_kg(b'"a,b",p,"c\nd"\n', format="csv")) == {("a,b", "p", "c\nd")}
    assert arcs(load_kg(b'"a\tp\tb"\n', format="tsv")) == {('"a', "p", 'b"')}


def test_there_and_back_through_other_libraries() -> None:
    graph = load_kg(TURTLE, format="ttl")
    assert same(load_kg(to_rdflib(graph)), graph)
    assert same(load_kg(to_networkx(graph)), graph)
    data = to_pyg(graph)
    data.validate()
    names = [
        (graph.entities[h], graph.relations[r], graph.entities[t])
        for (h, t), r in zip(data.edge_index.T.tolist(), data.edge_type.tolist(), strict=True)
    ]
    assert set(names) == arcs(graph)
    assert data.num_nodes == graph.num_entities
    triples = load_kg(read_triples(TURTLE, format="ttl"))
    assert arcs(triples) == arcs(graph)
    assert set(triples.labels_of("http://x.org/cat")) == {"cat", "Katze", "plain", "house cat"}
    store = TripleStore()
    store.load(TURTLE, format="ttl")
    assert arcs(store.graph()) == arcs(graph)
    assert load_kg(graph) is graph


def test_graphs_of_networkx_with_keys_labels_and_without_direction() -> None:
    given = nx.MultiDiGraph()
    given.add_node(1, label=["one", "uno"])
    given.add_edge(1, 2, "likes")
    given.add_edge(1, 2)
    given.add_edge(2, 1, relation="knows")
    graph = from_networkx(given)
    assert arcs(graph) == {("1", "likes", "2"), ("1", "edge", "2"), ("2", "knows", "1")}
    assert graph.labels_of("1") == ["one", "uno"]
    assert len(from_networkx(nx.path_graph(4))) == 3
    with pytest.raises(KnowledgeError, match="two nodes"):
        from_networkx(nx.Graph([(1, "1")]))


def test_rdflib_datasets_are_merged_and_quoted_graphs_refused() -> None:
    data = rdflib.Dataset()
    data.graph(rdflib.URIRef("u:g")).add((rdflib.URIRef("u:a"), rdflib.URIRef("u:p"), rdflib.URIRef("u:b")))
    data.default_graph.add((rdflib.URIRef("u:a"), rdflib.URIRef("u:p"), rdflib.BNode("x")))
    assert arcs(from_rdflib(data)) == {("u:a", "u:p", "u:b"), ("u:a", "u:p", "_:b0")}
    wrong = rdflib.Graph()
    wrong.add((rdflib.Literal("x"), rdflib.URIRef("u:p"), rdflib.URIRef("u:b")))
    with pytest.raises(KnowledgeError, match="Literal 'x'"):
        from_rdflib(wrong)


def test_a_saved_graph_is_mapped_read_only_and_shared(tmp_path) -> None:
    graph = load_kg(TURTLE, format="ttl")
    path = tmp_path / "deep" / "g.npz"
    graph.save(path)
    assert [p.name for p in path.parent.iterdir()] == ["g.npz"]
    mapped = load_kg(path)
    assert same(mapped, graph)
    assert mapped.report == graph.report
    assert isinstance(mapped.out.nodes.base, np.memmap) or isinstance(
        mapped.out.nodes.base.base, np.memmap | type(None)
    )
    for array in (mapped.out.nodes, graph.out.nodes, pickle.loads(pickle.dumps(graph)).out.nodes):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    # NumPy reads it too, without pickle
    with np.load(path, allow_pickle=False) as plain:
        assert np.array_equal(plain["out.nodes"], graph.out.nodes)
    small = pickle.dumps(mapped)
    assert len(small) < 400
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(len, (mapped,)) == len(graph)
    assert same(pickle.loads(small), graph)
    load_kg(b"<u:a> <u:p> <u:b> .", format="nt").save(path)
    with pytest.raises(KnowledgeError, match="another graph"):
        pickle.loads(small)
    # what was mapped before is still whole: the new file has another place on the disk
    assert arcs(mapped) == arcs(graph)


def _members(path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _write(path, members, compression=zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def test_a_graph_packed_anew_is_read_and_damaged_ones_are_refused(tmp_path) -> None:
    graph = load_kg(TURTLE, format="ttl")
    path = tmp_path / "g.npz"
    graph.save(path)
    members = _members(path)
    other = tmp_path / "h.npz"
    _write(other, members)  # nothing is aligned there
    assert same(load_kg(other), graph)

    def array(values, dtype=np.int32) -> bytes:
        out = io.BytesIO()
        np.save(out, np.array(values, dtype))
        return out.getvalue()

    nodes = graph.out.nodes.tolist()
    offsets = graph.out.offsets.tolist()
    damaged = {
        "out of range": {"out.nodes.npy": array([10**6, *nodes[1:]])},
        "negative": {"into.types.npy": array([-1, *graph.into.types[1:].tolist()])},
        "offsets fall": {"out.offsets.npy": array([0, 9, *offsets[2:]])},
        "offsets are short": {"out.offsets.npy": array(offsets[:-1])},
        "names are cut": {"entities.text.npy": array(graph.entities.text[:-1], np.uint8)},
        "floats": {"out.nodes.npy": array(nodes, np.float32)},
        "objects": {"out.nodes.npy": array(nodes, object).replace(b"hetgraph", b"hetgraph")},
        "other version": {"graph.json": json.dumps({"format": "hetgraph.kg", "version": 99}).encode()},
        "no json": {"graph.json": b"{"},
        "no array": {"out.nodes.npy": b"nothing"},
    }
    for what, changes in damaged.items():
        _write(other, {**members, **changes})
        with pytest.raises(KnowledgeError, match=r"h\.npz"):
            print(what, load_kg(other))
    _write(other, members, zipfile.ZIP_DEFLATED)
    with pytest.raises(KnowledgeError, match="compressed"):
        load_kg(other)
    _write(other, {k: v for k, v in members.items() if k != "out.nodes.npy"})
    with pytest.raises(KnowledgeError, match=r"out\.nodes"):
        load_kg(other)
    other.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(KnowledgeError, match="not a saved"):
        load_kg(other)
    with pytest.raises(KnowledgeError, match="gone"):
        load_kg(tmp_path / "gone.npz")
    with pytest.raises(KnowledgeError, match="could not write"):
        graph.save("/proc/none/g.npz")


def test_numbered_arcs_are_checked() -> None:
    graph = KnowledgeGraph.from_arcs([0, 1, 0], [0, 0, 0], [1, 0, 1], ["b", "a"], ["r"])
    assert arcs(graph) == {("b", "r", "a"), ("a", "r", "b")}
    assert graph.entities.index("a") == 0
    assert graph.out.nodes.dtype == graph.out.offsets.dtype == np.int32
    for wrong in (
        ([0], [0], [2], ["a", "b"], ["r"]),
        ([-1], [0], [0], ["a"], ["r"]),
        ([0], [0, 0], [0], ["a"], ["r"]),
        ([0.5], [0], [0], ["a"], ["r"]),
        ([0], [0], [0], ["a", "a"], ["r"]),
    ):
        with pytest.raises(KnowledgeError):
            KnowledgeGraph.from_arcs(*wrong)


def test_names_are_found_by_halving() -> None:
    names = [f"u:{i}{'é' * (i % 3)}" for i in random.Random(0).sample(range(10_000), 300)]
    graph = KnowledgeGraph.from_arcs([], [], [], names, [])
    assert [graph.entities[graph.entities.find(name)] for name in names] == names
    assert [graph.entities.find(name) for name in ("", "u:", "zzz", "u:5 ", "\ud800")] == [-1] * 5
    assert names[0] in graph.entities
    assert graph.numbers([names[3], 5]) == [graph.entities.index(names[3]), 5]
    for wrong in ("u:none", 300, -1):
        with pytest.raises(KnowledgeError, match="is not one of the 300"):
            graph.numbers([wrong])


def test_an_empty_source_is_an_empty_graph_and_a_warning(tmp_path) -> None:
    (tmp_path / "e.jsonld").write_bytes(b"")
    for source, form in (
        (b"", "ttl"),
        (b"# nothing", "nt"),
        (b"\xef\xbb\xbf", "nq"),
        (tmp_path / "e.jsonld", None),
        (b"", "csv"),
    ):
        with pytest.warns(EmptyGraphWarning, match="no statement"):
            graph = load_kg(source, format=form)
        assert (len(graph), graph.num_entities, graph.labels, graph.languages()) == (0, 0, {}, {})
        graph.save(tmp_path / "e.npz")
        assert same(load_kg(tmp_path / "e.npz"), graph)


def test_other_sources_are_refused(tmp_path) -> None:
    with pytest.raises(KnowledgeError, match="format="):
        load_kg(b"")
    with pytest.raises(KnowledgeError, match="int"):
        load_kg(7)
    with pytest.raises(KnowledgeError, match="on_error"):
        load_kg(b"", format="nt", on_error="ignore")
    with pytest.raises(KnowledgeError, match="each line"):
        load_kg(b"", format="ttl", on_error="skip")
    with pytest.raises(KnowledgeError, match="list"):
        load_kg(b"", format="nt", languages="en")
    with pytest.raises(KnowledgeError, match="gone"):
        load_kg(tmp_path / "gone.nt")
    with pytest.raises(KnowledgeError, match="binary"):
        load_kg(io.StringIO("<u:a>"), format="nt")
    with pytest.raises(KnowledgeError, match="list of sources"):
        load_kg([rdflib.Graph(), b""], format="nt")


def test_the_graph_of_some_relations_has_their_arcs_and_everything_else() -> None:
    text = b"""<u:a> <http://x.org/v#likes> <u:b> . <u:b> <http://x.org/v#likes> <u:c> . <u:a> <u:near> <u:c> .
<u:c> <http://x.org/w#likes> <u:a> . <u:a> <http://www.w3.org/2000/01/rdf-schema#label> "A"@en ."""
    graph = load_kg(text, format="ttl")
    some = graph.of_relations(["near", "http://x.org/v#likes"])
    assert list(some.relations) == ["http://x.org/v#likes", "u:near"]
    assert set(some.arcs()) == {arc for arc in graph.arcs() if arc[1] in some.relations}
    assert list(some.entities) == list(graph.entities)
    assert some.labels_of("u:a") == ["A"]
    assert len(graph.of_relations([])) == 0
    with pytest.raises(KnowledgeError, match="'likes' names 2 of the 3 relations"):
        graph.of_relations(["likes"])
    with pytest.raises(KnowledgeError, match="'hates' names 0"):
        graph.of_relations(["hates"])
