"""A sample takes arrays of any library, and refuses by name what is not an array of real numbers."""

from __future__ import annotations

import array
import copy
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import ODD_NAMES

from hetgraph import EdgeType, GraphBuilder, HetgraphError, NodeType, Sample, Schema, rules

VALUES = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]


class OnlyArray:
    def __init__(self, value) -> None:
        self.value = np.asarray(value)

    def __array__(self, dtype=None, copy=None):
        return self.value if dtype is None else self.value.astype(dtype)


class OnlyDlpack:
    def __init__(self, value) -> None:
        self.value = torch.tensor(value)

    def __dlpack__(self, **options):
        return self.value.__dlpack__(**options)


class FullDlpack(OnlyDlpack):
    def __dlpack_device__(self):
        return self.value.__dlpack_device__()


class Broken:
    def __array__(self, dtype=None, copy=None):
        raise TypeError("the disk is gone")


def read_only(value) -> np.ndarray:
    out = np.array(value)
    out.flags.writeable = False
    return out


def array_of(maker) -> torch.Tensor:
    graph = GraphBuilder(Schema([NodeType("a", 3)]))([Sample(id="s", a=maker)])
    return graph.x["a"]


@pytest.mark.parametrize(
    "maker",
    [
        VALUES,
        tuple(map(tuple, VALUES)),
        [np.array(row) for row in VALUES],
        [torch.tensor(row) for row in VALUES],
        np.array(VALUES),
        np.array(VALUES, np.float16),
        np.array(VALUES, np.float32),
        np.array(VALUES, np.longdouble),
        np.array(VALUES, int),
        np.array(VALUES, np.uint8),
        np.array(VALUES, np.uint16),
        np.array(VALUES, np.uint32),
        np.array(VALUES, np.uint64),
        np.array(VALUES, ">f4"),
        np.array(VALUES, ">f8"),
        np.array(VALUES, ">i2"),
        np.array(VALUES, order="F"),
        np.array(VALUES[::-1])[::-1],
        np.array([row[::-1] for row in VALUES])[:, ::-1],
        np.repeat(np.array(VALUES), 2, 1)[:, ::2],
        read_only(VALUES),
        np.array(VALUES).view(np.ndarray).astype(">f8")[::-1][::-1],
        np.ma.masked_array(VALUES),
        torch.tensor(VALUES),
        torch.tensor(VALUES, dtype=torch.float64),
        torch.tensor(VALUES, dtype=torch.bfloat16),
        torch.tensor(VALUES, dtype=torch.int32),
        torch.tensor(VALUES).T.contiguous().T,
        torch.tensor(VALUES, requires_grad=True),
        torch.nn.Parameter(torch.tensor(VALUES)),
        OnlyArray(VALUES),
        OnlyArray(np.array(VALUES, np.uint16)),
        OnlyDlpack(VALUES),
        FullDlpack(VALUES),
        memoryview(np.array(VALUES)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_arrays_of_any_library_mean_the_same(maker) -> None:
    assert array_of(maker).tolist() == VALUES
    assert not array_of(maker).requires_grad


def test_the_array_protocol_of_the_standard_library_is_taken_for_fields() -> None:
    schema = Schema([NodeType("a", 1, fields={"group": 0})])
    graph = GraphBuilder(schema)([Sample(a={"x": [[1], [2]], "group": array.array("q", [2**40, 3])})])
    assert graph.fields["a"]["group"].tolist() == [2**40, 3]
    assert graph.fields["a"]["group"].dtype == torch.int64


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("text", ["str"]),
        (b"bytes", ["bytes"]),
        ([["a", "b", "c"]], ["dtype <U1"]),
        (np.array([[1, None, 2]], dtype=object), ["dtype object"]),
        (np.array([[1, 2, 3]], dtype=object), ["dtype object"]),
        ([[1, 2], [3]], ["ragged"]),
        (np.array([[1j, 2, 3]]), ["complex128"]),
        (torch.tensor([[1j, 2, 3]]), ["complex64"]),
        (OnlyDlpack([[1j, 2, 3]]), ["complex64"]),
        (np.array([["2024-01-01"] * 3], dtype="M8[D]"), ["dtype datetime64"]),
        (Broken(), ["Broken", "disk is gone"]),
        (np.array([[2**64 - 1, 0, 0]], np.uint64), ["18446744073709551615", "64-bit"]),
        (object(), ["dtype object"]),
    ],
)
def test_what_is_no_array_of_real_numbers_is_refused_by_name(value, words: list[str]) -> None:
    for nodes, field in (({"x": value}, "'x'"), ({"x": [[1, 2, 3]], "box": value}, "'box'")):
        with pytest.raises(HetgraphError) as caught:
            Sample(id="utt-17", region=nodes)
        for word in ("'utt-17'", "'region'", field, *words):
            assert word in str(caught.value), str(caught.value)


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ({}, ["no 'x'", "[]"]),
        ({"box": [[1]]}, ["no 'x'", "['box']"]),
        ({"x": None}, ["no 'x'"]),
        (np.ones(3), ["[N, dim]", "[3]"]),
        (np.ones((2, 3, 1)), ["[N, dim]", "[2, 3, 1]"]),
        ([], ["[N, dim]", "[0]"]),
        ({"x": np.ones((2, 3)), "box": np.ones((3, 4))}, ["'box'", "2 rows", "[3, 4]"]),
        ({"x": np.ones((2, 3)), "box": torch.tensor(1.0)}, ["'box'", "2 rows", "[]"]),
    ],
)
def test_node_sets_of_a_wrong_form_are_refused_by_name(nodes, words: list[str]) -> None:
    with pytest.raises(HetgraphError) as caught:
        Sample(id="utt-17", region=nodes)
    for word in ("'utt-17'", "'region'", *words):
        assert word in str(caught.value), str(caught.value)


