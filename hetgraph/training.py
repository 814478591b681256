"""Fit, evaluate, predict: on one process or several, restartable at any moment to the same weights.

Everything random in step n (the order of samples, modality dropout, dropout) is seeded from the run's seed
and n alone, so a checkpoint needs no generator states and a run that was killed continues as if it had not
been. On several processes each takes its slice of every global batch; the loss is the mean over the global
batch, so that (without dropout, whose masks differ between processes) the losses are those of one process.

Graphs may be built by workers in the background (see :mod:`hetgraph.loader`); one set of them serves a whole run,
which reads its samples in an order known beforehand: those that set the scale of the features, then epoch by epoch
the training samples and the validation samples.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .builder import GraphBuilder
from .checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from .errors import HetgraphError
from .graph import Graph
from .loader import GraphLoader
from .objectives import Ranking
from .predictor import ModalityHeads, Prediction, Predictor
from .progress import TrainingBar
from .reading import Key, Reading, in_turn
from .sample import Sample
from .thinning import Thinning, mix
from .thinning import without as without


@dataclass(frozen=True)
class TrainingSettings:
    """How a model is trained.

    Attributes:
        epochs: passes over the training samples (at most, with validation).
        batch_size: samples of a step, over all processes together.
        lr: peak learning rate of AdamW, reached after ``warmup`` and brought down to zero by a cosine
            (``schedule="cosine"``) or held (``"constant"``).
        weight_decay: of AdamW, on matrices only (not on biases, norms and gates).
        warmup: share of all steps over which the rate rises.
        clip: largest norm of the gradient; 0: no clipping.
        patience: epochs without a better validation metric until training stops; then, and at the end, the
            best epoch's weights are taken. Without validation samples the last epoch's weights are kept.
        modality_dropout: probability with which a node type is taken out of a training sample, one number
            for all types or one per type; at least one type stays, and of every group at least one node.
        feature_swap: probability with which a node's features are replaced by those of a random node of its type
            in the batch (swap noise), one number for all types or one per type. For features that know more
            about the training samples than they will about others.
        modality_loss: weight of the mean loss of one linear head per node type that answers from its X_k alone.
            The heads are there only during training. Meant to keep the modalities learning that the joint loss no
            longer needs.
        average: decay of an exponential moving average of the weights, per step; 0: none. The averaged weights
            are validated and kept (Polyak and Juditsky, 1992); a decay is reached step by step, so that the first
            weights do not linger.
        standardize: first set the scale of the input features from the training samples.
        precision: ``"no"`` or ``"bf16"`` (autocast).
        seed: of everything random during training.
    """

    epochs: int = 20
    batch_size: int = 32
    lr: float = 1e-3
    weight_decay: float = 1e-2
    warmup: float = 0.05
    schedule: str = "cosine"
    clip: float = 1.0
    patience: int = 10
    modality_dropout: float | Mapping[str, float] = 0.0
    feature_swap: float | Mapping[str, float] = 0.0
    modality_loss: float = 0.0
    average: float = 0.0
    standardize: bool = True
    precision: str = "no"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1 or self.lr <= 0 or self.patience < 1 or not 0 <= self.warmup <= 1:
            raise HetgraphError(f"impossible training settings: {self}")
        for name in ("modality_dropout", "feature_swap"):
            value = getattr(self, name)
            if not all(0 <= p <= 1 for p in (value.values() if isinstance(value, Mapping) else (value,))):
                raise HetgraphError(f"{name} must be a probability, or one per node type, got {value!r}")
        if not 0 <= self.modality_loss < math.inf:
            raise HetgraphError(f"modality_loss must be a weight from 0, got {self.modality_loss!r}")
        if not 0 <= self.average < 1:
            raise HetgraphError(f"average must be a decay from 0 to below 1, got {self.average!r}")
        if self.schedule not in ("cosine", "constant"):
            raise HetgraphError(f"schedule must be cosine or constant, got {self.schedule!r}")
        if self.precision not in ("no", "bf16"):
            raise HetgraphError(f"precision must be no or bf16, got {self.precision!r}")


@dataclass
class History:
    """What happened, one entry per epoch: training loss, validation metrics, seconds."""

    loss: list[float] = field(default_factory=list)
    valid: list[dict[str, float]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    best_epoch: int | None = None

    def stopped_early(self, patience: int) -> bool:
        return self.best_epoch is not None and len(self.loss) - 1 - self.best_epoch >= patience


@dataclass
class Predictions:
    """Answers for samples.

    Attributes:
        ids: sample of every row of Z.
        scores: ``[S, C]``, on the CPU.
        answers: decoded scores.
        weights: type -> ``[S]``, the alphas.
    """

    ids: list[str]
    scores: Tensor
    answers: list[Any]
    weights: dict[str, Tensor]


def fit(
    model: Predictor,
    samples: Sequence[Sample],
    *,
    valid: Sequence[Sample] | None = None,
    settings: TrainingSettings | None = None,
    folder: str | Path | None = None,
    checkpoint_every: int | None = None,
    progress: bool = True,
    workers: int = 0,
) -> History:
    """Train ``model`` in place.

    Args:
        model: what to train.
        samples: training samples; anything with ``len`` and ``[i]``.
        valid: validation samples. With them the best epoch is kept and training stops early; without
            them it runs for exactly ``settings.epochs``.
        settings: see :class:`TrainingSettings`.
        folder: where a checkpoint is kept. If it already holds one of the same run, training goes on from
            there.
        checkpoint_every: also write it every so many steps (always at the end of an epoch).
        progress: show a progress bar.
        workers: processes that build graphs while the model trains; samples and rules must then be picklable. The
            weights are the same for any number of them, also if reading a sample draws from torch's generator.

    Returns:
        The history, including the epochs before an interruption.

    Raises:
        HetgraphError: no samples, bad samples, a loss that is not finite, or a worker that died.
        CheckpointError: the folder holds the checkpoint of another run, or cannot be written.
    """
    settings = settings or TrainingSettings()
    return _Run(model, samples, valid, settings, folder, checkpoint_every, progress, workers).train()


@torch.inference_mode()
def predict(model: Predictor, samples: Sequence[Sample], *, batch_size: int = 64, workers: int = 0) -> Predictions:
    """Scores and answers for samples, in their order; targets are not needed. For ``workers`` see :func:`fit`."""
    ids: list[str] = []
    scores: list[Tensor] = []
    weights: dict[str, list[Tensor]] = {name: [] for name in model.schema.nodes}
    with _graphs(model, samples, batch_size, workers) as graphs:
        for graph in _evaluated(model, graphs):
            out = model(graph)
            ids += [graph.ids[i] for i in out.fused.sample.tolist()]
            scores.append(out.scores.float().cpu())
            for name, alpha in out.fused.weights.items():
                weights[name].append(alpha.float().cpu())
    joined = torch.cat(scores)
    return Predictions(ids, joined, model.objective.decode(joined), {n: torch.cat(w) for n, w in weights.items()})


def evaluate(
    model: Predictor, samples: Sequence[Sample], *, batch_size: int = 64, workers: int = 0
) -> dict[str, float]:
    """Metrics of the model's objective over samples with targets. For ``workers`` see :func:`fit`."""
    with _graphs(model, samples, batch_size, workers) as graphs:
        return _score(model, graphs)


