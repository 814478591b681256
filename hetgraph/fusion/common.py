"""What the families share: the way from a graph to states, padded attention, transformers, and shares.

Shapes: B samples, N nodes, S rows of Z (samples or groups), T node types, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..errors import HetgraphError
from ..graph import Graph
from ..nn import InputProjection, Readout
from ..nn.project import POSITIONS
from ..schema import EdgeKey, Schema
from .output import FusionOutput
from .temporal import TemporalEncoder


class FusionNetwork(nn.Module):
    """Base of all families.

    Typed projections, a temporal encoder if asked for, the family's own ``layers`` over the nodes
    (:meth:`encode`), a norm per type, and the family's way from nodes to Z (:meth:`fuse`).

    Args:
        schema: the node and edge types.
        width: width of states and of Z.
        layers: number of blocks that a node's state goes through.
        heads: attention heads.
        dropout: probability.
        group: name of the field whose values number the groups that get a Z each; None: one Z per sample.
        positions: fields that say where a node is.
        shared: all layers are one block with one set of weights, run ``layers`` times (Dehghani et al., ICLR
            2019): what is learnt for one step of reasoning is known to all.
        temporal: ``"lstm"`` or ``"gru"``: a recurrent network over the nodes of each type, before the layers.

    Raises:
        HetgraphError: width not divisible by heads, or an unknown temporal encoder.
    """

    decisions: ClassVar[bool] = False
    """The task's head is to decide for every type by itself; the decisions are then averaged by ``weights``."""

    def __init__(
        self,
        schema: Schema,
        width: int,
        *,
        layers: int = 2,
        heads: int = 4,
        dropout: float = 0.0,
        group: str | None = None,
        positions: Iterable[str] = POSITIONS,
        shared: bool = False,
        temporal: str | None = None,
    ) -> None:
        super().__init__()
        if heads < 1 or width < 1 or width % heads:
            raise HetgraphError(f"width must be a positive multiple of heads, got width {width} and {heads} heads")
        self.names = list(schema.nodes)
        self.width = width
        self.heads = heads
        self.group = group
        self.project = InputProjection(schema, width, positions)
        self.dropout = nn.Dropout(dropout)
        self.temporal = TemporalEncoder(schema, width, temporal, dropout) if temporal is not None else None
        self.own = 1 if shared and layers else layers
        self.steps = layers // self.own if self.own else 0
        self.norm = nn.ModuleList([nn.LayerNorm(width) for _ in schema.nodes])

    def standardize(self, graphs: Iterable[Graph]) -> None:
        """Set the scale of the input features from these graphs."""
        self.project.standardize(graphs)

    def inputs(self, graph: Graph) -> dict[str, Tensor]:
        """What the first layer reads, type -> ``[N, D]``."""
        x = {name: self.dropout(state) for name, state in self.project(graph).items()}
        return x if self.temporal is None else self.temporal(graph, x)

    def forward(self, graph: Graph, backend: str = "auto") -> FusionOutput:
        x = self.encode(graph, self.inputs(graph), backend)
        x = {name: norm(x[name]) for name, norm in zip(self.names, self.norm, strict=True)}
        segment, sample = self.rows(graph)
        return self.fuse(graph, x, segment, sample)

    def rows(self, graph: Graph) -> tuple[dict[str, Tensor], Tensor]:
        """Row of Z of every node, type -> int64 ``[N]`` for the types that are read; sample of every row, ``[S]``."""
        if self.group is None:
            return dict(graph.batch), torch.arange(len(graph), device=graph.device)
        return graph.groups(self.group)

    def encode(self, graph: Graph, x: dict[str, Tensor], backend: str) -> dict[str, Tensor]:
        """The layers over the nodes: type -> ``[N, D]`` to the same."""
        raise NotImplementedError

    def fuse(
        self, graph: Graph, x: Mapping[str, Tensor], segment: Mapping[str, Tensor], sample: Tensor
    ) -> FusionOutput:
        """From nodes to Z.

        Args:
            graph: B samples.
            x: final states, type -> ``[N, D]``.
            segment: row of Z that every node belongs to, type -> int64 ``[N]``, for the types that are read.
            sample: sample of every row of Z, int64 ``[S]``.
        """
        raise NotImplementedError

    def attention(self, graph: Graph) -> list[dict[EdgeKey, Tensor]]:
        """Attention weights of every block: edge key -> ``[E, heads]`` in the order of ``graph.edge_index``.

        Raises:
            HetgraphError: this family does not look at edges.
        """
        raise HetgraphError(f"{type(self).__name__} has no attention over edges; the method 'graph' has")

    def output(
        self,
        z: Tensor,
        x: Mapping[str, Tensor],
        weights: Tensor,
        parts: Tensor,
        sample: Tensor,
        losses: dict[str, Tensor] | None = None,
    ) -> FusionOutput:
        """The output from weights ``[S, T]`` and parts ``[S, T, D]``."""
        return FusionOutput(
            z,
            dict(x),
            dict(zip(self.names, weights.unbind(1), strict=True)),
            dict(zip(self.names, parts.unbind(1), strict=True)),
            sample,
            losses or {},
        )

    def stack(self, make: Callable[[], nn.Module]) -> nn.ModuleList:
        """The blocks of one stack: as many as there are layers, or one if they share their weights."""
        return nn.ModuleList([make() for _ in range(self.own)])

    def in_order(self, blocks: nn.ModuleList) -> list[nn.Module]:
        """The blocks of a stack in the order they are run; the same one several times if they share weights."""
        return [block for _ in range(self.steps) for block in blocks]


