"""Every fusion family but ``graph`` written out for one sample, node by node, with the weights of a model.

No padding, no batch, no einsum: only the equations of the docstrings, so that whatever the library does to be
fast can be compared with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from hetgraph import Fusion, Sample
from hetgraph.fusion.common import FusionNetwork

States = dict[int, Tensor]
"""Place of a type -> its nodes ``[N, D]``, or its X_k ``[D]``; types without nodes are left out."""


def linear(x: Tensor, layer: nn.Linear) -> Tensor:
    return torch.stack([layer.weight @ row + (0 if layer.bias is None else layer.bias) for row in x])


def norm(x: Tensor, layer: nn.LayerNorm) -> Tensor:
    mean = x.mean(-1, keepdim=True)
    spread = ((x - mean) ** 2).mean(-1, keepdim=True) + layer.eps
    return (x - mean) / spread.sqrt() * layer.weight + layer.bias


def gelu(x: Tensor) -> Tensor:
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def heads(layer: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Multi-head attention of the nodes of ``x`` to those of ``y``."""
    width, count = x.shape[1], layer.heads
    d = width // count
    query = linear(x, layer.query)
    both = linear(y, layer.key_value) if len(y) else x.new_zeros(0, 2 * width)
    key, value = both[:, :width], both[:, width:]
    rows = []
    for q in query:
        heard = []
        for h in range(count):
            at = slice(h * d, h * d + d)
            if not len(y):
                heard.append(q.new_zeros(d))
                continue
            share = torch.stack([q[at] @ k[at] / math.sqrt(d) for k in key]).softmax(0)
            heard.append(sum(a * v[at] for a, v in zip(share, value, strict=True)))
        rows.append(torch.cat(heard))
    return linear(torch.stack(rows), layer.out)


def ahead(layer: nn.Module, x: Tensor) -> Tensor:
    return linear(gelu(linear(x, layer.enter)), layer.leave)


def transformer(block: nn.Module, x: Tensor, y: Tensor | None = None) -> Tensor:
    normed = norm(x, block.norm_in)
    x = x + heads(block.attention, normed, normed if y is None else norm(y, block.norm_source))
    return x + ahead(block.ahead, norm(x, block.norm_mid))


def pool(pooling: nn.Module, i: int, x: Tensor, keys: Tensor | None = None) -> Tensor:
    """X_i of the nodes of type i."""
    width, count = x.shape[1], pooling.heads
    d = width // count
    out = []
    for h in range(count):
        score = [k @ pooling.query[i, h] / math.sqrt(width) for k in (x if keys is None else keys)]
        share = torch.stack(score).softmax(0)
        values = [(pooling.value[i] @ row + pooling.bias[i])[h * d : h * d + d] for row in x]
        out.append(sum(a * v for a, v in zip(share, values, strict=True)))
    return torch.cat(out)


def mix(readout: nn.Module, parts: States) -> tuple[Tensor, States]:
    """Z and the alphas."""
    scores = [
        (readout.score.weight @ torch.tanh(readout.compare.weight @ x + readout.compare.bias + readout.type_bias[i]))[0]
        for i, x in parts.items()
    ]
    alpha = dict(zip(parts, torch.stack(scores).softmax(0), strict=True))
    return sum(alpha[i] * parts[i] for i in parts), alpha


def concatenated(join: nn.Module, filled: list[Tensor], present: States) -> tuple[Tensor, States]:
    """One matrix on all vectors side by side; shares of the lengths of what is present."""
    matrix = torch.cat(list(join.weight), 1)
    size = {i: (join.weight[i] @ x).norm() for i, x in present.items()}
    return matrix @ torch.cat(filled) + join.bias, {i: s / sum(size.values()) for i, s in size.items()}


def apart(net: FusionNetwork, x: States) -> States:
    """A transformer for every type."""
    out = {}
    for i, state in x.items():
        for block in net.in_order(net.blocks[i]):
            state = transformer(block, state)
        out[i] = state
    return out


def normed(net: FusionNetwork, x: States) -> States:
    return {i: norm(state, net.norm[i]) for i, state in x.items()}


def pooled(net: FusionNetwork, x: States) -> States:
    return {i: pool(net.pooling, i, state) for i, state in normed(net, x).items()}


def filled(stand_in: nn.Module, parts: States) -> list[Tensor]:
    return [parts.get(i, vector) for i, vector in enumerate(stand_in.vector)]


Result = tuple[Tensor, States, States]


def concat(net: FusionNetwork, x: States) -> Result:
    parts = pooled(net, apart(net, x))
    return *concatenated(net.join, filled(net.stand_in, parts), parts), parts


def weighted_sum(net: FusionNetwork, x: States) -> Result:
    parts = pooled(net, apart(net, x))
    total = sum(net.level[i].exp() for i in parts)
    alpha = {i: net.level[i].exp() / total for i in parts}
    return sum(alpha[i] * parts[i] for i in parts), alpha, parts


def gated(net: FusionNetwork, x: States) -> Result:
    parts = pooled(net, apart(net, x))
    seen = torch.cat(filled(net.stand_in, parts))
    gate = {i: torch.sigmoid(net.gate[i].flatten(1) @ seen + net.gate_bias[i]) for i in parts}
    z = sum(gate[i] * torch.tanh(net.value[i] @ parts[i]) for i in parts)
    total = sum(g.mean() for g in gate.values())
    return z, {i: g.mean() / total for i, g in gate.items()}, parts


