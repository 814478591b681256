"""Dense backend: whole blocks of sources and destinations, in two forms.

On the CPU one operator does the attention of all types (:mod:`hetgraph.nn.folded`). Elsewhere, and for half
precision, the keys of all edge types that end in a type are laid side by side along the source axis of a padded
block, for one ``scaled_dot_product_attention`` per destination type.

An additive mask says which pairs are connected: log(multiplicity) where an edge exists (a repeated edge counts as
often as it is there), minus infinity elsewhere. All pairs and windows need none on the CPU; elsewhere it is left out
where every edge type into a node type connects all pairs and nothing is padding. Nothing of size E x H x d is made.

Shapes: B samples, S and D the longest source and destination node sets, H heads, d width of a head. A block is
an edge type, or one relation of an edge type that has some.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from ..edges import Edges
from ..graph import Graph
from ..rules import AllPairs, Structure, Window
from ..schema import EdgeKey
from . import folded
from .attention import Attention
from .folded import Folding, attend

Block = tuple[EdgeKey, int]


def aggregate(graph: Graph, inputs: Attention) -> dict[str, Tensor]:
    """Messages for every destination type, ``[N, H, d]``; see :mod:`hetgraph.nn.attention`."""
    some = next(iter(inputs.projected.values()))
    return fold(graph, inputs) if folds(some.device, some.dtype) else lay_out(graph, inputs)


def folds(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the form for the CPU serves."""
    return device.type == "cpu" and dtype in (torch.float32, torch.float64)


def fold(graph: Graph, inputs: Attention) -> dict[str, Tensor]:
    """The form for the CPU, one operator for the whole graph: :mod:`hetgraph.nn.folded`."""
    targets = _plan(graph).targets
    blocks = [block for some in targets.values() for block in some]
    out = {name: inputs.q[name] * 0.0 for name, keys in graph.schema.incoming.items() if keys and name not in targets}
    if not blocks:
        return out
    rows = torch.cat(list(inputs.projected.values()))
    att, msg = (torch.stack([maps[key][slot] for key, slot in blocks]) for maps in (inputs.att, inputs.msg))
    folding = _folding(graph, blocks, set(inputs.bias), rows.shape[2])
    heard = attend(rows, att, msg, _added(graph, blocks, inputs, rows), folding)
    sizes = [graph.layout[name].total for name in inputs.projected]
    parts = zip(inputs.projected, heard.split(sizes), strict=True)
    return out | {name: value for name, value in parts if name in targets}


def _folding(graph: Graph, blocks: list[Block], biased: set[EdgeKey], heads: int) -> Folding:
    at = ("folding", heads)
    if at not in graph.cache:
        place = {name: i for i, name in enumerate(graph.layout)}
        parts = [
            folded.Block(place[key[0]], place[key[2]], _unmasked(graph.edges[key]), key in biased) for key, _ in blocks
        ]
        graph.cache[at] = Folding.of(list(graph.layout.values()), parts, heads)
    return graph.cache[at]


def _unmasked(edges: Edges) -> Structure | None:
    """The structure that says who hears whom without a mask, if there is one."""
    return edges.structure if type(edges.structure) in (AllPairs, Window) else None


def _added(graph: Graph, blocks: list[Block], inputs: Attention, like: Tensor) -> Tensor:
    """The masks of all blocks that need one, flat and one behind the other; see :func:`hetgraph.nn.folded.attend`."""
    at = ("added", like.dtype)
    if at not in graph.cache:
        masked = [(key, slot) for key, slot in blocks if _unmasked(graph.edges[key]) is None]
        parts = [_log_multiplicity(graph.edges[key], slot, like.dtype) for key, slot in masked]
        biased = any(key in inputs.bias for key, _ in masked)
        graph.cache[at] = list(zip(masked, parts, strict=True)) if biased else _flat(parts, like)
    made = graph.cache[at]
    if isinstance(made, Tensor):
        return made
    return _flat(
        [
            _with_bias(graph.edges[key], slot, part[:, None], inputs.bias[key]).transpose(0, 1)
            if key in inputs.bias
            else part
            for (key, slot), part in made
        ],
        like,
    )


def _flat(parts: list[Tensor], like: Tensor) -> Tensor:
    return torch.cat([part.flatten() for part in parts]) if parts else like.new_zeros(0)


