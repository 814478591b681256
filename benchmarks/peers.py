"""The layers that take part: PyG's HGTConv, ours on every backend, and DGL's if it can be loaded.

All get the weights of one PyG convolution, and each is checked against it before anything is measured.
"""

from __future__ import annotations

from collections.abc import Collection
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from hetgraph import Graph, HetgraphError
from hetgraph.nn import HGTLayer
from hetgraph.nn.hgt import BACKENDS

from .common import Candidate, check_close, check_equal
from .standard import HEADS, WIDTH, total

PYG, OURS, DGL_CONV, DGL_KERNELS = "PyG HGTConv", "hetgraph", "DGL HGTConv", "DGL kernels, same function"
PEERS = {"PyG": PYG, "DGL": DGL_CONV, "DGL kernels": DGL_KERNELS}
"""Column of the report -> candidate."""


def load_dgl() -> Any:
    """The module ``dgl``.

    Raises:
        HetgraphError: hetgraph has no loader for it, it is not installed, or it cannot be imported.
    """
    try:
        from hetgraph.interop.dgl import load_dgl as load
    except ImportError as error:
        raise HetgraphError(f"hetgraph cannot load DGL here ({error})") from error
    try:
        return load()
    except ImportError as error:
        raise HetgraphError(str(error)) from error


def pyg_layer(graph: Graph) -> Candidate:
    """PyG's HGTConv with its own initial weights on the edges of this graph."""
    from torch_geometric.nn import HGTConv

    conv = HGTConv(WIDTH, WIDTH, (list(graph.schema.nodes), list(graph.schema.edges)), heads=HEADS)
    with torch.no_grad():
        for weight in (*conv.skip.values(), *conv.p_rel.values()):
            # all ones at first, which would hide a mix-up
            weight.add_(torch.randn_like(weight), alpha=0.1)
    index = dict(graph.edge_index)
    return Candidate(PYG, conv, lambda x: conv(x, index))


