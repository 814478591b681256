"""Fit, evaluate, predict: on one process or several, restartable at any moment to the same weights.

Everything random in step n (the order of samples, modality dropout, dropout) is seeded from the run's seed
and n alone, so a checkpoint needs no generator states and a run that was killed continues as if it had not
been. On several processes each takes its slice of every global batch; the loss is the mean over the global
batch, so that (without dropout, whose masks differ between processes) the losses are those of one process.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .builder import GraphBuilder
from .checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from .errors import HetgraphError
from .graph import Graph
from .objectives import Ranking
from .predictor import Prediction, Predictor
from .sample import Sample


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

    Returns:
        The history, including the epochs before an interruption.

    Raises:
        HetgraphError: no samples, bad samples, or a loss that is not finite.
        CheckpointError: the folder holds the checkpoint of another run, or cannot be written.
    """
    return _Run(model, samples, valid, settings or TrainingSettings(), folder, checkpoint_every, progress).train()


@torch.inference_mode()
def predict(model: Predictor, samples: Sequence[Sample], *, batch_size: int = 64) -> Predictions:
    """Scores and answers for samples, in their order; targets are not needed."""
    ids: list[str] = []
    scores: list[Tensor] = []
    weights: dict[str, list[Tensor]] = {name: [] for name in model.schema.nodes}
    for graph in _graphs(model, samples, batch_size):
        out = model(graph)
        ids += [graph.ids[i] for i in out.fused.sample.tolist()]
        scores.append(out.scores.float().cpu())
        for name, alpha in out.fused.weights.items():
            weights[name].append(alpha.float().cpu())
    joined = torch.cat(scores)
    return Predictions(ids, joined, model.objective.decode(joined), {n: torch.cat(w) for n, w in weights.items()})


@torch.inference_mode()
def evaluate(model: Predictor, samples: Sequence[Sample], *, batch_size: int = 64) -> dict[str, float]:
    """Metrics of the model's objective over samples with targets."""
    scores, targets = [], []
    for graph in _graphs(model, samples, batch_size):
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


def _graphs(model: Predictor, samples: Sequence[Sample], batch_size: int) -> Iterator[Graph]:
    """Graphs of the samples on the model's device; the model is in evaluation mode while they are used."""
    if not len(samples):
        raise HetgraphError("no samples")
    builder = GraphBuilder(model.schema)
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    try:
        for start in range(0, len(samples), batch_size):
            stop = min(start + batch_size, len(samples))
            yield builder([_named(samples, i) for i in range(start, stop)]).to(device)
    finally:
        model.train(training)


def _named(samples: Sequence[Sample], i: int) -> Sample:
    """Sample ``i``, called by its place in the whole sequence if it has no id."""
    sample = samples[i]
    if isinstance(sample, Sample) and sample.id is None:
        named = Sample(id=str(i), target=sample.target)
        named.nodes, named.edges = sample.nodes, sample.edges
        return named
    return sample


def without(sample: Sample, *types: str) -> Sample:
    """The sample with these node types, and the edges that touch them, taken out."""
    out = Sample(id=sample.id, target=sample.target)
    out.nodes = {name: value for name, value in sample.nodes.items() if name not in types}
    out.edges = {key: value for key, value in sample.edges.items() if key[0] not in types and key[2] not in types}
    return out


