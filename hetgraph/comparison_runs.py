"""The single runs of a comparison: what a run is, what it learns from, and how its model is trained and scored."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from typing import Any, Protocol

import torch
from torch import Tensor

from .errors import HetgraphError
from .fusion import Fusion
from .objectives import Classification, MultiLabel, Objective, Regression
from .predictor import Predictor
from .sample import Sample
from .schema import Schema
from .thinning import without
from .training import TrainingSettings, evaluate, fit, predict

MOST_SUBSETS = 8
"""Modalities up to which all ``2^K - 1`` subsets are scored."""


class Data(Protocol):
    """What a comparison learns from; ``valid`` is None where the data set has no such part.

    ``group`` is the field that numbers the groups that get a Z each. If there is an attribute ``modalities``, it
    names the node types that are taken away in turn; else these are all of the schema's.
    """

    @property
    def name(self) -> str: ...
    @property
    def schema(self) -> Schema: ...
    @property
    def train(self) -> Sequence[Sample]: ...
    @property
    def valid(self) -> Sequence[Sample] | None: ...
    @property
    def test(self) -> Sequence[Sample]: ...
    @property
    def objective(self) -> Objective: ...
    @property
    def group(self) -> str | None: ...
    @property
    def standardize(self) -> bool: ...


Source = Callable[[int], Data]
"""Gives the data of a seed; those whose split is fixed give the same for every seed."""


@dataclass(frozen=True)
class Parts:
    """Data that is at hand."""

    name: str
    schema: Schema
    train: Sequence[Sample]
    valid: Sequence[Sample] | None
    test: Sequence[Sample]
    objective: Objective
    group: str | None = None
    standardize: bool = True
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Always:
    """The same data for every seed."""

    data: Data

    def __call__(self, seed: int) -> Data:
        return self.data


@dataclass(frozen=True, eq=False)
class Run:
    """One training. Told apart by identity: settings may hold rates per node type, which have no hash.

    Attributes:
        method, width, layers, heads, dropout: of the model.
        training: with the run's own learning rate and seed.
        removed: node types the model never sees, neither in training nor in the test.
        final: score the test part; the others are for tuning and do not touch it.
        subsets: also score the test part with every subset of the modalities.
        norm, direct: of the head, see :class:`Predictor`.
    """

    method: str
    width: int
    layers: int
    heads: int
    dropout: float
    training: TrainingSettings
    removed: tuple[str, ...] = ()
    final: bool = False
    subsets: bool = False
    norm: bool = False
    direct: int = 0

    @property
    def seed(self) -> int:
        return self.training.seed

    @property
    def title(self) -> str:
        less = f" without {', '.join(self.removed)}" if self.removed else ""
        return f"{self.method}{less}, seed {self.seed}, lr {self.training.lr:g}, dropout {self.dropout:g}"


def modalities(data: Data) -> tuple[str, ...]:
    """The node types that are taken away one by one.

    Raises:
        HetgraphError: one of them is not in the schema.
    """
    names = tuple(getattr(data, "modalities", None) or data.schema.nodes)
    unknown = [name for name in names if name not in data.schema.nodes]
    if unknown:
        raise HetgraphError(f"{data.name}: modality {unknown[0]!r} is no node type; known: {list(data.schema.nodes)}")
    return names


def make_model(
    data: Data,
    method: str,
    width: int,
    layers: int,
    heads: int,
    dropout: float = 0.0,
    removed: Sequence[str] = (),
    norm: bool = False,
    direct: int = 0,
) -> Predictor:
    """A model for the data; of the schema only what is not removed; ``norm``, ``direct``: see :class:`Predictor`."""
    schema = data.schema
    if removed:
        nodes = [node for name, node in schema.nodes.items() if name not in removed]
        edges = [e for (src, _, dst), e in schema.edges.items() if src not in removed and dst not in removed]
        schema = Schema(nodes, edges)
    fusion = Fusion(schema, width, layers=layers, heads=heads, method=method, dropout=dropout, group=data.group)
    return Predictor(fusion, data.objective, dropout, norm, direct)


def parameters(model: Predictor) -> int:
    """How many numbers are trained, the head's and those of auxiliary networks included."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def execute(data: Data, run: Run) -> dict[str, Any]:
    """Train and score; the outcome as JSON.

    Raises:
        HetgraphError: nothing to train on, bad samples, or a loss that is not finite.
    """
    with torch.random.fork_rng():
        torch.manual_seed(run.seed)
        model = make_model(
            data, run.method, run.width, run.layers, run.heads, run.dropout, run.removed, run.norm, run.direct
        )
        train = _seen(data.train, run.removed, data.group)
        valid = None if data.valid is None else _seen(data.valid, run.removed, data.group)
        if not len(train):
            raise HetgraphError(f"{data.name}: no training sample is left without {', '.join(run.removed)}")
        settings = replace(run.training, standardize=data.standardize)
        history = fit(model, train, valid=valid or None, settings=settings, progress=False)
        prior = (
            prior_scores(data.objective, _targets(data.objective, data.train)) if run.removed or run.subsets else None
        )
        outcome: dict[str, Any] = {
            "run": asdict(run),
            "parameters": parameters(model),
            "epochs": len(history.loss),
            "seconds_per_epoch": statistics.median(history.seconds),
            "valid": None if data.valid is None else score(model, data.valid, run.removed, prior),
        }
        if run.final:
            outcome["test"] = score(model, data.test, run.removed, prior)
        if run.final and run.subsets:
            outcome["subsets"] = [
                {"modalities": list(kept), **_subset(model, data, run.removed, kept, prior)} for kept in subsets(data)
            ]
    return outcome


