"""The Heterogeneous Graph Transformer layer (Hu, Dong, Wang, Sun, WWW 2020)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, linear

from ..errors import HetgraphError
from ..graph import Graph
from ..rules import given
from ..schema import EdgeKey, EdgeType, NodeType, Schema
from . import dense, dgl, sparse
from .attention import Attention
from .choice import choose_backend

# the module dgl imports DGL itself only when its backend runs
BACKENDS = {
    "dense": dense.aggregate,
    "sparse": sparse.aggregate,
    "plain": sparse.plain,
    "dgl": dgl.aggregate,
}


class HGTLayer(nn.Module):
    """One layer of the Heterogeneous Graph Transformer, equal to PyG's ``HGTConv``.

    For every node t, over its incoming edges e = (s, r, t) of all types together (equations 3 to 5)::

        a(e)  = softmax_e( (W_K s) W_att^r (W_Q t)^T * mu^r / sqrt(d) + b^r(e) )
        h(t)  = sum_e a(e) (W_V s) W_msg^r
        out_t = sigma(skip) (W_O gelu(h(t)) + c) + (1 - sigma(skip)) t

    with b^r(e) = f(e) . w^r the additive bias per head of the edge features f(e), which the paper does not
    have and which starts at zero. Edge types with ``relations`` share matrices: that of relation i is
    ``sum_b c_ib V_b`` over a few bases (Schlichtkrull et al., ESWC 2018, equation 3).

    Args:
        schema: the types; weights are stacked by their integer ids, so names are free.
        width: width of the output, divisible by ``heads``.
        heads: attention heads.
        in_dims: input width per node type where it is not ``width`` (such a type gets no skip).
        residual: the last line above; without it ``out_t = W_O gelu(h(t)) + c``.
        bases: how many bases the relations of an edge type share.

    Raises:
        HetgraphError: ``width`` is not divisible by ``heads``.

    Shapes:
        input ``{type: [N, in_dim]}``, output ``{type: [N, width]}``. A type that no edge type ends in comes
        back as it went in (and is left out where its width differs from ``width``).
    """

    def __init__(
        self,
        schema: Schema,
        width: int,
        heads: int = 4,
        *,
        in_dims: Mapping[str, int] | None = None,
        residual: bool = True,
        bases: int = 8,
    ) -> None:
        super().__init__()
        if heads < 1 or width < 1 or width % heads:
            raise HetgraphError(f"width must be a positive multiple of heads, got width {width} and {heads} heads")
        self.schema = schema
        self.width = width
        self.heads = heads
        self.in_dims = {name: (in_dims or {}).get(name, width) for name in schema.nodes}
        d = width // heads
        types = list(schema.nodes)
        self.kqv_weight = nn.ParameterList([torch.empty(3 * width, self.in_dims[name]) for name in types])
        self.kqv_bias = nn.Parameter(torch.empty(len(types), 3 * width))
        self.out_weight = nn.Parameter(torch.empty(len(types), width, width))
        self.out_bias = nn.Parameter(torch.empty(len(types), width))
        self.skip = nn.Parameter(torch.empty(len(types))) if residual else None
        plain = [key for key, edge in schema.edges.items() if not edge.relations]
        self._plain = {key: i for i, key in enumerate(plain)}
        self.att = nn.Parameter(torch.empty(len(plain), heads, d, d))
        self.msg = nn.Parameter(torch.empty(len(plain), heads, d, d))
        self.mu = nn.Parameter(torch.empty(len(plain), heads))
        many = [(key, len(edge.relations)) for key, edge in schema.edges.items() if edge.relations]
        self._many = {key: i for i, (key, _) in enumerate(many)}
        self.att_basis = nn.ParameterList([torch.empty(min(bases, n), heads, d, d) for _, n in many])
        self.msg_basis = nn.ParameterList([torch.empty(min(bases, n), heads, d, d) for _, n in many])
        self.mixing = nn.ParameterList([torch.empty(2, n, min(bases, n)) for _, n in many])
        self.mu_many = nn.ParameterList([torch.empty(n, heads) for _, n in many])
        featured = [(key, edge.feature_dim) for key, edge in schema.edges.items() if edge.features]
        self._featured = {key: i for i, (key, _) in enumerate(featured)}
        self.edge_weight = nn.ParameterList([torch.empty(dim, heads) for _, dim in featured])
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Matrices so that unit variance in gives unit variance of keys, queries, values and scores.

        The scores then differ from the start, and messages are of the order of the states they are added to
        (gelu halves small values, hence the factor of two on the way out). With the initial values of
        ``torch.nn.Linear`` both are several times smaller, and matching tasks stay on a plateau for long.
        Mu and skip are one, the edge bias and all other biases zero.
        """
        for weight in self.kqv_weight:
            bound = math.sqrt(3 / weight.shape[1])
            nn.init.uniform_(weight, -bound, bound)
        bound = 2 * math.sqrt(3 / self.width)
        nn.init.uniform_(self.out_weight, -bound, bound)
        nn.init.zeros_(self.kqv_bias)
        nn.init.zeros_(self.out_bias)
        d = self.width // self.heads
        for matrices in (self.att, self.msg, *self.att_basis, *self.msg_basis):
            nn.init.uniform_(matrices, -math.sqrt(3 / d), math.sqrt(3 / d))
        for mixing in self.mixing:
            nn.init.normal_(mixing, std=1 / math.sqrt(mixing.shape[-1]))
        for ones in (self.mu, *self.mu_many, *([] if self.skip is None else [self.skip])):
            nn.init.ones_(ones)
        for weight in self.edge_weight:
            nn.init.zeros_(weight)

    def forward(self, graph: Graph, x: Mapping[str, Tensor], backend: str = "auto") -> dict[str, Tensor]:
        """One step of message passing.

        Args:
            graph: where the edges are.
            x: node states, type -> ``[N, in_dim]``.
            backend: ``dense``, ``sparse``, ``plain`` (sparse without the fused kernel), ``dgl`` (needs the extra
                ``dgl``) or ``auto``, which takes one of the first two; all give the same result.

        Raises:
            HetgraphError: unknown backend, one that is not installed, a graph of other types, a node type missing
                in ``x`` or of another size or width.
        """
        inputs = self._inputs(graph, x)
        if backend == "auto":
            some = next(iter(inputs.projected.values()))
            backend = choose_backend(graph, self.width, self.heads, some.dtype)
        run = _backend(backend)
        heard = run(graph, inputs)
        out = dict(x)
        weights = zip(self.out_weight.unbind(0), self.out_bias.unbind(0), strict=True)
        for i, (name, (weight, bias)) in enumerate(zip(self.schema.nodes, weights, strict=True)):
            if name not in heard:
                if self.in_dims[name] != self.width:
                    del out[name]
                continue
            new = linear(gelu(heard[name].flatten(1)), weight, bias)
            if self.skip is not None and self.in_dims[name] == self.width:
                new = torch.lerp(x[name], new, self.skip[i].sigmoid())
            out[name] = new
        return out

    def attention(self, graph: Graph, x: Mapping[str, Tensor]) -> dict[EdgeKey, Tensor]:
        """Attention weight of every edge and head, edge key -> ``[E, H]`` in the order of ``graph.edge_index``."""
        return sparse.weights(graph, self._inputs(graph, x))

    def _inputs(self, graph: Graph, x: Mapping[str, Tensor]) -> Attention:
        self._check(graph, x)
        # stacked weights are taken apart in one piece: the gradient of every single index would be a whole stack
        sides = {
            name: linear(x[name], weight, bias).view(-1, 3, self.heads, self.width // self.heads)
            for name, weight, bias in zip(self.schema.nodes, self.kqv_weight, self.kqv_bias.unbind(0), strict=True)
        }
        scale = 1 / math.sqrt(self.width // self.heads)
        att: dict[EdgeKey, Tensor] = {}
        msg: dict[EdgeKey, Tensor] = {}
        if self._plain:
            scaled = self.att * (self.mu * scale)[..., None, None]
            att.update(zip(self._plain, scaled.split(1), strict=True))
            msg.update(zip(self._plain, self.msg.split(1), strict=True))
        for key, slot in self._many.items():
            mix_att, mix_msg = self.mixing[slot].unbind(0)
            mixed = torch.einsum("rb,bhde->rhde", mix_att, self.att_basis[slot])
            att[key] = mixed * (self.mu_many[slot] * scale)[..., None, None]
            msg[key] = torch.einsum("rb,bhde->rhde", mix_msg, self.msg_basis[slot])
        bias = {}
        for key, slot in self._featured.items():
            features = graph.edges[key].feature_matrix()
            assert features is not None
            bias[key] = features.to(sides[key[0]].dtype) @ self.edge_weight[slot]
        return Attention(sides, att, msg, bias)

    def _check(self, graph: Graph, x: Mapping[str, Tensor]) -> None:
        mine, theirs = self.schema, graph.schema
        if theirs is not mine:
            same = list(mine.nodes) == list(theirs.nodes) and [
                (key, dict(e.features), e.relations) for key, e in mine.edges.items()
            ] == [(key, dict(e.features), e.relations) for key, e in theirs.edges.items()]
            if not same:
                raise HetgraphError(f"the graph is of another schema than the layer: {theirs.difference(mine)}")
        for name in mine.nodes:
            if name not in x:
                raise HetgraphError(f"node type {name!r} is missing from the states; got {list(x)}")
            expected = [graph.layout[name].total, self.in_dims[name]]
            if list(x[name].shape) != expected:
                raise HetgraphError(f"node type {name!r}: states must be {expected}, got {list(x[name].shape)}")

    @classmethod
    def from_pyg(cls, conv: Any, schema: Schema | None = None) -> HGTLayer:
        """A layer with the weights of PyG's ``HGTConv``, giving the same output.

        Args:
            conv: an initialised ``torch_geometric.nn.HGTConv``.
            schema: a schema with the same node and edge types; made from the convolution if left out, all
                its edges ``given``.

        Raises:
            HetgraphError: the schema has other types, or the convolution is not initialised yet.
        """
        dims = dict(conv.in_channels)
        if any(dim < 1 for dim in dims.values()):
            raise HetgraphError("HGTConv is not initialised yet (its in_channels are lazy); run it once first")
        nodes, edges = list(conv.node_types), [(s, r, t) for s, r, t in conv.edge_types]
        if schema is None:
            schema = Schema([NodeType(n, dims[n]) for n in nodes], [EdgeType(*key, rule=given) for key in edges])
        if set(schema.nodes) != set(nodes) or set(schema.edges) != set(edges):
            raise HetgraphError(f"the convolution has other types: nodes {nodes}, edges {edges}")
        its = conv.kqv_lin.lins[nodes[0]].weight
        layer = cls(schema, conv.out_channels, conv.heads, in_dims=dims).to(its.device, its.dtype)
        place = {key: i for i, key in enumerate(edges)}
        order = torch.tensor([place[key] for key in layer._plain], dtype=torch.long)
        d = layer.width // layer.heads
        with torch.no_grad():
            for i, name in enumerate(schema.nodes):
                layer.kqv_weight[i].copy_(conv.kqv_lin.lins[name].weight)
                layer.kqv_bias[i].copy_(conv.kqv_lin.lins[name].bias)
                layer.out_weight[i].copy_(conv.out_lin.lins[name].weight)
                layer.out_bias[i].copy_(conv.out_lin.lins[name].bias)
                assert layer.skip is not None
                layer.skip[i].copy_(conv.skip[name].squeeze())
            for mine, stacked in ((layer.att, conv.k_rel), (layer.msg, conv.v_rel)):
                mine.copy_(stacked.weight.view(layer.heads, len(edges), d, d).transpose(0, 1)[order])
            for key, slot in layer._plain.items():
                layer.mu[slot].copy_(conv.p_rel["__".join(key)].squeeze(0))
        return layer

    def extra_repr(self) -> str:
        types = f"{len(self.schema.nodes)} node types, {len(self.schema.edges)} edge types"
        return f"{types}, width={self.width}, heads={self.heads}"


def _backend(name: str) -> Any:
    if name not in BACKENDS:
        raise HetgraphError(f"unknown backend {name!r}; known: auto, {', '.join(BACKENDS)}")
    return BACKENDS[name]