@torch.inference_mode()
def _score(model: Predictor, graphs: Iterable[Graph]) -> dict[str, float]:
    scores, targets = [], []
    for graph in _evaluated(model, graphs):
        out = model(graph)
        scores.append(out.scores.float().cpu())
        targets.append(_targets(model, graph, out).cpu())
    return model.objective.metrics(torch.cat(scores), torch.cat(targets))


def _targets(model: Predictor, graph: Graph, out: Prediction) -> Tensor:
    """Targets of a graph, one row for each row of Z, sample by sample."""
    rows = [model.objective.encode([t], [name]) for t, name in zip(graph.target, graph.ids, strict=True)]
    wanted = torch.bincount(out.fused.sample, minlength=len(graph)).tolist()
    for name, row, count in zip(graph.ids, rows, wanted, strict=True):
        if len(row) != count:
            raise HetgraphError(f"sample {name!r} has {len(row)} targets for {count} rows of Z")
    return torch.cat(rows).to(graph.device)


def _graphs(
    model: Predictor, samples: Sequence[Sample], batch_size: int, workers: int
) -> closing[Generator[Graph, None, None]]:
    """Graphs of the samples; to be left by ``with``."""
    if not len(samples):
        raise HetgraphError("no samples")
    batches = in_turn(len(samples), batch_size)
    return closing(iter(GraphLoader(samples, GraphBuilder(model.schema), batches, workers=workers)))


