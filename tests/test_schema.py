"""A schema is a value: checked at once, equal by content, whole again after JSON, copying and pickling."""

from __future__ import annotations

import copy
import json
import pickle
from functools import partial

import pytest
from hypothesis import given
from strategies import schemas, warmer, within

from hetgraph import EdgeType, HetgraphError, NodeType, Schema, rules

USER_MADE = {warmer.__qualname__: warmer, within.__qualname__: within}


def user_rules(schema: Schema) -> dict:
    return {key: edge.rule for key, edge in schema.edges.items() if edge.rule in USER_MADE.values()}


@given(schemas())
def test_a_schema_survives_json(schema: Schema) -> None:
    text = json.dumps(schema.to_json(), sort_keys=True)
    again = Schema.from_json(json.loads(text), user_rules(schema))
    assert again == schema
    assert hash(again) == hash(schema)
    assert again.fingerprint == schema.fingerprint
    assert again.difference(schema) == ""
    assert list(again.nodes.items()) == list(schema.nodes.items())
    assert list(again.edges.items()) == list(schema.edges.items())
    assert again.to_json() == schema.to_json()


@given(schemas())
def test_a_schema_survives_copying_and_pickling(schema: Schema) -> None:
    assert schema.node_ids is not None
    assert schema.incoming is not None
    for again in (copy.copy(schema), copy.deepcopy(schema), pickle.loads(pickle.dumps(schema))):
        assert again == schema
        assert list(again.nodes.values()) == list(schema.nodes.values())
        assert list(again.edges.values()) == list(schema.edges.values())
        assert [hash(n) for n in again.nodes.values()] == [hash(n) for n in schema.nodes.values()]


@given(schemas())
def test_ids_count_the_types_in_order_and_incoming_lists_every_edge_once(schema: Schema) -> None:
    assert list(schema.node_ids.items()) == [(name, i) for i, name in enumerate(schema.nodes)]
    assert list(schema.edge_ids.items()) == [(key, i) for i, key in enumerate(schema.edges)]
    assert list(schema.incoming) == list(schema.nodes)
    for name, keys in schema.incoming.items():
        assert list(keys) == [key for key in schema.edges if key[2] == name]


def test_equality_looks_at_everything_but_the_order_of_fields() -> None:
    nodes = [NodeType("a", 2, {"p": 1, "q": 2}), NodeType("b", 3)]
    edge = EdgeType("a", "r", "b", rule=rules.nearest(2, "p"))
    schema = Schema(nodes, [edge])
    assert schema == Schema([NodeType("a", 2, {"q": 2, "p": 1}), nodes[1]], [edge])
    others = [
        Schema(nodes),
        Schema(nodes[::-1], [edge]),
        Schema([NodeType("a", 2, {"p": 1, "q": 3}), nodes[1]], [edge]),
        Schema([NodeType("a", 2, {"p": 1}, {"q": 2}), nodes[1]], [edge]),
        Schema([nodes[0], NodeType("b", 4)], [edge]),
        Schema(nodes, [EdgeType("a", "r", "b", rule=rules.nearest(3, "p"))]),
        Schema(nodes, [EdgeType("a", "s", "b", rule=rules.nearest(2, "p"))]),
        Schema(nodes, [EdgeType("a", "r", "b", rule=rules.given, features={"f": 1})]),
        Schema(nodes, [EdgeType("a", "r", "b", rule=rules.given, relations=["f"])]),
        Schema(nodes, [EdgeType("a", "r", "b", rule=warmer)]),
    ]
    assert len({s.fingerprint for s in [schema, *others]}) == len(others) + 1
    for other in others:
        assert other != schema
        assert schema.difference(other)
    assert schema != "schema"


def test_types_that_are_equal_have_equal_hashes_and_layouts() -> None:
    one, other = NodeType("a", 2, {"p": 1, "q": 2}), NodeType("a", 2, {"q": 2, "p": 1})
    assert one == other
    assert hash(one) == hash(other)
    assert list(one.all_fields) == list(other.all_fields)
    edge, turned = (EdgeType("a", "r", "a", warmer, features=f) for f in ({"f": 1, "g": 2}, {"g": 2, "f": 1}))
    assert edge == turned
    assert hash(edge) == hash(turned)
    assert list(edge.features) == list(turned.features)


def test_differences_are_named() -> None:
    schema = Schema([NodeType("a", 2), NodeType("b", 3)])
    assert schema.difference(Schema([NodeType("a", 2)])) == "node type 'b' is extra"
    assert "node type 'c' is missing" in schema.difference(Schema([NodeType("c", 2)]))
    assert "'dim': 2" in schema.difference(Schema([NodeType("a", 5), NodeType("b", 3)]))
    assert "order" in schema.difference(Schema([NodeType("b", 3), NodeType("a", 2)]))


