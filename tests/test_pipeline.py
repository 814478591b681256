"""From media and a knowledge graph to samples, compared with the encoders alone, with rdflib and with loops."""

from __future__ import annotations

import io
import json
import re
import wave
from pathlib import Path

import numpy as np
import pytest
import rdflib
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hetgraph import GraphBuilder, Sample
from hetgraph.encoders import HashWords, ImagePatches, LogMel
from hetgraph.encoders.base import Encoder
from hetgraph.errors import CheckpointError, HetgraphError, MediaError
from hetgraph.kg import PPRRetriever, load_kg, read_triples
from hetgraph.pipeline import DEFAULTS, MOST_ENTITIES, Medium, Pipeline, Record, label_of, node_name

PREFIX = "@prefix : <http://x.org/> . @prefix rdfs: <http://www.w3.org/2000/01/rdf-schema#> .\n"
TURTLE = f"""{PREFIX}
:cat a :Animal ; rdfs:label "cat" ; :chases :mouse .
:mouse a :Animal ; rdfs:label "mouse" , "house mouse" ; :fears :cat , :mouse .
:Animal rdfs:label "animal" . :moon :near :earth . :earth rdfs:label "  " .
"""
ENCODERS = {"image": ImagePatches(grid=(2, 2), size=2), "text": HashWords(16), "audio": LogMel(stack=10)}


def picture(colour: str = "red") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(out, "PNG")
    return out.getvalue()


def sound(seconds: float = 0.3) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        tone = 8000 * np.sin(np.arange(int(seconds * 16_000)) / 10)
        file.writeframes(tone.astype("<i2").tobytes())
    return out.getvalue()


def pipeline_of(graph: str | None = TURTLE, **columns: str) -> Pipeline:
    made = None if graph is None else read_triples(graph.encode(), format="ttl")
    return Pipeline.for_columns(columns or {"text": "text"}, encoders=ENCODERS, graph=made)


def equal(a: Sample, b: Sample) -> bool:
    same = (a.id, a.target, set(a.nodes), set(a.edges)) == (b.id, b.target, set(b.nodes), set(b.edges))
    for part, other in ((a.nodes, b.nodes), (a.edges, b.edges)):
        for key, values in part.items():
            same = same and set(values) == set(other[key])
            same = same and all(torch.equal(value, other[key][name]) for name, value in values.items())
    return same


def test_media_columns_become_the_node_types_of_their_kind() -> None:
    pipeline = pipeline_of(None, image="image", text="text", audio="audio")
    record = Record("a", {"image": picture(), "text": "a cat", "audio": sound()}, target=3)
    [sample] = pipeline([record])
    for node, kind in (("region", "image"), ("token", "text"), ("frame", "audio")):
        [alone] = ENCODERS[kind]([record.media[kind]])
        assert set(sample.nodes[node]) == set(alone)
        assert all(torch.equal(value, sample.nodes[node][name]) for name, value in alone.items())
        assert pipeline.schema.nodes[node].dim == ENCODERS[kind].dim
    assert (sample.id, sample.target, sample.edges) == ("a", 3, {})
    assert len(GraphBuilder(pipeline.schema)([sample])) == 1


def test_a_second_medium_of_a_kind_is_a_node_type_of_its_own() -> None:
    pipeline = pipeline_of(None, **{"audio:speech": "audio", "audio": "audio", "text:title": "text"})
    assert list(pipeline.schema.nodes) == ["speech", "frame", "title"]
    both, one = pipeline(
        [
            Record("a", {"audio:speech": sound(0.3), "audio": sound(0.6)}),
            Record("b", {"text:title": "hello"}),
        ]
    )
    assert len(both.nodes["frame"]["x"]) > len(both.nodes["speech"]["x"])
    assert set(one.nodes) == {"title"}


@pytest.mark.parametrize("columns", [("image", "image:region"), ("text:a", "audio:a"), ("audio:entity",)])
def test_columns_that_would_become_the_same_node_type_are_refused(columns) -> None:
    with pytest.raises(HetgraphError, match="must become different node types"):
        pipeline_of(None, **{name: name.partition(":")[0] for name in columns})


