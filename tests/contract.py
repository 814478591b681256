"""Contract tests that any user-made node type or edge rule can run.

    from contract import check_node_type, check_rule

    def test_my_sensor():
        sensor = NodeType("sensor", dim=8, fields={"pos": 3})
        check_node_type(sensor)
        check_rule(within_5m, sensor, sensor)

Both raise ``AssertionError`` that says which promise is broken.
"""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from hetgraph import EdgeType, GraphBuilder, NodeType, Sample, Schema, rules
from hetgraph.rules import NodeSet

SIZES = ((3, 4), (0, 2), (5, 1), (2, 6), (4, 0))
"""Sources and destinations of the samples that a rule is tried on, so that padding lies everywhere."""

Values = Callable[[NodeType, int, torch.Generator], Mapping[str, Tensor]]
Nodes = list[dict[str, Tensor]]


def random_values(node: NodeType, count: int, generator: torch.Generator) -> dict[str, Tensor]:
    """``x`` and every field of so many random nodes: intervals and boxes in order, whole numbers for width 0."""
    out = {"x": torch.randn(count, node.dim, generator=generator)}
    for name, width in node.all_fields.items():
        if width == 0:
            out[name] = torch.randint(0, 3, (count,), generator=generator)
            continue
        value = torch.rand(count, width, generator=generator)
        if name in ("box", "time", "span"):
            half = width // 2
            value = torch.cat([value[:, :half], value[:, :half] + value[:, half : 2 * half]], 1)
        out[name] = value
    return out


def check_node_type(node: NodeType, values: Values = random_values) -> None:
    """A node type can be described, copied, built with and taken back out of a graph.

    Args:
        node: the type.
        values: ``values(node, count, generator)`` makes ``x`` and all fields of so many nodes.

    Raises:
        AssertionError: says which promise is broken.
    """
    schema = Schema([node], [EdgeType(node.name, "to", node.name)])
    again = Schema.from_json(json.loads(json.dumps(schema.to_json())))
    assert again == schema, f"{node.name!r} does not survive JSON"
    for other in (copy.deepcopy(schema), pickle.loads(pickle.dumps(schema))):
        assert other.nodes[node.name] == node, f"{node.name!r} is not the same after copying"
        assert hash(other.nodes[node.name]) == hash(node), f"{node.name!r} has another hash after copying"

    generator = torch.Generator().manual_seed(0)
    drawn = [values(node, count, generator) for count in (3, 0, 1)]
    first = dict(drawn[0])
    without = {name: value for name, value in drawn[2].items() if name not in node.optional}
    samples = [Sample(nodes={node.name: part}) for part in (first, without)]
    graph = GraphBuilder(schema)(samples)
    assert len(graph) == 2, f"{node.name!r}: two samples gave a graph of {len(graph)}"
    x = torch.cat([first["x"], without["x"]]).float()
    assert torch.equal(graph.x[node.name], x), f"{node.name!r}: x is not kept in order"
    for name in node.optional:
        missing = graph.fields[node.name][name][3:].isnan().all()
        assert missing, f"{node.name!r}: the optional field {name!r} is not NaN where it is missing"
    for i, part in enumerate((first, without)):
        back = graph[i].nodes[node.name]
        assert set(back) == set(part), f"{node.name!r}: a sample comes back with {sorted(back)}, not {sorted(part)}"
        for name, value in part.items():
            same = torch.equal(back[name].float(), value.float())
            assert same, f"{node.name!r}: field {name!r} is not the same after a round trip"


def check_rule(rule: Callable[..., Any], src: NodeType, dst: NodeType, values: Values = random_values) -> None:
    """A rule gives masks and features of the right shape, and depends on the nodes of one sample alone.

    It is tried on samples of several sizes, with and without optional fields, and must

    * give a bool mask ``[B, S, D]``, and features ``[B, S, D, width]`` (or ``[B, S, D]``) that are finite
      where it connects;
    * give the same when padding holds other values, when a sample comes alone, and when it is called again;
    * leave the node sets as they were;
    * permute with the nodes, unless it follows their order (``rules.window``, ``rules.following``).

    Args:
        rule: the rule.
        src, dst: the types it connects; the same object or equal types mean edges within one type.
        values: ``values(node, count, generator)`` makes ``x`` and all fields of so many nodes.

    Raises:
        AssertionError: says which promise is broken.
    """
    if rule == rules.given:
        return
    within = src == dst
    for optional in (True, False) if src.optional or dst.optional else (True,):
        generator = torch.Generator().manual_seed(0)
        sources = [_draw(values, src, s, generator, optional) for s, _ in SIZES]
        targets = sources if within else [_draw(values, dst, d, generator, optional) for _, d in SIZES]
        _check_once(rule, src, dst, sources, targets, generator)


def _draw(values: Values, node: NodeType, count: int, generator: torch.Generator, optional: bool) -> dict[str, Tensor]:
    out = dict(values(node, count, generator))
    if not optional:
        for name in node.optional:
            out[name] = torch.full(out[name].shape, torch.nan)
    return out


