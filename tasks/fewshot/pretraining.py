"""Self-supervised pretraining of a fusion model: what its samples teach without labels.

Shapes: B samples, N nodes of a type, T node types, D width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...builder import GraphBuilder
from ...errors import HetgraphError
from ...fusion import Fusion
from ...graph import Graph
from ...progress import TrainingBar
from ...sample import Sample
from ...thinning import without
from .training import rate

OBJECTIVES = ("masked_node", "masked_modality", "contrastive")


@dataclass(frozen=True)
class PretrainingSettings:
    """How a fusion model is pretrained.

    Attributes:
        objectives: some of :data:`OBJECTIVES`; their losses are added.
        epochs, batch_size: passes over the samples, and samples of a step.
        lr, weight_decay, clip: of AdamW, with a cosine.
        masked: share of the nodes whose features are hidden (``masked_node``, and in both views of ``contrastive``).
        temperature: of InfoNCE.
        seed: of everything random.
    """

    objectives: tuple[str, ...] = OBJECTIVES
    epochs: int = 10
    batch_size: int = 64
    lr: float = 1e-2
    weight_decay: float = 1e-2
    clip: float = 1.0
    masked: float = 0.3
    temperature: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        unknown = [name for name in self.objectives if name not in OBJECTIVES]
        if unknown or not self.objectives:
            raise HetgraphError(f"objectives: expected some of {', '.join(OBJECTIVES)}, got {self.objectives}")
        if min(self.epochs, self.batch_size) < 1 or not 0 < self.masked < 1 or min(self.lr, self.temperature) <= 0:
            raise HetgraphError(f"impossible pretraining settings: {self}")
        if "contrastive" in self.objectives and self.batch_size < 2:
            raise HetgraphError("contrastive: a batch holds other samples too, expected batch_size >= 2, got 1")


class Tasks(nn.Module):
    """What is predicted from nodes and from Z during pretraining, and thrown away afterwards.

    Args:
        fusion: what is pretrained.
        settings: which losses.
    """

    def __init__(self, fusion: Fusion, settings: PretrainingSettings) -> None:
        super().__init__()
        self.fusion, self.settings = fusion, settings
        width, nodes = fusion.width, fusion.schema.nodes.values()
        self.names = list(fusion.schema.nodes)
        # what stands in the place of hidden features, in units of their spread around their mean
        self.hidden = nn.ParameterList([nn.Parameter(torch.zeros(node.dim)) for node in nodes])
        self.of_node = nn.ModuleList([nn.Linear(width, node.dim) for node in nodes])
        self.of_type = nn.ModuleList([_two_layers(width, node.dim) for node in nodes])
        self.view = _two_layers(width, width)

    def standard(self, graph: Graph, name: str) -> Tensor:
        """Features of a type with the mean and spread of training taken out, ``[N, dim]``."""
        mean, std = self._scale(name)
        return (graph.x[name] - mean) / std

    def _scale(self, name: str) -> tuple[Tensor, Tensor]:
        mean, std = self.fusion.network.project.get_buffer(f"scale_{self.names.index(name)}")
        return mean, std

    def hide(self, graph: Graph) -> dict[str, Tensor]:
        """Hide the features of some nodes, in place; type -> which, bool ``[N]``."""
        hit = {}
        for i, name in enumerate(self.names):
            x = graph.x[name]
            hit[name] = torch.rand(len(x), device=x.device) < self.settings.masked
            mean, std = self._scale(name)
            graph.x[name] = torch.where(hit[name][:, None], mean + std * self.hidden[i], x)
        return hit

    def losses(self, samples: Sequence[Sample], builder: GraphBuilder) -> dict[str, Tensor]:
        """Objective -> loss over a batch, and what the fusion method adds."""
        device = self.hidden[0].device
        out: dict[str, Tensor] = {}
        more = torch.zeros((), device=device)
        if "masked_node" in self.settings.objectives:
            graph = builder(samples).to(device)
            wanted = {name: self.standard(graph, name) for name in self.names}
            hit = self.hide(graph)
            fused = self.fusion(graph)
            more = more + sum(fused.losses.values(), more.new_zeros(()))
            out["masked_node"] = self.node_loss(fused.nodes, wanted, hit)
        if "masked_modality" in self.settings.objectives:
            out["masked_modality"] = self._modality(samples, builder, device)
        if "contrastive" in self.settings.objectives:
            views = [self.view(self.fusion(graph).z) for graph in self.views(samples, builder, device)]
            out["contrastive"] = info_nce(views[0], views[1], self.settings.temperature)
        return out | {"fusion": more}

    def node_loss(self, nodes: dict[str, Tensor], wanted: dict[str, Tensor], hit: dict[str, Tensor]) -> Tensor:
        """Mean squared error of the hidden nodes' features, the mean over the types that have some."""
        errors = [
            (head(nodes[name][hit[name]]) - wanted[name][hit[name]]).square().mean()
            for name, head in zip(self.names, self.of_node, strict=True)
            if bool(hit[name].any())
        ]
        return torch.stack(errors).mean() if errors else self.hidden[0].new_zeros(())

    def _modality(self, samples: Sequence[Sample], builder: GraphBuilder, device: torch.device) -> Tensor:
        """Of every sample with two types or more one is taken out; its mean features are predicted from Z."""
        gone = [_drawn(_types(sample)) if len(_types(sample)) > 1 else None for sample in samples]
        places = [i for i, name in enumerate(gone) if name is not None]
        if not places:
            return torch.zeros((), device=device)
        left = [without(samples[i], str(gone[i])) for i in places]
        z = self.fusion(builder(left).to(device)).z
        errors = []
        for name, head in zip(self.names, self.of_type, strict=True):
            rows = [row for row, i in enumerate(places) if gone[i] == name]
            if rows:
                mean, std = self._scale(name)
                pooled = torch.stack([samples[places[row]].nodes[name]["x"].float().mean(0) for row in rows])
                errors.append((head(z[rows]) - (pooled.to(device) - mean) / std).square().mean())
        return torch.stack(errors).mean()

    def views(self, samples: Sequence[Sample], builder: GraphBuilder, device: torch.device) -> list[Graph]:
        """Two graphs of all samples, with hidden nodes: in each, another of a sample's types is missing."""
        pairs: list[list[Sample]] = [[], []]
        for sample in samples:
            types = _types(sample)
            order = torch.randperm(len(types)).tolist()
            for number, seen in enumerate(pairs):
                seen.append(without(sample, types[order[number]]) if len(types) > 1 else sample)
        graphs = [builder(seen).to(device) for seen in pairs]
        for graph in graphs:
            self.hide(graph)
        return graphs


