"""Attention over blocks on the CPU: relation matrices folded into the queries, one pass per sample and head.

The key of a source s under relation r is k_s A_r, its message v_s M_r. Instead of mapping every source by every
relation, this form maps the destinations::

    score(s, r, t) = k_s . (q_t A_r^T) + mask,    p = softmax,    out_t = sum_r ( sum_s p(s, r, t) v_s ) M_r

The matrix products of one sample and one head are small; done one after the other, all that lies between them stays
in a core's cache, and only queries, keys, values and messages go through memory. Weights are not kept for the way
back but computed again from the logarithm of their sum (FlashAttention: Dao et al., NeurIPS 2022). The kernels read
packed nodes: samples of different sizes cost what they hold, and there is no padding. Two custom operators of torch;
the loops are compiled by numba, their matrix products go to SciPy's BLAS.

Shapes: N nodes of all types, B samples, R blocks (edge types, or relations of one), H heads, d width of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ..edges import Counts
from ..errors import HetgraphError
from ..rules import AllPairs, Structure, Window
from .threads import Kernel, in_pieces, one_blas_thread

SHARES = 4
"""The samples are cut into so many shares, whatever the number of threads: sums are then always the same."""
TILE = 64
"""Destinations that are worked on at once."""

# columns of the table of blocks, and the kinds of blocks
SOURCE, KIND, BEFORE, AFTER, LOOPS, BASE, PER_HEAD, DEPTH, WIDTH = range(9)
ALL, BAND, MASK = range(3)


@dataclass(frozen=True)
class Block:
    """Sources of one type that destinations of one type hear under one relation.

    Attributes:
        source, target: numbers of the types.
        structure: all pairs or a window, which need no mask; None: the mask says who hears whom.
        per_head: the mask has a value for every head.
    """

    source: int
    target: int
    structure: Structure | None = None
    per_head: bool = False


@dataclass(frozen=True)
class Folding:
    """The tables that the kernels read, int64.

    Attributes:
        place: ``[types, 2, B]``, first node and number of nodes of every type and sample.
        targets: ``[targets, 3]``, number of the type, first and last of its blocks.
        blocks: ``[R, 9]``, see above; a mask's place in the masks laid one behind the other is among it.
        share: ``[pieces, 4]``, first and last sample and the head of a piece of work, number of the share.
        room: ``[3]``, the most nodes of a sample, scores of a tile, scores of a destination.
        masked: how many numbers the masks have.
    """

    place: Tensor
    targets: Tensor
    blocks: Tensor
    share: Tensor
    room: Tensor
    masked: int

    @classmethod
    def of(cls, layouts: Sequence[Counts], blocks: Sequence[Block], heads: int) -> Folding:
        """The tables of a graph.

        Args:
            layouts: of every type, in the order in which the nodes are packed.
            blocks: sorted by target.
            heads: attention heads.
        """
        total = [0]
        for layout in layouts:
            total.append(total[-1] + layout.total)
        place = torch.stack(
            [torch.stack([lay.offset + first, lay.per_sample]) for lay, first in zip(layouts, total, strict=False)]
        )
        samples = place.shape[2]
        rows: list[list[int]] = []
        targets: list[list[int]] = []
        base = 0
        for i, block in enumerate(blocks):
            depth, width = layouts[block.target].longest, layouts[block.source].longest
            kind = _KINDS.get(type(block.structure), MASK)
            size = depth * width * samples * (heads if block.per_head else 1) if kind == MASK else 0
            window = block.structure if isinstance(block.structure, Window) else Window(0, 0)
            # windows may be wider than any sample, and than a number of the machine
            reach = [min(max(side, -_FAR), _FAR) for side in (window.before, window.after)]
            per_head = samples if block.per_head else 0
            rows.append([block.source, kind, *reach, int(window.loops), base, per_head, depth, width])
            base += size
            if not targets or targets[-1][0] != block.target:
                targets.append([block.target, i, i])
            targets[-1][2] = i + 1
        shares = min(samples, SHARES)
        cuts = [samples * i // shares for i in range(shares + 1)]
        share = [[cuts[i], cuts[i + 1], h, i] for i in range(shares) for h in range(heads)]
        wide = [
            sum(_width(row, layouts[row[SOURCE]].longest) for row in rows[first:last]) for _, first, last in targets
        ]
        tiles = [min(TILE, layouts[t].longest) * w for (t, _, _), w in zip(targets, wide, strict=True)]
        room = [int(place[:, 1].sum(0).max()), max(tiles, default=0), max(wide, default=0)]
        tables = [torch.tensor(made, dtype=torch.long) for made in (targets, rows, share, room)]
        return cls(place, tables[0], tables[1], tables[2], tables[3], base)


_FAR = 2**40
_KINDS: Mapping[type, int] = {AllPairs: ALL, Window: BAND}


def _width(row: list[int], longest: int) -> int:
    """The most sources of a block that a tile of destinations may hear."""
    return min(longest, TILE + row[BEFORE] + row[AFTER]) if row[KIND] == BAND else longest


def attend(rows: Tensor, att: Tensor, msg: Tensor, mask: Tensor, folding: Folding) -> Tensor:
    """Messages ``[N, H, d]`` for the nodes of all types; zeros where nothing is heard.

    Differentiable in the first three, and in the mask where it is per head.

    Args:
        rows: keys, queries and values, ``[N, 3, H, d]``, type after type.
        att, msg: matrices of the blocks, ``[R, H, d, d]``.
        mask: what is added to the scores, for every block with a mask ``[B, D, S]`` or ``[H, B, D, S]`` with D and
            S the longest node sets, flat and one behind the other.
        folding: see there.

    Raises:
        HetgraphError: the mask is of another size.
    """
    if len(mask) != folding.masked:
        raise HetgraphError(f"the mask must have {folding.masked} numbers, got {len(mask)}")
    tables = (folding.place, folding.targets, folding.blocks, folding.share, folding.room)
    return _attend(rows, att, msg, mask, *tables)[0]


@torch.library.custom_op("hetgraph::fold", mutates_args=(), device_types="cpu")
def _attend(
    rows: Tensor,
    att: Tensor,
    msg: Tensor,
    mask: Tensor,
    place: Tensor,
    targets: Tensor,
    blocks: Tensor,
    share: Tensor,
    room: Tensor,
) -> tuple[Tensor, Tensor]:
    nodes, _, heads, d = rows.shape
    made = _blank(targets, place)
    out, lse = made(nodes, heads, d, dtype=rows.dtype), rows.new_empty(heads, nodes)
    att_t = att.transpose(2, 3)
    with one_blas_thread():
        in_pieces(_kernels()[0], len(share), rows, att_t, msg, mask, place, targets, blocks, share, room, out, lse)
    return out, lse


@_attend.register_fake
def _(rows: Tensor, *rest: Tensor) -> tuple[Tensor, Tensor]:
    nodes, _, heads, d = rows.shape
    return rows.new_empty(nodes, heads, d), rows.new_empty(heads, nodes)


@torch.library.custom_op("hetgraph::fold_backward", mutates_args=(), device_types="cpu")
def _attend_backward(
    grad: Tensor,
    rows: Tensor,
    out: Tensor,
    lse: Tensor,
    att: Tensor,
    msg: Tensor,
    mask: Tensor,
    to_mask: bool,
    place: Tensor,
    targets: Tensor,
    blocks: Tensor,
    share: Tensor,
    room: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    shares = int(share[-1, 3]) + 1
    to_rows = _blank(targets, place)(rows.shape, dtype=rows.dtype)
    to_att, to_msg = rows.new_zeros(shares, *att.shape), rows.new_zeros(shares, *msg.shape)
    change = torch.zeros_like(mask) if to_mask else mask.new_zeros(0)
    given = (grad, rows, out, lse, att, att.transpose(2, 3), msg.transpose(2, 3), mask)
    made = (to_rows, to_att, to_msg, change)
    with one_blas_thread():
        in_pieces(_kernels()[1], len(share), *given, place, targets, blocks, share, room, *made)
    return to_rows, to_att.sum(0).transpose(2, 3).contiguous(), to_msg.sum(0), change


@_attend_backward.register_fake
def _(
    grad: Tensor,
    rows: Tensor,
    out: Tensor,
    lse: Tensor,
    att: Tensor,
    msg: Tensor,
    mask: Tensor,
    to_mask: bool,
    *rest: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    change = mask.new_empty(mask.shape if to_mask else 0)
    return rows.new_empty(rows.shape), att.new_empty(att.shape), msg.new_empty(msg.shape), change


def _blank(targets: Tensor, place: Tensor) -> Callable[..., Tensor]:
    """How to make what the kernels fill for destinations: they leave out the types that nothing is sent to."""
    return torch.empty if len(targets) == len(place) else torch.zeros


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, *output)
    ctx.mark_non_differentiable(output[1])


def _back(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    rows, att, msg, mask, *tables, out, lse = ctx.saved_tensors
    to_mask = ctx.needs_input_grad[3]
    changes = _attend_backward(grad, rows, out, lse, att, msg, mask, to_mask, *tables)
    return *changes[:3], changes[3] if to_mask else None, *(None for _ in tables)


_attend.register_autograd(_back, setup_context=_keep)


@cache
def _kernels() -> tuple[Kernel, Kernel]:
    """Forward and backward; numba is imported and they are compiled on first use."""
    from . import _folded as loops

    return Kernel(loops.forward, loops.forward_task), Kernel(loops.backward, loops.backward_task)
