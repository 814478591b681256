"""The single runs of a comparison: train one model, score it, keep the outcome in a file of its own.

A :class:`Run` and the content of its data decide everything about its outcome; their digest is the key under which
the outcome is kept. So an interrupted comparison finds what it has done, and no changed setting finds it.
"""

from __future__ import annotations

import hashlib
import json
import math
import multiprocessing
import pickle
import signal
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from .errors import CheckpointError, HetgraphError
from .files import write_atomically
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
        norm: normalise Z in front of the head.
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

    @property
    def seed(self) -> int:
        return self.training.seed

    @property
    def title(self) -> str:
        less = f" without {', '.join(self.removed)}" if self.removed else ""
        return f"{self.method}{less}, seed {self.seed}, lr {self.training.lr:g}, dropout {self.dropout:g}"


@dataclass(frozen=True)
class Failure:
    """A run that ended in an error."""

    run: Run
    error: str


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
) -> Predictor:
    """A model for the data; of the schema only what is not removed; ``norm`` as for :class:`Predictor`."""
    schema = data.schema
    if removed:
        nodes = [node for name, node in schema.nodes.items() if name not in removed]
        edges = [e for (src, _, dst), e in schema.edges.items() if src not in removed and dst not in removed]
        schema = Schema(nodes, edges)
    fusion = Fusion(schema, width, layers=layers, heads=heads, method=method, dropout=dropout, group=data.group)
    return Predictor(fusion, data.objective, dropout, norm)


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
        model = make_model(data, run.method, run.width, run.layers, run.heads, run.dropout, run.removed, run.norm)
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


class Digest:
    """A digest of whatever a sample may hold."""

    def __init__(self, *things: Any) -> None:
        self.state = hashlib.blake2b(digest_size=16)
        self.add(things)

    def add(self, thing: Any) -> None:
        if isinstance(thing, np.ndarray):
            thing = torch.from_numpy(thing)
        if isinstance(thing, Tensor):
            plain = thing.detach().cpu().contiguous()
            self._mark("tensor", plain.dtype, tuple(plain.shape))
            self.state.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes())
        elif isinstance(thing, Sample):
            self._mark("sample")
            self.add((thing.id, thing.target, thing.nodes, thing.edges))
        elif isinstance(thing, Mapping):
            self._mark("mapping", len(thing))
            for name in sorted(thing, key=repr):
                self.add(name)
                self.add(thing[name])
        elif isinstance(thing, (list, tuple)):
            self._mark("sequence", len(thing))
            for one in thing:
                self.add(one)
        elif isinstance(thing, (set, frozenset)):
            self.add(sorted(thing, key=repr))
        else:
            self._mark(repr(thing))

    def _mark(self, *words: Any) -> None:
        self.state.update(repr(words).encode() + b"\n")

    @property
    def hex(self) -> str:
        return self.state.hexdigest()


def samples_digest(samples: Sequence[Sample]) -> str:
    """A digest of all samples."""
    digest = Digest(len(samples))
    for i in range(len(samples)):
        digest.add(samples[i])
    return digest.hex


def learning_digest(data: Data) -> str:
    """A digest of all that tuning may see: everything but the test part."""
    valid = None if data.valid is None else samples_digest(data.valid)
    about = (data.name, data.schema.fingerprint, data.objective.to_json(), data.group, data.standardize)
    return Digest(about, samples_digest(data.train), valid, modalities(data)).hex


def key_of(run: Run, data_digest: str) -> str:
    """The key of a run's outcome: a digest of the run, its data and the versions of what computes it."""
    from . import __version__

    about = {"run": asdict(run), "data": data_digest, "hetgraph": __version__, "torch": torch.__version__}
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Store:
    """The folder of finished runs, a file each."""

    folder: Path

    def path(self, run: Run, key: str) -> Path:
        kind = "final" if run.final else "tuning"
        return self.folder / "runs" / f"{run.method}-{kind}-{run.seed}-{key[:20]}.json"

    def find(self, run: Run, key: str) -> dict[str, Any] | None:
        """The outcome kept under a key, if there is one.

        Raises:
            CheckpointError: the file is damaged.
        """
        path = self.path(run, key)
        if not path.is_file():
            return None
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            if kept["key"] != key:
                raise KeyError("key")
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise CheckpointError(f"{path} is damaged ({error!r}); delete it and the run is done again") from error
        return dict(kept["outcome"])

    def keep(self, run: Run, key: str, outcome: Mapping[str, Any]) -> None:
        write_atomically(self.path(run, key), json.dumps({"key": key, "outcome": outcome}, indent=1) + "\n")


Done = tuple[Run, "dict[str, Any] | Failure"]


def perform(runs: Sequence[Run], source: Source, workers: int) -> Iterator[Done]:
    """Outcomes as they come; an error ends its own run only.

    Args:
        workers: processes that train side by side, with a thread each; 0: here, one after the other. ``source``
            must then be picklable.
    """
    if not workers:
        for run in runs:
            yield run, _guarded(source, run)
        return
    packed = pickle.dumps(source)
    # the runs that were under way when a process died: which of them killed it shows when each has one to itself
    suspects: list[Run] = []
    waiting = list(runs)
    while waiting:
        yield from _pool(waiting, packed, workers, suspects)
    for run in suspects:
        dead: list[Run] = []
        yield from _pool([run], packed, 1, dead)
        for one in dead:
            yield one, Failure(one, "its process died (killed, or out of memory)")


def _pool(waiting: list[Run], packed: bytes, workers: int, suspects: list[Run]) -> Iterator[Done]:
    """Take runs off the list and do them in processes until the list is empty or a process dies."""
    before = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _start, (packed,))
    pending: dict[Future[dict[str, Any] | Failure], Run] = {}
    finished = False
    try:
        while waiting or pending:
            # no more than can be under way, so that few are suspected
            while waiting and len(pending) < workers:
                pending[pool.submit(_work, waiting[0])] = waiting[0]
                del waiting[0]
            for future in wait(pending, return_when=FIRST_COMPLETED).done:
                outcome = future.result()
                yield pending.pop(future), outcome
        finished = True
    except BrokenProcessPool:
        suspects += pending.values()
    finally:
        if not finished:
            for child in set(multiprocessing.active_children()) - before:
                child.terminate()
        pool.shutdown(cancel_futures=True)


_source: Source | None = None


def _start(packed: bytes) -> None:
    """Prepare a process: one thread; an interruption is the parent's to deal with."""
    global _source
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    _source = Held(pickle.loads(packed))


def _work(run: Run) -> dict[str, Any] | Failure:
    assert _source is not None
    return _guarded(_source, run)


def _guarded(source: Source, run: Run) -> dict[str, Any] | Failure:
    try:
        return execute(source(run.seed), run)
    # whatever a method raises must not end the others; the comparison reports it and fails at its end
    except Exception as error:
        return Failure(run, str(error) if isinstance(error, HetgraphError) else f"{type(error).__name__}: {error}")


class Held:
    """A source that keeps what it gave last."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.last: tuple[int, Data] | None = None

    def __call__(self, seed: int) -> Data:
        if self.last is None or self.last[0] != seed:
            self.last = seed, self.source(seed)
        return self.last[1]