def _mix(*numbers: int) -> int:
    """One seed from several numbers."""
    digest = hashlib.blake2b(json.dumps(numbers).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


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
    ) -> None:
        from accelerate import Accelerator

        if not len(samples):
            raise HetgraphError("no training samples")
        self.samples, self.valid, self.settings = samples, valid, settings
        # several processes without a GPU are only seen as such if asked for the CPU
        self.accelerator = Accelerator(cpu=not torch.accelerator.is_available())
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
        path = self.folder / "checkpoint.safetensors" if self.folder else None
        if path is not None and path.exists():
            self.state = load_checkpoint(path, self.model, self.optimizer, self.state.identity)
            self.state.average = {n: v.to(self.accelerator.device) for n, v in self.state.average.items()}
        elif self.settings.standardize:
            batches = range(0, len(self.samples), self.settings.batch_size)
            self.model.fusion.standardize(self.builder(self._slice(start)) for start in batches)
        history = History(**self.state.history)
        self._agree()
        with torch.random.fork_rng(), _Bar(self.progress, self.settings.epochs, self.steps_per_epoch) as bar:
            for epoch in range(self.state.epoch, self.settings.epochs):
                if history.stopped_early(self.settings.patience):
                    break
                self._epoch(epoch, history, path, bar)
        kept = self.state.best or self.state.average
        if kept:
            self.model.load_state_dict({n: v.to(self.accelerator.device) for n, v in kept.items()})
        return history

    def _slice(self, start: int) -> list[Sample]:
        stop = min(start + self.settings.batch_size, len(self.samples))
        return [_named(self.samples, i) for i in range(start, stop)]

    def _agree(self) -> None:
        """Let every process start from the weights of the first."""
        if self.accelerator.num_processes > 1:
            for value in self.model.state_dict().values():
                torch.distributed.broadcast(value, 0)

    def _epoch(self, epoch: int, history: History, path: Path | None, bar: _Bar) -> None:
        self.model.train()
        order = torch.randperm(
            len(self.samples), generator=torch.Generator().manual_seed(_mix(self.settings.seed, epoch))
        ).tolist()
        state = self.state
        started = time.perf_counter()
        for step in range(state.step_in_epoch, self.steps_per_epoch):
            chosen = order[step * self.settings.batch_size : (step + 1) * self.settings.batch_size]
            loss, rows = self._step(epoch, epoch * self.steps_per_epoch + step, chosen)
            state.loss_sum += loss * rows
            state.rows += rows
            state.step_in_epoch = step + 1
            bar.step(epoch, state.loss_sum / state.rows, history)
            if self.every and (step + 1) % self.every == 0 and step + 1 < self.steps_per_epoch:
                state.seconds += time.perf_counter() - started
                started = time.perf_counter()
                self._save(path, history)
        history.loss.append(state.loss_sum / state.rows)
        history.seconds.append(state.seconds + time.perf_counter() - started)
        if self.valid is not None:
            self._validate(epoch, history)
        state.epoch, state.step_in_epoch = epoch + 1, 0
        state.loss_sum, state.rows, state.seconds = 0.0, 0, 0.0
        self._save(path, history)

    def _validate(self, epoch: int, history: History) -> None:
        assert self.valid is not None
        objective = self.model.objective
        own = _copied(self.model.state_dict())
        self.model.load_state_dict(self.state.average or own)
        scores = evaluate(self.model, self.valid, batch_size=self.settings.batch_size)
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

    def _step(self, epoch: int, number: int, chosen: list[int]) -> tuple[float, int]:
        """One optimiser step; the mean loss over the global batch and the number of its rows."""
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        torch.manual_seed(_mix(self.settings.seed, number, rank))
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate(number)
        mine = chosen[rank::world]
        # a process without a share of a small last batch still has to take part in the exchange
        share = 1.0 if mine else 0.0
        batch = [self._thin(_named(self.samples, i), epoch, i) for i in mine or chosen[:1]]
        graph = self.builder(batch).to(self.accelerator.device)
        self._swap(graph)
        # not by the accelerator, which cannot change its precision within a process
        with torch.autocast(graph.device.type, torch.bfloat16, enabled=self.settings.precision == "bf16"):
            out = self.model(graph)
        scores, target = out.scores, _targets(self.model, graph, out)
        self.optimizer.zero_grad()
        loss, rows = self._loss(scores, target, share)
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

    def _loss(self, scores: Tensor, target: Tensor, share: float) -> tuple[Tensor, int]:
        """Loss whose gradient, averaged over processes, is that of the mean over the global batch."""
        world = self.accelerator.num_processes
        objective = self.model.objective
        if world == 1:
            return objective.losses(scores.float(), target).mean(), len(target)
        if isinstance(objective, Ranking):
            return self._ranking_loss(scores.float(), target, share)
        rows = torch.tensor(len(target) * share, device=scores.device)
        total = self.accelerator.reduce(rows, "sum").item()
        return objective.losses(scores.float(), target).sum() * share * world / total, int(total)

    def _ranking_loss(self, scores: Tensor, target: Tensor, share: float) -> tuple[Tensor, int]:
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
        return world * loss - (world - 1) * loss.detach(), sum(sizes)

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

    def _thin(self, sample: Sample, epoch: int, i: int) -> Sample:
        """Modality dropout: leave node types out at random, never all of them."""
        rate = self.settings.modality_dropout
        if not rate:
            return sample
        generator = torch.Generator().manual_seed(_mix(self.settings.seed, epoch, i, 1))
        names = [name for name, value in sample.nodes.items() if len(value["x"])]
        draw = torch.rand(len(names), generator=generator).tolist()
        limit = [rate.get(n, 0.0) if isinstance(rate, Mapping) else rate for n in names]
        gone = [n for n, d, p in zip(names, draw, limit, strict=True) if d < p]
        if len(gone) == len(names):
            gone.remove(names[int(torch.randint(len(names), (1,), generator=generator))])
        field = self.model.fusion.settings["group"]
        if field is not None and gone:
            gone = _spare_groups(sample, [gone[j] for j in torch.randperm(len(gone), generator=generator)], field)
        return without(sample, *gone) if gone else sample


def _spare_groups(sample: Sample, gone: list[str], field: str) -> list[str]:
    """Those of the node types ``gone``, taken in turn, without which every group still has a node."""
    groups = {name: set(values[field].tolist()) for name, values in sample.nodes.items() if field in values}
    leaving = []
    for name in gone:
        rest = {n: numbers for n, numbers in groups.items() if n != name}
        if set().union(*rest.values()) == set().union(*groups.values()):
            groups = rest
            leaving.append(name)
    return leaving


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


class _Bar:
    """A progress bar over all steps of all epochs, or nothing."""

    def __init__(self, shown: bool, epochs: int, steps: int) -> None:
        self.epochs, self.steps = epochs, steps
        self.bar: Any = None
        if shown:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            self.bar = Progress(
                TextColumn("[bold]epoch {task.fields[epoch]}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}"),
                TimeRemainingColumn(),
            )

    def __enter__(self) -> _Bar:
        if self.bar is not None:
            self.bar.start()
            self.task = self.bar.add_task("fit", total=self.epochs * self.steps, epoch=f"1/{self.epochs}", note="")
            self.known = 0
        return self

    def step(self, epoch: int, loss: float, history: History) -> None:
        if self.bar is None:
            return
        note = f"loss {loss:.3f}"
        if history.valid:
            name, value = next(iter(history.valid[-1].items()))
            note += f"  valid {name} {value:.3f}"
        self.bar.update(self.task, advance=1, epoch=f"{epoch + 1}/{self.epochs}", note=note)

    def __exit__(self, *error: object) -> None:
        if self.bar is not None:
            self.bar.stop()