def tensor(net: FusionNetwork, x: States) -> Result:
    """By the whole tensor: the outer product of all ``[X_k; 1]`` contracted with the weight tensor of low rank."""
    parts = pooled(net, apart(net, x))
    outer = torch.ones((), dtype=torch.float64)
    for value in filled(net.stand_in, parts):
        outer = outer[..., None] * torch.cat([value, value.new_ones(1)])
    z = net.bias.clone()
    for out in range(net.width):
        weight = 0
        for r in range(net.rank):
            term = net.rank_weight[r]
            for factor, bias in zip(net.factor, net.factor_bias, strict=True):
                term = term[..., None] * torch.cat([factor[r, out], bias[r, out][None]])
            weight = weight + term
        z = z + nn.functional.one_hot(torch.tensor(out), net.width) * (weight * outer).sum()
    size = {
        i: sum(((net.factor[i, r] @ p + net.factor_bias[i, r] - 1) ** 2).sum() for r in range(net.rank)).sqrt()
        for i, p in parts.items()
    }
    return z, {i: s / sum(size.values()) for i, s in size.items()}, parts


def attention(net: FusionNetwork, x: States) -> Result:
    parts = {i: pool(net.readout, i, state) for i, state in normed(net, apart(net, x)).items()}
    return *mix(net.readout, parts), parts


def self_attention(net: FusionNetwork, x: States) -> Result:
    state = torch.cat([value + net.kind[i] for i, value in x.items()])
    for block in net.in_order(net.blocks):
        state = transformer(block, state)
    split = dict(zip(x, state.split([len(value) for value in x.values()]), strict=True))
    parts = {i: pool(net.readout, i, value) for i, value in normed(net, split).items()}
    return *mix(net.readout, parts), parts


def cross_attention(net: FusionNetwork, x: States) -> Result:
    out = {}
    for a in x:
        total = x[a]
        for b in range(len(net.names)):
            if a == b:
                continue
            state = net.silent[b].expand_as(x[a])
            if b in x:
                state = x[a]
                for block in net.in_order(net.crosses[f"{a}_{b}"]):
                    state = transformer(block, state, x[b])
            total = total + linear(state, net.joins[f"{a}_{b}"])
        out[a] = transformer(net.after[a], total)
    parts = pooled(net, out)
    return *concatenated(net.join, filled(net.stand_in, parts), parts), parts


def parallel(net: FusionNetwork, x: States) -> Result:
    x = normed(net, apart(net, x))
    parts = {}
    for a, state in x.items():
        rows = []
        for row in state:
            heard = net.look[a].weight @ row
            for b, other in x.items():
                if a == b:
                    continue
                for node in other:
                    if a < b:
                        affinity = row @ net.affinity[f"{a}_{b}"].weight @ node
                    else:
                        affinity = node @ net.affinity[f"{b}_{a}"].weight @ row
                    share = torch.tanh(affinity / math.sqrt(net.width)) / len(other)
                    heard = heard + share * (net.look[b].weight @ node)
            rows.append(torch.tanh(heard))
        parts[a] = pool(net.readout, a, state, torch.stack(rows))
    return *mix(net.readout, parts), parts


def guided(net: FusionNetwork, x: States) -> Result:
    for layer in range(net.own * net.steps):
        block = {i: net.in_order(net.blocks[i])[layer] for i in x}
        for i, b in block.items():
            own = norm(x[i], b.norm_own)
            x = {**x, i: x[i] + heads(b.own, own, own)}
        looked = {}
        for i, b in block.items():
            others = [norm(state, b.norm_guide) for j, state in x.items() if j != i]
            source = torch.cat(others) if others else x[i].new_zeros(0, net.width)
            state = x[i] + heads(b.guide, norm(x[i], b.norm_in), source)
            looked[i] = state + ahead(b.ahead, norm(state, b.norm_mid))
        x = looked
    parts = {i: pool(net.readout, i, value) for i, value in normed(net, x).items()}
    return *mix(net.readout, parts), parts


def translated(net: FusionNetwork, x: Tensor, a: int, b: int) -> Tensor:
    inside = gelu(net.translate_in.weight[a] @ x + net.translate_in.bias[a])
    return net.translate_out.weight[b] @ inside + net.translate_out.bias[b]


def adversarial(net: FusionNetwork, x: States) -> Result:
    parts = pooled(net, apart(net, x))
    complete = [
        parts[b] if b in parts else sum(translated(net, p, a, b) for a, p in parts.items()) / len(parts)
        for b in range(len(net.names))
    ]
    return *concatenated(net.join, complete, parts), parts


FAMILIES: dict[str, Callable[[FusionNetwork, States], Result]] = {
    "concat": concat,
    "sum": weighted_sum,
    "gated": gated,
    "tensor": tensor,
    "attention": attention,
    "self_attention": self_attention,
    "cross_attention": cross_attention,
    "coattention": parallel,
    "guided": guided,
    "adversarial": adversarial,
    "late": weighted_sum,
}


def reference(model: Fusion, sample: Sample) -> Result:
    """Z, the weights and the X_k of a sample without places; by the place of the type in the schema."""
    kind = model.settings["coattention"] if model.settings["method"] == "coattention" else None
    family = FAMILIES["guided" if kind == "guided" else model.settings["method"]]
    net = model.network
    x = {}
    for i, name in enumerate(model.schema.nodes):
        if name in sample.nodes and len(sample.nodes[name]["x"]):
            value = torch.as_tensor(sample.nodes[name]["x"]).double()
            mean, std = net.project.get_buffer(f"scale_{i}")
            x[i] = linear((value - mean) / std, net.project.features[i])
    return family(net, x)
