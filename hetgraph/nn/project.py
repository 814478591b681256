"""Input projection: features and positions of every node type into one width."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from ..errors import HetgraphError
from ..graph import Graph
from ..schema import Schema

POSITIONS = ("box", "pos", "time")
_OCTAVES = range(-6, 4)


class InputProjection(nn.Module):
    """Standardise the features of every node type, project them, and add an encoding of its place.

    ``h = W_t ((x - mean_t) / std_t) + b_t + P_t fourier(position)``, where the Fourier features are the sines
    and cosines of every coordinate at wavelengths from 64 down to 1/8 of its unit (Vaswani et al., 2017,
    section 3.5, for real-valued places). A place that is NaN (an optional field left out) adds nothing. Of every
    field with ``categories`` the learned vector of its value is added, for -1 nothing.

    Args:
        schema: the types.
        width: width of the output.
        positions: the fields that say where a node is; those a type does not have are skipped.

    Shapes:
        ``{type: [N, dim]}`` -> ``{type: [N, width]}``.
    """

    def __init__(self, schema: Schema, width: int, positions: Iterable[str] = POSITIONS) -> None:
        super().__init__()
        self.names = list(schema.nodes)
        self.features = nn.ModuleList([nn.Linear(node.dim, width) for node in schema.nodes.values()])
        self.positions = [
            [(f, max(w, 1)) for f, w in node.all_fields.items() if f in set(positions)]
            for node in schema.nodes.values()
        ]
        coordinates = [sum(width for _, width in fields) for fields in self.positions]
        self.places = nn.ModuleList([nn.Linear(2 * len(_OCTAVES) * n, width, bias=False) for n in coordinates if n])
        filled = iter(range(len(self.places)))
        self._place_of = [next(filled) if n else None for n in coordinates]
        self.categories = [list(node.categories) for node in schema.nodes.values()]
        # drawn last, and smaller than what features come to: they tell nodes apart without drowning their features
        self.tables = nn.ModuleList(
            [nn.Embedding(n, width) for node in schema.nodes.values() for n in node.categories.values()]
        )
        for table in self.tables:
            assert isinstance(table, nn.Embedding)
            nn.init.normal_(table.weight, std=0.5)
        # mean and std side by side, one buffer per type; saved with the weights
        for i, node in enumerate(schema.nodes.values()):
            self.register_buffer(f"scale_{i}", torch.stack([torch.zeros(node.dim), torch.ones(node.dim)]))
        self.octaves: Tensor
        self.register_buffer("octaves", 2 * math.pi * 2.0 ** torch.tensor(list(_OCTAVES)), persistent=False)

    def standardize(self, graphs: Iterable[Graph]) -> None:
        """Set mean and std of every node type's features from these graphs (one pass, in float64)."""
        total: dict[str, tuple[int, Tensor, Tensor]] = {}
        for graph in graphs:
            for name in self.names:
                x = graph.x[name].double()
                count, first, second = total.get(name, (0, torch.zeros(x.shape[1]), torch.zeros(x.shape[1])))
                total[name] = (count + len(x), first + x.sum(0).cpu(), second + x.square().sum(0).cpu())
        for i, name in enumerate(self.names):
            if name not in total or not total[name][0]:
                continue
            count, first, second = total[name]
            mean = first / count
            std = (second / count - mean.square()).clamp(min=0).sqrt()
            # a constant feature carries nothing: leave its scale alone
            std = torch.where(std > 1e-6 * (1 + mean.abs()), std, torch.ones_like(std))
            scale = self.get_buffer(f"scale_{i}")
            scale.copy_(torch.stack([mean, std]))

    def scaled(self, graph: Graph) -> dict[str, Tensor]:
        """The standardised features, type -> ``[N, dim]``."""
        out = {}
        for i, name in enumerate(self.names):
            mean, std = self.get_buffer(f"scale_{i}")
            out[name] = (graph.x[name] - mean) / std
        return out

    def forward(self, graph: Graph) -> dict[str, Tensor]:
        out: dict[str, Tensor] = {}
        tables = iter(self.tables)
        scaled = self.scaled(graph)
        for i, name in enumerate(self.names):
            state = self.features[i](scaled[name])
            place = self._place_of[i]
            if place is not None:
                state = state + self.places[place](self._fourier(graph.fields[name], self.positions[i]))
            for field in self.categories[i]:
                state = state + self._learned(next(tables), graph.fields[name][field], f"node type {name!r}: {field!r}")
            out[name] = state
        return out

    @staticmethod
    def _learned(table: nn.Module, value: Tensor, where: str) -> Tensor:
        """The vector of every value ``[N, width]``, zeros for -1 and where there is none."""
        assert isinstance(table, nn.Embedding)
        ids = value.nan_to_num(-1.0).long() if value.is_floating_point() else value
        if ids.numel() and not (ids.min() >= -1 and ids.max() < table.num_embeddings):
            raise HetgraphError(
                f"{where} must be -1 or in 0 .. {table.num_embeddings - 1}, got {int(ids.min())} .. {int(ids.max())}"
            )
        return table(ids.clamp(min=0)) * (ids >= 0).to(table.weight.dtype)[:, None]

    def _fourier(self, fields: Mapping[str, Tensor], wanted: list[tuple[str, int]]) -> Tensor:
        """``[N, 2 * octaves * coordinates]``."""
        value = torch.cat([fields[name].to(self.octaves.dtype).view(-1, width) for name, width in wanted], -1)
        angle = value[..., None] * self.octaves
        waves = torch.cat([angle.sin(), angle.cos()], -1)
        return torch.where(value.isnan()[..., None], torch.zeros_like(waves), waves).flatten(1)
