"""What learns from few samples: fusion, a linear head, and ways to use a handful of labelled samples.

Shapes: S support samples, Q query samples, W ways, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from ...builder import GraphBuilder
from ...errors import HetgraphError
from ...fusion import Fusion
from ...graph import Graph
from ...pretrained import Pretrained, Rules, schema_of
from ...sample import Sample

Weights = dict[str, Tensor]


class Learner(Pretrained, library_name="hetgraph", tags=["multimodal", "graph", "few-shot"]):
    """Fusion and a linear head: ``scores = W Z + b``.

    Args:
        fusion: gives Z ``[S, D]``.
        classes: names of the head's outputs; where episodes have classes of their own, any ``ways`` names.
        prior: have a ``prior`` ``[W, D]`` that the means of these classes are drawn to, see :meth:`means`.
    """

    def __init__(self, fusion: Fusion, classes: Sequence[str], prior: bool = False) -> None:
        super().__init__()
        self.fusion = fusion
        self.schema = fusion.schema
        self.classes = tuple(classes)
        self.head = nn.Linear(fusion.width, len(self.classes))
        # of distances, by the root of the width: those between normed states grow with it
        self.log_scale = nn.Parameter(torch.zeros(()))
        self.prior: nn.Parameter | None = None
        self.log_count: nn.Parameter | None = None
        if prior:
            self.set_prior(torch.zeros(len(self.classes), fusion.width))

    def forward(self, graph: Graph) -> tuple[Tensor, Tensor, Tensor]:
        """Scores ``[S, W]``, Z ``[S, D]``, and what the fusion method adds to the loss."""
        fused = self.fusion(graph)
        return self.head(fused.z), fused.z, sum(fused.losses.values(), fused.z.new_zeros(()))

    def graph(self, samples: Sequence[Sample]) -> Graph:
        """One graph of the samples, on the learner's device."""
        return GraphBuilder(self.schema)(samples).to(self.head.weight.device)

    def set_prior(self, means: Tensor) -> None:
        """Have ``means [W, D]`` as the prior, in place where there is one already; it counts as e samples at first."""
        with torch.no_grad():
            if self.prior is None:
                device = self.head.weight.device
                self.prior = nn.Parameter(torch.empty(len(self.classes), self.fusion.width, device=device))
                self.log_count = nn.Parameter(torch.ones((), device=device))
            self.prior.copy_(means)

    def means(self, z: Tensor, labels: Tensor, classes: Sequence[str]) -> Tensor:
        """Mean of every class, drawn to the prior where there is one and it knows these classes.

        With ``n`` support samples ``z_i`` of a class and a prior mean ``p``, the maximum a posteriori estimate
        ``(k p + sum_i z_i) / (k + n)``, as speakers are adapted to in speech recognition (Gauvain and Lee, IEEE Trans.
        Speech and Audio Processing 2, 1994). ``k`` and ``p`` are learnt.

        Args:
            z: ``[S, D]``.
            labels: int64 ``[S]``, each of 0 .. W - 1 at least once.
            classes: W names.

        Raises:
            HetgraphError: a class has no sample.
        """
        found = prototypes(z, labels, len(classes))
        if self.prior is None or self.log_count is None or tuple(classes) != self.classes:
            return found
        samples = torch.bincount(labels, minlength=len(classes))[:, None].to(z.dtype)
        count = self.log_count.exp()
        return (count * self.prior + samples * found) / (count + samples)

    def distances(self, z: Tensor, prototypes: Tensor) -> Tensor:
        """Scores of ``z [Q, D]`` by ``prototypes [W, D]``: ``-s |z_q - c_w|^2 / sqrt(D)``, ``[Q, W]``."""
        apart = torch.cdist(z[None], prototypes[None])[0].square()
        return -self.log_scale.exp() * apart / z.shape[1] ** 0.5

    def head_of(self, prototypes: Tensor) -> nn.Linear:
        """A head for classes with ``prototypes [W, D]`` that answers as :meth:`distances` does; zeros give zeros.

        ``-|z - c|^2 = 2 c . z - |c|^2 - |z|^2``, whose last term is the same for all classes (Snell et al., 2.3).
        """
        scale = self.log_scale.detach().exp() / prototypes.shape[1] ** 0.5
        head = nn.Linear(prototypes.shape[1], len(prototypes), device=prototypes.device)
        with torch.no_grad():
            head.weight.copy_(2 * scale * prototypes)
            head.bias.copy_(-scale * prototypes.square().sum(1))
        return head

    def to_config(self) -> dict[str, Any]:
        config = {**self.fusion.to_config(), "classes": list(self.classes)}
        # left out where there is none: learners that were saved before know of no such thing
        return config if self.prior is None else {**config, "prior": True}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], rules: Rules | None = None) -> Learner:
        fusion = Fusion(schema_of(config, rules), **config["settings"])
        return cls(fusion, config["classes"], config.get("prior", False))