def lay_out(graph: Graph, inputs: Attention) -> dict[str, Tensor]:
    """The form for all devices: keys and values laid side by side, torch's attention."""
    plan = _plan(graph)
    out = {
        name: inputs.q[name] * 0.0
        for name, incoming in graph.schema.incoming.items()
        if incoming and name not in plan.targets
    }
    if not plan.targets:
        return out
    padded = [graph.layout[name].pad(inputs.projected[name]) for name in plan.types]
    weights = [
        torch.cat([maps[key][slot] for key, slot in blocks], -1).to(padded[0].dtype)
        for blocks in plan.sources.values()
        for maps in (inputs.att, inputs.msg)
    ]
    laid = _LayOut.apply(plan, *padded, *weights)
    for i, (name, blocks) in enumerate(plan.targets.items()):
        q, k, v = laid[3 * i : 3 * i + 3]
        mask, reached = _mask(graph, name, blocks, inputs)
        heard = scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=1.0)
        if reached is not None:
            heard = heard * reached[:, None, :, None]
        out[name] = graph.layout[name].unpad(heard.transpose(1, 2))
    return out


class _Run(NamedTuple):
    """Blocks from one source type to one destination type; they lie side by side at both ends."""

    target: int
    offset: int
    blocks: int


@dataclass(frozen=True)
class _Plan:
    """Where the mapped keys and values of a graph go.

    Attributes:
        types: node types that send or hear anything, in the order their padded states are given.
        sources: source type -> its blocks, side by side in one product; those to one destination type in a row.
        targets: destination type -> its blocks, side by side along the source axis; those of one source type in a row.
        runs: source type -> its blocks again, destination type by destination type: number of the target, offset
            on its source axis, number of blocks.
        longest: type -> size of its padded node axis.
    """

    types: list[str]
    sources: dict[str, list[Block]]
    targets: dict[str, list[Block]]
    runs: dict[str, list[_Run]]
    longest: dict[str, int]


def _plan(graph: Graph) -> _Plan:
    if "dense plan" not in graph.cache:
        between: dict[tuple[str, str], list[Block]] = {}
        for key in graph.schema.edges:
            for slot in _slots(graph, key):
                between.setdefault((key[0], key[2]), []).append((key, slot))
        names = list(graph.layout)
        longest = {name: layout.longest for name, layout in graph.layout.items()}
        sources = {s: [block for d in names for block in between.get((s, d), [])] for s in names}
        targets = {d: [block for s in names for block in between.get((s, d), [])] for d in names}
        sources = {name: blocks for name, blocks in sources.items() if blocks}
        targets = {name: blocks for name, blocks in targets.items() if blocks}
        runs: dict[str, list[_Run]] = {name: [] for name in sources}
        offset = dict.fromkeys(targets, 0)
        for s in sources:
            for i, d in enumerate(targets):
                if (s, d) in between:
                    blocks = len(between[s, d])
                    runs[s].append(_Run(i, offset[d], blocks))
                    offset[d] += blocks * longest[s]
        types = [name for name in names if name in sources or name in targets]
        graph.cache["dense plan"] = _Plan(types, sources, targets, runs, longest)
    return graph.cache["dense plan"]


def _slots(graph: Graph, key: EdgeKey) -> list[int]:
    """The relation ids of an edge type that occur in this graph; [0] without relations; [] without edges."""
    edges = graph.edges[key]
    if edges.src.total == 0 or edges.dst.total == 0:
        return []
    return [0] if edges.relation is None else torch.unique(edges.relation).tolist()