@pytest.mark.parametrize(
    ("edges", "words"),
    [
        ({"a": [[0], [0]]}, ["(src, relation, dst)", "'a'"]),
        ({("a", "b"): [[0], [0]]}, ["(src, relation, dst)", "('a', 'b')"]),
        ({("a", "r", 3): [[0], [0]]}, ["(src, relation, dst)"]),
        ({("a", "r", "a"): {"score": [1]}}, ["no 'index'", "['score']"]),
        ({("a", "r", "a"): [[0.5], [1.0]]}, ["[2, E]", "float64"]),
        ({("a", "r", "a"): [[True], [False]]}, ["[2, E]", "bool"]),
        ({("a", "r", "a"): [0, 1]}, ["[2, E]", "[2]"]),
        ({("a", "r", "a"): [[0, 1]]}, ["[2, E]", "[1, 2]"]),
        ({("a", "r", "a"): [[0], [1, 2]]}, ["ragged"]),
        ({("a", "r", "a"): {"index": [[0], [1]], "score": [1, 2]}}, ["'score'", "1 edges", "got 2"]),
        ({("a", "r", "a"): {"index": [[0], [1]], "score": torch.tensor(1.0)}}, ["'score'", "1 edges"]),
        ({("a", "r", "a"): {"index": [[0], [1]], "relation": ["p", "q"]}}, ["'relation'", "1 edges", "got 2"]),
        ({("a", "r", "a"): {"index": [[0, 1], [1, 0]], "relation": ["p", 1]}}, ["'relation'", "numbers"]),
        ({("a", "r", "a"): {"index": [[0], [1]], "relation": "p"}}, ["'relation'", "str"]),
    ],
)
def test_edges_of_a_wrong_form_are_refused_by_name(edges, words: list[str]) -> None:
    with pytest.raises(HetgraphError) as caught:
        Sample(id="utt-17", a=np.ones((2, 1)), edges=edges)
    for word in ("'utt-17'", *words):
        assert word in str(caught.value), str(caught.value)


def test_relation_names_come_in_any_sequence() -> None:
    key = ("a", "r", "a")
    schema = Schema([NodeType("a", 1)], [EdgeType(*key, rule=rules.given, relations=["p", "q"])])
    for relation in (["q", "p"], ("q", "p"), np.array(["q", "p"]), [1, 0], np.array([1, 0]), torch.tensor([1, 0])):
        sample = Sample(a=[[1], [2]], edges={key: {"index": [[0, 1], [1, 0]], "relation": relation}})
        assert GraphBuilder(schema)([sample]).edges[key].relation.tolist() == [1, 0]


@given(st.sampled_from([n for n in ODD_NAMES if n not in ("id", "edges", "nodes", "target")]))
def test_any_string_is_the_name_of_a_node_type(name: str) -> None:
    schema = Schema([NodeType(name, 3)])
    for sample in (Sample(nodes={name: VALUES}), Sample(**{name: VALUES})):
        assert list(sample.nodes) == [name]
        assert GraphBuilder(schema)([sample]).x[name].tolist() == VALUES


@pytest.mark.parametrize("name", ["id", "edges", "nodes", "target"])
def test_names_that_clash_with_arguments_go_into_the_mapping(name: str) -> None:
    sample = Sample(id="s", target=1, nodes={name: VALUES})
    assert GraphBuilder(Schema([NodeType(name, 3)]))([sample]).x[name].tolist() == VALUES
    assert (sample.id, sample.target) == ("s", 1)


