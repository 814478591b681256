"""Input that hangs, crashes or deceives the usual libraries: refused, with an error that says why.

What could end the interpreter runs in a process of its own.
"""

from __future__ import annotations

import gzip
import http.server
import subprocess
import sys
import threading
import time

import kg_crash
import pyoxigraph as ox
import pytest

from hetgraph.kg import (
    KnowledgeError,
    Limits,
    LiteralTooLarge,
    ParseError,
    QueryError,
    QueryTimeout,
    Table,
    TripleStore,
    UnsafeInputError,
    load_kg,
)

NT = b"<u:a> <u:p> <u:b> .\n<u:b> <u:q> <u:c> .\n"
RDF = b'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:u="u:">'
XML = RDF + b'<u:A rdf:about="u:a"><u:p>x</u:p></u:A></rdf:RDF>'
BOMB = b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'


@pytest.fixture
def asked():
    """A server on loopback and the list of what it was asked for."""
    paths: list[str] = []

    class Listening(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"{}")

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Listening)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", paths
    server.shutdown()
    thread.join()
    server.server_close()


def test_nesting_that_ends_the_interpreter_is_an_error_instead() -> None:
    kinds = ["json", "context", "lines", "turtle", "nested query", "long query"]
    command = [sys.executable, "-W", "ignore", kg_crash.__file__, *kinds]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-300:]
    found = dict(line.split(": ") for line in done.stdout.splitlines())
    assert found.pop("long query") in ("QueryError", "QueryTimeout")
    assert found.pop("nested query") == "QueryError"
    assert found == dict.fromkeys(kinds[:4], "UnsafeInputError")


@pytest.mark.parametrize("kind", ["json", "lines", "turtle"])
def test_nesting_within_the_limit_is_the_parsers_business(kind) -> None:
    data, form = kg_crash.document(kind, 128)
    if kind == "json":
        assert len(load_kg(data, format=form).literals.texts) == 1
    else:
        with pytest.raises(ParseError, match="statement about a statement"):
            load_kg(data, format=form)
    data, form = kg_crash.document(kind, 129)
    with pytest.raises(UnsafeInputError, match="128 deep"):
        load_kg(data, format=form)
    with pytest.raises(KnowledgeError, match="at most 500"):
        Limits(depth=501)


def test_brackets_in_strings_of_json_do_not_count() -> None:
    text = b'{"@id":"u:a","u:p":"' + b'[{\\"' * 1000 + b'"}'
    assert load_kg(text, format="jsonld").values("u:a")[0].text == '[{"' * 1000


@pytest.mark.parametrize(
    "text",
    [
        BOMB + XML,
        BOMB.lower() + XML,
        b"\xef\xbb\xbf" + BOMB + XML,
        b"<!DOCTYPE rdf:RDF>" + XML,
        # behind the root element, where the parser still expands
        XML.replace(b"<u:A ", BOMB + b"<u:A "),
        b" " * 8190 + BOMB + XML,
        b" " * (2**16 - 4) + BOMB + XML,
        XML.decode().encode("utf-16"),
    ],
    ids=["bomb", "lower case", "mark", "empty", "inside", "across pieces", "across large pieces", "utf-16"],
)
def test_rdf_xml_with_a_doctype_is_not_read(text) -> None:
    with pytest.raises(UnsafeInputError, match=r"DOCTYPE|UTF-16"):
        load_kg(text, format="rdf")
    assert len(load_kg(XML, format="rdf").literals.texts) == 1


def test_remote_contexts_are_refused_or_given(asked) -> None:
    url, paths = asked
    address = f"{url}/context"
    context = {"@context": {"knows": {"@id": "u:knows", "@type": "@id"}}}
    text = f'{{"@context": ["{address}", {{"n": "u:n"}}], "@id": "u:a", "knows": "u:b", "n": 1.50}}'.encode()
    with pytest.raises(UnsafeInputError, match="not fetched"):
        load_kg(text, format="jsonld")
    for given in (context, context["@context"], [context["@context"]]):
        graph = load_kg(text, format="jsonld", contexts={address: given})
        assert list(graph.arcs()) == [("u:a", "u:knows", "u:b")]
    for given in ({"@context": address}, "u:x", {"@context": {"t": {"@id": "u:t", "@context": address}}}):
        with pytest.raises(UnsafeInputError, match="names another context"):
            load_kg(text, format="jsonld", contexts={address: given})
    inner = f'{{"@context": {{"k": {{"@id": "u:k", "@context": "{address}"}}}}, "@id": "u:a", "k": 1}}'.encode()
    imported = f'{{"@context": {{"@import": "{address}"}}, "@id": "u:a"}}'.encode()
    for wrong in (inner, imported, f'[{{"@context":"{address}"}}]'.encode(), b'{"@context": "file:///etc/passwd"}'):
        with pytest.raises(UnsafeInputError):
            load_kg(wrong, format="jsonld")
        with pytest.raises(UnsafeInputError):
            TripleStore().load(wrong, format="jsonld")
    assert paths == []