class _LayOut(torch.autograd.Function):
    """Queries, mapped keys and mapped values, laid out for the attention of every destination type.

    What plain operators would do with ``bmm``, ``cat`` and ``unbind``; but every number is moved once, forward and
    backward, and by operations that run on all threads.

    Takes the padded projections ``[B, longest, 3, H, d]`` of ``plan.types``, then for every source type the
    matrices of its blocks side by side for keys and for values, ``[H, d, blocks * d]``. Gives for every destination
    type ``q [B, H, D, d]``, ``k`` and ``v`` ``[B, H, sum of S, d]``.
    """

    @staticmethod
    def forward(plan: _Plan, *tensors: Tensor) -> tuple[Tensor, ...]:
        states, weights = _by_name(plan, tensors)
        some = tensors[0]
        samples, heads, d = some.shape[0], some.shape[3], some.shape[4]
        out: list[Tensor] = []
        for name, blocks in plan.targets.items():
            width = sum(plan.longest[key[0]] for key, _ in blocks)
            q = states[name][:, :, 1].transpose(1, 2).clone(memory_format=torch.contiguous_format)
            out += [q, some.new_empty(samples, heads, width, d), some.new_empty(samples, heads, width, d)]
        for name, runs in plan.runs.items():
            rows = states[name].flatten(0, 1)
            for side, part in ((1, 0), (2, 2)):
                mapped = torch.bmm(rows[:, part].transpose(0, 1), weights[name][side - 1])
                mapped = mapped.view(heads, samples, plan.longest[name], -1, d)
                for run, piece in _cut(runs, mapped):
                    _place(out[3 * run.target + side], run, plan.longest[name]).copy_(piece)
        return tuple(out)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.plan = inputs[0]
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        plan: _Plan = ctx.plan
        states, weights = _by_name(plan, ctx.saved_tensors)
        targets = {name: i for i, name in enumerate(plan.targets)}
        to_states: list[Tensor] = []
        to_weights: dict[str, list[Tensor]] = {}
        for name in plan.types:
            samples, longest, _, heads, d = states[name].shape
            change = states[name].new_empty(states[name].shape)
            if name in targets:
                change[:, :, 1].copy_(grads[3 * targets[name]].transpose(1, 2))
            else:
                change[:, :, 1].zero_()
            runs = plan.runs.get(name, [])
            if not runs:
                change[:, :, 0].zero_()
                change[:, :, 2].zero_()
            else:
                to_weights[name] = []
                rows = states[name].flatten(0, 1)
                for side, part in ((1, 0), (2, 2)):
                    mapped = change.new_empty(heads, samples, longest, len(plan.sources[name]), d)
                    for run, piece in _cut(runs, mapped):
                        piece.copy_(_place(grads[3 * run.target + side], run, longest))
                    flat = mapped.flatten(3).flatten(1, 2)
                    back = torch.bmm(flat, weights[name][side - 1].transpose(1, 2))
                    change[:, :, part].copy_(back.transpose(0, 1).view(samples, longest, heads, d))
                    to_weights[name].append(torch.bmm(rows[:, part].permute(1, 2, 0), flat))
            to_states.append(change)
        return None, *to_states, *(grad for name in plan.sources for grad in to_weights[name])


def _cut(runs: list[_Run], mapped: Tensor) -> Iterator[tuple[_Run, Tensor]]:
    """The runs of ``mapped [H, B, S, blocks, d]``, each as ``[B, H, blocks, S, d]``."""
    parts = mapped.split([run.blocks for run in runs], 3)
    return zip(runs, (part.permute(1, 0, 3, 2, 4) for part in parts), strict=True)


def _place(laid: Tensor, run: _Run, longest: int) -> Tensor:
    """Where a run lies in ``laid [B, H, sum of S, d]``, as ``[B, H, blocks, S, d]``."""
    return laid.narrow(2, run.offset, run.blocks * longest).unflatten(2, (run.blocks, longest))


def _by_name(plan: _Plan, tensors: tuple[Tensor, ...]) -> tuple[dict[str, Tensor], dict[str, tuple[Tensor, Tensor]]]:
    """States by node type, and the two matrices by source type."""
    states = dict(zip(plan.types, tensors, strict=False))
    rest = tensors[len(plan.types) :]
    return states, {name: (rest[2 * i], rest[2 * i + 1]) for i, name in enumerate(plan.sources)}