def test_extend_gives_a_new_schema_and_leaves_the_old_one() -> None:
    schema = Schema([NodeType("a", 2)])
    longer = schema.extend(EdgeType("a", "to", "b"), NodeType("b", 3))
    assert list(schema.nodes) == ["a"]
    assert list(schema.edges) == []
    assert list(longer.nodes) == ["a", "b"]
    assert list(longer.edges) == [("a", "to", "b")]
    assert schema.extend() == schema


def test_a_schema_cannot_be_changed() -> None:
    schema = Schema([NodeType("a", 2, {"p": 1})], [EdgeType("a", "r", "a")])
    for mapping in (schema.nodes, schema.edges, schema.node_ids, schema.incoming, schema.nodes["a"].fields):
        with pytest.raises(TypeError):
            mapping["a"] = 1
    with pytest.raises(AttributeError):
        schema.nodes["a"].dim = 3
    fields = {"p": 1}
    node = NodeType("a", 2, fields)
    fields["q"] = 2
    assert dict(node.fields) == {"p": 1}


A, B = NodeType("a", 2), NodeType("b", 3)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Schema([]), ["at least one node type"]),
        (lambda: Schema([A, A]), ["'a'", "twice"]),
        (lambda: Schema([A]).extend(NodeType("a", 7)), ["'a'", "twice"]),
        (lambda: Schema([A], [EdgeType("a", "r", "a")] * 2), ["('a', 'r', 'a')", "twice"]),
        (lambda: Schema([A], [EdgeType("a", "r", "b")]), ["('a', 'r', 'b')", "unknown node type 'b'", "['a']"]),
        (lambda: Schema([A]).extend(EdgeType("c", "r", "a")), ["('c', 'r', 'a')", "unknown node type 'c'"]),
        (lambda: Schema(["a"]), ["NodeType", "str"]),
        (lambda: Schema([A], [A]), ["EdgeType", "NodeType"]),
        (lambda: Schema([A]).extend("b"), ["['str']"]),
        (lambda: NodeType("", 1), ["non-empty string", "''"]),
        (lambda: NodeType(7, 1), ["non-empty string", "7"]),
        (lambda: NodeType("a", 0), ["'a'", "positive integer", "0"]),
        (lambda: NodeType("a", -2), ["'a'", "positive integer", "-2"]),
        (lambda: NodeType("a", 2.0), ["'a'", "positive integer", "2.0"]),
        (lambda: NodeType("a", True), ["'a'", "positive integer", "True"]),
        (lambda: NodeType("a", "2"), ["'a'", "positive integer", "'2'"]),
        (lambda: NodeType("a", 1, {"x": 2}), ["'a'", "'x'"]),
        (lambda: NodeType("a", 1, {"p": -1}), ["'a'", "'p'", "-1"]),
        (lambda: NodeType("a", 1, {"p": 1.5}), ["'a'", "'p'", "1.5"]),
        (lambda: NodeType("a", 1, {"p": False}), ["'a'", "'p'", "False"]),
        (lambda: NodeType("a", 1, {"": 1}), ["'a'", "field", "''"]),
        (lambda: NodeType("a", 1, {3: 1}), ["'a'", "field", "3"]),
        (lambda: NodeType("a", 1, ["box"]), ["'a'", "mapping", "list"]),
        (lambda: NodeType("a", 1, {"p": 1}, {"p": 1}), ["'a'", "['p']", "both"]),
        (lambda: EdgeType("a", "", "a"), ["non-empty string", "''"]),
        (lambda: EdgeType("a", None, "a"), ["non-empty string", "None"]),
        (lambda: EdgeType("a", "r", "a", rule="nearest"), ["('a', 'r', 'a')", "callable", "str"]),
        (lambda: EdgeType("a", "r", "a", warmer, {"f": -1}), ["('a', 'r', 'a')", "'f'", "-1"]),
        (lambda: EdgeType("a", "r", "a", warmer, {"index": 1}), ["('a', 'r', 'a')", "'index'"]),
        (lambda: EdgeType("a", "r", "a", warmer, ["f"]), ["('a', 'r', 'a')", "mapping", "list"]),
        (lambda: EdgeType("a", "r", "a", relations=["p"]), ["('a', 'r', 'a')", "rules.given"]),
        (lambda: EdgeType("a", "r", "a", rules.given, relations=["p", "q", "p"]), ["('a', 'r', 'a')", "['p', 'p']"]),
        (lambda: EdgeType("a", "r", "a", rules.given, relations="pq"), ["('a', 'r', 'a')", "'pq'"]),
        (lambda: EdgeType("a", "r", "a", rules.given, relations=[1]), ["('a', 'r', 'a')", "(1,)"]),
    ],
)
def test_impossible_types_are_refused_at_once_and_by_name(make, words: list[str]) -> None:
    with pytest.raises(HetgraphError) as caught:
        make()
    for word in words:
        assert word in str(caught.value), str(caught.value)