def subsets(data: Data) -> list[tuple[str, ...]]:
    """All non-empty subsets of the modalities, the small ones first.

    Raises:
        HetgraphError: more than ``MOST_SUBSETS`` modalities.
    """
    names = modalities(data)
    if len(names) > MOST_SUBSETS:
        raise HetgraphError(f"{data.name}: {len(names)} modalities have too many subsets; at most {MOST_SUBSETS}")
    return [kept for size in range(1, len(names) + 1) for kept in combinations(names, size)]


def _subset(
    model: Predictor, data: Data, removed: Sequence[str], kept: Sequence[str], prior: Tensor | None
) -> dict[str, Any]:
    gone = (*removed, *(name for name in modalities(data) if name not in kept))
    answered = sum(_complete(sample, gone, data.group) for sample in data.test)
    return {"answered": answered / len(data.test), "test": score(model, data.test, gone, prior)}


def score(
    model: Predictor, samples: Sequence[Sample], removed: Sequence[str], prior: Tensor | None
) -> dict[str, float]:
    """Metrics over all samples with node types taken out of them.

    Samples of which too little is left for the model are answered by ``prior [C]``, so that every subset of the
    modalities is scored on the same samples.
    """
    if not removed:
        return _finite(evaluate(model, samples))
    assert prior is not None
    group = model.fusion.settings["group"]
    left = [without(s, *removed) for s in samples if _complete(s, removed, group)]
    rest = [s for s in samples if not _complete(s, removed, group)]
    scores, targets = [], []
    if left:
        scores.append(predict(model, left).scores)
        targets.append(_targets(model.objective, left))
    if rest:
        targets.append(_targets(model.objective, rest))
        scores.append(prior.expand(len(targets[-1]), -1))
    return _finite(model.objective.metrics(torch.cat(scores), torch.cat(targets)))


def _finite(metrics: Mapping[str, float]) -> dict[str, float]:
    """The metrics that are numbers; what is not defined for these samples counts as not measured."""
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def prior_scores(objective: Objective, target: Tensor) -> Tensor:
    """The best answer to every sample alike, read off training targets: ``[C]`` scores.

    Classes and labels: the logarithm (log-odds) of their frequencies, to which one of each is added so that none
    is impossible; numbers: their mean; a ranking: no order.
    """
    if isinstance(objective, Classification):
        count = torch.bincount(target, minlength=objective.outputs) + 1.0
        return (count / count.sum()).log()
    if isinstance(objective, MultiLabel):
        return ((target.sum(0) + 1) / (len(target) + 2)).logit()
    if isinstance(objective, Regression):
        mean, std = target.new_tensor(objective.mean), target.new_tensor(objective.std)
        return (target.mean(0) - mean) / std
    return torch.zeros(objective.outputs)


FLOORS = {
    "Classification": "most frequent class",
    "MultiLabel": "frequencies of labels",
    "Regression": "mean of training targets",
}
"""What the prior is called, by the kind of objective."""


def floor(data: Data) -> dict[str, float]:
    """Metrics on the test part of the prior of the training part."""
    objective = data.objective
    prior = prior_scores(objective, _targets(objective, data.train))
    target = _targets(objective, data.test)
    return _finite(objective.metrics(prior.expand(len(target), -1), target))


def metric_names(data: Data) -> list[str]:
    """The metrics of the data's objective, found without a model and without the test part.

    Raises:
        HetgraphError: there are no training samples.
    """
    if not len(data.train):
        raise HetgraphError(f"{data.name}: no training samples")
    target = _targets(data.objective, data.train)
    scores = torch.linspace(-1, 1, len(target) * data.objective.outputs).view(len(target), -1)
    return list(data.objective.metrics(scores, target))


def _targets(objective: Objective, samples: Sequence[Sample]) -> Tensor:
    every = [samples[i] for i in range(len(samples))]
    return objective.encode([s.target for s in every], [s.label for s in every])


def _seen(samples: Sequence[Sample], removed: Sequence[str], group: str | None) -> Sequence[Sample]:
    """What a model without some node types can learn from."""
    if not removed:
        return samples
    return [without(s, *removed) for s in samples if _complete(s, removed, group)]


def _complete(sample: Sample, removed: Sequence[str], group: str | None) -> bool:
    """Whether a node is left, and if Z is per group, one of every group."""
    left = {name: values for name, values in sample.nodes.items() if name not in removed and len(values["x"])}
    if group is None or not left:
        return bool(left)
    every, rest = (
        {number for values in nodes.values() if group in values for number in values[group].tolist()}
        for nodes in (sample.nodes, left)
    )
    return every == rest