def _mask(graph: Graph, name: str, blocks: list[Block], inputs: Attention) -> tuple[Tensor | None, Tensor | None]:
    """Additive mask ``[B, 1 or H, 1 or D, sum S]``, and bool ``[B, 1 or D]`` of the destinations some edge reaches.

    Rows that no edge reaches are opened to everything (a softmax over nothing is NaN) and the caller
    clears them afterwards; ``None`` if there is no such row. Without edge features the mask depends on the
    graph alone and is shared by all layers; it is None if every pair is connected.
    """
    dtype = inputs.projected[name].dtype
    biased = any(key in inputs.bias for key, _ in blocks)
    fixed = ("dense mask", name, dtype, biased)
    if fixed not in graph.cache:
        graph.cache[fixed] = _fixed_mask(graph, blocks, dtype, biased)
    mask, reached = graph.cache[fixed]
    if not biased:
        return mask, reached
    widths = [graph.edges[key].src.longest for key, _ in blocks]
    parts = [
        _with_bias(graph.edges[key], slot, part, inputs.bias[key]) if key in inputs.bias else part
        for (key, slot), part in zip(blocks, mask.split(widths, -1), strict=True)
    ]
    heads = inputs.projected[name].shape[2]
    return torch.cat([part.expand(-1, heads, -1, -1) for part in parts], -1), reached


def _fixed_mask(
    graph: Graph, blocks: list[Block], dtype: torch.dtype, biased: bool
) -> tuple[Tensor | None, Tensor | None]:
    edges = [graph.edges[key] for key, _ in blocks]
    if not biased and all(type(e.structure) is AllPairs for e in edges):
        if all(e.src.uniform and e.src.longest for e in edges):
            return None, None
        mask = torch.cat([e.src.valid for e in edges], -1)[:, None].to(dtype).log()
    else:
        mask = torch.cat([_log_multiplicity(e, slot, dtype) for e, (_, slot) in zip(edges, blocks, strict=True)], -1)
    reached = (mask > -torch.inf).any(-1)
    if bool(reached.all()):
        return mask[:, None], None
    return mask.masked_fill(~reached[..., None], 0.0)[:, None], reached


def _log_multiplicity(edges: Edges, slot: int, dtype: torch.dtype) -> Tensor:
    """log of how often each pair is connected, ``[B, D, S]``."""
    if edges.relation is not None:
        times = _scatter(edges, edges.relation == slot, torch.ones_like(edges.relation, dtype=dtype))
    elif edges.multiplicity is not None:
        times = edges.multiplicity.to(dtype)
    else:
        times = edges.mask.to(dtype)
    return times.log().transpose(1, 2)


def _scatter(edges: Edges, chosen: Tensor, value: Tensor) -> Tensor:
    """Sum of ``value [E]`` of the chosen edges at every pair, ``[B, S, D]``."""
    shape = (len(edges.src.per_sample), edges.src.longest, edges.dst.longest)
    flat = value.new_zeros(shape[0] * shape[1] * shape[2])
    return flat.index_add(0, edges.cell[chosen], value[chosen]).view(shape)


def _with_bias(edges: Edges, slot: int, mask: Tensor, bias: Tensor) -> Tensor:
    """The mask of one block with the bias of its edges, ``[B, H, D, S]``.

    Parallel edges between a pair act as log(sum exp(bias)): together they weigh what they weigh one by one.
    """
    cell = edges.cell
    if edges.relation is not None:
        chosen = edges.relation == slot
        cell, bias = cell[chosen], bias[chosen]
    heads = bias.shape[1]
    samples, longest_src, longest_dst = len(edges.src.per_sample), edges.src.longest, edges.dst.longest
    cells = samples * longest_src * longest_dst
    if edges.listed:
        at = cell[:, None].expand(-1, heads)
        top = bias.detach().new_full((cells, heads), -torch.inf).scatter_reduce(0, at, bias.detach(), "amax")
        total = bias.new_zeros(cells, heads).index_add(0, cell, (bias - top[cell]).exp())
        # only touched cells: elsewhere both logarithms are of zero
        touched = torch.unique(cell)
        value = bias.new_zeros(cells, heads).index_copy(0, touched, total[touched].log() + top[touched])
        blocked = torch.ones(cells, dtype=torch.bool, device=bias.device).index_fill(0, touched, False)
    else:
        value = bias.new_zeros(cells, heads).index_copy(0, cell, bias)
        blocked = torch.ones(cells, dtype=torch.bool, device=bias.device).index_fill(0, cell, False)
    shape = (samples, longest_src, longest_dst)
    placed = value.view(*shape, heads).permute(0, 3, 2, 1)
    return torch.where(blocked.view(shape).transpose(1, 2)[:, None], mask, placed)
