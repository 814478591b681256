"""``hetgraph kg``: what is typed, what is printed, what is drawn."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from hetgraph.errors import HetgraphError
from hetgraph.kg import KHopRetriever, KnowledgeGraph, load_kg
from hetgraph.kg.drawing import clean, draw_subgraph, spread

TURTLE = b"""
@prefix : <http://x.org/> . @prefix rdfs: <http://www.w3.org/2000/01/rdf-schema#> .
:cat rdfs:label "cat"@en , "Katze"@de ; :chases :mouse ; a :Animal . :mouse rdfs:label "mouse"@en ; a :Animal .
:dog rdfs:label "dog [b]"@en ; :chases :cat ; a :Animal . :Animal rdfs:label "animal"@en .
"""


@pytest.fixture
def turtle(tmp_path):
    path = tmp_path / "pets.ttl"
    path.write_bytes(TURTLE)
    return path


def test_loading_saves_a_graph_and_counts_it(typed, turtle, tmp_path) -> None:
    code, out, _ = typed("kg", "load", turtle, "--output", tmp_path / "pets.npz", "--language", "en")
    assert code == 0
    graph = load_kg(tmp_path / "pets.npz")
    assert (len(graph), graph.num_entities, len(graph.literals.texts)) == (5, 4, 4)
    rows = {" ".join(line.split()[1:-3]): line.split()[-2] for line in out.splitlines() if line.startswith(("│", "|"))}
    assert rows["arcs"] == "5"
    assert rows["left out, other languages"] == "1"
    (tmp_path / "bad.nt").write_bytes(b"<u:a> <u:p> <u:b> .\nnothing\n")
    code, out, err = typed("kg", "load", tmp_path / "bad.nt", "--output", tmp_path / "b.npz")
    assert (code, "bad.nt" in err, "line 2" in err) == (2, True, True)
    assert not (tmp_path / "b.npz").exists()
    code, out, _ = typed("kg", "load", tmp_path / "bad.nt", "--output", tmp_path / "b.npz", "--skip-errors")
    assert (code, "left out: " in out) == (0, True)
    assert typed("kg", "load", turtle, "--output", tmp_path / "pets.zip")[0] == 2


def test_stats_of_a_graph(typed, turtle) -> None:
    code, out, _ = typed("kg", "stats", turtle, "--top", 1)
    assert code == 0
    assert "1 others" in out
    assert "http://x.org/Animal" in out
    assert "en 4 and 1 others" in out


def test_queries_on_files_folders_and_into_json(typed, turtle, tmp_path) -> None:
    query = "SELECT ?x ?l { ?s <http://x.org/chases> ?x OPTIONAL { ?x <u:none> ?l } } ORDER BY ?x"
    code, out, _ = typed("kg", "query", turtle, query, "--json", tmp_path / "r.json")
    assert (code, "2 rows" in out) == (0, True)
    found = json.loads((tmp_path / "r.json").read_text())
    assert found["rows"] == [{"x": "<http://x.org/cat>", "l": None}, {"x": "<http://x.org/mouse>", "l": None}]
    (tmp_path / "q.rq").write_text(query)
    code, out, _ = typed(
        "kg", "query", turtle, f"@{tmp_path / 'q.rq'}", "--bind", "s=http://x.org/dog", "--max-rows", 1
    )
    assert (code, "cat" in out, "1 rows" in out) == (0, True, True)
    code, out, _ = typed("kg", "query", turtle, query, "--max-rows", 1)
    assert "the first 1 rows" in out
    assert typed("kg", "query", turtle, "ASK { ?a ?b ?c }")[1].strip() == "yes"
    code, out, _ = typed("kg", "query", turtle, "CONSTRUCT { ?b <u:r> ?a } WHERE { ?a <http://x.org/chases> ?b }")
    assert "<u:r>" in out
    for wrong in (["ASK {"], ["ASK {}", "--bind", "x"], ["@none.rq"], ["ASK { SERVICE <u:x> {} }"]):
        code, _, err = typed("kg", "query", turtle, *wrong)
        assert (code, err.startswith("error:")) == (2, True)


def test_texts_are_linked_printed_and_written(typed, turtle, tmp_path) -> None:
    text = "The CAT, a Maus, a móuse and a dog [b]"
    code, out, _ = typed("kg", "link", turtle, text, "eine Katze", "--json", tmp_path / "l.json")
    assert (code, "3 mentions, 3 links in 2 texts" in out) == (0, True)
    assert all(word in out for word in ("4-7", "dog [b]", "http://x.org/dog", "1.000", "alias"))
    written = json.loads((tmp_path / "l.json").read_text())
    assert written["texts"] == [text, "eine Katze"]
    found = [(row["text"], row["mention"], row["entity"], row["label"]) for row in written["links"]]
    assert found == [
        (0, "CAT", "http://x.org/cat", "cat"),
        (0, "dog [b]", "http://x.org/dog", "dog [b]"),
        (1, "Katze", "http://x.org/cat", "cat"),
    ]
    assert [text[row["start"] : row["end"]] for row in written["links"][:2]] == ["CAT", "dog [b]"]
    (tmp_path / "t.txt").write_text(f"{text}\neine Katze\n")
    options = ["--language", "en", "--no-accents", "--prior", "--candidates", 1, "--threshold", 0.5]
    code, out, _ = typed("kg", "link", turtle, "--file", tmp_path / "t.txt", *options)
    assert (code, "3 mentions, 3 links in 2 texts" in out, "móuse" in out) == (0, True, True)
    for wrong in ([], ["--file", tmp_path / "none.txt"], ["x", "--format", "zip"]):
        assert typed("kg", "link", turtle, *wrong)[0] == 2


def test_typos_are_linked_if_they_are_asked_for(typed, turtle) -> None:
    pytest.importorskip("rapidfuzz", reason="rapidfuzz is not installed: pip install 'hetgraph[link]'")
    code, out, _ = typed("kg", "link", turtle, "an anmial", "--typos")
    assert (code, "http://x.org/Animal" in out, "typo" in out) == (0, True, True)
    assert "0 mentions" in typed("kg", "link", turtle, "an anmial")[1]


HELP = {
    "load": ["--output", "--format", "--base", "--skip-errors", "--graphs", "--language"],
    "stats": ["--format", "--base", "--top"],
    "query": ["--bind", "--timeout", "--max-rows", "--format", "--base", "--json"],
    "link": [
        *("--file", "--language", "--candidates", "--threshold", "--prior", "--no-accents", "--typos", "--json"),
        *("--format", "--base"),
    ],
    "subgraph": [
        *("--seed", "--method", "--max-nodes", "--hops", "--hub", "--language", "--picture", "--json"),
        *("--format", "--base"),
    ],
}


def test_the_help_lists_the_commands_and_the_options(typed) -> None:
    def listed(text: str) -> set[str]:
        return {word for line in text.splitlines() if (word := line.strip().split(" ")[0]).startswith("--")}

    assert all(command in typed("kg", "--help")[1] for command in HELP)
    for command, options in HELP.items():
        assert listed(typed("kg", command, "--help")[1]) == {*options, "--help"}


@pytest.mark.parametrize("method", ["ppr", "khop", "path", "steiner"])
def test_subgraphs_are_printed_written_and_drawn(typed, turtle, tmp_path, method) -> None:
    words = ["--seed", "dog [B]", "--seed", "http://x.org/mouse", "--method", method]
    code, out, _ = typed(
        "kg", "subgraph", turtle, *words, "--picture", tmp_path / "s.png", "--json", tmp_path / "s.json"
    )
    assert code == 0
    assert "dog [b]" in out
    found = json.loads((tmp_path / "s.json").read_text())
    assert [n["entity"] for n in found["nodes"] if n["seed"]] == ["http://x.org/dog", "http://x.org/mouse"]
    assert {n["entity"] for n in found["nodes"]} >= {"http://x.org/Animal"}
    with Image.open(tmp_path / "s.png") as image:
        assert image.size == (1408, 946)
    assert typed("kg", "subgraph", turtle, "--seed", "unicorn")[0] == 2


def boxes_overlap(centres: np.ndarray, sizes: np.ndarray) -> int:
    count = 0
    for i in range(len(centres)):
        for j in range(i):
            count += bool((np.abs(centres[i] - centres[j]) < (sizes[i] + sizes[j]) / 2).all())
    return count


@pytest.mark.parametrize("seed", range(3))
def test_boxes_do_not_lie_on_each_other(seed) -> None:
    generator = np.random.default_rng(seed)
    places = generator.random((40, 2))
    places[:10] = 0.5
    sizes = np.stack([generator.uniform(4, 18, 40), np.full(40, 3.0)], axis=1)
    area = (0.0, 0.0, 100.0, 80.0)
    found = spread(places, sizes, area)
    assert boxes_overlap(found, sizes) == 0
    assert (found - sizes / 2 >= -1e-9).all()
    assert (found + sizes / 2 <= np.array([100.0, 80.0]) + 1e-9).all()


def test_pictures_of_anything(tmp_path) -> None:
    names = ["u:a", "$x_1$", "\n", "日本語 label that is much too long to be shown whole", "u:lonely", "b"]
    graph = KnowledgeGraph.from_arcs(
        [0, 0, 1, 2, 3, 0, 0], [0, 1, 0, 0, 0, 0, 2], [1, 1, 0, 3, 3, 0, 1], names, ["r", "s/t", "#"]
    )
    for seeds in ([], ["u:lonely"], ["u:a", "u:lonely", "b"]):
        path = draw_subgraph(graph, KHopRetriever()(graph, seeds), tmp_path / "p.png", title="$ {", dpi=40)
        with Image.open(path) as image:
            assert image.size == (512, 344)
    # what is drawn at most, the seeds first
    draw_subgraph(graph, KHopRetriever()(graph, [0]), tmp_path / "p.png", most=1, dpi=40)
    with pytest.raises(HetgraphError):
        draw_subgraph(graph, KHopRetriever()(graph, [0]), tmp_path / "p.png", most=0)
    assert clean("a\n b" + "c" * 30, 8) == "a bcccc…"
