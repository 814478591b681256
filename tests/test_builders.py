"""Every ready-made schema builds a graph, whatever modality is missing in whatever sample."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import packed_edges, pairs_of, random_sample

from hetgraph import GraphBuilder, HetgraphError, Sample, Schema, builders, rules
from hetgraph.kg import KnowledgeGraph

READY = {
    "image_text": builders.image_text(3, 2),
    "audio_text": builders.audio_text(3, 2),
    "image_text_audio": builders.image_text_audio(3, 2, 4),
    "video_text": builders.video_text(3, 2),
    "video_text with sound": builders.video_text(3, 2, 4),
    "table": builders.table(2),
    "table with others": builders.table(2, token=3, region=4, frame=2, note=5),
    "conversation": builders.conversation(text=2, audio=3, video=4),
    "conversation of one": builders.conversation(past=1, future=0, text=2),
    "with_knowledge": builders.with_knowledge(builders.image_text(3, 2), 4, ["is", "has"], "token", "region"),
    "with_knowledge of a graph": builders.with_knowledge(
        builders.image_text(3, 2), KnowledgeGraph.from_arcs([0], [0], [1], ["a", "b"], ["is"]), dim=4, context="token"
    ),
    "media": builders.media(photo=("image", 3), speech=("audio", 2), noise=("audio", 4), clip=("video", 2)),
}


def test_every_ready_made_schema_is_tried() -> None:
    assert set(builders.__all__) <= {name.split()[0] for name in READY}


@pytest.mark.parametrize("schema", READY.values(), ids=READY)
def test_any_subset_of_modalities_builds_a_graph(schema: Schema) -> None:
    rng = np.random.default_rng(0)
    present = [p for p in product((None, 0, 3), repeat=len(schema.nodes)) if any(p)]
    rng.shuffle(present)
    samples = [random_sample(rng, schema, dict(zip(schema.nodes, sizes, strict=True))) for sizes in present[:40]]
    graph = GraphBuilder(schema)(samples)
    assert len(graph) == len(samples)
    for key in schema.edges:
        assert pairs_of(graph.edge_index[key]) == packed_edges(key, schema, samples), key
    for sample in samples[:8]:
        assert len(GraphBuilder(schema)([sample])) == 1


@given(st.sampled_from(sorted(READY)), st.integers(0, 2**31), st.data())
def test_random_samples_have_the_edges_of_a_loop(name: str, seed: int, data) -> None:
    schema, rng = READY[name], np.random.default_rng(seed)
    samples = []
    for _ in range(data.draw(st.integers(1, 3))):
        sizes = {n: data.draw(st.sampled_from([None, 0, 1, 4, 7])) for n in schema.nodes}
        if any(sizes.values()):
            samples.append(random_sample(rng, schema, sizes))
    if samples:
        graph = GraphBuilder(schema)(samples)
        for key in schema.edges:
            assert pairs_of(graph.edge_index[key]) == packed_edges(key, schema, samples), key


@pytest.mark.parametrize("schema", READY.values(), ids=READY)
def test_every_modality_reaches_every_other(schema: Schema) -> None:
    reached = {(src, dst) for src, _, dst in schema.edges}
    assert set(permutations((n for n in schema.nodes if n not in ("entity", "context")), 2)) <= reached


def test_conversation_hears_so_many_utterances_before_and_after() -> None:
    schema = builders.conversation(past=2, future=1, text=2, audio=3)
    turns = {"text": {"x": np.zeros((4, 2)), "group": range(4)}, "audio": {"x": np.zeros((2, 3)), "group": [1, 3]}}
    index = GraphBuilder(schema)([Sample(nodes=turns)]).edge_index
    assert pairs_of(index["text", "past", "text"]) == [(0, 1), (0, 2), (1, 2), (1, 3), (2, 3)]
    assert pairs_of(index["text", "future", "text"]) == [(1, 0), (2, 1), (3, 2)]
    assert pairs_of(index["text", "same", "audio"]) == [(1, 0), (3, 1)]
    assert pairs_of(index["audio", "same", "text"]) == [(0, 1), (1, 3)]


def test_a_conversation_may_hear_only_one_side() -> None:
    key = ("text", "past", "text")
    assert list(builders.conversation(past=3, future=0, text=2).edges) == [key]
    assert list(builders.conversation(past=0, future=3, text=2).edges) == [("text", "future", "text")]
    with pytest.raises(HetgraphError, match="past=-1"):
        builders.conversation(past=-1, text=2)


def test_knowledge_comes_with_the_sample() -> None:
    schema = READY["with_knowledge"]
    fact, says = ("entity", "fact", "entity"), ("token", "mentions", "entity")
    sample = Sample(
        token=np.zeros((2, 2)),
        entity=np.zeros((3, 4)),
        edges={fact: {"index": [[0, 1], [1, 2]], "relation": ["has", "is"]}, says: [[1], [2]]},
    )
    graph = GraphBuilder(schema)([sample])
    assert graph.edges[fact].relation.tolist() == [1, 0]
    assert pairs_of(graph.edge_index[says]) == [(1, 2)]
    assert {edge.rule for key, edge in schema.edges.items() if "entity" in key} == {rules.given}


def test_unknown_kinds_of_media_are_refused() -> None:
    with pytest.raises(HetgraphError, match=r"'smell'.*image, text, audio, video"):
        builders.media(nose=("smell", 3))