def test_a_node_type_given_twice_is_refused() -> None:
    with pytest.raises(HetgraphError, match=r"'utt-17'.*\['a'\].*twice"):
        Sample(id="utt-17", a=VALUES, nodes={"a": VALUES})


def test_none_means_absent() -> None:
    sample = Sample(a=None, b={"x": VALUES, "box": None}, edges={("a", "r", "b"): None})
    assert list(sample.nodes) == ["b"]
    assert list(sample.nodes["b"]) == ["x"]
    assert sample.edges == {}


def test_a_sample_without_an_id_is_called_sample() -> None:
    with pytest.raises(HetgraphError, match=r"^sample: node type 'a'"):
        Sample(a="text")
    assert repr(Sample(id="s", a=VALUES)) == "Sample(s; a: 2)"
    assert repr(Sample()) == "Sample()"
    assert Sample(id=7).id == "7"


def test_a_sample_survives_copying_and_pickling() -> None:
    sample = Sample(id="s", target=3, a=VALUES, edges={("a", "r", "a"): [[0], [1]]})
    for again in (copy.deepcopy(sample), pickle.loads(pickle.dumps(sample))):
        assert (again.id, again.target) == ("s", 3)
        assert again.nodes["a"]["x"].tolist() == VALUES
        assert again.edges["a", "r", "a"]["index"].tolist() == [[0], [1]]


KEY = ("a", "r", "b")


def test_tensors_that_are_ready_are_kept_as_they_are_and_not_copied() -> None:
    x, pos, index = torch.ones(2, 3), torch.ones(2), torch.zeros(2, 4, dtype=torch.long)
    given = {"x": x, "pos": pos}
    sample = Sample(a=given, edges={KEY: index})
    kept = [sample.nodes["a"]["x"], sample.nodes["a"]["pos"], sample.edges[KEY]["index"]]
    assert [t.data_ptr() for t in kept] == [t.data_ptr() for t in (x, pos, index)]
    given["more"] = pos
    assert list(sample.nodes["a"]) == ["x", "pos"]


@pytest.mark.parametrize(
    "make",
    [
        lambda t: t.numpy(),
        lambda t: t.tolist(),
        lambda t: t.T.contiguous().T,
        lambda t: torch.nn.Parameter(t, requires_grad=t.is_floating_point()),
        lambda t: t.requires_grad_() if t.is_floating_point() else t.int(),
        lambda t: {"x": t} if t.is_floating_point() else {"index": t},
    ],
)
def test_nodes_and_edges_in_any_form_are_kept_as_ready_tensors_are(make) -> None:
    x, index = torch.arange(6.0).view(3, 2), torch.tensor([[0, 1, 2, 2], [2, 0, 1, 1]])
    ready = Sample(a=x.clone(), edges={KEY: index.clone()})
    sample = Sample(a=make(x.clone()), edges={KEY: make(index.clone())})
    for mine, others in ((sample.nodes["a"], ready.nodes["a"]), (sample.edges[KEY], ready.edges[KEY])):
        assert list(mine) == list(others)
        for name, value in mine.items():
            assert torch.equal(value, others[name])
            assert type(value) is torch.Tensor
            assert not value.requires_grad
    assert sample.edges[KEY]["index"].dtype == torch.long


@pytest.mark.parametrize(
    "index",
    [
        torch.zeros(2, 3),
        torch.zeros(3, 2, dtype=torch.long),
        torch.zeros(4, dtype=torch.long),
        torch.zeros(2, 3, 1, dtype=torch.long),
        torch.zeros(2, 3, dtype=torch.bool),
    ],
)
def test_index_tensors_of_a_wrong_form_are_refused_like_arrays(index: torch.Tensor) -> None:
    messages = []
    for value in (index, index.numpy(), {"index": index}):
        with pytest.raises(HetgraphError, match="must be integers") as caught:
            Sample(id="s", a=torch.ones(3, 2), edges={KEY: value})
        messages.append(str(caught.value))
    assert len(set(messages)) == 1


@pytest.mark.parametrize(
    "nodes",
    [
        {"x": torch.ones(3)},
        {"x": torch.ones(3, 2), "pos": torch.ones(2)},
        {"pos": torch.ones(3)},
    ],
)
def test_node_tensors_of_a_wrong_form_are_refused_like_arrays(nodes) -> None:
    messages = []
    for values in (nodes, {name: value.numpy() for name, value in nodes.items()}):
        with pytest.raises(HetgraphError) as caught:
            Sample(id="s", a=values)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