class DGLLayer(nn.Module):
    """DGL's HGTConv with the weights of PyG's, on the graph as DGL's fast path wants it (sorted by types).

    It has no biases and no gelu before the last linear map, so its output differs; what it aggregates is the same
    function where the biases are zero.
    """

    def __init__(self, graph: Graph, conv: Any) -> None:
        super().__init__()
        dgl = load_dgl()
        from dgl.nn.pytorch import HGTConv

        names, keys = list(graph.schema.nodes), list(graph.schema.edges)
        self.sizes = {name: graph.layout[name].total for name in names}
        first = dict(zip(names, torch.tensor([0, *self.sizes.values()]).cumsum(0).tolist(), strict=False))
        index = [graph.edge_index[key] + torch.tensor([[first[key[0]]], [first[key[2]]]]) for key in keys]
        src, dst = torch.cat(index, 1)
        self.graph = dgl.graph((src, dst), num_nodes=sum(self.sizes.values()))
        self.node_type = torch.arange(len(names)).repeat_interleave(torch.tensor(list(self.sizes.values())))
        self.edge_type = torch.arange(len(keys)).repeat_interleave(torch.tensor([i.shape[1] for i in index]))
        self.conv = HGTConv(WIDTH, WIDTH // HEADS, HEADS, len(names), len(keys), dropout=0.0)
        d = WIDTH // HEADS
        with torch.no_grad():
            for i, name in enumerate(names):
                parts = conv.kqv_lin.lins[name].weight.split(WIDTH)
                for linear, part in zip(
                    (self.conv.linear_k, self.conv.linear_q, self.conv.linear_v), parts, strict=True
                ):
                    linear.W[i] = part.T
                self.conv.linear_a.W[i] = conv.out_lin.lins[name].weight.T
                self.conv.skip[i] = conv.skip[name].squeeze()
            place = {tuple(key): i for i, key in enumerate(conv.edge_types)}
            order = [place[key] for key in keys]
            for head in range(HEADS):
                for mine, its in ((self.conv.relation_att, conv.k_rel), (self.conv.relation_msg, conv.v_rel)):
                    mine[head].W.copy_(its.weight.view(HEADS, len(keys), d, d)[head][order])
                pri = torch.stack([conv.p_rel["__".join(key)][0, head] for key in keys])
                self.conv.relation_pri[head].copy_(pri)

    def forward(self, x: dict[str, Tensor]) -> dict[str, Tensor]:
        packed = torch.cat([x[name] for name in self.sizes])
        out = self.conv(self.graph, packed, self.node_type, self.edge_type, presorted=True)
        return dict(zip(self.sizes, out.split(list(self.sizes.values())), strict=True))


def check_messages(layer: DGLLayer, pyg: Candidate, graph: Graph) -> None:
    """Compare what DGL's convolution aggregates with what PyG's does when its biases are zero.

    Raises:
        AssertionError: the messages or their gradients differ.
    """
    conv: Any = deepcopy(pyg.module)
    caught: dict[str, Any] = {}
    with torch.no_grad():
        for linear in conv.kqv_lin.lins.values():
            linear.bias.zero_()
    hooks = [
        conv.out_lin.register_forward_pre_hook(lambda _, inputs: caught.update(pyg=inputs[0])),
        layer.conv.linear_a.register_forward_pre_hook(lambda _, inputs: caught.update(dgl=gelu(inputs[0]))),
    ]
    x = [{name: value.clone().requires_grad_() for name, value in graph.x.items()} for _ in range(2)]
    conv(x[0], dict(graph.edge_index))
    layer(x[1])
    for hook in hooks:
        hook.remove()
    expected = {name: caught["pyg"][name] for name in layer.sizes}
    found = dict(zip(layer.sizes, caught["dgl"].split(list(layer.sizes.values())), strict=True))
    total(expected).backward()
    total(found).backward()
    layer.zero_grad()
    for name, value in expected.items():
        check_close(found[name], value, 1e-5, f"{DGL_CONV}: messages to {name}")
        check_close(x[1][name].grad, x[0][name].grad, 1e-4, f"{DGL_CONV}: gradient of {name}")


def layer_names(*, without: Collection[str] = ()) -> tuple[list[str], list[str]]:
    """Names of the candidates that can take part, PyG first, and a line for each that is left out.

    Args:
        without: backends of ours that are not wanted.
    """
    names = [PYG, OURS, *(f"{OURS}, {name}" for name in BACKENDS if name not in without and name != "dgl")]
    try:
        load_dgl()
    except HetgraphError as error:
        return names, [f"DGL: {error}"]
    return [*names, *([DGL_KERNELS] if "dgl" in BACKENDS else []), DGL_CONV], []


def layer(name: str, graph: Graph, pyg: Candidate) -> Candidate:
    """The candidate of this name with the weights of PyG's, unchecked."""
    if name == PYG:
        return pyg
    if name == DGL_CONV:
        theirs = DGLLayer(graph, pyg.module)
        return Candidate(name, theirs, theirs)
    if name == DGL_KERNELS:
        # the backend may be known only once DGL is there
        load_dgl()
    backend = {OURS: "auto", DGL_KERNELS: "dgl"}.get(name, name.removeprefix(f"{OURS}, "))
    ours = HGTLayer.from_pyg(pyg.module, graph.schema)
    return Candidate(name, ours, lambda x: ours(graph, x, backend))


def layers(graph: Graph, names: Collection[str]) -> list[Candidate]:
    """These candidates, checked against PyG's.

    Raises:
        AssertionError: one does not compute what PyG's layer computes.
    """
    pyg = pyg_layer(graph)
    found = [layer(name, graph, pyg) for name in names]
    for candidate in found:
        if isinstance(candidate.module, DGLLayer):
            check_messages(candidate.module, pyg, graph)
        elif candidate is not pyg:
            check_equal(pyg, candidate, graph.x)
    return found


def peers_among(names: Collection[str]) -> dict[str, str]:
    """Column of the report -> candidate, of those that take part."""
    return {column: name for column, name in PEERS.items() if name in names}
