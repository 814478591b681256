"""Stores and endpoints: answers like rdflib's, folders, a real server that is killed midway, servers that misbehave."""

from __future__ import annotations

import http.server
import pickle
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pyoxigraph as ox
import pytest
import rdflib

from hetgraph.kg import (
    EndpointError,
    EndpointQueryError,
    EndpointTimeout,
    EndpointUnavailable,
    KnowledgeError,
    QueryError,
    QueryTimeout,
    ResponseTooLarge,
    SparqlEndpoint,
    Table,
    TripleStore,
    load_kg,
)
from hetgraph.kg import store as store_module
from hetgraph.kg.sparql import bound, check

CHAIN = "".join(f'<u:{i}> <u:next> <u:{i + 1}> .\n<u:{i}> <u:name> "n{i}"@en .\n' for i in range(30)).encode()
QUERIES = [
    "SELECT ?a ?c { ?a <u:next> ?b . ?b <u:next> ?c }",
    "SELECT ?a ?n { ?a <u:next> ?b OPTIONAL { ?b <u:name> ?n } }",
    "SELECT (COUNT(?a) AS ?n) { ?a <u:next> ?b }",
    "SELECT DISTINCT ?p { ?a ?p ?b } ORDER BY ?p",
]


def plain(rows) -> list[list[str | None]]:
    return sorted([None if t is None else str(getattr(t, "value", t)) for t in row] for row in rows)


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("timeout", [30.0, None], ids=["child", "here"])
def test_answers_are_those_of_rdflib(query, timeout) -> None:
    store = TripleStore()
    assert store.load(CHAIN, format="nt") == len(store) == 60
    found = store.query(query, timeout=timeout)
    expected = rdflib.Graph().parse(data=CHAIN, format="nt").query(query)
    assert isinstance(found, Table)
    assert plain(found.rows) == plain(expected)
    assert list(found.variables) == [str(v) for v in expected.vars or []]
    assert [set(row) for row in found] == [set(found.variables)] * len(found)


def test_asking_and_constructing() -> None:
    store = TripleStore()
    store.load(CHAIN, format="nt")
    assert store.query("ASK { <u:1> ?p <u:2> }") is True
    triples = store.query("CONSTRUCT { ?b <u:back> ?a } WHERE { ?a <u:next> ?b }", max_rows=5)
    assert isinstance(triples, list)
    assert len(triples) == 5
    assert {t.predicate.value for t in triples} == {"u:back"}
    with pytest.raises(QueryError, match=r"error at 1:\d+"):
        store.query("SELECT WHERE")
    with pytest.raises(QueryError, match="max_rows"):
        store.query("ASK {}", max_rows=-1)


def test_patterns_see_all_named_graphs() -> None:
    store = TripleStore()
    store.load(b"<u:a> <u:p> <u:b> <u:g> .\n<u:b> <u:p> <u:c> .", format="nq")
    assert store.query("ASK { <u:a> ?p ?x . ?x ?p <u:c> }") is True
    assert store.query("ASK { GRAPH <u:g> { <u:b> ?p ?x } }") is False
    assert len(store.graph()) == 2


def test_a_folder_keeps_its_statements_and_has_one_writer(tmp_path) -> None:
    store = TripleStore(tmp_path / "s")
    store.load(CHAIN, format="nt")
    store.optimize()
    assert store.query("ASK { <u:1> ?p <u:2> }") is True
    with pytest.raises(KnowledgeError, match="s: "):
        TripleStore(tmp_path / "s")
    del store
    again = TripleStore(tmp_path / "s", read_only=True)
    assert len(again) == 60
    with pytest.raises(KnowledgeError):
        again.load(b"<u:x> <u:p> <u:y> .", format="nt")
    with pytest.raises(KnowledgeError, match="folder"):
        TripleStore(read_only=True)
    with pytest.raises(KnowledgeError, match="cannot be pickled"):
        pickle.dumps(again)


