"""What is packed comes out the same, in one piece of memory, with the receiver's own schema and rules."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from strategies import World, assert_same_graph, worlds

from hetgraph import EdgeType, GraphBuilder, NodeType, Sample, Schema
from hetgraph.edges import Made
from hetgraph.parcel import pack, unpack


@given(worlds())
def test_a_graph_comes_out_the_same_by_parcel_by_pickle_and_by_copying(world: World) -> None:
    graph = GraphBuilder(world.schema, torch.float64)(world.samples)
    shared = {"schema": world.schema}
    for other in (unpack(pack(graph, shared), shared), pickle.loads(pickle.dumps(graph)), copy.deepcopy(graph)):
        assert other.schema == graph.schema
        assert_same_graph(graph, other)
        for key, edges in other.edges.items():
            assert edges.src is other.layout[key[0]]
            assert edges.structure == graph.edges[key].structure


def test_rules_that_cannot_be_pickled_are_those_of_the_receiver() -> None:
    schema = Schema(
        [NodeType("word", 2)], [EdgeType("word", "any", "word", rule=lambda src, dst: src["x"] @ src["x"].mT > 1)]
    )
    graph = GraphBuilder(schema)([Sample(word=torch.zeros(3, 2))])
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pack(graph)
    shared = {"schema": schema}
    assert unpack(pack(graph, shared), shared).schema is schema


def test_tensors_of_every_kind_keep_type_shape_and_values_and_lie_in_the_block() -> None:
    tensors = [
        torch.rand(4, 3).t(),
        torch.rand(100, 8)[3:5, ::2],
        torch.tensor(7),
        torch.zeros(0, 5),
        torch.ones(1, 3, dtype=torch.bool).expand(2, 3),
        torch.arange(5, dtype=torch.int16),
        torch.rand(3).bfloat16(),
        torch.rand(3, dtype=torch.float64),
        torch.rand(2, dtype=torch.complex64).conj(),
    ]
    block, length = pack([*tensors, tensors[0], "text", np.arange(3)])
    assert block.is_shared()
    assert block.numel() < 5000  # of the tensor of 100 rows only what was asked for
    out = unpack((block, length))
    for mine, theirs in zip(tensors, out, strict=False):
        assert (mine.dtype, mine.shape) == (theirs.dtype, theirs.shape)
        assert torch.equal(mine.resolve_conj(), theirs)
        assert not theirs.numel() or theirs.untyped_storage().data_ptr() == block.data_ptr()
    assert out[len(tensors)] is out[0]
    assert out[-2] == "text"
    assert out[-1].tolist() == [0, 1, 2]


def test_entries_made_in_inference_mode_count_in_a_copy_as_the_copys_mode_says() -> None:
    made = Made()
    with torch.inference_mode():
        made["a"] = torch.ones(2)
        inside = copy.deepcopy(made)
        assert "a" in inside
    assert "a" not in inside
    again = copy.deepcopy(made)
    assert "a" in again
    assert not again["a"].is_inference()