def _check_once(
    rule: Callable[..., Any], src: NodeType, dst: NodeType, sources: Nodes, targets: Nodes, generator: torch.Generator
) -> None:
    within = sources is targets
    sizes = [(len(s["x"]), len(d["x"])) for s, d in zip(sources, targets, strict=True)]
    expected = _ask(rule, src, dst, sources, targets, 0.0)

    for padding in (1.0, -1e3, 0.5):
        _same(expected, _ask(rule, src, dst, sources, targets, padding), "it looks at padding")
    _same(expected, _ask(rule, src, dst, sources, targets, 0.0), "it gives something else when it is called again")

    order = [3, 0, 4, 1, 2]
    moved = [sources[i] for i in order]
    there = moved if within else [targets[i] for i in order]
    turned = _ask(rule, src, dst, moved, there, 0.0)
    _same([expected[i] for i in order], turned, "it depends on the order of the batch")
    for i, (s, d) in enumerate(sizes):
        if not (s and d):
            continue
        one = [sources[i]]
        alone = _ask(rule, src, dst, one, one if within else [targets[i]], 0.0)
        _same([expected[i]], alone, "it depends on the other samples of the batch")

    if isinstance(rule, (rules.AllPairs, rules.Window)):
        return
    shuffles = [torch.randperm(s, generator=generator) for s, _ in sizes]
    others = shuffles if within else [torch.randperm(d, generator=generator) for _, d in sizes]
    mixed = _reorder(sources, shuffles)
    found = _ask(rule, src, dst, mixed, mixed if within else _reorder(targets, others), 0.0)
    permuted = [
        {name: value[a][:, b] for name, value in answer.items()}
        for answer, a, b in zip(expected, shuffles, others, strict=True)
    ]
    _same(permuted, found, "it does not permute with its nodes")


def _reorder(nodes: Nodes, orders: list[Tensor]) -> Nodes:
    return [{name: v[order] for name, v in part.items()} for part, order in zip(nodes, orders, strict=True)]


def _pad(parts: list[Tensor], padding: float) -> Tensor:
    longest = max(len(part) for part in parts)
    whole = any(not part.is_floating_point() for part in parts)
    out = torch.full((len(parts), longest, *parts[0].shape[1:]), padding)
    out = out.long() if whole else out
    for row, part in zip(out, parts, strict=True):
        row[: len(part)] = part
    return out


def _set(node: NodeType, parts: Nodes, padding: float) -> NodeSet:
    tensors = {name: _pad([part[name] for part in parts], padding) for name in parts[0]}
    sizes = torch.tensor([len(part["x"]) for part in parts])
    valid = torch.arange(int(sizes.max())) < sizes[:, None]
    return NodeSet({name: (lambda value=value: value) for name, value in tensors.items()}, valid, node.name)


def _ask(
    rule: Callable[..., Any], src: NodeType, dst: NodeType, sources: Nodes, targets: Nodes, padding: float
) -> list[dict[str, Tensor]]:
    """What the rule says, checked in form: for each sample the mask ``[S, D]`` and the features where connected."""
    a = _set(src, sources, padding)
    b = a if sources is targets else _set(dst, targets, padding)
    before = [{name: nodes[name].clone() for name in nodes} for nodes in (a, b)]
    answer = rule(a, b)
    for nodes, old in zip((a, b), before, strict=True):
        for name, value in old.items():
            kept = torch.equal(nodes[name].double().nan_to_num(9e9), value.double().nan_to_num(9e9))
            assert kept, f"{_name(rule)}: it changes the field {name!r} of the nodes it is shown"
    if isinstance(answer, tuple):
        good = len(answer) == 2 and isinstance(answer[1], Mapping)
        assert good, f"{_name(rule)}: a tuple must be a mask and a dict of features"
    mask, features = answer if isinstance(answer, tuple) else (answer, {})
    shape = (len(sources), a.valid.shape[1], b.valid.shape[1])
    assert isinstance(mask, Tensor), f"{_name(rule)}: the mask is a {type(mask).__name__}, not a tensor"
    assert mask.dtype == torch.bool, f"{_name(rule)}: the mask is {mask.dtype}, not bool"
    assert tuple(mask.shape) == shape, f"{_name(rule)}: the mask has shape {list(mask.shape)}, not {list(shape)}"
    mask = mask & a.valid[:, :, None] & b.valid[:, None, :]
    shown = {}
    for name, value in features.items():
        where = f"{_name(rule)}: feature {name!r}"
        assert isinstance(value, Tensor), f"{where} is a {type(value).__name__}, not a tensor"
        assert tuple(value.shape[:3]) == shape, f"{where} has shape {list(value.shape)}, not {[*shape, 'width']}"
        assert value.dim() in (3, 4), f"{where} has {value.dim()} axes, not 3 or 4"
        assert not value.is_complex(), f"{where} is complex"
        value = value.reshape(*shape, -1).double().masked_fill(~mask[..., None], 0.0)
        assert value.isfinite().all(), f"{where} is not finite where the rule connects"
        shown[name] = value
    return [
        {"": mask[i, :s, :d], **{name: value[i, :s, :d] for name, value in shown.items()}}
        for i, (s, d) in enumerate((len(p["x"]), len(q["x"])) for p, q in zip(sources, targets, strict=True))
    ]


def _same(expected: list[dict[str, Tensor]], found: list[dict[str, Tensor]], fault: str) -> None:
    for one, other in zip(expected, found, strict=True):
        for name, value in one.items():
            what = f"feature {name!r}" if name else "the mask"
            if name:
                same = torch.allclose(value, other[name], rtol=1e-4, atol=1e-5)
            else:
                same = torch.equal(value, other[name])
            assert same, f"{fault}: {what} changes"


def _name(rule: Any) -> str:
    return f"rule {getattr(rule, '__name__', rule)}"