def test_a_child_that_cannot_begin_is_replaced(tmp_path, monkeypatch) -> None:
    """As when a lock of the engine was held by another thread while the process was copied."""
    real, tried = store_module._child, tmp_path / "tried"

    def stuck_at_first(*arguments) -> None:
        with tried.open("a") as file:
            file.write("x")
        if tried.stat().st_size < 3:
            time.sleep(60)
        real(*arguments)

    monkeypatch.setattr(store_module, "_child", stuck_at_first)
    monkeypatch.setattr(store_module, "BEGUN", 0.5)
    store = TripleStore()
    store.load(CHAIN, format="nt")
    assert store.query("ASK { <u:1> ?p <u:2> }") is True
    assert tried.stat().st_size >= 3
    monkeypatch.setattr(store_module, "_child", lambda *arguments: time.sleep(60))
    with pytest.raises(QueryTimeout, match=r"more than 0\.8 s"):
        store.query("ASK { <u:1> ?p <u:2> }", timeout=0.8)


def test_a_query_may_not_take_all_memory() -> None:
    store = TripleStore()
    store.load(CHAIN, format="nt")
    with pytest.raises(QueryError, match="too much for the engine"):
        store.query("SELECT * { ?a ?b ?c . ?d ?e ?f . ?g ?h ?i . ?j ?k ?l } ORDER BY ?l", memory=1 << 26, timeout=120)


def test_values_go_into_the_outermost_group() -> None:
    given = {"s": ox.NamedNode("u:1")}
    assert bound("CONSTRUCT { ?s ?p 1 } WHERE { ?s ?p ?o }", given).startswith("CONSTRUCT { ?s ?p 1 } WHERE { VALUES")
    assert bound("CONSTRUCT WHERE{ ?s ?p ?o }", given).startswith("CONSTRUCT WHERE{ VALUES")
    assert bound("ASK # {\n { ?s ?p '{' }", given).startswith("ASK # {\n { VALUES (?s) { (<u:1>) }")
    with pytest.raises(QueryError, match="group"):
        bound("DESCRIBE ?s", given)
    assert check("SELECT ?a $b { ?a ?b '?c' } # ?d") == {"a", "b"}


