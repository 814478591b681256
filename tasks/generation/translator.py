"""The model: fusion of what is heard, a head that keeps Z informed, and the generator.

Shapes: S samples, D width of Z, F widths of all heard node types together, N nodes of the target, d their width, P
components.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...builder import GraphBuilder
from ...errors import HetgraphError
from ...fusion import Fusion
from ...graph import Graph
from ...objectives import objective_from_json
from ...predictor import Predictor
from ...pretrained import Pretrained, Rules, schema_of
from ...reading import in_turn
from ...sample import Sample
from .networks import GeneratorNetwork, Space

BATCH = 128


@dataclass(frozen=True)
class Heard:
    """What a translator makes its targets of.

    Attributes:
        z: standardised, ``[S, D]``.
        scores: of the head, ``[S, outputs]``.
        start: components of the target in closed form, ``[S, P]``; None in a model without them.
    """

    z: Tensor
    scores: Tensor
    start: Tensor | None = None


def mean_nodes(graph: Graph) -> Tensor:
    """The mean nodes of all types side by side, in the schema's order, zeros for absent ones: ``[S, F]``."""
    found = []
    for name in graph.schema.nodes:
        x = graph.x[name].float()
        total = x.new_zeros(len(graph), x.shape[1]).index_add(0, graph.batch[name], x)
        found.append(total / graph.counts[name].clamp(min=1)[:, None])
    return torch.cat(found, 1)


class Translator(Pretrained, library_name="hetgraph", tags=["multimodal", "graph", "gan"]):
    """Samples in, nodes of another type out: ``y = mean + scale B G((Z - m) / s, e)``, e drawn at random.

    With ``anchor`` it is ``y = mean + scale B (R x + r + G((Z - m) / s, e))``: a linear map of the mean nodes x of what
    is heard (:func:`mean_nodes`), fitted in closed form (:func:`.start.fit_start`), that the generator adds to.

    Args:
        predictor: gives Z; its head is what Z was taught by.
        target: the node type that is made.
        nodes, dim: N and d.
        components: P.
        noise: numbers of e.
        hidden: width inside the generator.
        bounded: the target lies between 0 and 1.
        places: name -> width of the positional fields that every made node comes with.
        anchor: whether R and r are there.

    Raises:
        HetgraphError: the target is among what the predictor hears, or sizes do not fit.
    """

    def __init__(
        self,
        predictor: Predictor,
        target: str,
        nodes: int,
        dim: int,
        *,
        components: int,
        noise: int,
        hidden: int,
        bounded: bool = False,
        places: Mapping[str, int] | None = None,
        anchor: bool = False,
    ) -> None:
        super().__init__()
        if target in predictor.schema.nodes:
            raise HetgraphError(f"the target {target!r} is among the node types that are heard")
        self.predictor, self.schema = predictor, predictor.schema
        self.target, self.nodes, self.dim = target, nodes, dim
        width = predictor.fusion.width
        self.settings: dict[str, Any] = {
            "target": target,
            "nodes": nodes,
            "dim": dim,
            "components": components,
            "noise": noise,
            "hidden": hidden,
            "bounded": bounded,
            "places": dict(places or {}),
            "anchor": anchor,
        }
        self.space = Space(nodes * dim, components, bounded)
        self.generator = GeneratorNetwork(width, noise, hidden, components)
        self.register_buffer("center", torch.zeros(width))
        self.register_buffer("spread", torch.ones(width))
        self.center: Tensor
        self.spread: Tensor
        if anchor:
            size = sum(node.dim for node in self.schema.nodes.values())
            self.register_buffer("start_weight", torch.zeros(size, components))
            self.register_buffer("start_shift", torch.zeros(components))
        # by number: what a user calls a field is no name for a buffer
        for number, size in enumerate(self.settings["places"].values()):
            self.register_buffer(f"place_{number}", torch.zeros(nodes, size))

    @property
    def places(self) -> dict[str, Tensor]:
        """Positional fields of every made node, name -> ``[N, w]``."""
        return {name: self.get_buffer(f"place_{number}") for number, name in enumerate(self.settings["places"])}

    @property
    def kept_start(self) -> bool:
        """Whether the closed form is all that speaks: with an anchor, and a generator that adds nothing to it."""
        return bool(self.settings["anchor"]) and self.generator.silent

    def start(self, graph: Graph) -> Tensor | None:
        """Components in closed form, ``R x + r``, ``[S, P]``; None without ``anchor``."""
        if not self.settings["anchor"]:
            return None
        return mean_nodes(graph) @ self.get_buffer("start_weight") + self.get_buffer("start_shift")

    def make(self, z: Tensor, noise: Tensor, start: Tensor | None) -> Tensor:
        """Components of ``[S, D]``, ``[S, noise]`` and the closed form ``[S, P]``: what is made, ``[S, P]``."""
        made = self.generator(z, noise)
        return made if start is None else start + made

    def condition(self, z: Tensor) -> Tensor:
        """Z with mean 0 and standard deviation 1 over the training part, ``[S, D]``."""
        return (z - self.center) / self.spread

    def forward(self, graph: Graph, noise: Tensor | None = None, backend: str = "auto") -> Tensor:
        """Targets ``[S, N, d]`` of a graph; ``noise [S, noise]``, drawn where it is not given."""
        z = self.condition(self.predictor.fusion(graph, backend).z)
        if noise is None:
            noise = torch.randn(len(z), self.generator.noise, device=z.device)
        return self.decode(self.make(z, noise, self.start(graph)))

    def decode(self, parts: Tensor) -> Tensor:
        """Components ``[..., P]`` to nodes ``[..., N, d]``."""
        return self.space.decode(parts).unflatten(-1, (self.nodes, self.dim))

    @torch.inference_mode()
    def hear(self, samples: Sequence[Sample]) -> Heard:
        """Z, the scores of the head and the closed form, in evaluation mode.

        Raises:
            HetgraphError: no samples, or a sample without a single node that is heard.
        """
        if not samples:
            raise HetgraphError("no samples")
        builder, training = GraphBuilder(self.schema), self.training
        device = self.center.device
        self.eval()
        try:
            found = []
            for places in in_turn(len(samples), BATCH):
                graph = builder([samples[i] for i in places]).to(device)
                out = self.predictor(graph)
                found.append((self.condition(out.fused.z), out.scores, self.start(graph)))
        finally:
            self.train(training)
        starts = [start for _, _, start in found if start is not None]
        joined = torch.cat(starts) if starts else None
        return Heard(torch.cat([z for z, _, _ in found]), torch.cat([scores for _, scores, _ in found]), joined)

    @torch.inference_mode()
    def draw(self, heard: Heard, draws: int = 1, seed: int = 0) -> Tensor:
        """What :meth:`hear` gives to components ``[S, draws, P]``; the same noise for the same seed and number."""
        generator = torch.Generator().manual_seed(seed)
        z = heard.z
        noise = torch.randn(draws, len(z), self.generator.noise, generator=generator).to(z.device)
        training = self.training
        self.eval()
        try:
            made = [self.make(z, e, heard.start) for e in noise]
        finally:
            self.train(training)
        return torch.stack(made, 1)

    def to_config(self) -> dict[str, Any]:
        return {**self.predictor.to_config(), "generator": self.settings}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], rules: Rules | None = None) -> Translator:
        fusion = Fusion(schema_of(config, rules), **config["settings"])
        predictor = Predictor(fusion, objective_from_json(config["objective"]), config["head_dropout"])
        return cls(predictor, **config["generator"])