class Marked(HashWords):
    """Nodes with fields of their own."""

    def __init__(self) -> None:
        super().__init__(4)
        self.fields = {"span": 2, "weight": 1, "speaker": 0}

    def encode(self, items):
        made = super().encode(items)
        return [{**nodes, "weight": nodes["x"][:, :1], "speaker": torch.arange(len(nodes["x"]))} for nodes in made]


def test_the_schema_takes_all_fields_of_an_encoder() -> None:
    pipeline = Pipeline.for_columns({"text": "text"}, encoders={"text": Marked()})
    assert pipeline.schema.nodes["token"].optional == {"span": 2, "time": 2, "weight": 1, "speaker": 0}
    graph = GraphBuilder(pipeline.schema)(pipeline([Record("a", {"text": "a cat"})]))
    assert graph.fields["token"]["speaker"].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("column", "node"),
    [
        ("video", "video_frame"),
        ("video:front", "front"),
        ("table", "cell"),
        ("boxes", "object"),
        ("boxes:a", "a_object"),
    ],
)
def test_columns_of_every_kind_have_a_node_type(column, node) -> None:
    assert node_name(column) == node


class Letters(Encoder):
    """A user's encoder of texts: a node for every letter, without spans."""

    dim = 3

    def __init__(self) -> None:
        self.fields = {}

    def encode(self, items):
        return [{"x": torch.tensor([[float(ord(c)), 1.0, 0.0] for c in item.value])} for item in items]

    def settings(self):
        return {}

    def path_of(self, value):
        return None


def test_encoders_are_chosen_by_column_before_kind_before_the_default(monkeypatch) -> None:
    made = []
    monkeypatch.setitem(DEFAULTS, "text", lambda: made.append(1) or HashWords(5))
    columns = dict.fromkeys(["text", "text:a", "text:b"], "text")
    pipeline = Pipeline.for_columns(columns, encoders={"text:a": Letters()})
    assert {m.column: m.encoder.dim for m in pipeline.media} == {"text": 5, "text:a": 3, "text:b": 5}
    assert made == [1], "one network for both columns, loaded once"
    assert all(m.encoder.dim == 3 for m in Pipeline.for_columns(columns, encoders={"text": Letters()}).media)
    [sample] = pipeline([Record("a", {"text:a": "ab"})])
    assert sample.nodes["a"]["x"].tolist() == [[97.0, 1.0, 0.0], [98.0, 1.0, 0.0]]


def test_a_text_encoder_without_spans_gets_entities_without_mention_edges() -> None:
    graph = read_triples(TURTLE.encode(), format="ttl")
    pipeline = Pipeline([Medium("text", "text", "token", Letters())], graph)
    [sample] = pipeline([Record("a", {"text": "cat"}, ["http://x.org/cat"])])
    assert set(sample.edges) == {("entity", "fact", "entity"), ("entity", "fact_of", "entity")}
    assert len(GraphBuilder(pipeline.schema)([sample])) == 1


def entity_names(pipeline: Pipeline, sample: Sample) -> list[str]:
    """The entities of a sample, found again by their features (the labels are all different)."""
    assert pipeline.graph is not None
    known = {}
    for i, name in enumerate(pipeline.graph.entities):
        [made] = ENCODERS["text"]([label_of(pipeline.graph, i)])
        known[tuple(made["x"].mean(0).tolist())] = name
    return [known[tuple(row.tolist())] for row in sample.nodes["entity"]["x"]]


def named_facts(pipeline: Pipeline, sample: Sample, key: tuple[str, str, str]) -> set[tuple[str, str, str]]:
    names, edges = entity_names(pipeline, sample), sample.edges[key]
    relations = pipeline.schema.edges[key].relations
    return {
        (names[h], relations[r], names[t])
        for (h, t), r in zip(edges["index"].T.tolist(), torch.as_tensor(edges["relation"]).tolist(), strict=True)
    }