class WeightedSum:
    """For networks with a :class:`~hetgraph.nn.Readout`: ``Z = sum_k alpha_k X_k``; ``weights`` are the alphas."""

    readout: Readout

    def fuse(
        self, graph: Graph, x: Mapping[str, Tensor], segment: Mapping[str, Tensor], sample: Tensor
    ) -> FusionOutput:
        z, weights, parts = self.readout(x, segment, len(sample))
        return FusionOutput(z, dict(x), weights, parts, sample)


class Rows:
    """The nodes of some types, of every sample side by side.

    Packed, the types follow one another, ``[N, ...]``; padded, every sample has a row of L places for all its
    nodes of these types, ``[B, L, ...]``.
    """

    def __init__(self, graph: Graph, names: Sequence[str]) -> None:
        self.layouts = [graph.layout[name] for name in names]
        self.sizes = [counts.total for counts in self.layouts]
        self.full = all(counts.uniform for counts in self.layouts)

    def pad(self, packed: Tensor) -> Tensor:
        """``[N, ...] -> [B, L, ...]``, zeros where there is no node."""
        parts = packed.split(self.sizes)
        return torch.cat([counts.pad(part) for counts, part in zip(self.layouts, parts, strict=True)], 1)

    def unpad(self, padded: Tensor) -> Tensor:
        """``[B, L, ...] -> [N, ...]``."""
        parts = padded.split([counts.longest for counts in self.layouts], 1)
        return torch.cat([counts.unpad(part) for counts, part in zip(self.layouts, parts, strict=True)])

    @property
    def valid(self) -> Tensor:
        """bool ``[B, L]``: which places hold a node."""
        return torch.cat([counts.valid for counts in self.layouts], 1)