@torch.no_grad()
def embedded(learner: Learner, samples: Sequence[Sample], size: int = 256) -> Tensor:
    """Z ``[S, D]``, in evaluation mode."""
    training = learner.training
    learner.eval()
    z = [learner(learner.graph(samples[i : i + size]))[1] for i in range(0, len(samples), size)]
    learner.train(training)
    return torch.cat(z)


def prototypes(z: Tensor, labels: Tensor, ways: int) -> Tensor:
    """Mean of every class, ``c_w = mean over the support of class w`` (Snell et al., NeurIPS 2017, equation 1).

    Args:
        z: ``[S, D]``.
        labels: int64 ``[S]``, each of 0 .. ways - 1 at least once.
        ways: W.

    Raises:
        HetgraphError: a class has no sample.
    """
    member = functional.one_hot(labels, ways).to(z.dtype)
    count = member.sum(0)
    if not bool((count > 0).all()):
        raise HetgraphError(f"prototypes: class {int((count == 0).nonzero()[0, 0])} has no support sample")
    return (member.T @ z) / count[:, None]


def inner_loop(
    learner: nn.Module,
    weights: Weights,
    graph: Graph,
    labels: Tensor,
    *,
    steps: int,
    lr: float,
    first_order: bool,
) -> Weights:
    """Gradient descent on the support loss, ``w <- w - lr dL/dw`` (Finn et al., ICML 2017, equation 1).

    Args:
        learner: gives scores first.
        weights: to start from, by name; all of them move.
        graph: support samples.
        labels: int64 ``[S]``.
        steps, lr: of the descent.
        first_order: take the gradients as constants, so that none goes through them (first-order MAML).

    Returns:
        New weights; what is computed from them has a gradient with respect to those given.
    """
    for _ in range(steps):
        scores, _, more = functional_call(learner, weights, (graph,))
        loss = functional.cross_entropy(scores, labels) + more
        grads = torch.autograd.grad(loss, list(weights.values()), create_graph=not first_order, allow_unused=True)
        weights = {
            name: value if grad is None else value - lr * grad
            for (name, value), grad in zip(weights.items(), grads, strict=True)
        }
    return weights


def inner_loop_of_head(
    weight: Tensor, bias: Tensor, z: Tensor, labels: Tensor, *, steps: int, lr: float, first_order: bool
) -> list[tuple[Tensor, Tensor]]:
    """The same of the head alone, ``weight [W, D]`` and ``bias [W]`` (ANIL: Raghu et al., ICLR 2020).

    Z ``[S, D]`` is the same in all steps. Unless ``first_order``, the second derivatives are exact, and cheap.

    Returns:
        Weight and bias before the first step and after each.
    """
    path = [(weight, bias)]
    for _ in range(steps):
        loss = functional.cross_entropy(functional.linear(z, weight, bias), labels)
        one, other = torch.autograd.grad(loss, [weight, bias], create_graph=not first_order)
        weight, bias = weight - lr * one, bias - lr * other
        path.append((weight, bias))
    return path


@contextmanager
def second_order(fusion: Fusion, device: torch.device) -> Iterator[None]:
    """Run attention in the form that can be derived twice.

    Raises:
        HetgraphError: the method is ``graph`` on a CPU, whose kernels have no second derivative.
    """
    if fusion.settings["method"] == "graph" and fusion.settings["layers"] and device.type == "cpu":
        raise HetgraphError(
            "the attention kernels of the method 'graph' on a CPU have no second derivative: "
            "expected first_order=True or inner='head', got first_order=False with inner='all'"
        )
    with sdpa_kernel(SDPBackend.MATH):
        yield