def test_addresses_are_not_fetched(asked) -> None:
    url, paths = asked
    for source in (f"{url}/g.nt", f"{url}/g.npz", "file:///etc/passwd.nt", "FTP://x.org/g.ttl"):
        with pytest.raises(KnowledgeError):
            load_kg(source)
    with pytest.raises(KnowledgeError, match="nothing is fetched"):
        load_kg(f"{url}/g.nt")
    assert paths == []


@pytest.mark.parametrize("where", ["file", "store"])
def test_a_malformed_line_leaves_nothing_and_is_named(tmp_path, where) -> None:
    path = tmp_path / "broken.nt"
    path.write_bytes(b"<u:a> <u:p> <u:b> .\n<u:a> <u:p> .\n<u:b> <u:p> <u:c> .\n")
    store = TripleStore()
    with pytest.raises(ParseError, match=r"broken\.nt: .*line 2") as error:
        load_kg(path) if where == "file" else store.load(path)
    assert (error.value.line, error.value.column) == (2, 13)
    assert len(store) == 0


def test_malformed_lines_can_be_counted_and_left_out() -> None:
    wrong = [b"<u:a> <u:p> .", b"<u:a b> <u:p> <u:c> .", b'<u:a> <u:p> "\\uD800" .', b"<u:a> <u:p> <rel> ."]
    large = b'<u:a> <u:p> "' + b"x" * 2000 + b'" .'
    about = b"<u:a> <u:p> <<( <u:a> <u:b> <u:c> )>> ."
    text = b"\n".join([NT, *wrong, large, about, b"<u:c> <u:p> <u:d> ."])
    graph = load_kg(text, format="nt", on_error="skip", limits=Limits(literal=1000))
    assert len(graph) == 3
    assert graph.report.skipped == 6
    assert len(graph.report.first) == 5
    assert "line 4" in graph.report.first[0]


@pytest.mark.parametrize("form", ["nt", "ttl", "jsonld", "rdf"])
def test_a_name_with_a_space_is_an_error_in_every_format(form) -> None:
    name = "u:a b"
    text = {
        "nt": f"<{name}> <u:p> <u:c> .",
        "ttl": f"<{name}> <u:p> <u:c> .",
        "jsonld": f'{{"@id": "{name}", "u:p": {{"@id": "u:c"}}}}',
        "rdf": XML.decode().replace("u:a", name),
    }[form]
    with pytest.raises(ParseError):
        load_kg(text.encode(), format=form)
    alias = b'{"@context": {"id": "@id", "p": {"@id": "u:p", "@type": "@id"}}, "id": "u:a", "p": ["u:c d"]}'
    with pytest.raises(ParseError, match="'u:c d' under 'p'"):
        load_kg(alias, format="jsonld")


@pytest.mark.parametrize("form", ["nt", "ttl", "jsonld", "rdf"])
def test_relative_names_need_a_base(form) -> None:
    text = {
        "nt": "<a> <u:p> <u:c> .",
        "ttl": "<a> <u:p> <u:c> .",
        "jsonld": '{"@id": "a", "u:p": {"@id": "u:c"}}',
        "rdf": XML.decode().replace("u:a", "a"),
    }[form].encode()
    with pytest.raises(ParseError):
        load_kg(text, format=form)
    if form != "nt":
        assert "http://x.org/a" in load_kg(text, format=form, base="http://x.org/").entities


def test_a_number_of_100_000_digits_keeps_its_form(caplog) -> None:
    digits = "1" * 100_000
    graph = load_kg(f'<u:a> <u:p> "{digits}"^^<http://www.w3.org/2001/XMLSchema#integer> .'.encode(), format="nt")
    assert graph.values("u:a")[0].text == digits
    assert not caplog.records
    with pytest.raises(ParseError, match="digits"):
        load_kg(f'{{"@id": "u:a", "u:p": {digits}}}'.encode(), format="jsonld")