class MultiHead(nn.Module):
    """Attention of nodes to nodes of the same sample (Vaswani et al., 2017, section 3.2).

    ``out_i = W_o sum_j softmax_j(q_i . k_j / sqrt(d)) v_j`` per head, over the nodes j of the sample; a node
    whose sample has none of them hears zeros.

    Args:
        width: width of the states.
        heads: attention heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, to: Rows, source: Tensor, of: Rows) -> Tensor:
        """``x [N, D]`` with the rows ``to`` looks at ``source [M, D]`` with the rows ``of``; ``[N, D]``."""
        query = to.pad(self.query(x)).unflatten(2, (self.heads, -1)).transpose(1, 2)
        key_value = of.pad(self.key_value(source)).unflatten(2, (2, self.heads, -1))
        key, value = (side.transpose(1, 2) for side in key_value.unbind(2))
        heard = _attend(query, key, value, None if of.full else of.valid)
        return self.out(to.unpad(heard.transpose(1, 2).flatten(2)))


def _attend(query: Tensor, key: Tensor, value: Tensor, valid: Tensor | None) -> Tensor:
    """Attention ``[B, H, L, d]`` to the places that are ``valid [B, M]`` (None: all); zeros where none is."""
    if not query.shape[2] or not key.shape[2]:
        return torch.zeros_like(query)
    if valid is None:
        return nn.functional.scaled_dot_product_attention(query, key, value)
    some = valid.any(1)[:, None]
    # a row without any key would be NaN: it looks at padding, and what it hears is dropped
    mask = (valid | ~some)[:, None, None]
    heard = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    return heard * some[:, :, None, None]


class FeedForward(nn.Module):
    """``W_2 dropout(gelu(W_1 x))``, ``expansion`` times as wide inside."""

    def __init__(self, width: int, dropout: float, expansion: int = 2) -> None:
        super().__init__()
        self.enter = nn.Linear(width, expansion * width)
        self.leave = nn.Linear(expansion * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.leave(self.dropout(nn.functional.gelu(self.enter(x))))


class TransformerBlock(nn.Module):
    """``x = x + MHA(norm(x), norm(y))``, then ``x = x + FFN(norm(x))`` (pre-norm: Xiong et al., ICML 2020).

    Args:
        width: width of the states.
        heads: attention heads.
        dropout: probability, after the attention and inside and after the feed-forward network.
        cross: y is another set of nodes, with a norm of its own; otherwise it is x.
    """

    def __init__(self, width: int, heads: int, dropout: float, cross: bool = False) -> None:
        super().__init__()
        self.attention = MultiHead(width, heads)
        self.norm_in = nn.LayerNorm(width)
        self.norm_source = nn.LayerNorm(width) if cross else None
        self.norm_mid = nn.LayerNorm(width)
        self.ahead = FeedForward(width, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, to: Rows, source: Tensor | None = None, of: Rows | None = None) -> Tensor:
        """``x [N, D]``, its rows, and for a cross block ``source [M, D]`` with its rows; ``[N, D]``."""
        normed = self.norm_in(x)
        if self.norm_source is None or source is None or of is None:
            heard = self.attention(normed, to, normed, to)
        else:
            heard = self.attention(normed, to, self.norm_source(source), of)
        x = x + self.dropout(heard)
        return x + self.dropout(self.ahead(self.norm_mid(x)))


class OwnTransformers(FusionNetwork):
    """Base of the families whose types are encoded apart: a transformer with its own weights for every type.

    The nodes of a type attend to all nodes of that type in their sample, also where Z is asked per group.
    """

    def __init__(self, schema: Schema, width: int, *, dropout: float = 0.0, **options: Any) -> None:
        super().__init__(schema, width, dropout=dropout, **options)
        self.blocks = nn.ModuleList(
            [self.stack(lambda: TransformerBlock(width, self.heads, dropout)) for _ in self.names]
        )

    def encode(self, graph: Graph, x: dict[str, Tensor], backend: str) -> dict[str, Tensor]:
        out = {}
        for name, blocks in zip(self.names, self.blocks, strict=True):
            state, rows = x[name], Rows(graph, [name])
            assert isinstance(blocks, nn.ModuleList)
            for block in self.in_order(blocks):
                state = block(state, rows)
            out[name] = state
        return out


class StandIn(nn.Module):
    """A learned vector for every type, in the place of X_k where the type is absent.

    It starts at zero, so that a type that was never seen adds nothing.
    """

    def __init__(self, types: int, width: int) -> None:
        super().__init__()
        self.vector = nn.Parameter(torch.zeros(types, width))

    def forward(self, parts: Tensor, present: Tensor) -> Tensor:
        """``[S, T, D]`` with the vectors where ``present [S, T]`` is False."""
        return torch.where(present[..., None], parts, self.vector)


class Concatenation(nn.Module):
    """``Z = W [X_1; ...; X_T] + b``, written as a sum over the types, ``Z = sum_k W_k X_k + b``."""

    def __init__(self, types: int, width: int) -> None:
        super().__init__()
        bound = (types * width) ** -0.5
        self.weight = nn.Parameter(torch.empty(types, width, width).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, parts: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Z ``[S, D]``; and which share of the lengths ``|W_k X_k|`` each present type has, ``[S, T]``."""
        terms = torch.einsum("stw,tvw->stv", parts, self.weight)
        return terms.sum(1) + self.bias, shares(terms.detach().norm(dim=-1), present)


def shares(size: Tensor, present: Tensor) -> Tensor:
    """Sizes ``[S, T]``, none negative, as shares of their sum over what is present; equal ones if all are zero."""
    size = (size + torch.finfo(size.dtype).tiny).masked_fill(~present, 0.0)
    return size / size.sum(1, keepdim=True)