# --- endpoints ----------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def server() -> Iterator[Callable[[Callable], str]]:
    """Start a server on loopback whose POST is a function of the handler; gives its address."""
    running = []

    def start(answer: Callable) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                answer(self)

            def do_GET(self) -> None:
                answer(self)

            def log_message(self, *_: object) -> None:
                pass

        one = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        one.daemon_threads = True
        one.block_on_close = False
        thread = threading.Thread(target=one.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        running.append((one, thread))
        return f"http://127.0.0.1:{one.server_port}/query"

    yield start
    for one, thread in running:
        one.shutdown()
        thread.join()
        one.server_close()


def send(handler, status: int, body: bytes, **headers: str) -> None:
    handler.send_response(status)
    for name, value in {"Content-Length": str(len(body)), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


def test_errors_of_the_query_have_status_and_body(server) -> None:
    for status in (400, 404, 500):
        calls = []

        def refuse(handler, status=status, calls=calls) -> None:
            calls.append(1)
            send(handler, status, b"no such function: f")

        with pytest.raises(EndpointQueryError, match=f"HTTP {status} no such function") as error:
            SparqlEndpoint(server(refuse), pause=0).query("ASK {}")
        assert (error.value.status, error.value.body) == (status, "no such function: f")
        assert len(calls) == 1


def test_a_busy_server_is_asked_again_and_not_for_ever(server) -> None:
    calls = []

    def busy_twice(handler) -> None:
        calls.append(1)
        send(handler, 503 if len(calls) < 3 else 200, b"later" if len(calls) < 3 else b'{"head":{},"boolean":true}')

    assert SparqlEndpoint(server(busy_twice), retries=2, pause=0).query("ASK {}") is True
    assert len(calls) == 3
    with pytest.raises(EndpointUnavailable, match=r"HTTP 429 .*asked 2 times"):
        SparqlEndpoint(server(lambda h: send(h, 429, b"")), retries=1, pause=0).query("ASK {}")
    with pytest.raises(EndpointTimeout, match="no time is left"):
        SparqlEndpoint(server(lambda h: send(h, 503, b"")), timeout=0.5, pause=5).query("ASK {}")


def test_nobody_there_and_a_connection_that_breaks_off(server) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(EndpointUnavailable, match="asked 2 times"):
        SparqlEndpoint(f"http://127.0.0.1:{port}/", retries=1, pause=0).query("ASK {}")

    def hang_up(handler) -> None:
        handler.connection.shutdown(socket.SHUT_RDWR)

    def cut(handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(b'{"head":')
        handler.wfile.flush()
        handler.connection.shutdown(socket.SHUT_RDWR)

    for breaking in (hang_up, cut):
        with pytest.raises(EndpointUnavailable, match="broke off"):
            SparqlEndpoint(server(breaking), retries=0).query("ASK {}")


def test_a_timeout_holds_for_silence_and_for_a_trickle(server) -> None:
    over = threading.Event()

    def silent(handler) -> None:
        over.wait(20)

    def trickle(handler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while not over.wait(0.02):
            try:
                handler.wfile.write(b" ")
                handler.wfile.flush()
            except OSError:
                return

    for slow in (silent, trickle):
        start = time.monotonic()
        with pytest.raises(EndpointTimeout, match=r"0\.3 s"):
            SparqlEndpoint(server(slow), timeout=0.3).query("ASK {}")
        assert time.monotonic() - start < 10
    over.set()


def test_answers_are_bounded_and_checked(server) -> None:
    with pytest.raises(ResponseTooLarge, match="2000 bytes"):
        SparqlEndpoint(server(lambda h: send(h, 200, b" " * 2000)), max_bytes=1000).query("ASK {}")

    def unannounced(handler) -> None:
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(b" " * 200_000)

    with pytest.raises(ResponseTooLarge, match="over 100000"):
        SparqlEndpoint(server(unannounced), max_bytes=100_000).query("ASK {}")
    deep = b'{"head":{"vars":["x"]},"results":{"bindings":[{"x":' + b'{"type":"triple","value":{"object":' * 50_000
    for body in (
        b"<html>",
        deep,
        b'{"head":1}',
        b'{"head":{"vars":["x"]},"results":{"bindings":[{"x":{"type":"uri","value":"a b"}}]}}',
    ):
        with pytest.raises(EndpointError, match="neither"):
            SparqlEndpoint(server(lambda h, body=body: send(h, 200, body))).query("SELECT ?x {}")


def test_redirections_are_not_followed(server) -> None:
    asked = []
    elsewhere = server(lambda h: asked.append(1) or send(h, 200, b'{"head":{},"boolean":true}'))
    endpoint = SparqlEndpoint(server(lambda h: send(h, 302, b"", Location=elsewhere)), headers={"Authorization": "x"})
    with pytest.raises(EndpointError, match="redirects to"):
        endpoint.query("ASK {}")
    assert asked == []


def test_other_addresses_and_settings_are_refused() -> None:
    for url in ("file:///etc/passwd", "ftp://x.org/", "x.org/sparql", "http:///x"):
        with pytest.raises(EndpointError, match="http"):
            SparqlEndpoint(url)
    for wrong in ({"timeout": 0}, {"retries": -1}, {"max_bytes": 0}):
        with pytest.raises(EndpointError, match="positive"):
            SparqlEndpoint("http://127.0.0.1/", **wrong)
    endpoint = SparqlEndpoint("http://127.0.0.1:9/")
    with pytest.raises(QueryError, match="100 deep"):
        endpoint.query("ASK " + "{" * 101 + "}" * 101)
    with pytest.raises(QueryError, match="not an IRI"):
        endpoint.neighbours(["u:a> } #"])
    with pytest.raises(QueryError, match="direction"):
        endpoint.neighbours(["u:a"], direction="up")


def _program() -> str | None:
    beside = Path(sys.executable).with_name("oxigraph")
    return str(beside) if beside.exists() else shutil.which("oxigraph")


@pytest.fixture
def oxigraph() -> Iterator[tuple[SparqlEndpoint, subprocess.Popen]]:
    """A real server with the chain in it."""
    program = _program()
    if program is None:
        pytest.skip("the oxigraph server is not installed: pip install 'hetgraph[test]'")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = subprocess.Popen(
        [program, "serve", "--bind", f"127.0.0.1:{port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        store = urllib.request.Request(
            f"http://127.0.0.1:{port}/store?default", CHAIN, {"Content-Type": "application/n-triples"}, method="POST"
        )
        for _ in range(600):
            try:
                urllib.request.urlopen(store, timeout=30).close()
                break
            except OSError:
                time.sleep(0.05)
        yield SparqlEndpoint(f"http://127.0.0.1:{port}/query", timeout=30, retries=1, pause=0.05), running
    finally:
        running.kill()
        running.wait()


def test_a_real_server_answers_like_a_store_until_it_is_killed(oxigraph) -> None:
    endpoint, running = oxigraph
    store = TripleStore()
    store.load(CHAIN, format="nt")
    for query in QUERIES:
        found, expected = endpoint.query(query), store.query(query)
        assert isinstance(found, Table)
        assert isinstance(expected, Table)
        assert plain(found.rows) == plain(expected.rows)
    assert endpoint.query("ASK { ?s ?p ?o }", bindings={"s": "u:1"}) is True
    assert endpoint.query("ASK { ?s ?p ?o }", bindings={"s": "u:none"}) is False
    counted = "SELECT (COUNT(?o) AS ?n) { ?s <u:next> ?o }"
    assert plain(endpoint.query(counted, bindings={"s": "u:1"}).rows) == [["1"]]
    assert plain(store.query(counted, bindings={"s": "u:1"}).rows) == [["1"]]
    made = endpoint.query("CONSTRUCT { ?b <u:back> ?a } WHERE { ?a <u:next> ?b }")
    assert isinstance(made, list)
    assert len(made) == 30
    with pytest.raises(EndpointQueryError) as error:
        endpoint.query("SELECT WHERE {")
    assert error.value.status == 400
    assert error.value.body

    # in batches of any size the same statements, each once
    names = [f"u:{i}" for i in range(31)]
    whole = load_kg(CHAIN, format="nt")
    for batch in (1, 7, 100):
        triples = endpoint.neighbours(names, batch=batch)
        assert len(triples) == len(set(triples)) == 60
    both = endpoint.neighbours(["u:5"], relations=["u:next"])
    assert {(s.value, o.value) for s, _, o in both} == {("u:5", "u:6"), ("u:4", "u:5")}
    assert len(endpoint.neighbours(["u:5"], direction="in")) == 1
    assert len(endpoint.neighbours(["u:5"], direction="out")) == 2
    with pytest.raises(ResponseTooLarge, match="over 10 neighbours"):
        endpoint.neighbours(names, max_rows=10)
    near = endpoint.graph(["u:5"], hops=2)
    assert set(near.arcs()) == {t for t in whole.arcs() if {t[0], t[2]} <= {f"u:{i}" for i in range(3, 8)}}
    assert near.labels_of("u:5") == []
    assert near.values("u:5")[0].text == "n5"

    # killed while it is busy with a query that never ends
    failures: list[Exception] = []

    def ask() -> None:
        try:
            endpoint.query("SELECT (COUNT(*) AS ?n) { ?a ?b ?c . ?d ?e ?f . ?g ?h ?i . ?j ?k ?l . ?m ?o ?p }")
        except EndpointError as failure:
            failures.append(failure)

    waiting = threading.Thread(target=ask)
    waiting.start()
    time.sleep(0.3)
    running.kill()
    waiting.join()
    assert [type(f) for f in failures] == [EndpointUnavailable]
    with pytest.raises(EndpointUnavailable, match="asked 2 times"):
        endpoint.query("ASK {}")
