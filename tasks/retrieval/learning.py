"""Training: closed-form maps first, then contrastive learning between random modalities of each item."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...builder import GraphBuilder
from ...errors import HetgraphError
from ...progress import TrainingBar
from ...sample import Sample
from ...thinning import mix
from ..datasets.retrieval import RetrievalData
from . import linear
from .losses import Queue, symmetric
from .model import RetrievalModel, restricted
from .settings import LINEAR, RetrievalSettings


def make(data: RetrievalData, settings: RetrievalSettings) -> RetrievalModel:
    """A model that is not trained yet, with its closed-form maps fitted to the training part."""
    s = settings
    options = {"width": s.width, "layers": s.layers, "heads": s.heads, "method": s.method, "dropout": s.dropout}
    classes = len(getattr(data.objective, "classes", ())) if s.classify else 0
    if s.classify and not classes:
        raise HetgraphError(f"{data.name}: there are no classes to tell apart")
    model = RetrievalModel(
        data.schema,
        data.views,
        data.pooled if s.anchor else {},
        None if s.method == LINEAR else options,
        s.dims,
        classes,
        s.agreement,
        data.kernels,
    )
    with torch.no_grad():
        model.temperature.fill_(math.log(1 / s.temperature))
        _fit_maps(model, data, settings)
    return model


def _fit_maps(model: RetrievalModel, data: RetrievalData, s: RetrievalSettings) -> None:
    """Set scales, maps and classifiers of a model from the training part."""
    if not model.mapped:
        return
    graph = GraphBuilder(data.schema)(data.train)
    numbers = _numbers(data, data.train)[1] if s.label_weight or s.classify else None
    scaled: dict[str, Tensor] = {}
    for i, view in enumerate(model.mapped):
        rows, there = model.rows(graph, view)
        if not there.any():
            raise HetgraphError(f"{data.name}: no training sample has the modality {view!r}")
        at, parts = 0, []
        for name in (name for name in model.views[view] if name in model.pooled):
            size = linear.width(data.schema.nodes[name].dim, model.pooled[name])
            parts.append(linear.scale_of(rows[there, at : at + size], model.pooled[name]))
            at += size
        scale = model.get_buffer(f"scale_{i}")
        scale.copy_(torch.stack([torch.cat([mean for mean, _ in parts]), torch.cat([std for _, std in parts])]))
        if view in model.kernels:
            kernel = linear.nystrom(model.scaled(graph, view)[0][there], model.kernels[view])
            for name, value in zip(("landmarks", "root", "middle"), kernel, strict=True):
                model.get_buffer(f"{name}_{i}").copy_(value)
            model.get_buffer(f"mean_{i}").copy_(model.features(graph, view)[0][there].mean(0))
        scaled[view], _ = model.features(graph, view)
        if model.classes and numbers is not None:
            with torch.enable_grad():
                weight, bias = linear.logistic(scaled[view][there], numbers[there], model.classes, s.penalty)
            model.get_buffer(f"classify_{i}").copy_(torch.cat([weight, bias[None]]))
    classes = numbers if s.label_weight else None
    maps, _ = linear.shared_space(scaled, classes, s.dims, s.ridge, s.label_weight, data.weights, data.ridges)
    for i, view in enumerate(model.mapped):
        model.get_buffer(f"map_{i}").copy_(maps[view])


def _numbers(data: RetrievalData, samples: Sequence[Sample]) -> tuple[Tensor, Tensor]:
    """What makes samples positives of each other, and their class (-1: none), both int64 ``[n]``."""
    keys = data.keys(samples)
    place = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    classes = {name: i for i, name in enumerate(getattr(data.objective, "classes", ()))}
    targets = [classes.get(str(sample.target), -1) for sample in samples]
    return torch.tensor([place[key] for key in keys]), torch.tensor(targets)


class Sides:
    """Draws for every item two disjoint sets of modalities, its two sides in a batch.

    Args:
        data: whose modalities.
        single: probability with which a side has one modality; otherwise any number that leaves one for the other.
    """

    def __init__(self, data: RetrievalData, single: float) -> None:
        self.data, self.single = data, single

    def __call__(self, samples: Sequence[Sample], draw: torch.Generator) -> tuple[list[Sample], list[Sample]]:
        """Both sides of samples with at least two modalities."""
        sides: tuple[list[Sample], list[Sample]] = ([], [])
        for sample in samples:
            there = [view for view in self.data.views if self.data.has(sample, view)]
            order = [there[i] for i in torch.randperm(len(there), generator=draw).tolist()]
            first = self._size(len(order) - 1, draw)
            second = self._size(len(order) - first, draw)
            sides[0].append(restricted(sample, self.data.views, order[:first]))
            sides[1].append(restricted(sample, self.data.views, order[first : first + second]))
        return sides

    def _size(self, most: int, draw: torch.Generator) -> int:
        if most == 1 or float(torch.rand((), generator=draw)) < self.single:
            return 1
        return int(torch.randint(1, most + 1, (), generator=draw))


class Training:
    """One run; see :func:`hetgraph.tasks.retrieval.train`."""

    def __init__(self, model: RetrievalModel, data: RetrievalData, settings: RetrievalSettings, seed: int) -> None:
        self.model, self.data, self.settings, self.seed = model, data, settings, seed
        self.samples = [s for s in data.train if sum(data.has(s, view) for view in data.views) > 1]
        if not self.samples:
            raise HetgraphError(f"{data.name}: no training sample has two modalities")
        self.keys, self.classes = _numbers(data, self.samples)
        self.sides = Sides(data, settings.single)
        self.builder = GraphBuilder(data.schema)
        plain = [p for p in model.parameters() if p.dim() < 2]
        heavy = [p for p in model.parameters() if p.dim() >= 2]
        t = settings.training
        groups = [{"params": heavy, "weight_decay": t.weight_decay}, {"params": plain, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=t.lr)
        self.queue = Queue(settings.queue)
        self.average: dict[str, Tensor] = {}
        self.steps = math.ceil(len(self.samples) / t.batch_size)

    def run(self, bar: TrainingBar, score: Any) -> dict[str, Any]:
        """Train; the best epoch by ``score(model)`` counts, if there is one. Epoch -1 is the start."""
        t, model = self.settings.training, self.model
        if self.data.standardize and model.fusion is not None:
            size = t.batch_size
            parts = range(0, len(self.samples), size)
            model.fusion.standardize(self.builder(self.samples[i : i + size]) for i in parts)
        history: dict[str, Any] = {"loss": [], "valid": [], "best_epoch": -1}
        # without closed-form maps the start is noise, and no candidate
        kept = _copied(model.state_dict())
        best = score(model) if score is not None and model.mapped else -math.inf
        history["start"] = best if model.mapped and score is not None else None
        for epoch in range(t.epochs):
            history["loss"].append(self._epoch(epoch, bar, history))
            own = _copied(model.state_dict())
            model.load_state_dict(self.average or own)
            if score is None:
                kept, history["best_epoch"] = _copied(model.state_dict()), epoch
            else:
                history["valid"].append(score(model))
                if history["valid"][-1] > best:
                    best, history["best_epoch"], kept = history["valid"][-1], epoch, _copied(model.state_dict())
            model.load_state_dict(own)
            if score is not None and epoch - history["best_epoch"] >= t.patience:
                break
        model.load_state_dict(kept)
        return history

    def _epoch(self, epoch: int, bar: TrainingBar, history: Mapping[str, Any]) -> float:
        self.model.train()
        draw = torch.Generator().manual_seed(mix(self.seed, epoch))
        order = torch.randperm(len(self.samples), generator=draw)
        total = 0.0
        for step in range(self.steps):
            size = self.settings.training.batch_size
            chosen = order[step * size : (step + 1) * size]
            total += self._step(epoch * self.steps + step, chosen, draw)
            last = history["valid"][-1:] if history["valid"] else []
            bar.step(epoch, total / (step + 1), {"map": last[0]} if last else {})
        return total / self.steps

    def _step(self, number: int, chosen: Tensor, draw: torch.Generator) -> float:
        t = self.settings.training
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate(number)
        torch.manual_seed(mix(self.seed, number, 1))
        loss = self.loss([self.samples[i] for i in chosen.tolist()], self.keys[chosen], self.classes[chosen], draw)
        if not math.isfinite(loss.item()):
            raise HetgraphError(f"the loss is {loss.item()} at step {number}; a lower learning rate may help")
        self.optimizer.zero_grad()
        loss.backward()
        if t.clip:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), t.clip)
        self.optimizer.step()
        if t.average:
            share = max(1 / (number + 1), 1 - t.average)
            if number == 0:
                self.average = _copied(self.model.state_dict())
            for name, value in self.model.named_parameters():
                self.average[name].lerp_(value.detach(), share)
        return loss.item()

    def loss(self, samples: Sequence[Sample], keys: Tensor, classes: Tensor, draw: torch.Generator) -> Tensor:
        """Symmetric contrastive loss of two sides, with the cross-entropy of both and what fusion adds."""
        device = self.model.temperature.device
        keys, classes = keys.to(device), classes.to(device)
        graphs = [self.builder(side).to(device) for side in self.sides(samples, draw)]
        for graph in graphs:
            self._swap(graph.x, draw)
        one, other = (self.model(graph) for graph in graphs)
        scale = self.model.temperature.exp().clamp(max=100.0)
        more = self.queue.others(keys)
        loss = symmetric(one.z, other.z, keys[:, None] == keys, scale, self.settings.hardness, more)
        loss = loss + (one.losses + other.losses) / 2
        self.queue.add(torch.cat([one.z, other.z]), torch.cat([keys, keys]))
        if self.settings.classify:
            both = torch.nn.functional.nll_loss(one.classes, classes)
            both = both + torch.nn.functional.nll_loss(other.classes, classes)
            loss = loss + self.settings.classify * both / 2
        return loss

    def _swap(self, x: dict[str, Tensor], draw: torch.Generator) -> None:
        """Swap noise, as :class:`~hetgraph.training.TrainingSettings` says."""
        rate = self.settings.training.feature_swap
        for name, value in x.items():
            share = rate.get(name, 0.0) if isinstance(rate, Mapping) else rate
            if share and len(value):
                hit = (torch.rand(len(value), generator=draw) < share).to(value.device)
                other = torch.randint(len(value), (len(value),), generator=draw).to(value.device)
                x[name] = torch.where(hit[:, None], value[other], value)

    def _rate(self, number: int) -> float:
        t = self.settings.training
        total = t.epochs * self.steps
        rising = max(1.0, t.warmup * total)
        if number < rising:
            return t.lr * (number + 1) / rising
        if t.schedule == "constant":
            return t.lr
        return t.lr * 0.5 * (1 + math.cos(math.pi * (number - rising) / max(total - rising, 1)))


def _copied(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in state.items()}
