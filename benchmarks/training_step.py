"""How long is a whole training step, beside a TransformerEncoder over the same nodes and two of PyG's HGTConv?

Forward, loss, backward and a fused AdamW step on the standard batch with 8 classes. ``Fusion`` has two layers, width
128, 4 heads, with typed projections before and the readout after; the TransformerEncoder has as many layers of the
same width, heads and feed-forward over the 122 nodes of a sample, knows neither edges nor types and is read out by
the mean, so it bounds the cost and computes something else. Two HGTConv and our two HGTLayer with their weights are
read out by the mean too; they are checked to be equal first, as are the backends of ``Fusion``; and every candidate
must bring its loss down. ``graph built`` includes packing the samples: the builder with everything that layers derive
from the graph, HeteroData and collate, or a mere stack.

    python -m benchmarks.training_step --json FILE [--quick]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, gelu

from hetgraph import Fusion, Graph, GraphBuilder, Sample
from hetgraph.nn import HGTLayer

from .common import Candidate, Setting, arguments, check_close, check_equal, finish, sizes_of
from .peers import OURS, PYG, pyg_layer
from .standard import HEADS, SAMPLES, SIZES, WIDTH, alternate, standard_samples, standard_schema, summary

CLASSES = 8


@dataclass
class Trained:
    """A network on an input, and what makes the input from samples."""

    name: str
    network: nn.Module
    ready: Any
    build: Callable[[], Any]

    def __post_init__(self) -> None:
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=1e-3, fused=True)

    def step(self, inputs: Any, target: Tensor) -> Tensor:
        """One training step; the loss before it."""
        loss = cross_entropy(self.network(inputs), target)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.detach()


class Fused(nn.Module):
    """``Fusion`` and a linear head."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.fusion = Fusion(graph.schema, width=WIDTH, layers=2, heads=HEADS)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, graph: Graph, backend: str = "auto") -> Tensor:
        return self.head(self.fusion(graph, backend).z)


class Convolutions(nn.Module):
    """Two message passing layers, the mean over all nodes of a sample, a linear head.

    All samples have the same sizes, so the mean needs no index.
    """

    def __init__(self, layers: Sequence[nn.Module], head: nn.Linear, run: Callable[..., dict[str, Tensor]]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.head = head
        self.run = run

    def states(self, inputs: Any, x: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
        """What the second layer gives; ``x`` in place of the features of the inputs."""
        first, second = self.layers
        hidden = {name: gelu(state) for name, state in self.run(first, inputs, x).items()}
        return self.run(second, inputs, hidden)

    def forward(self, inputs: Any) -> Tensor:
        return self.head(mean_of(self.states(inputs)))


class Encoder(nn.Module):
    """Torch's TransformerEncoder over all nodes of a sample, the mean, a linear head."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            WIDTH, HEADS, 2 * WIDTH, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x).mean(1))


def mean_of(states: dict[str, Tensor]) -> Tensor:
    """Mean over the nodes of every sample, ``[B, width]``."""
    total = [state.view(-1, SIZES[name], WIDTH).sum(1) for name, state in states.items()]
    return torch.stack(total).sum(0) / sum(SIZES.values())


def our_run(layer: nn.Module, graph: Graph, x: dict[str, Tensor] | None) -> dict[str, Tensor]:
    return layer(graph, graph.x if x is None else x)


def pyg_run(conv: nn.Module, data: Any, x: dict[str, Tensor] | None) -> dict[str, Tensor]:
    return conv(data.x_dict if x is None else x, data.edge_index_dict)


def pyg_batch(samples: Sequence[Sample]) -> Any:
    """``HeteroData`` per sample from ready arrays, and PyG's collate."""
    from torch_geometric.data import Batch, HeteroData

    parts = []
    for sample in samples:
        data = HeteroData()
        for name, fields in sample.nodes.items():
            data[name].x = fields["x"]
        for key, edges in sample.edges.items():
            data[key].edge_index = edges["index"]
        parts.append(data)
    return Batch.from_data_list(parts)


def rows_of(samples: Sequence[Sample]) -> Tensor:
    """The nodes of every sample, ``[B, 122, width]``."""
    return torch.stack([torch.cat([sample.nodes[name]["x"] for name in SIZES]) for sample in samples])


def candidates_for(samples: Sequence[Sample]) -> list[Trained]:
    """The networks; the two of convolutions share their initial weights, but not the tensors."""
    builder = GraphBuilder(standard_schema())
    graph, data = builder(samples), pyg_batch(samples)
    convs = [pyg_layer(graph).module for _ in range(2)]
    layers = [HGTLayer.from_pyg(conv, graph.schema) for conv in convs]
    heads = [nn.Linear(WIDTH, CLASSES) for _ in range(2)]
    heads[1].load_state_dict(heads[0].state_dict())
    return [
        Trained(f"2 x {PYG}", Convolutions(convs, heads[0], pyg_run), data, lambda: pyg_batch(samples)),
        Trained(
            "2 x HGTLayer, same function", Convolutions(layers, heads[1], our_run), graph, lambda: builder(samples)
        ),
        Trained(f"{OURS} Fusion", Fused(graph), graph, lambda: builder(samples)),
        Trained("TransformerEncoder", Encoder(), rows_of(samples), lambda: rows_of(samples)),
    ]


def check_same(theirs: Trained, ours: Trained, fused: Trained) -> None:
    """Compare the two networks of convolutions, gradients too, and ``Fusion`` on its two backends.

    Raises:
        AssertionError: they differ.
    """

    def layers_of(one: Trained) -> Candidate:
        assert isinstance(one.network, Convolutions)
        return Candidate(one.name, one.network, partial(one.network.states, one.ready))

    check_equal(layers_of(theirs), layers_of(ours), ours.ready.x)
    with torch.no_grad():
        dense, sparse = (fused.network(fused.ready, backend) for backend in ("dense", "sparse"))
    check_close(dense, sparse, 1e-5, f"{fused.name}: dense against sparse")


def check_learns(candidate: Trained, target: Tensor, steps: int = 8) -> None:
    """A few steps on the one batch must bring the loss down.

    Raises:
        AssertionError: they do not.
    """
    losses = [float(candidate.step(candidate.ready, target)) for _ in range(steps)]
    if not losses[-1] < losses[0]:
        raise AssertionError(f"{candidate.name}: the loss went from {losses[0]:.4f} to {losses[-1]:.4f}")


def main(argv: Sequence[str] | None = None) -> None:
    found = arguments(__doc__, argv, rounds=9)
    samples = standard_samples(4 if found.quick else SAMPLES)
    target = torch.arange(len(samples)) % CLASSES
    candidates = candidates_for(samples)
    check_same(*candidates[:3])
    for candidate in candidates:
        check_learns(candidate, target)

    def ready(one: Trained) -> Callable[[], Tensor]:
        return lambda: one.step(one.ready, target)

    def built(one: Trained) -> Callable[[], Tensor]:
        return lambda: one.step(one.build(), target)

    values = {
        kind: {n: summary(s) for n, s in alternate({c.name: make(c) for c in candidates}, found.rounds).items()}
        for kind, make in (("graph ready", ready), ("graph built", built))
    }
    peers = {"PyG": f"2 x {PYG}", "TransformerEncoder": "TransformerEncoder"}
    sizes = sizes_of(candidates[2].ready)
    setting = Setting("standard batch", "ms", sizes, f"{OURS} Fusion", peers, values)
    finish("training_step", "Training step", found, [setting], [])


if __name__ == "__main__":
    main()