@pytest.mark.parametrize("form", ["nt", "ttl", "rdf", "jsonld"])
@pytest.mark.parametrize("size", [(1 << 20) + 1, 20 << 20])
def test_literals_over_the_limit_are_refused_quickly(form, size) -> None:
    x = b"x" * size
    text = {
        "nt": b'<u:a> <u:p> "' + x + b'" .',
        "ttl": b'<u:a> <u:p> """' + x + b'""" .',
        "rdf": XML.replace(b">x<", b">" + x + b"<"),
        "jsonld": b'{"@id":"u:a","u:p":"' + x + b'"}',
    }[form]
    with pytest.raises(LiteralTooLarge, match="1048576 bytes"):
        load_kg(text, format=form)
    assert len(TripleStore()) == 0


def test_the_limit_counts_bytes_and_can_be_set() -> None:
    text = '<u:a> <u:p> "é" .'.encode()
    assert load_kg(text, format="nt", limits=Limits(literal=2)).values("u:a")[0].text == "é"
    long = '<u:a> <u:p> "ééééé" .'.encode()
    with pytest.raises(LiteralTooLarge):
        load_kg(long, format="nt", limits=Limits(literal=9))
    for wrong in (0, -1, 2.5, True):
        with pytest.raises(KnowledgeError, match="positive integer"):
            Limits(literal=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [b'<u:a> <u:p> "\xff" .', b'<u:a> <u:p> "\\uD800" .', b'<u:a> <u:p> "\xed\xa0\x80" .'])
def test_what_is_not_unicode_is_named_by_its_line(bad) -> None:
    with pytest.raises(ParseError, match="line 3"):
        load_kg(NT + bad + b"\n", format="nt")


def test_one_byte_order_mark_is_left_out_in_every_format() -> None:
    mark = b"\xef\xbb\xbf"
    assert len(load_kg(mark + NT, format="nt")) == 2
    assert len(load_kg(mark + NT, format="ttl")) == 2
    assert len(load_kg(mark + b"a,b,c", format="csv")) == 1
    assert next(iter(load_kg(mark + b"a,b,c", format="csv").entities)) == "a"
    assert len(load_kg(mark + b'{"@id":"u:a","u:p":1}', format="jsonld").literals.texts) == 1
    with pytest.raises(ParseError, match="line 1"):
        load_kg(mark + mark + NT, format="nt")
    for form in ("jsonld", "csv"):
        with pytest.raises(ParseError, match="UTF-8"):
            load_kg(b'{"@id":"u:\xff"}', format=form)


def test_gzip_is_unpacked_up_to_a_limit(tmp_path) -> None:
    assert len(load_kg(gzip.compress(NT), format="nt")) == 2
    with pytest.raises(KnowledgeError, match="unpacks to more than 1000"):
        load_kg(gzip.compress(NT * 100), format="nt", limits=Limits(unpacked=1000))
    (tmp_path / "cut.nt.gz").write_bytes(gzip.compress(NT * 100)[:-9])
    (tmp_path / "fake.nt.gz").write_bytes(NT)
    for name in ("cut", "fake"):
        with pytest.raises(KnowledgeError, match=rf"{name}\.nt\.gz"):
            load_kg(tmp_path / f"{name}.nt.gz")
    with pytest.raises(UnsafeInputError, match="more than 10 bytes"):
        load_kg(b'{"@id":"u:a"}', format="jsonld", limits=Limits(document=10))


REACHING = [
    "SELECT * { SERVICE <URL/sparql> { ?s ?p ?o } }",
    "SELECT * { service silent ?x { ?s ?p ?o } }",
    "PREFIX : <URL/> ASK { SERVICE:x { ?s ?p ?o } }",
    "PREFIX : <URL/> ASK { ?s ?p true.SERVICE:x { ?s ?p ?o } }",
    "ASK { # }\n SERVICE <URL/sparql> { ?s ?p ?o } }",
    "ASK { ?s ?p '\\'' . SERVICE <URL/sparql> { ?s ?p '' } }",
    "PREFIX e: <u:> ASK { ?s e:a\\' ?o . SERVICE <URL/sparql> { ?s ?p ?o } FILTER(?o = e:b\\') }",
    "ASK { FILTER(1<2)SERVICE<URL/sparql>{ ?s ?p ?o } }",
    "ASK { \\u0053ERVICE <URL/sparql> { ?s ?p ?o } }",
    "SELECT * FROM <URL/g> { ?s ?p ?o }",
    "SELECT * FROM NAMED <URL/g> { ?s ?p ?o }",
    "LOAD <URL/g>",
    "SELECT * {} ; LOAD <URL/g>",
]