def rdf_facts() -> set[tuple[str, str, str]]:
    found = rdflib.Graph().parse(data=TURTLE, format="turtle")
    return {(str(h), str(r), str(t)) for h, r, t in found if not isinstance(t, rdflib.Literal)}


@pytest.mark.parametrize("names", [["cat", "mouse", "Animal"], ["Animal", "cat"], ["moon"], ["mouse", "mouse"]])
def test_given_entities_come_in_their_order_with_all_facts_between_them_in_both_directions(names) -> None:
    pipeline = pipeline_of()
    wanted = [f"http://x.org/{name}" for name in dict.fromkeys(names)]
    [sample] = pipeline([Record("a", {"text": "a mouse"}, [f"http://x.org/{name}" for name in names])])
    assert entity_names(pipeline, sample) == wanted
    facts = {fact for fact in rdf_facts() if fact[0] in wanted and fact[2] in wanted}
    assert named_facts(pipeline, sample, ("entity", "fact", "entity")) == facts
    back = named_facts(pipeline, sample, ("entity", "fact_of", "entity"))
    assert back == {(t, r, h) for h, r, t in facts}
    graph = GraphBuilder(pipeline.schema)([sample])
    assert graph.edge_index["entity", "fact", "entity"].shape[1] == len(facts)


def test_without_given_entities_those_the_text_mentions_and_their_neighbours_are_taken() -> None:
    pipeline = pipeline_of()
    [sample, other] = pipeline([Record("a", {"text": "One CAT."}), Record("b", {"text": "nothing here"})])
    names = entity_names(pipeline, sample)
    assert names[0] == "http://x.org/cat"
    near = {end for h, _, t in rdf_facts() if "http://x.org/cat" in (h, t) for end in (h, t)}
    assert set(names) == near == {f"http://x.org/{n}" for n in ("cat", "mouse", "Animal")}
    assert set(other.nodes) == {"token"}
    assert other.edges == {}


def test_not_more_entities_are_linked_than_a_sample_may_have() -> None:
    many = PREFIX + "".join(f':e{i} rdfs:label "word{i}" ; :next :e{i + 1} .\n' for i in range(3 * MOST_ENTITIES))
    text = " ".join(f"word{i}" for i in range(2 * MOST_ENTITIES))
    pipeline = pipeline_of(many)
    [sample] = pipeline([Record("a", {"text": text})])
    assert len(sample.nodes["entity"]["x"]) == MOST_ENTITIES
    every = [f"http://x.org/e{i}" for i in range(2 * MOST_ENTITIES)]
    [given_all] = pipeline([Record("a", {"text": text}, every)])
    assert entity_names(pipeline, given_all) == every, "given ones are all kept"


LABELS = {"cat": ["cat"], "mouse": ["mouse", "house mouse"], "Animal": ["animal"]}


def mentions(text: str, names: list[str]) -> set[tuple[int, str]]:
    """(token, entity) by searching the text for every label as whole words, the longest labels first."""
    found, taken = set(), set()
    spans = ENCODERS["text"]([text])[0]["span"].long().tolist()
    labels = sorted(((label, n) for n, many in LABELS.items() for label in many), key=lambda pair: -len(pair[0]))
    for label, name in labels:
        for match in re.finditer(rf"(?i)\b{label}\b".replace(" ", r"\s+"), text):
            start, end = match.span()
            if taken & set(range(start, end)):
                continue
            taken |= set(range(start, end))
            if name in names:
                found |= {(i, name) for i, (a, b) in enumerate(spans) if max(a, start) < min(b, end)}
    return found


WORDS = st.lists(st.sampled_from(["cat", "Mouse", "house", "animal", "cats", "a", ",", "CAT"]), min_size=1, max_size=8)