def _evaluated(model: Predictor, graphs: Iterable[Graph]) -> Iterator[Graph]:
    """The graphs on the model's device; the model is in evaluation mode while they are used."""
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    try:
        for graph in graphs:
            yield graph.to(device, non_blocking=True)
    finally:
        model.train(training)


class _Run:
    """One training run: the state that a checkpoint keeps, and the loop over it."""

    def __init__(
        self,
        model: Predictor,
        samples: Sequence[Sample],
        valid: Sequence[Sample] | None,
        settings: TrainingSettings,
        folder: str | Path | None,
        checkpoint_every: int | None,
        progress: bool,
        workers: int = 0,
    ) -> None:
        from accelerate import Accelerator

        if not len(samples):
            raise HetgraphError("no training samples")
        if valid is not None and not len(valid):
            raise HetgraphError("no validation samples")
        self.samples, self.valid, self.settings, self.workers = samples, valid, settings, workers
        # several processes without a GPU are only seen as such if asked for the CPU
        self.accelerator = Accelerator(cpu=not torch.accelerator.is_available())
        # part of the model while it is trained: optimised, averaged and kept in checkpoints with it
        model.auxiliary = ModalityHeads(model) if settings.modality_loss else None
        self.model = model.to(self.accelerator.device)
        self.builder = GraphBuilder(model.schema)
        self.folder = Path(folder) if folder is not None else None
        self.every = checkpoint_every
        self.progress = progress and self.accelerator.is_main_process
        self.steps_per_epoch = math.ceil(len(samples) / settings.batch_size)
        self.optimizer = torch.optim.AdamW(_parameter_groups(model, settings.weight_decay), lr=settings.lr, fused=True)
        self.state = Checkpoint(identity=self._identity())

    def _identity(self) -> str:
        """Digest of all that makes this run what it is; a checkpoint of another is refused."""
        about = {
            "settings": asdict(self.settings),
            "model": self.model.to_config(),
            "samples": [len(self.samples), _few_ids(self.samples)],
            "valid": None if self.valid is None else [len(self.valid), _few_ids(self.valid)],
        }
        return hashlib.sha256(json.dumps(about, sort_keys=True, default=repr).encode()).hexdigest()

    def train(self) -> History:
        try:
            return self._train()
        finally:
            self.model.auxiliary = None

    def _train(self) -> History:
        path = self.folder / "checkpoint.safetensors" if self.folder else None
        scale = self.settings.standardize
        if path is not None and path.exists():
            self.state = load_checkpoint(path, self.model, self.optimizer, self.state.identity)
            self.state.average = {n: v.to(self.accelerator.device) for n, v in self.state.average.items()}
            scale = False
        history = History(**self.state.history)
        shown = TrainingBar(self.progress, self.settings.epochs, self.steps_per_epoch)
        with torch.random.fork_rng(), closing(self._graphs(scale)) as graphs, shown as bar:
            if scale:
                self.model.fusion.standardize(islice(graphs, self.steps_per_epoch))
            self._agree()
            for epoch in range(self.state.epoch, self.settings.epochs):
                if history.stopped_early(self.settings.patience):
                    break
                self._epoch(epoch, graphs, history, path, bar)
        kept = self.state.best or self.state.average
        if kept:
            self.model.load_state_dict({n: v.to(self.accelerator.device) for n, v in kept.items()})
        return history

    def _graphs(self, scale: bool) -> Generator[Graph, None, None]:
        """All graphs of the run from where it is, in the order in which they are used."""
        settings, group = self.settings, self.model.fusion.settings["group"]
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        thinning = Thinning(settings.modality_dropout, settings.seed, group)
        reading = Reading(self.samples, self.valid or (), thinning)
        first, step = self.state.epoch, self.state.step_in_epoch

        def batches() -> Iterator[list[Key]]:
            if scale:
                yield from reading.scale(settings.batch_size)
            for epoch in range(first, settings.epochs):
                start = step if epoch == first else 0
                yield from reading.epoch(epoch, settings.batch_size, step=start, rank=rank, world=world)

        return iter(GraphLoader(reading, self.builder, batches(), workers=self.workers))

    def _agree(self) -> None:
        """Let every process start from the weights of the first."""
        if self.accelerator.num_processes > 1:
            for value in self.model.state_dict().values():
                torch.distributed.broadcast(value, 0)

    def _epoch(
        self, epoch: int, graphs: Generator[Graph, None, None], history: History, path: Path | None, bar: TrainingBar
    ) -> None:
        self.model.train()
        state = self.state
        started = time.perf_counter()
        for step in range(state.step_in_epoch, self.steps_per_epoch):
            loss, rows = self._step(epoch, step, next(graphs))
            state.loss_sum += loss * rows
            state.rows += rows
            state.step_in_epoch = step + 1
            bar.step(epoch, state.loss_sum / state.rows, history.valid[-1] if history.valid else {})
            if self.every and (step + 1) % self.every == 0 and step + 1 < self.steps_per_epoch:
                state.seconds += time.perf_counter() - started
                started = time.perf_counter()
                self._save(path, history)
        history.loss.append(state.loss_sum / state.rows)
        history.seconds.append(state.seconds + time.perf_counter() - started)
        if self.valid is not None:
            self._validate(epoch, islice(graphs, math.ceil(len(self.valid) / self.settings.batch_size)), history)
        state.epoch, state.step_in_epoch = epoch + 1, 0
        state.loss_sum, state.rows, state.seconds = 0.0, 0, 0.0
        self._save(path, history)

    def _validate(self, epoch: int, graphs: Iterable[Graph], history: History) -> None:
        objective = self.model.objective
        own = _copied(self.model.state_dict())
        self.model.load_state_dict(self.state.average or own)
        scores = _score(self.model, graphs)
        history.valid.append(scores)
        value = scores[objective.main]
        best = None if history.best_epoch is None else history.valid[history.best_epoch][objective.main]
        # a metric that is not a number must not stay the best for ever
        if best is None or math.isnan(best) or (value > best if objective.larger else value < best):
            history.best_epoch = epoch
            self.state.best = {n: v.cpu() for n, v in _copied(self.model.state_dict()).items()}
        self.model.load_state_dict(own)

    def _save(self, path: Path | None, history: History) -> None:
        self.state.history = asdict(history)
        if path is not None and self.accelerator.is_main_process:
            save_checkpoint(path, self.state, self.model, self.optimizer)
        self.accelerator.wait_for_everyone()

    def _step(self, epoch: int, step: int, graph: Graph) -> tuple[float, int]:
        """One optimiser step; the mean loss over the global batch and the number of its rows."""
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        number = epoch * self.steps_per_epoch + step
        torch.manual_seed(mix(self.settings.seed, number, rank))
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate(number)
        left = len(self.samples) - step * self.settings.batch_size
        share = 1.0 if rank < left else 0.0
        graph = graph.to(self.accelerator.device, non_blocking=True)
        self._swap(graph)
        # not by the accelerator, which cannot change its precision within a process
        with torch.autocast(graph.device.type, torch.bfloat16, enabled=self.settings.precision == "bf16"):
            out = self.model(graph)
        target = _targets(self.model, graph, out)
        self.optimizer.zero_grad()
        loss, rows = self._loss(out, target, share)
        if not math.isfinite(loss.item()):
            raise HetgraphError(f"the loss is {loss.item()} at step {number}; a lower learning rate may help")
        loss.backward()
        self._average_gradients()
        if self.settings.clip:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip)
        self.optimizer.step()
        self._average(number)
        return self._reported(loss, world), rows

    def _swap(self, graph: Graph) -> None:
        """Swap noise: give some nodes the features of others (Bahri et al., ICLR 2022, do it feature by feature)."""
        rate = self.settings.feature_swap
        for name, x in graph.x.items():
            share = rate.get(name, 0.0) if isinstance(rate, Mapping) else rate
            if share and len(x):
                hit = torch.rand(len(x), device=x.device) < share
                graph.x[name] = torch.where(hit[:, None], x[torch.randint(len(x), (len(x),), device=x.device)], x)

    def _average(self, number: int) -> None:
        """Move the averaged weights towards those after step ``number``."""
        if not self.settings.average:
            return
        own = self.model.state_dict()
        if number == 0:
            self.state.average = _copied(own)
        step = max(1 / (number + 1), 1 - self.settings.average)
        for name, value in self.state.average.items():
            value.lerp_(own[name], step)

    def _average_gradients(self) -> None:
        """The mean gradient over processes, in one exchange.

        Not left to ``DistributedDataParallel``, which stops where a weight is in the output but not in the loss,
        or is used on one process only because a node type is absent on another.
        """
        trained = [p for p in self.model.parameters() if p.requires_grad]
        for parameter in trained:
            # an absent modality must look the same to the optimiser on one process and on many
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        if self.accelerator.num_processes > 1:
            grads = [p.grad for p in trained if p.grad is not None]
            mean = self.accelerator.reduce(torch.cat([g.flatten() for g in grads]), "mean")
            for grad, part in zip(grads, mean.split([g.numel() for g in grads]), strict=True):
                grad.copy_(part.view_as(grad))

    def _loss(self, out: Prediction, target: Tensor, share: float) -> tuple[Tensor, int]:
        """Loss whose gradient, averaged over processes, is that of the mean over the global batch.

        What the fusion method adds is a mean over a process's own rows, and counts by how many these are.
        """
        world = self.accelerator.num_processes
        scores = out.scores.float()
        own = sum(out.fused.losses.values(), scores.new_zeros(()))
        if self.model.auxiliary is not None:
            own = own + self.settings.modality_loss * self.model.auxiliary.losses(out.fused, target).mean()
        if world == 1:
            return self.model.objective.losses(scores, target).mean() + own, len(target)
        rows = torch.tensor(len(target) * share, device=scores.device)
        total = int(self.accelerator.reduce(rows, "sum").item())
        own = own * len(target) * share * world / total
        if isinstance(self.model.objective, Ranking):
            return self._ranking_loss(scores, target, share) + own, total
        return self.model.objective.losses(scores, target).sum() * share * world / total + own, total

    def _ranking_loss(self, scores: Tensor, target: Tensor, share: float) -> Tensor:
        """Pairs reach over processes: every process computes the whole loss from everybody's scores."""
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        own = len(target) * int(share)
        sizes = self.accelerator.gather(torch.tensor([own], device=scores.device)).tolist()

        def everybody(value: Tensor) -> list[Tensor]:
            padded = torch.cat([value[:own], value.new_zeros(max(sizes) - own, *value.shape[1:])])
            return [v[:n] for v, n in zip(self.accelerator.gather(padded).split(max(sizes)), sizes, strict=True)]

        every_score, every_target = everybody(scores.detach()), everybody(target)
        every_score[rank] = scores[:own]
        loss = self.model.objective.losses(torch.cat(every_score), torch.cat(every_target)).mean()
        # the gradient reaches only a process's own scores: as many times, because it is averaged over processes
        return world * loss - (world - 1) * loss.detach()

    def _reported(self, loss: Tensor, world: int) -> float:
        return loss.item() if world == 1 else self.accelerator.reduce(loss.detach(), "mean").item()

    def _rate(self, number: int) -> float:
        settings = self.settings
        total = settings.epochs * self.steps_per_epoch
        rising = settings.warmup * total
        if number < rising:
            return settings.lr * (number + 1) / rising if rising >= 1 else settings.lr
        if settings.schedule == "constant":
            return settings.lr
        return settings.lr * 0.5 * (1 + math.cos(math.pi * (number - rising) / max(total - rising, 1)))


def _copied(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in state.items()}


def _few_ids(samples: Sequence[Sample]) -> list[str | None]:
    """Ids of the first, middle and last sample: enough to notice other data without reading all of it."""
    return [samples[i].id for i in sorted({0, len(samples) // 2, len(samples) - 1})]


def _parameter_groups(model: Predictor, weight_decay: float) -> list[dict[str, Any]]:
    plain = [p for n, p in model.named_parameters() if p.dim() < 2 or n.endswith("bias")]
    known = {id(p) for p in plain}
    return [
        {"params": [p for p in model.parameters() if id(p) not in known], "weight_decay": weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