@pytest.mark.parametrize("query", REACHING)
def test_queries_that_reach_for_the_network_are_refused(query, asked) -> None:
    url, paths = asked
    store = TripleStore()
    store.load(NT, format="nt")
    with pytest.raises(QueryError, match=r"not allowed|backslash"):
        store.query(query.replace("URL", url))
    assert paths == []


@pytest.mark.parametrize(
    "query",
    [
        "ASK { ?service <u:p> <http://x.org/service/load> } # SERVICE <u:x> {}",
        "ASK { ?s <u:p> 'SERVICE <u:x> { }' }",
        'ASK { ?s <u:p> """FROM\n"LOAD" """ }',
        "PREFIX e: <u:> ASK { ?s e:fromage ?o FILTER(?a<?b&&?c>?d) }",
        "ASK { ?s <u:p> 'x'@en }",
    ],
)
def test_words_that_only_look_like_it_are_not(query) -> None:
    assert TripleStore().query(query, timeout=None) is False


@pytest.mark.parametrize(
    "query",
    [
        "SELECT (COUNT(*) AS ?n) { ?a ?b ?c . ?d ?e ?f . ?g ?h ?i . ?j ?k ?l . ?m ?n ?o . ?q ?r ?s }",
        "ASK { ?a <u:p>" + "/<u:p>" * 3000 + " ?b }",
    ],
    ids=["endless join", "endless planning"],
)
def test_endless_queries_are_ended(query) -> None:
    store = TripleStore()
    store.load("".join(f"<u:{i}> <u:p> <u:{i + 1}> .\n" for i in range(200)).encode(), format="nt")
    start = time.monotonic()
    with pytest.raises(QueryTimeout, match=r"0\.3 s"):
        store.query(query, timeout=0.3)
    assert time.monotonic() - start < 30
    assert store.query("ASK { ?s ?p ?o }") is True


def test_rows_are_capped() -> None:
    store = TripleStore()
    store.load("".join(f"<u:{i}> <u:p> <u:{i + 1}> .\n" for i in range(20)).encode(), format="nt")
    for timeout in (30.0, None):
        found = store.query("SELECT * { ?a ?b ?c . ?d ?e ?f }", max_rows=7, timeout=timeout)
        assert isinstance(found, Table)
        assert (len(found), found.truncated) == (7, True)
    exact = store.query("SELECT * { ?a ?b ?c }", max_rows=20)
    assert isinstance(exact, Table)
    assert (len(exact), exact.truncated) == (20, False)


def test_a_query_may_be_64_kilobytes_and_100_deep() -> None:
    store = TripleStore()
    assert store.query("ASK " + "{" * 100 + "}" * 100) is True
    with pytest.raises(QueryError, match="100 deep"):
        store.query("ASK " + "{" * 101 + "}" * 101)
    with pytest.raises(QueryError, match="65536 bytes"):
        store.query("ASK {} #" + "é" * 33_000)


def test_values_go_in_as_bindings_and_nowhere_else() -> None:
    store = TripleStore()
    store.load(NT + b'<u:a> <u:name> "x\\" } #" .', format="nt")
    query = "SELECT ?o { ?s ?p ?o }"
    evil = "u:a> ?x ?y . ?s ?p ?o } #"
    with pytest.raises(QueryError, match="not an IRI"):
        store.query(query, bindings={"s": evil})
    found = store.query(query, bindings={"s": "u:b"})
    assert isinstance(found, Table)
    assert found.rows == [(ox.NamedNode("u:c"),)]
    found = store.query("SELECT ?s { ?s ?p ?o }", bindings={"?o": ox.Literal('x" } #')})
    assert isinstance(found, Table)
    assert found.rows == [(ox.NamedNode("u:a"),)]
    with pytest.raises(QueryError, match="no variable 'z'"):
        store.query(query, bindings={"z": "u:b"})
    with pytest.raises(QueryError, match="list"):
        store.query(query, bindings={"s": ["u:b"]})