@given(words=WORDS, gaps=st.sampled_from([" ", "  "]), some=st.booleans())
def test_words_are_connected_with_the_entities_whose_label_they_spell(words, gaps, some) -> None:
    text = gaps.join(words)
    pipeline = pipeline_of()
    given_names = ["Animal", "cat"] if some else []
    [sample] = pipeline([Record("a", {"text": text}, [f"http://x.org/{n}" for n in given_names])])
    if "entity" not in sample.nodes:
        assert not mentions(text, list(LABELS))
        return
    names = [name.rsplit("/", 1)[-1] for name in entity_names(pipeline, sample)]
    edges = sample.edges["token", "mentions", "entity"]["index"]
    found = [(i, names[j]) for i, j in edges.T.tolist()]
    assert len(found) == len(set(found))
    assert set(found) == mentions(text, names)
    assert torch.equal(sample.edges["entity", "mentioned", "token"]["index"], edges.flip(0))


def test_a_text_in_a_file_or_in_bytes_is_linked_by_what_it_says(tmp_path) -> None:
    path = tmp_path / "mouse.txt"
    path.write_bytes(b"\xef\xbb\xbfa cat")
    pipeline = pipeline_of()
    plain, file, data = pipeline([Record("a", {"text": text}) for text in ("a cat", path, b"a cat")])
    assert equal(plain, file)
    assert equal(plain, data)


def test_several_texts_mention_each_for_itself() -> None:
    pipeline = pipeline_of(TURTLE, **{"text:q": "text", "text:a": "text"})
    [sample] = pipeline([Record("s", {"text:q": "which cat", "text:a": "the mouse"})])
    names = entity_names(pipeline, sample)
    for node, word, name in (("q", 1, "cat"), ("a", 1, "mouse")):
        edges = sample.edges[node, "mentions", "entity"]["index"].T.tolist()
        assert [(i, names[j]) for i, j in edges] == [(word, f"http://x.org/{name}")]


def test_an_unknown_entity_is_named_with_its_sample() -> None:
    with pytest.raises(HetgraphError, match=r"sample 'a': entity 'http://x\.org/dog' is not in the knowledge graph"):
        pipeline_of()([Record("a", {"text": "x"}, ["http://x.org/cat", "http://x.org/dog"])])


def test_entities_without_text_use_hashed_words() -> None:
    pipeline = pipeline_of(TURTLE, image="image")
    [sample] = pipeline([Record("a", {"image": picture()}, ["http://x.org/cat"])])
    assert torch.equal(sample.nodes["entity"]["x"], HashWords()(["cat"])[0]["x"])
    assert set(sample.edges) == {("entity", "fact", "entity"), ("entity", "fact_of", "entity")}


def graph_pipeline(text: str = TURTLE, format: str = "ttl") -> Pipeline:
    return Pipeline.for_columns({"text": "text"}, encoders=ENCODERS, graph=load_kg(text.encode(), format=format))


def test_given_entities_are_the_same_sample_from_a_knowledge_graph() -> None:
    records = [Record("a", {"text": "the house mouse"}, [f"http://x.org/{n}" for n in ("mouse", "Animal", "cat")])]
    pipelines = pipeline_of(), graph_pipeline()
    [old], [new] = (pipeline(records) for pipeline in pipelines)
    assert set(old.edges) == set(new.edges)
    for key in (("entity", "fact", "entity"), ("entity", "fact_of", "entity")):
        assert named_facts(pipelines[0], old, key) == named_facts(pipelines[1], new, key)
    # of the two labels of the mouse one has the first in the file, the other the first in the alphabet
    assert torch.equal(old.nodes["entity"]["x"][1:], new.nodes["entity"]["x"][1:])
    mentioned = [set(map(tuple, s.edges["token", "mentions", "entity"]["index"].T.tolist())) for s in (old, new)]
    assert mentioned[0] == mentioned[1]
    assert pipelines[1].labels_of(records[0], new) == ["house mouse", "animal", "cat"]
    with pytest.raises(HetgraphError, match=r"sample 'b': entity 'http://x\.org/dog' is not in the knowledge graph"):
        pipelines[1]([Record("b", {"text": "x"}, ["http://x.org/dog"])])