def test_user_made_rules_must_be_passed_in_again() -> None:
    key = ("a", "r", "a")
    saved = Schema([A], [EdgeType(*key, rule=warmer)]).to_json()
    assert Schema.from_json(saved, {key: warmer}).edges[key].rule is warmer
    with pytest.raises(HetgraphError, match=r"\('a', 'r', 'a'\).*'warmer' is user-made"):
        Schema.from_json(saved)
    with pytest.raises(HetgraphError, match=r"\('a', 'r', 'a'\).*saved with rule 'warmer', got 'within'"):
        Schema.from_json(saved, {key: within})
    with pytest.raises(HetgraphError, match=r"saved with rule 'warmer', got .*AllPairs"):
        Schema.from_json(saved, {key: rules.all_pairs})


def test_rules_for_edge_types_that_take_none_are_refused() -> None:
    key = ("a", "r", "a")
    saved = Schema([A], [EdgeType(*key, rule=rules.nearest(2))]).to_json()
    assert Schema.from_json(saved, {key: rules.nearest(2)}).edges[key].rule == rules.nearest(2)
    with pytest.raises(HetgraphError, match=r"saved with built-in rule .*Nearest"):
        Schema.from_json(saved, {key: warmer})
    with pytest.raises(HetgraphError, match=r"saved with built-in rule .*'k': 2"):
        Schema.from_json(saved, {key: rules.nearest(3)})
    with pytest.raises(HetgraphError, match="does not have"):
        Schema.from_json(saved, {("a", "s", "a"): warmer})


def test_lambdas_and_objects_are_known_by_the_name_they_have() -> None:
    class Threshold:
        def __call__(self, src, dst):
            return src["x"][..., :, None, 0] > dst["x"][..., None, :, 0]

    key = ("a", "r", "a")
    for rule, other in ((lambda src, dst: None, warmer), (Threshold(), warmer), (partial(warmer), within)):
        schema = Schema([A], [EdgeType(*key, rule=rule)])
        saved = json.loads(json.dumps(schema.to_json()))
        name = saved["edges"][0]["rule"]["user"]
        assert name.rpartition(".")[2] in ("<lambda>", "Threshold", "partial")
        assert Schema.from_json(saved, {key: rule}) == schema
        with pytest.raises(HetgraphError, match="saved with rule"):
            Schema.from_json(saved, {key: other})


GOOD = Schema([NodeType("a", 2, {"p": 1})], [EdgeType("a", "r", "a", rule=rules.nearest(2, "p"))]).to_json()


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: None,
        lambda d: [],
        lambda d: "schema",
        lambda d: {},
        lambda d: {"nodes": d["nodes"]},
        lambda d: {**d, "nodes": 3},
        lambda d: {**d, "nodes": ["a"]},
        lambda d: {**d, "nodes": [{"name": "a"}]},
        lambda d: {**d, "nodes": [{**d["nodes"][0], "colour": 1}]},
        lambda d: {**d, "nodes": [{**d["nodes"][0], "fields": [1]}]},
        lambda d: {**d, "nodes": [{**d["nodes"][0], "dim": "2"}]},
        lambda d: {**d, "edges": [{"src": "a"}]},
        lambda d: {**d, "edges": [{**d["edges"][0], "rule": "nearest"}]},
        lambda d: {**d, "edges": [{**d["edges"][0], "rule": {}}]},
        lambda d: {**d, "edges": [{**d["edges"][0], "rule": {"rule": "Fastest", "k": 1}}]},
        lambda d: {**d, "edges": [{**d["edges"][0], "rule": {"rule": "Nearest", "m": 1}}]},
        lambda d: {**d, "edges": [{**d["edges"][0], "rule": {"rule": "Nearest", "k": 0}}]},
        lambda d: {**d, "edges": [{**d["edges"][0], "features": None}]},
        lambda d: {**d, "edges": [{**d["edges"][0], "relations": None}]},
    ],
)
def test_damaged_json_is_refused(damage) -> None:
    assert Schema.from_json(GOOD).to_json() == GOOD
    with pytest.raises(HetgraphError):
        Schema.from_json(damage(GOOD))


def test_two_schemas_live_side_by_side() -> None:
    one, other = Schema([A]), Schema([NodeType("a", 9)])
    assert one.nodes["a"].dim == 2
    assert other.nodes["a"].dim == 9
    assert len({one, other, Schema([NodeType("a", 2)])}) == 2
    assert repr(one) == "Schema(1 node types: a[2]; 0 edge types)"


def test_feature_dim_counts_a_single_number_as_one() -> None:
    assert EdgeType("a", "r", "a", warmer, {"f": 0, "g": 3}).feature_dim == 4
    assert EdgeType("a", "r", "a").feature_dim == 0