def _two_layers(width: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, out))


def _types(sample: Sample) -> list[str]:
    """Node types that a sample has nodes of."""
    return [name for name, value in sample.nodes.items() if len(value["x"])]


def _drawn(names: Sequence[str]) -> str:
    return names[int(torch.randint(len(names), ()))]


def info_nce(one: Tensor, other: Tensor, temperature: float) -> Tensor:
    """Which row of the other view is of the same sample? Both ways (CMC: Tian et al., ECCV 2020, equation 2).

    ``-log exp(cos(a_i, b_i) / t) / sum_j exp(cos(a_i, b_j) / t)``, averaged over i and over both directions.

    Args:
        one, other: the two views, ``[B, D]``.
        temperature: t.
    """
    alike = functional.normalize(one, dim=1) @ functional.normalize(other, dim=1).T / temperature
    right = torch.arange(len(one), device=one.device)
    return (functional.cross_entropy(alike, right) + functional.cross_entropy(alike.T, right)) / 2


def pretrain(
    fusion: Fusion,
    samples: Sequence[Sample],
    objectives: Sequence[str] | None = None,
    *,
    settings: PretrainingSettings | None = None,
    standardize: bool = True,
    progress: bool = True,
) -> list[dict[str, float]]:
    """Teach a fusion model, in place, from samples whose targets are not read.

    * ``masked_node``: the features of some nodes are hidden behind a learnt vector and predicted from the nodes' final
      states, in the manner of BERT and of masked autoencoders of graphs (Hou et al., KDD 2022).
    * ``masked_modality``: a node type is taken out of a sample, and its mean features are predicted from Z.
    * ``contrastive``: two views of a sample, each without another node type and with some features hidden, are found
      again among those of the other samples of the batch (InfoNCE; SimCLR: Chen et al., ICML 2020; CMC: Tian et al.,
      ECCV 2020).

    Args:
        fusion: with one Z per sample.
        samples: to learn from.
        objectives: other than those of the settings.
        settings: default :class:`PretrainingSettings`.
        standardize: first set the scale of the features from the samples.
        progress: show a progress bar.

    Returns:
        The mean of every loss, epoch by epoch.

    Raises:
        HetgraphError: Z is per group, fewer than two samples, impossible settings, or a loss that is not finite.
    """
    s = settings or PretrainingSettings()
    if objectives is not None:
        s = replace(s, objectives=tuple(objectives))
    if fusion.settings["group"] is not None:
        raise HetgraphError(f"pretraining expects one Z per sample, got groups by {fusion.settings['group']!r}")
    if len(samples) < 2:
        raise HetgraphError(f"pretraining expects two samples or more, got {len(samples)}")
    builder = GraphBuilder(fusion.schema)
    device = next(fusion.parameters()).device
    if standardize:
        fusion.standardize(builder(samples[i : i + 256]).to(device) for i in range(0, len(samples), 256))
    steps = math.ceil(len(samples) / s.batch_size)
    history = []
    with torch.random.fork_rng(), TrainingBar(progress, s.epochs, steps) as bar:
        torch.manual_seed(s.seed)
        tasks = Tasks(fusion, s).to(device).train()
        optimizer = torch.optim.AdamW(tasks.parameters(), lr=s.lr, weight_decay=s.weight_decay)
        for epoch in range(s.epochs):
            sums: dict[str, float] = {}
            for number, places in enumerate(torch.randperm(len(samples)).split(s.batch_size)):
                for group in optimizer.param_groups:
                    group["lr"] = rate(s.lr, epoch * steps + number, s.epochs * steps)
                losses = tasks.losses([samples[i] for i in places.tolist()], builder)
                total = torch.stack(list(losses.values())).sum()
                if not math.isfinite(total.item()):
                    raise HetgraphError(f"the loss is {total.item()} in epoch {epoch}; a lower learning rate may help")
                optimizer.zero_grad()
                total.backward()
                torch.nn.utils.clip_grad_norm_(tasks.parameters(), s.clip)
                optimizer.step()
                for name in s.objectives:
                    sums[name] = sums.get(name, 0.0) + losses[name].item()
                bar.step(epoch, total.item(), {})
            history.append({name: value / steps for name, value in sums.items()})
    fusion.eval()
    return history