def test_linked_entities_of_a_knowledge_graph_come_with_the_best_by_pagerank() -> None:
    many = PREFIX + "".join(f':e{i} rdfs:label "word{i}" ; :next :e{i + 1}, :e{i + 2} .\n' for i in range(99))
    pipeline = graph_pipeline(many)
    [sample, bare] = pipeline([Record("a", {"text": "word7 and word50"}), Record("b", {"text": "nothing"})])
    part = PPRRetriever(max_nodes=MOST_ENTITIES)(pipeline.graph, ["http://x.org/e7", "http://x.org/e50"])
    assert entity_names(pipeline, sample) == [pipeline.graph.entities[i] for i in part.nodes]
    facts = {(h, r, t) for h, r, t in part.triples(pipeline.graph)}
    assert named_facts(pipeline, sample, ("entity", "fact", "entity")) == facts
    assert set(bare.nodes) == {"token"}


def test_a_table_of_triples_is_linked_by_names() -> None:
    pipeline = graph_pipeline("head,relation,tail\n/c/en/ice_cream,IsA,/c/en/food\n", "csv")
    [sample] = pipeline([Record("a", {"text": "ice cream"})])
    assert sample.edges["token", "mentions", "entity"]["index"].T.tolist() == [[0, 0], [1, 0]]
    assert len(sample.nodes["entity"]["x"]) == 2


@pytest.mark.parametrize(
    ("name", "label"),
    [("cat", "cat"), ("mouse", "mouse"), ("earth", "earth"), ("moon", "moon"), ("Animal", "animal")],
)
def test_an_entity_is_called_by_its_first_label_or_the_end_of_its_name(name, label) -> None:
    graph = read_triples(TURTLE.encode(), format="ttl")
    assert label_of(graph, graph.index[f"http://x.org/{name}"]) == label
    graph = load_kg(TURTLE.encode(), format="ttl")
    # of several labels a knowledge graph has the first in the alphabet
    assert label_of(graph, graph.entities.index(f"http://x.org/{name}")) in (label, f"house {label}")


def test_a_knowledge_graph_of_labels_alone_is_refused() -> None:
    with pytest.raises(HetgraphError, match="no facts"):
        pipeline_of(f'{PREFIX} :cat rdfs:label "cat" .')


RECORDS = [
    Record("a", {"image": picture(), "text": "a cat and a mouse", "audio:speech": sound()}),
    Record("b", {"text": "moon"}, ["http://x.org/moon", "http://x.org/earth"], "yes"),
    Record("c", {"image": picture("blue")}),
]
COLUMNS = {"image": "image", "text": "text", "audio:speech": "audio"}


def test_a_pipeline_that_was_saved_gives_equal_samples(tmp_path) -> None:
    pipeline = pipeline_of(TURTLE, **COLUMNS)
    pipeline.save(tmp_path)
    loaded = Pipeline.load(tmp_path, graph=pipeline.graph)
    assert loaded.schema == pipeline.schema
    for a, b in zip(pipeline(RECORDS), loaded(RECORDS), strict=True):
        assert equal(a, b)
    # the same facts in another order number their relations differently; the samples say the same
    lines = rdflib.Graph().parse(data=TURTLE, format="turtle").serialize(format="nt").splitlines()
    other = read_triples("\n".join(sorted(lines, reverse=True)).encode(), format="nt")
    assert other.relations != pipeline.graph.relations
    again = Pipeline.load(tmp_path, graph=other)
    assert again.schema == pipeline.schema
    for a, b in zip(pipeline(RECORDS[1:2]), again(RECORDS[1:2]), strict=True):
        assert equal(a, b)


def test_a_smaller_graph_keeps_the_relation_numbers_of_the_training(tmp_path) -> None:
    pipeline = pipeline_of()
    pipeline.save(tmp_path)
    some = read_triples(f"{PREFIX} :mouse :fears :cat .".encode(), format="ttl")
    [sample] = Pipeline.load(tmp_path, graph=some)([Record("a", {"text": "x"}, some.entities)])
    number = sample.edges["entity", "fact", "entity"]["relation"].tolist()
    assert [pipeline.relations[r] for r in number] == ["http://x.org/fears"]


def test_a_model_with_knowledge_does_not_load_without(tmp_path) -> None:
    pipeline = pipeline_of()
    pipeline.save(tmp_path)
    with pytest.raises(CheckpointError, match=r"pipeline\.json: the model was trained with a knowledge graph"):
        Pipeline.load(tmp_path)
    with pytest.raises(HetgraphError, match=r"relations the model was not trained with: \['http://x\.org/eats'\]"):
        Pipeline.load(tmp_path, graph=read_triples(f"{PREFIX} :cat :eats :mouse .".encode(), format="ttl"))


def test_a_model_without_knowledge_takes_no_notice_of_a_graph(tmp_path) -> None:
    pipeline_of(None).save(tmp_path)
    loaded = Pipeline.load(tmp_path, graph=read_triples(TURTLE.encode(), format="ttl"))
    assert loaded.graph is None
    assert set(loaded([Record("a", {"text": "a cat"})])[0].nodes) == {"token"}


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"media": [{}], "relations": []}', '{"media": 3}', "\xff"])
def test_a_missing_or_damaged_pipeline_file_is_named(tmp_path, text) -> None:
    if text is not None:
        (tmp_path / "pipeline.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(CheckpointError, match=r"pipeline\.json: no pipeline that can be read"):
        Pipeline.load(tmp_path)


def test_an_encoder_that_is_not_known_is_named(tmp_path) -> None:
    Pipeline([Medium("text", "text", "token", Letters())]).save(tmp_path)
    assert json.loads((tmp_path / "pipeline.json").read_text())["media"][0]["encoder"]["encoder"] == "Letters"
    with pytest.raises(HetgraphError, match="unknown encoder 'Letters'"):
        Pipeline.load(tmp_path)


def test_what_was_encoded_once_is_taken_from_the_cache(tmp_path) -> None:
    def make() -> Pipeline:
        return Pipeline.for_columns(COLUMNS, encoders=ENCODERS, cache=tmp_path)

    first, second = make(), make()
    made = first(RECORDS)
    assert [(m.encoder.hits, m.encoder.misses) for m in first.media] == [(0, 2), (0, 2), (0, 1)]
    again = second(RECORDS)
    assert [(m.encoder.hits, m.encoder.misses) for m in second.media] == [(2, 0), (2, 0), (1, 0)]
    assert all(equal(a, b) for a, b in zip(made, again, strict=True))
    second.save(tmp_path / "model")
    assert all(equal(a, b) for a, b in zip(Pipeline.load(tmp_path / "model")(RECORDS), made, strict=True))


def test_progress_counts_every_medium_and_chunks_change_nothing() -> None:
    pipeline = pipeline_of(TURTLE, **COLUMNS)
    counted: list[int] = []
    one = pipeline(RECORDS, progress=counted.append, chunk=1)
    assert counted == [1] * 5
    assert all(equal(a, b) for a, b in zip(one, pipeline(RECORDS), strict=True))
    assert pipeline([]) == []


@pytest.mark.parametrize(
    ("column", "name", "data", "fault"),
    [
        ("image", "p.png", picture()[:50], "the picture is damaged or truncated"),
        ("image", "p.png", b"not a picture", "expected a picture"),
        ("image", "p.png", b"", "expected a picture, got 0 bytes"),
        ("audio:speech", "s.wav", b"hello", "expected a sound"),
        ("audio:speech", "s.wav", sound(0.0), "the sound has no samples"),
        ("image", "gone.png", None, "no such file"),
    ],
    ids=["truncated", "text", "empty", "text as sound", "no samples", "gone"],
)
def test_a_broken_file_is_named_with_sample_column_and_path(tmp_path, column, name, data, fault) -> None:
    path: Path = tmp_path / name
    if data is not None:
        path.write_bytes(data)
    good = Record("good", {"image": picture(), "audio:speech": sound()})
    with pytest.raises(MediaError) as caught:
        pipeline_of(None, **COLUMNS)([good, Record("utt-17", {column: path})])
    assert str(caught.value).startswith(f"sample 'utt-17': {column}: {str(path)!r}: {fault}")
